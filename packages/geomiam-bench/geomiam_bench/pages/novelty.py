"""The section on the error of predictions against novelty."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from geomiam_bench.pages.markdown import as_number, table
from geomiam_bench.results import read_json

NAMES = {
    "predictors": "dissimilarity, predictors that are observed",
    "tokens": "dissimilarity, space of the network",
    "filled": "dissimilarity, gaps filled with the mean",
    "mess": "MESS",
    "exdet": "ExDet",
    "point_density": "point density",
}
CASES = {"complete": "all predictors", "hidden": "with hidden modalities"}
ROWS = (
    ("complete", "correlation", CASES["complete"]),
    ("hidden", "correlation", CASES["hidden"]),
    ("hidden", "correlation_within_patterns", "hidden, within patterns"),
)
PICTURE = "novelty.png"


def novelty_section(path: Path, pictures: Path) -> str:
    """Return correlations of the error with each measure, and the error by fifth of the index."""
    run = read_json(path)
    draw(run["sets"], pictures / PICTURE)
    hidden = run["settings"]["hidden"]
    head = ["folds, data, predictors", *NAMES.values(), "inside", "error inside / outside"]
    body = [
        [
            f"{kind}, {name}, {text}",
            *(as_number(kinds[kind][case][key][m], 3) for m in NAMES),
            f"{kinds[kind][case]['share_inside']:.0%}",
            f"{as_number(kinds[kind][case]['error_inside'], 3)} / {as_number(kinds[kind][case]['error_outside'], 3)}",
        ]
        for kind in ("spatial", "environmental")
        for name, kinds in run["sets"].items()
        for case, key, text in ROWS
    ]
    parts = [
        "## Error against novelty",
        f"Rank correlation (Spearman) between the mean squared error of a held-out site, over its species, and its novelty "
        f"as measured by `gm.novelty` from the training sites; {run['settings']['folds']} folds of spatial blocks, or of clusters "
        f"of the predictors. Positive: new sites have larger errors. *With hidden modalities*: each site loses {hidden:.0%} of the "
        "modalities at random; few predictors give larger errors and smaller distances, so the correlation *within patterns* of observed "
        "groups is the mean over patterns. *Inside*: share of the sites in the area of applicability.",
        _summary(run["sets"]),
        table(head, body),
        f"![Error by fifth of the dissimilarity index](../images/benchmarks/{PICTURE})",
        f"The run took {run['cpu_seconds'] / 60:.0f} minutes of one core.",
    ]
    return "\n\n".join(parts)


def _summary(sets: dict[str, Any]) -> str:
    """Return on which data sets the error rises with the index, with all predictors."""
    rising = [
        name
        for name, kinds in sets.items()
        if all(cases["complete"]["correlation"]["predictors"] > 0 for cases in kinds.values())
    ]
    return (
        f"With all predictors the error rises with the dissimilarity index for {', '.join(rising) or 'none'}, and not for the "
        f"other {len(sets) - len(rising)} of {len(sets)} data sets. The squared error of a site also depends on how many "
        "species it has, which this comparison does not separate."
    )


def draw(sets: dict[str, Any], path: Path) -> None:
    """Draw the mean error of sites in each fifth of the dissimilarity index."""
    import matplotlib.pyplot as plt

    from geomiam.plot.canvas import palette, quiet

    figure, axes = plt.subplots(1, len(sets), figsize=(4.6 * len(sets), 3.6), layout="constrained")
    for ax, (name, kinds) in zip(axes, sets.items()):
        for number, (kind, cases) in enumerate(kinds.items()):
            for case, style in (("complete", "-"), ("hidden", "--")):
                bins = cases[case]["bins"]
                ax.errorbar(
                    bins["dissimilarity"],
                    bins["error"],
                    yerr=bins["standard_error"],
                    color=palette(number),
                    ls=style,
                    marker="o",
                    ms=3.5,
                    capsize=2,
                    label=f"{kind} folds, {CASES[case]}",
                )
        ax.set(xlabel="dissimilarity index", title=name)
        quiet(ax)
    axes[0].set_ylabel("mean squared error of a site")
    lines = axes[0].get_legend_handles_labels()
    figure.legend(*lines, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)
