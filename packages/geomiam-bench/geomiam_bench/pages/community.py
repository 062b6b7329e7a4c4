"""The section about other species as predictors, from a run of ``geomiam-bench community``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geomiam_bench.community import JOINT, OURS, PLAIN, WITHOUT
from geomiam_bench.pages.markdown import table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINES = {
    OURS: ("#1b7f79", "-"),
    WITHOUT: ("#1b7f79", ":"),
    JOINT: ("#c8553d", "-"),
    PLAIN: ("#c8553d", ":"),
}
PICTURE = "community.png"


def community_section(path: Path, pictures: Path) -> str:
    """Return the section: a table and a curve of each survey."""
    run = json.loads(path.read_text(encoding="utf-8"))
    figure(run).savefig(pictures / PICTURE, dpi=120)
    parts = [
        "## Other species as predictors",
        "Mean AUC over species on three folds of spatial blocks, within folds. Each species is predicted from the "
        "predictors of the site and from k other species, drawn at random at each site; all methods get the "
        "same ones. `community`: `gm.fit` without settings after `gm.add_community`; `without community`: "
        "`gm.fit` without settings; `joint logistic`: logistic regressions on the predictors, their squares and the other "
        "species, mean imputation, trained with random hiding, the penalty chosen by inner folds. The factor of "
        "2 of the training steps was chosen after a look at one member on these folds of the birds. At k = 0 the difference to the model without a community is the price "
        "of the modality. [Other species as predictors](../howto/community.md) is the guide.",
        f"![AUC against the number of observed species](../images/benchmarks/{PICTURE})",
    ]
    for name, survey in run.items():
        text = f"{name}: {survey['sites']} sites, {survey['species']} species"
        numbers = list(survey["auc"][OURS])
        rows = [[m, *(_auc(of.get(k)) for k in numbers)] for m, of in survey["auc"].items()]
        rows += [
            [f"{OURS} − {baseline}, points", *(_gap(*of[k]) for k in numbers)]
            for baseline, of in survey["differences"].items()
        ]
        parts += [f"**{text}**", table(["observed species", *numbers], rows)]
    parts.append(
        "Differences are paired over species, ± their standard error; bold beyond two of them."
    )
    return "\n\n".join(parts)


def figure(run: Mapping[str, Any]) -> Figure:
    """Draw the AUC of each method against the number of observed species, one panel per survey."""
    import matplotlib.pyplot as plt

    size = (4.6 * len(run), 3.4)
    fig, rows = plt.subplots(1, len(run), figsize=size, layout="constrained", squeeze=False)
    axes = rows[0]
    for ax, (name, survey) in zip(axes, run.items(), strict=True):
        for method, (colour, line) in LINES.items():
            values = survey["auc"][method]
            x = [int(k) for k in values]
            if len(x) == 1:
                ax.axhline(values["0"], color=colour, ls=line, label=method)
            else:
                ax.plot(
                    x, list(values.values()), line, color=colour, marker="o", ms=4, label=method
                )
        ax.set_title(name, fontsize=11)
        ax.set_xlabel("other species observed at the site")
        ax.set_xticks([int(k) for k in survey["auc"][OURS]])
        ax.grid(alpha=0.3)
        ax.spines[:].set_visible(False)
        ax.tick_params(length=0)
    axes[0].set_ylabel("mean AUC over species")
    axes[0].legend(frameon=False, fontsize=8)
    return fig


def _auc(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _gap(mean: float, error: float) -> str:
    text = f"{100 * mean:+.1f} ± {100 * error:.1f}"
    return f"**{text}**" if abs(mean) > 2 * error else text
