"""The section on the expected against the realised change when missing groups are observed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from geomiam_bench.pages.markdown import as_number, table
from geomiam_bench.results import read_json
from geomiam_bench.value import CHOOSING, EXPECTED, RULES

PICTURE = "value.png"


def value_section(path: Path, pictures: Path) -> str:
    """Return correlations and sizes by data set, and the figure of expected and realised changes."""
    run = read_json(path)
    sets, settings = run["sets"], run["settings"]
    draw(sets, pictures / PICTURE)
    seconds = sum(sum(r["cpu_seconds"].values()) for r in sets.values())
    parts = [
        "## Value of missing data",
        f"`gm.value_of_information` against what happens. A model is fitted outside of held-out spatial blocks ({settings['share']:.0%} of "
        f"the blocks), whose sites lose {settings['hidden']:.0%} of the modalities at random. For each modality that a site lost, the "
        "*expected* change of the prediction is computed from the training sites that the model stores, and the *realised* change by "
        "showing this modality again. Numbers are rank correlations (Spearman) of both. *By species*: over all sites, modalities and "
        "species. *Set of species*: of means over species. *Within*: over the sites alone, for one modality and one species, mean of all of them; "
        "rules that are constant for a modality have none.",
        _summary(sets),
        table(["data", "pairs", *RULES], list(_rows(sets))),
        "The mean change in training and the mean Shapley value are constant for a modality and species; p is the prediction without "
        "the missing modalities. Spearman by modality, set of species:",
        table(["data", "correlation of the value with the realised change"], _by_group(sets)),
        "*Ratio*: mean expected by mean realised change; *slope* of the realised on the expected change. *Best modality*: "
        "realised change of the modality that a rule ranks first, as a share of the largest one, for sites that lost several.",
        table(
            [
                "data",
                "expected / realised",
                "ratio",
                "slope",
                *(f"best modality, {r}" for r in (*CHOOSING, "any group")),
            ],
            list(_sizes(sets)),
        ),
        f"![Realised by expected change](../images/benchmarks/{PICTURE})",
        f"The run took {seconds:.0f} seconds of one core.",
    ]
    return "\n\n".join(parts)


def _rows(sets: dict[str, Any]) -> list[list[str]]:
    rows = []
    for name, result in sets.items():
        for key, text in (("species_by_species", "by species"), ("set", "set of species")):
            scores = result[key]
            rows.append(
                [
                    f"{name}, {text}",
                    f"{scores['pairs']:,}",
                    *(as_number(scores["pooled"][r], 2) for r in RULES),
                ]
            )
        within = result["species_by_species"]["within"]
        rows.append([f"{name}, within", "", *(as_number(within[r], 2) for r in RULES)])
    return rows


def _summary(sets: dict[str, Any]) -> str:
    """Return on how many data sets the value of information is above all other rules."""

    def best(key: str) -> int:
        scores = [result[key]["pooled"] for result in sets.values()]
        simple_rules = [r for r in RULES if r != EXPECTED]
        return sum(s[EXPECTED] > max(s[r] or 0 for r in simple_rules) for s in scores)

    lowest = min(result["species_by_species"]["pooled"][EXPECTED] for result in sets.values())
    return (
        f"By species the correlation is {as_number(lowest, 2)} or more, above all rules on {best('species_by_species')} of {len(sets)} data sets; for "
        f"the set of species on {best('set')} of {len(sets)}. Most of it comes from differences between modalities and species, which a "
        "constant for each shows too; within them the correlation is lower, since a single change is a draw from the distribution "
        "whose mean is expected."
    )


def _by_group(sets: dict[str, Any]) -> list[list[str]]:
    return [
        [
            name,
            ", ".join(
                f"{g} {as_number(v, 2)}" for g, v in result["set"]["by_group"][EXPECTED].items()
            ),
        ]
        for name, result in sets.items()
    ]


def _sizes(sets: dict[str, Any]) -> list[list[str]]:
    rows = []
    for name, result in sets.items():
        size, choice = result["species_by_species"]["size"]["all"], result["choice"]
        means = f"{size['mean_expected']:.3f} / {size['mean_realised']:.3f}"
        numbers = [size["ratio"], size["slope"], *(choice.get(r) for r in (*CHOOSING, "any group"))]
        rows.append([name, means, *(as_number(v, 2) for v in numbers)])
    return rows


def draw(sets: dict[str, Any], path: Path) -> None:
    """Draw the mean realised change in tenths of the pairs by the expected change."""
    import matplotlib.pyplot as plt

    from geomiam.plot.canvas import palette, quiet

    figure, ax = plt.subplots(figsize=(5.6, 4.4), layout="constrained")
    for number, (name, result) in enumerate(sets.items()):
        bins = result["bins"]
        ax.plot(
            bins["expected"], bins["realised"], marker="o", ms=4, color=palette(number), label=name
        )
    low = min(min(r["bins"]["expected"]) for r in sets.values())
    high = max(max(r["bins"]["expected"]) for r in sets.values())
    ax.plot([low, high], [low, high], color="#717581", lw=1, ls="--", label="equal")
    ax.set(xscale="log", yscale="log", xlabel="expected change", ylabel="mean realised change")
    quiet(ax, across="both")
    ax.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)
