"""The section "Shrinkage" of the page of the default fit, from what ``geomiam-bench calibration`` stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from geomiam_bench.pages.markdown import table

HEAD = (
    "set",
    "part",
    "slopes",
    "log loss",
    "with shrinkage",
    "difference",
    "single modalities",
    "calibration slope",
    "sum of predictions / presences",
    "AUC",
)


def shrinkage_section(path: Path) -> str:
    """Return what was measured, as a table and its summary."""
    results = json.loads(path.read_text(encoding="utf-8"))
    run = results["blocks"]
    rows = [
        _line(name, number, part)
        for name, row in run.items()
        for number, part in enumerate(row["parts"])
        if part["slopes"] != [None] * len(part["slopes"])
    ]
    return (
        "\n\n".join([TEXT, table(HEAD, rows), " ".join([_summary(run), REST, *_nearby(results)])])
        + "\n"
    )


def _line(name: str, number: int, part: dict[str, Any]) -> list[str]:
    plain, shrunk = part["without"], part["with"]
    slopes = ", ".join("1" if s is None else f"{s:.2f}" for s in part["slopes"])
    return [
        f"{name}, {part['species']} species",
        str(number),
        slopes,
        f"{plain['log_loss']:.3f}",
        f"{shrunk['log_loss']:.3f}",
        f"{part['difference']:+.3f} ± {part['standard_error']:.3f}",
        f"{shrunk['log_loss_single'] - plain['log_loss_single']:+.3f}",
        f"{plain['slope']:.2f} → {shrunk['slope']:.2f}",
        f"{plain['richness']:.2f} → {shrunk['richness']:.2f}",
        f"{plain['auc']:.3f} → {shrunk['auc']:.3f}",
    ]


def _summary(run: dict[str, Any]) -> str:
    texts = []
    for label, is_fresh in (("part 0", False), ("other parts", True)):
        parts = [
            p
            for row in run.values()
            for number, p in enumerate(row["parts"])
            if bool(number) == is_fresh and any(s is not None for s in p["slopes"])
        ]
        if parts:
            mean = sum(p["difference"] for p in parts) / len(parts)
            lower = sum(p["difference"] < -p["standard_error"] for p in parts)
            worst = max(p["difference"] for p in parts)
            texts.append(
                f"{label}: {mean:+.3f} in the mean of {len(parts)} rows, lower by more than a standard error on "
                f"{lower}, at worst {worst:+.3f}"
            )
    return f"Log loss with shrinkage: {'; '.join(texts)}."


def _nearby(results: dict[str, Any]) -> list[str]:
    """Return what was measured on random sites in place of blocks."""
    return [
        f"With random sites held out in place of blocks (`--nearby`; {name}) the difference is {part['difference']:+.3f} ± "
        f"{part['standard_error']:.3f}, and the calibration slope {part['without']['slope']:.2f} → "
        f"{part['with']['slope']:.2f}."
        for name, row in results.get("nearby", {}).items()
        for part in row["parts"]
    ]


TEXT = """## Shrinkage: probabilities at new places

A network that was trained on 50 sites is overconfident at other places: its predictions there are too close to 0 and 1. `gm.fit` corrects
this if the labels are a survey (`bce`, no background) and the folds chose the members. It uses the predictions that were made for this
choice, so no further training is needed:

1. *Slope.* A logistic regression of all labels on the logits of the chosen mix, at sites that did not train it. It has one slope for all
   species and an intercept for each species (a shrinkage factor, Copas 1983; van Houwelingen & le Cessie 1990). A logit is taken as its
   difference to that of the prevalence in the sites that trained, limited to ±6, since otherwise one place far outside the training
   range would determine the slope. The slope is at least .05 and at most 1.
2. *More sites.* The networks of the folds had fewer sites than the model, so they are more overconfident. If the signal in the logits has the
   variance s and their error has the variance e / n with n sites, the slope is s / (s + e / n). Then slope / (1 − slope) is proportional
   to n: a slope of .5 with two thirds of the sites becomes .6.
3. *Level.* The level of each species is set so that the mean of its predictions in the folds is its prevalence.

The weights and biases of the head are changed accordingly. So the shrinkage holds for every subset of the predictors, every member and every
Shapley value, and the format of saved models is the same. The order of the predictions of a species does not change, nor do AUC and
maps with a threshold from the folds. On the logit scale the spread and the Shapley values become smaller.
`model.about["rule"]["shrinkage"]`, `print(model)` and the model card state the slope.
`training={"shrink": False}` or `geomiam fit --no-shrink` turns shrinkage off. Models with settings by hand, published recipes, fixed members
or presence-only data are not shrunk. For presence-only data, suitability is relative to the background, and no observed frequency can be
compared with it.

The table compares the default fit with and without shrinkage on real surveys. Three folds of spatial blocks were held out from the whole fit
and scored. A part is a random part of the set; for all sites it is one draw of the folds. *Slopes* are those of the three fits. Log loss: mean
over sites and species, probabilities between .001 and .999; ± is one standard error over blocks. *Single modalities*: change of the log loss
with one modality visible. *Calibration slope*: for all species together; 1 is right, below 1 is overconfident. The form of the shrinkage was
chosen on part 0 among three: a line for all species, a slope around the prevalence without new levels, and this one. So the other parts test it.
`geomiam-bench calibration FOLDER --sets ""` repeats the measurement."""
REST = (
    "Of the other two forms, the line for all species had the same log loss, but it moves the predictions of all species "
    "towards a common prevalence. The slope around the prevalence without new levels predicted too few presences of rare "
    "species (compared once; no command repeats it). "
    "With one modality visible the sum of the predictions can exceed the presences: "
    "the levels are those with all predictors."
)
