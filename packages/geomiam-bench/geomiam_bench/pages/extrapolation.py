"""The section on the excess of the error at sites without similar training sites."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from geomiam_bench.extrapolation import ERRORS
from geomiam_bench.pages.markdown import as_number, table
from geomiam_bench.results import read_json

PICTURE = "extrapolation.png"
EXCESS = "excess squared"
LABELS = {
    "environmental": "clusters of the predictors",
    "gradient": "quarters of the first component",
    "spatial": "spatial blocks",
}


def extrapolation_section(path: Path, pictures: Path) -> str:
    """Return the correlations of all errors with the dissimilarity, and the figure of errors by fifth of it."""
    run = read_json(path)
    sets = {name: kinds for name, kinds in run["sets"].items() if kinds}
    draw(sets, pictures / PICTURE)
    head = [
        "folds, data",
        *ERRORS,
        "of the prevalence",
        "inside",
        "excess squared inside / outside",
    ]
    return "\n\n".join(
        [
            "## What novelty costs",
            "The error of a site depends on its species: a site with few species has small errors under any model, and new "
            "environments often have few species. So each held-out site is predicted twice. The *far* model trains without the fold of the "
            "site. The *near* models train on as many sites, among them half of the fold, but not the site itself. *Excess*: error of the far model "
            "less error of the near model. *Squared less prevalence*: squared error less that of a constant prediction, the prevalence in "
            "training. Rank correlations "
            f"(Spearman) with the dissimilarity index, and 95 % intervals by {run['settings']['resamples']} resamples of spatial blocks; "
            f"{run['settings']['folds']} folds. All errors are listed. Three kinds of folds were planned: clusters of the predictors, quarters of their first component, and spatial blocks; a pair without a row was not computed.",
            _summary(sets),
            table(head, list(_rows(sets))),
            f"![Squared error and its excess by fifth of the dissimilarity index](../images/benchmarks/{PICTURE})",
            f"The run took {run['cpu_seconds'] / 60:.0f} minutes of one core.",
        ]
    )


def _cases(sets: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for kind in LABELS:
        for name, kinds in sets.items():
            if kind in kinds:
                yield kind, name, kinds[kind]


def _rows(sets: dict[str, Any]) -> Iterator[list[str]]:
    for kind, name, case in _cases(sets):
        pairs = [case["correlation"][e]["dissimilarity"] for e in ERRORS]
        means = [case[k] and case[k][EXCESS] for k in ("inside", "outside")]
        yield [
            f"{LABELS[kind]}, {name}",
            *map(_interval, [*pairs, case["error of the prevalence"]]),
            f"{case['share_inside']:.0%}",
            " / ".join(as_number(m, 3) for m in means),
        ]


def _summary(sets: dict[str, Any]) -> str:
    """Return in how many cases each error rises or falls, beyond its interval."""
    cases = [case for _, _, case in _cases(sets)]

    def count(error: str, sign: int) -> int:
        intervals = [case["correlation"][error]["dissimilarity"]["interval"] for case in cases]
        return sum(low > 0 if sign > 0 else high < 0 for low, high in intervals)

    lines = [
        f"{error}: rises in {count(error, 1)}, falls in {count(error, -1)}" for error in ERRORS
    ]
    return f"Of {len(cases)} pairs of folds and data, with an interval that excludes 0: {'; '.join(lines)}."


def draw(sets: dict[str, Any], path: Path) -> None:
    """Draw the mean squared error of a site, and its excess, in each fifth of the dissimilarity index."""
    import matplotlib.pyplot as plt

    from geomiam.plot.canvas import palette, quiet

    size: dict[str, Any] = {"figsize": (4.4 * len(sets), 5.6), "layout": "constrained"}
    figure, axes = plt.subplots(2, len(sets), squeeze=False, sharex="col", **size)
    for column, (name, kinds) in enumerate(sets.items()):
        for row, error in enumerate(("squared", EXCESS)):
            ax = axes[row, column]
            for kind in (k for k in LABELS if k in kinds):
                bins = kinds[kind]["bins"]
                style = {
                    "color": palette(list(LABELS).index(kind)),
                    "marker": "o",
                    "ms": 3.5,
                    "capsize": 2,
                }
                errors = bins[f"{error}, standard error"]
                x = bins["dissimilarity"]
                ax.errorbar(x, bins[error], yerr=errors, label=LABELS[kind], **style)
            quiet(ax)
        axes[0, column].set_title(name)
        axes[1, column].axhline(0, color="#717581", lw=1)
        axes[1, column].set_xlabel("dissimilarity index")
    axes[0, 0].set_ylabel("mean squared error of a site")
    axes[1, 0].set_ylabel("excess over similar training sites")
    lines = {n: h for ax in axes[0] for h, n in zip(*ax.get_legend_handles_labels())}
    figure.legend(
        list(lines.values()),
        list(lines),
        loc="outside lower center",
        ncols=3,
        frameon=False,
        fontsize=8,
    )
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _interval(pair: dict[str, Any]) -> str:
    low, high = pair["interval"]
    return f"{as_number(pair['spearman'], 2)} ({as_number(low, 2)} to {as_number(high, 2)})"
