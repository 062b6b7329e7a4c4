"""The section "Prediction sets and spread" of the benchmark page, from what ``geomiam-bench conformal`` stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from geomiam_bench.pages.markdown import table

LABELS = ("present", "absent")
COLOURS = {"own": "#2a788e", "all": "#c1572b"}
NAMES = {"own": "bounds of the pattern", "all": "bounds of all predictors"}


def conformal_section(path: Path, pictures: Path) -> str:
    """Return the tables and figures of coverage and spread."""
    run = json.loads(path.read_text(encoding="utf-8"))
    _coverage_figure(run, pictures / "conformal.png")
    _spread_figure(run, pictures / "spread.png")
    return "\n\n".join(
        [
            "## Prediction sets and spread",
            _lead(run["settings"]),
            _coverage_table(run),
            "![Coverage by number of groups](../images/benchmarks/conformal.png)",
            COVERAGE,
            SPREAD,
            _spread_table(run),
            "![Error by quintile of the spread](../images/benchmarks/spread.png)",
        ]
    )


def _lead(settings: dict[str, Any]) -> str:
    calibrate = settings["calibrate"]
    return (
        f"Half of the spatial blocks train ({settings['fits']} models, each of other blocks). Of the other blocks, "
        f"{calibrate:.0%} calibrate and the others test, in {settings['divisions']} random divisions per model. Every subset "
        "of the groups is a pattern: the others are hidden in the test sites, and sets of level "
        f"{settings['level']:.0%} are derived from the calibration sites with the same groups hidden (*own*, what "
        "`gm.calibrate` does), from the calibration sites with all predictors (*all*, the usual threshold), or as *own* "
        "with blocks that count alike (*blocks*, `gm.calibrate(…, blocks=)`). Coverage is the share of the test sites "
        "with a label whose set has it, pooled over divisions and the species with at least "
        f"{settings['fewest']} presences and absences on the held-out blocks. *Within 2 points* counts the patterns "
        "whose coverages of presences and of absences are both within 2 points of the level, among those with at least 200 "
        "calibration sites. *One label* is the share of sets that are informative."
    )


COVERAGE = (
    "Bounds of all predictors miss the level where predictors are missing. Here they mostly exceed it: without predictors the "
    "predictions shrink towards the prevalence, so sets accept more labels than the level requires, and fewer of them are "
    "informative. Bounds of the pattern keep the level. What remains has two causes: sites of one block resemble each other, "
    "which lowers the coverage for predictors that vary over long distances, and many sites with equal predictors are "
    "ties, which raise it. In the mean over blocks, where small blocks count as much as large ones, bounds of sites fall "
    "below the level and bounds of blocks do not; their sets are larger."
)
SPREAD = (
    "The spread over ensemble members on the same held-out blocks. *Excess* is the squared error minus p(1 − p), which "
    "is 0 on average for probabilities that are right. Rank correlations are means over species. The spread on the probability scale "
    "mostly repeats p(1 − p). On the logit scale, disagreement of members marks probabilities that are too extreme only where the gap of "
    "the figure grows to the right, which the first data set shows and the others do not: the spread alone is no measure of "
    "the error. The presences of NCEAS have background in place of absences, so their p is no probability."
)


def _coverage_table(run: dict[str, Any]) -> str:
    head = [
        "data, side of a block",
        "patterns",
        "bounds",
        "within 2 points",
        "least",
        "greatest",
        "least, mean of blocks",
        "one label",
    ]
    rows = []
    for name, result in run["sets"].items():
        usual = [r for r in result["patterns"] if r["sites"] >= 200]
        for kind in ("own", "all", "blocks"):
            s = result["summary"][kind]
            single = np.mean([r[kind]["single"] for r in usual]) if usual else np.nan
            rows.append(
                [
                    *(
                        [f"{name}, {result['side']}", result["summary"]["patterns"]]
                        if kind == "own"
                        else ["", ""]
                    ),
                    kind,
                    s["within_2_points"],
                    *(f"{100 * s[k]:.1f} %" for k in ("least", "greatest")),
                    f"{100 * min(r[kind][f'{n}, mean of blocks'] for r in usual for n in LABELS):.1f} %",
                    f"{single:.0%}",
                ]
            )
    return table(head, rows)


def _spread_table(run: dict[str, Any]) -> str:
    names = list(next(iter(run["sets"].values()))["spread"][0]["spearman"])
    rows = [
        [name, *(f"{np.mean([s['spearman'][n] for s in result['spread']]):.2f}" for n in names)]
        for name, result in run["sets"].items()
    ]
    return table(["data", *names], rows)


def _coverage_figure(run: dict[str, Any], path: Path) -> None:
    """Draw the coverage of each pattern by its number of groups, a panel per data set and label."""
    from matplotlib.figure import Figure

    sets = run["sets"]
    figure = Figure(figsize=(8, 2.6 * len(sets)), layout="constrained")
    axes = figure.subplots(len(sets), 2, sharey=True, squeeze=False)
    for (name, result), row in zip(sets.items(), axes):
        for label, ax in zip(LABELS, row):
            for kind, shift in (("all", 0.12), ("own", -0.12)):
                x = [len(r["groups"]) + shift for r in result["patterns"]]
                y = [100 * r[kind][label] for r in result["patterns"]]
                ax.scatter(x, y, s=14, color=COLOURS[kind], label=NAMES[kind], alpha=0.8)
            level = 100 * run["settings"]["level"]
            ax.axhspan(level - 2, level + 2, color="0.9", zorder=0)
            ax.axhline(level, color="0.4", lw=0.8, zorder=0)
            ax.set_title(f"{name}: sites with the label {label}", fontsize=9)
            ax.xaxis.get_major_locator().set_params(integer=True)
        row[0].set_ylabel("coverage (%)")
    for ax in axes[-1]:
        ax.set_xlabel("groups of predictors that are observed")
    axes[0, 0].legend(fontsize=8, loc="best")
    figure.savefig(path, dpi=120)


def _spread_figure(run: dict[str, Any], path: Path) -> None:
    """Draw the squared error and its expectation p(1 − p) by quintile of the spread."""
    from matplotlib.figure import Figure

    sets = run["sets"]
    figure = Figure(figsize=(3.2 * len(sets), 2.9), layout="constrained")
    axes = figure.subplots(1, len(sets), squeeze=False)[0]
    for (name, result), ax in zip(sets.items(), axes):
        for key, label, style in (
            ("brier", "squared error", "o-"),
            ("expected", "p(1 − p)", "o--"),
        ):
            values = np.mean([s[key] for s in result["spread"]], 0)
            ax.plot(
                range(1, len(values) + 1),
                values,
                style,
                label=label,
                color="#2a788e" if key == "brier" else "0.5",
            )
        ax.set_title(name, fontsize=9)
        ax.set_xlabel("quintile of the spread (logits)")
        ax.tick_params(labelsize=8)
        ax.set_ylim(bottom=0)
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=120)
