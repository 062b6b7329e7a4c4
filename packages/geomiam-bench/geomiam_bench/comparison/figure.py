"""The figure of a comparison: skill by situation, and against the share of missing data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from geomiam_bench.comparison.table import summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {
    "default": "#111111",
    "group": "#1b7f79",
    "token": "#3d6fb4",
    "late": "#c8553d",
    "trees": "#6b6b6b",
}
OTHER = "#8a5aa8"
LINES = ("-", "--", ":", "-.")
TITLES = {"all": "everything seen", "one missing": "one missing", "one alone": "one alone"}


def draw(run: Mapping[str, Any], results: Mapping[str, dict] | None = None) -> Figure:
    """Draw a run: the scores of each situation above, the curves of the sweep below.

    Parameters
    ----------
    run : mapping
        From :func:`geomiam_bench.comparison.run.read_comparison`. Systems that lack one part of
        another have no curve, because it would cover the curve of the whole system.
    results : mapping, optional
        Its :func:`~geomiam_bench.comparison.table.summary`, if it was computed already.
    """
    import matplotlib.pyplot as plt

    rows = summary(run) if results is None else results
    names = sorted(rows, key=lambda n: np.mean(list(rows[n]["auc"].values())))
    fig = plt.figure(figsize=(10.5, 0.27 * len(names) + 5.2), layout="constrained")
    heights = [0.27 * len(names) + 1.4, 3.8]
    above, below = fig.subfigures(2, 1, height_ratios=heights)  # type: ignore[misc]
    kinds = list(rows[names[0]]["auc"])
    for ax, kind in zip(above.subplots(1, len(kinds), sharey=True, squeeze=False)[0], kinds):
        _dots(ax, {n: rows[n] for n in names}, kind, run)
    above.supxlabel("mean AUC over species (bar: mean over seeds; circles: seeds)", fontsize=9)
    patterns = list(rows[names[0]]["sweep"])
    axes = below.subplots(1, len(patterns), sharey=True, squeeze=False)[0]
    for ax, pattern in zip(axes, patterns):
        _curves(ax, rows, pattern, run)
    axes[0].set_ylabel("mean AUC over species")
    below.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    return fig


def _dots(ax: Axes, rows: Mapping[str, dict], kind: str, run: Mapping) -> None:
    for y, (name, result) in enumerate(rows.items()):
        colour, seeds = _colour(name, run), result["seeds"][kind]
        ax.plot(seeds, [y] * len(seeds), "o", ms=4, mfc="none", mec=colour, alpha=0.7)
        ax.plot(result["auc"][kind], y, "|", ms=13, mew=2.5, color=colour)
    ax.set_title(TITLES.get(kind, kind), fontsize=11)
    ax.set_yticks(range(len(rows)), list(rows))
    ax.grid(alpha=0.3)
    _quiet(ax)


def _curves(ax: Axes, rows: Mapping[str, dict], pattern: str, run: Mapping) -> None:
    shares, line_counts = run["settings"]["shares"], dict[str, int]()
    for name, result in rows.items():
        if run["systems"][name]["without"]:
            continue
        colour = _colour(name, run)
        line = LINES[line_counts.get(colour, 0) % len(LINES)]
        line_counts[colour] = line_counts.get(colour, 0) + 1
        ax.plot(shares, result["sweep"][pattern], line, color=colour, marker="o", ms=3, label=name)
    ax.set_title(pattern.replace("-", " "), fontsize=11)
    ax.set_xlabel("share missing")
    ax.xaxis.set_major_formatter(lambda v, _: f"{v:.0%}")
    ax.grid(alpha=0.3)
    _quiet(ax)


def _colour(name: str, run: Mapping) -> str:
    return COLOURS.get(run["systems"][name]["family"], OTHER)


def _quiet(ax: Axes) -> None:
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
