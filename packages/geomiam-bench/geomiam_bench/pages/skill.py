"""The sections about the NCEAS benchmark, masking strategies and fusions, from runs of ``geomiam-bench disdat``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from geomiam_bench.disdat_summary import auc_of_species, summarise
from geomiam_bench.pages.markdown import table

METHOD_COLOURS = {
    "default": "#4c5f9e",
    "strategy": "#1b7f79",
    "baseline": "#c8553d",
    "oracle": "#3a3a3a",
}


def merged(paths: list[Path]) -> dict:
    """Return one run from the JSON of its parts; the last part has precedence, and settings are those of the first network."""
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    first = next((r for r in runs if r["settings"]["strategies"]), runs[0])
    latest = {(r["region"], r["label"], r["seed"]): r for run in runs for r in run["results"]}
    results = balanced(list(latest.values()))
    seconds = sum(run["seconds"] for run in runs)
    published_species = {k: v for run in runs for k, v in run.get("published_species", {}).items()}
    first = {**first, "published_species": published_species}
    return {**first, "results": results, "seconds": seconds, "summary": summarise(results)}


def balanced(results: list[dict]) -> list[dict]:
    """Leave out seeds of a region that not every method has, from a run that was stopped.

    Methods with the first seed only were trained once, and do not count.
    """
    seeds_of_method: dict[str, set] = {}
    labels_by_seed: dict[tuple, set] = {}
    for r in results:
        seeds_of_method.setdefault(r["label"], set()).add(r["seed"])
        labels_by_seed.setdefault((r["region"], r["seed"]), set()).add(r["label"])
    methods_with_seeds = {label for label, numbers in seeds_of_method.items() if numbers != {0}}
    methods = methods_with_seeds or set(seeds_of_method)
    return [
        r
        for r in results
        if r["label"] not in methods or labels_by_seed[r["region"], r["seed"]] >= methods
    ]


def trained_once(run: dict) -> str:
    """Return the methods with one seed, where others have more, as text."""
    numbers = {
        label: {r["seed"] for r in run["results"] if r["label"] == label}
        for label in run["summary"]
    }
    if max(map(len, numbers.values())) == 1:
        return ""
    once = [f"`{label}`" for label, seeds_of_method in numbers.items() if len(seeds_of_method) == 1]
    return f"One seed only: {', '.join(once)}. " if once else ""


def seeds(run: dict) -> str:
    """Return the number of seeds of each region, as text."""
    seed_counts = {
        r: len({x["seed"] for x in run["results"] if x["region"] == r}) for r in regions(run)
    }
    if len(set(seed_counts.values())) == 1:
        return f"{next(iter(seed_counts.values()))} seeds"
    return "seeds: " + ", ".join(f"{r} {n}" for r, n in seed_counts.items())


def skill_section(run: dict, pictures: Path) -> str:
    """Return the section about the NCEAS benchmark, with published results."""
    background = run["settings"]["background"]
    complete(run)
    name = f"disdat-{background}.png"
    figure(run, pictures / name)
    parts = [
        f"## NCEAS benchmark, {background} background",
        lead(run),
        methods_table(run),
        f"![AUC by method and region](../images/benchmarks/{name})",
        paired(run),
        "**Published**, on the same surveys, from the covariates and for the species of each source:",
        published_table(run),
        "### From any subset",
        "Mean AUC over the species of a region, in percent; the one model of a row predicts for every column.",
        *(subset_table(run, region) for region in regions(run)),
        "### Settings",
        f"```json\n{json.dumps(run['settings'], indent=1)}\n```",
    ]
    return "\n\n".join(parts)


def published_section(run: dict) -> str:
    """Return the section about the groups that publications merge, species by species against their files."""
    complete(run)
    return "\n\n".join(
        [
            "## NCEAS benchmark, against the published files of each species",
            lead(run),
            "The groups of New South Wales are merged as in the publications, which changes the background of its "
            "species. The first ± is the spread over seeds, that of the mean is the standard error that the surveyed "
            "sites cause (Hanley & McNeil 1982).",
            methods_table(run),
            paired(run),
        ]
    )


def strategies_section(run: dict) -> str:
    """Return the section about masking strategies, with the oracle."""
    return compared(
        run,
        "## Masking strategies",
        f"The same surveys, every strategy at its published settings, {seeds(run)}, and "
        f"{run['settings']['network']['members']} networks per model. The oracle is a separate model "
        "for each column, trained on that column alone; the gap is oracle − model, in AUC points, mean "
        "over the columns.",
    )


def fusions_section(run: dict) -> str:
    """Return the section about fusions."""
    return compared(
        run, "## Fusions", f"MIAM with one network per model, {seeds(run)}, all else equal."
    )


def compared(run: dict, title: str, text: str) -> str:
    """Return the means of all methods, and their subsets region by region."""
    tables = [subset_table(run, region) for region in regions(run)]
    return "\n\n".join([title, text, methods_table(run), *tables])


def complete(run: dict) -> None:
    """Refuse an incomplete run, because a method without one of the regions has no mean."""
    for label, summary in run["summary"].items():
        if missing := [r for r in regions(run) if r not in summary["regions"]]:
            raise SystemExit(f"{label} has no results in {missing}; let the run end first")


def regions(run: dict) -> list[str]:
    """Return the regions of a run, in order."""
    return list(next(iter(run["summary"].values()))["regions"])


def lead(run: dict) -> str:
    """Return a description of the run."""
    first = next(iter(run["summary"].values()))
    return (
        "Elith et al. (2020): anonymised species, trained on presence records, scored on independent "
        f"presence-absence surveys of the species' own group. Here {first['species']} species of "
        f"{', '.join(regions(run))}, {run['settings']['covariates']} covariates, no coordinates, "
        f"{groups(run)}{seeds(run)} (each method's AUC is averaged over them per species). The "
        "survey was opened when trained predictors were scored, not before; settings come from "
        "spatial blocks of the training records (`geomiam-bench disdat-settings`) and are the same "
        "in all regions. Earlier configurations were scored on this survey too, so a little optimism "
        f"cannot be excluded. {engines(run)}{trained_once(run)}The run took {run['seconds'] / 60:.0f} minutes of training and scoring."
    )


def groups(run: dict) -> str:
    """Return the target groups as text; runs without this setting used those of the data files."""
    kind = run["settings"].get("groups", "original")
    return "" if kind == "published" else "target groups of the data files (`--groups original`), "


def engines(run: dict) -> str:
    """Return the libraries behind the baselines, as text."""
    engine_by_label = {
        r["label"]: r.get("engine") for r in run["results"] if r["kind"] == "baseline"
    }
    engines = ", ".join(
        f"{label} by {engine}" for label, engine in engine_by_label.items() if engine
    )
    return f"Baselines: {engines}. " if engines else ""


def methods_table(run: dict) -> str:
    """Return a table of methods against regions: mean AUC, and its spread over seeds."""
    names = regions(run)
    head = ["method", *names, "mean over species", "mean of regions", "COR"]
    rows = []
    for label, summary in ordered(run):
        cells = [_spread(summary["regions"][r]) for r in names]
        cor = np.mean([summary["regions"][r]["cor"] for r in names])
        error = f" ± {summary['survey_error']:.3f}" if summary.get("survey_error") else ""
        means = [
            f"**{summary['mean_over_species']:.3f}**{error}",
            f"{summary['mean_over_regions']:.3f}",
        ]
        rows.append([label, *cells, *means, f"{cor:.3f}"])
    return table(head, rows)


def paired(run: dict) -> str:
    """Return a table of the best strategy against every other method, species by species."""
    labels = [label for label, _ in ordered(run)]
    best_strategy = next((label for label in labels if kind(run, label) == "strategy"), labels[0])
    auc = _auc_by_method(run)
    columns = [*([r] for r in regions(run)), regions(run)]
    other_methods = [
        k for k in auc if k in run["published_species"] or kind(run, k) in ("baseline", "default")
    ]
    rows = [
        [method, *(_difference(auc, best_strategy, method, r) for r in columns)]
        for method in sorted(other_methods, key=lambda k: -_mean_of(auc[k], regions(run)))
    ]
    head = [f"{best_strategy} minus", *regions(run), "all species"]
    return (
        "In AUC points, mean over species ± its standard error, and how many species gain. A difference "
        "below two standard errors may be chance. Published: random forests of Valavi et al. (2021), "
        "doi:10.1111/ecog.05615, from their file of each species.\n\n" + table(head, rows)
    )


def _auc_by_method(run: dict) -> dict[str, dict[str, dict[str, float]]]:
    """Return method → region → species → AUC with every predictor, mean over seeds."""
    auc_by_method = {
        label: {region: auc_of_species(run, label, region) for region in regions(run)}
        for label, _ in ordered(run)
    }
    return auc_by_method | run["published_species"]


def _mean_of(auc: dict[str, dict[str, float]], names: list[str]) -> float:
    return float(np.nanmean([v for r in names for v in auc.get(r, {}).values()]))


def _difference(auc: dict, best_strategy: str, method: str, names: list[str]) -> str:
    points = np.array(
        [
            100 * (value - auc[method][region][species])
            for region in names
            for species, value in auc[best_strategy][region].items()
            if species in auc[method].get(region, {})
        ]
    )
    points = points[np.isfinite(points)]
    error = points.std(ddof=1) / len(points) ** 0.5
    return f"{points.mean():+.1f} ± {error:.1f} ({(points > 0).sum()} of {len(points)})"


def subset_table(run: dict, region: str) -> str:
    """Return a table of the subsets of one region against methods, and the mean gap to the oracle of the same fusion."""
    summaries = {label: s["regions"][region] for label, s in ordered(run)}
    columns = list(next(iter(summaries.values()))["subsets"])
    rows = []
    for label, summary in summaries.items():
        best = summaries.get(f"oracle ({label.split('(')[-1]}" if "(" in label else "")
        gap = _gap(summary, best) if best and best is not summary else ""
        means = [f"{summary['subsets'][c] * 100:.1f}" for c in columns]
        rows.append([label, *means, f"**{summary['mean_over_subsets'] * 100:.1f}**", gap])
    return f"**{region}**\n\n" + table(["method", *columns, "mean", "gap to oracle"], rows)


def published_table(run: dict) -> str:
    """Return a table of the published means that are stored with the results."""
    rows = []
    for entry in run["published"][run["settings"]["background"]]:
        mean = next(v for k, v in entry.items() if k.startswith("mean"))
        region_text = ", ".join(f"{k} {v:.3f}" for k, v in entry.get("regions", {}).items())
        rows.append([entry["method"], f"{mean:.3f}", region_text, entry["source"]])
    return table(["method", "mean AUC", "regions", "source"], rows)


def figure(run: dict, path: Path) -> None:
    """Draw the mean AUC of every method in every region, one dot per seed."""
    import matplotlib.pyplot as plt

    names, methods = regions(run), ordered(run)[::-1]
    fig, axes = plt.subplots(
        1, len(names), figsize=(3.1 * len(names), 0.36 * len(methods) + 1.2), sharey=True
    )
    for ax, region in zip(np.atleast_1d(axes), names):
        for y, (label, summary) in enumerate(methods):
            scores, colour = summary["regions"][region], METHOD_COLOURS[kind(run, label)]
            seeds = scores["seeds"]
            ax.plot(seeds, [y] * len(seeds), "o", ms=4, mfc="none", mec=colour, alpha=0.7)
            ax.plot(scores["all"], y, "|", ms=14, mew=2.5, color=colour)
        ax.set_title(region, fontsize=11)
        ax.set_yticks(range(len(methods)), [label for label, _ in methods])
        ax.grid(axis="x", alpha=0.3)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
    fig.supxlabel("mean AUC on the survey (bar: mean over seeds; circles: seeds)", fontsize=9)
    fig.tight_layout()
    fig.savefig(path, dpi=150)
    plt.close(fig)


def ordered(run: dict) -> list[tuple[str, Any]]:
    """Return methods from the best mean to the worst, the oracle first."""
    items = run["summary"].items()
    return sorted(items, key=lambda i: (not i[0].startswith("oracle"), -i[1]["mean_over_species"]))


def kind(run: dict, label: str) -> str:
    """Return whether a method is a strategy, a baseline or the oracle."""
    return next(r["kind"] for r in run["results"] if r["label"] == label)


def _spread(scores: dict) -> str:
    text = f"{scores['all']:.3f}"
    return f"{text} ± {np.std(scores['seeds'], ddof=1):.3f}" if len(scores["seeds"]) > 1 else text


def _gap(summary: dict, oracle: dict) -> str:
    return f"{(oracle['mean_over_subsets'] - summary['mean_over_subsets']) * 100:+.1f}"
