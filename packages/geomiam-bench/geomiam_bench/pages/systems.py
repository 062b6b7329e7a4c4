"""The section "Systems" of the benchmark page: tables, figures, and what a user may conclude from them.

Every sentence is computed: the best system of each situation, its lead, and the systems within two standard errors
from the best.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from geomiam_bench.comparison.figure import TITLES, draw
from geomiam_bench.comparison.run import read_comparison
from geomiam_bench.comparison.systems import DEFAULT, SYSTEMS
from geomiam_bench.comparison.table import as_table, in_situations, paired, reference, summary
from geomiam_bench.pages.markdown import table

CLEAR = 2.0
"""Standard errors from which a difference counts."""
WHOLE = "maestro"
APART = {
    "masks of MAESTRO, not MIAM (its network)": (WHOLE, "maestro-miam"),
    "masks of MAESTRO, not MIAM (group fusion)": ("group-ramp", "miam-group"),
    "its network, not group fusion (masks of MAESTRO)": (WHOLE, "group-ramp"),
    "its network, not group fusion (masks of MIAM)": ("maestro-miam", "miam-group"),
}
"""Pairs that separate the effects of masks and network."""
SITUATION_WORDS = {
    "all": "With every modality",
    "one missing": "With one modality missing",
    "one alone": "With one modality alone",
}


def systems_section(paths: list[Path], pictures: Path) -> str:
    """Return the section with all comparisons, the advice first."""
    runs = {p.stem.removeprefix("systems-"): read_comparison(p) for p in paths}
    parts = ["## Systems", LEAD, advice(runs), what_they_are(runs)]
    for name, run in runs.items():
        parts.append(one_comparison(name, run, pictures))
    return "\n\n".join(parts)


LEAD = f"""Whole systems on equal terms: the same sites, the same test and validation blocks, the same gaps, sizes and
early stopping for every network of a published system, written by `geomiam-bench systems`. Differences are paired, species by species and seed by seed, in AUC
points ± their standard error, for which both species and seeds count as clusters. A difference counts here from
{CLEAR:.0f} standard errors; with many systems side by side, some will pass that by luck."""


def advice(runs: dict[str, dict]) -> str:
    """Return advice for a choice: how often a system is level with the best, its mean distance, and its cost."""
    cases = [case for run in runs.values() for case in contests(run)]
    names = list(dict.fromkeys(n for case in cases for n in case["points"]))
    rows = sorted(
        (_record(name, cases, runs) for name in names),
        key=lambda r: (r[2] < len(cases), -r[1] / r[2], r[3]),  # those that ran everywhere first
    )
    head = ["system", "level with the best", "of", "AUC points behind the best, mean", "seconds"]
    cells = [[n, k, of, f"{behind:.1f}", f"{cost:.2f}"] for n, k, of, behind, cost in rows]
    best, cheap = rows[0], min((r for r in rows if r[2] == rows[0][2]), key=lambda r: r[4])
    default = next((r for r in rows if r[0] == DEFAULT.name), None)
    text = (
        f"**Which to choose.** Over {len(cases)} cases ({_many(len(runs), 'data set')}, with every modality, one missing "
        f"and one alone), **{best[0]}** is the best or level with it most often, {best[1]} times, and "
        f"is {best[3]:.1f} AUC points behind the best in the mean. **{cheap[0]}** predicts cheapest, "
        f"{cheap[4]:.2f} processor seconds for 1,000 cells against {best[4]:.2f}, and is {cheap[3]:.1f} points "
        "behind."
    )
    if cheap[0] == best[0]:
        text = (
            text.partition(f" **{cheap[0]}** predicts")[0]
            + " It is also the cheapest to predict with."
        )
    if default and DEFAULT.name not in (best[0], cheap[0]):
        text += (
            f" geomiam's default fit, **{DEFAULT.name}**, is the best or level with it {default[1]} of {default[2]} times and "
            f"{default[3]:.1f} points behind in the mean, at {default[4]:.2f} seconds."
        )
    text += " Level means within two standard errors."
    return f"{text}\n\n{table(head, cells)}"


def contests(run: dict) -> Iterator[dict]:
    """Yield per situation the mean AUC points of each system behind the best, and the systems level with it."""
    kinds = _situations(run)
    for situation in kinds["situation"].values:
        situation_scores = kinds.sel(situation=situation)
        means = {
            str(s): float(situation_scores.sel(system=s).mean())
            for s in situation_scores["system"].values
        }
        best = max(means, key=lambda name: means[name])
        against = {
            n: paired(situation_scores.sel(system=best), situation_scores.sel(system=n))
            for n in means
            if n != best
        }
        yield {
            "situation": str(situation),
            "best": best,
            "mean": means[best],
            "points": {n: 100 * (means[best] - m) for n, m in means.items()},
            "against": against,
            "close": [n for n, d in against.items() if not clear(d)],
        }


def clear(difference: dict[str, Any]) -> bool:
    """Return whether a paired difference is beyond its standard errors."""
    error = difference["error"]
    return error is not None and abs(difference["mean"]) > CLEAR * error


def _record(name: str, cases: list[dict], runs: dict[str, dict]) -> tuple:
    """Return name, times that it is the best or near, cases, mean points behind, median cost."""
    own_cases = [case for case in cases if name in case["points"]]
    near = sum(name == case["best"] or name in case["close"] for case in own_cases)
    cost = [np.median(run["costs"][name]) for run in runs.values() if name in run["costs"]]
    behind = float(np.mean([case["points"][name] for case in own_cases]))
    return name, near, len(own_cases), behind, float(np.mean(cost)) if cost else float("nan")


def what_they_are(runs: dict[str, dict]) -> str:
    """Return names and descriptions of the systems; equal ones are listed once."""
    names = {name for run in runs.values() for name in run["systems"]}
    rows = [[f"`{n}`", SYSTEMS[n].description] for n in sorted(names, key=[*SYSTEMS].index)]
    return table(["system", "what it is"], rows)


def one_comparison(name: str, run: dict, pictures: Path) -> str:
    """Return the part about one data set: settings, figure, table, best systems, effects of parts."""
    picture = f"systems-{name}.png"
    rows = summary(run)
    draw(run, rows).savefig(pictures / picture, dpi=120)
    parts = [
        f"### {name}",
        data_and_training(run),
        f"![Skill of whole systems](../images/benchmarks/{picture})",
        scores_table(run, rows),
        " ".join([*map(winner, contests(run)), *emptiest(run)]),
        part_effects(run),
    ]
    return "\n\n".join(part for part in parts if part)


def data_and_training(run: dict) -> str:
    """Return a description of the data and of the training."""
    data, network, training = (run["settings"].get(k) for k in ("data", "network", "training"))
    seeds = len({r["seed"] for r in run["results"]})
    test = "one of four folds of spatial blocks, another per seed"
    if data["tested"] != "blocks":
        test = f"an independent survey of {data['tested']:,} sites"
    notes_by_system = {n: f["note"] for n, f in run["systems"].items() if f["note"]}
    note = "".join(
        f" {', '.join(n for n, note in notes_by_system.items() if note == text)}: {text}."
        for text in dict.fromkeys(notes_by_system.values())
    )
    total = sum(r["seconds"] for r in run["results"]) / 60
    return (
        f"{data['sites']:,} sites, {len(data['species'])} species, modalities "
        f"{', '.join(data['modalities'])}; scored on {test}; {_many(seeds, 'seed')}. Networks: width "
        f"{network['width']}, {network['heads']} heads, {network['depth'] + network['inner']} blocks in a row, "
        f"{_many(network['members'], 'member')}, at most {training['epochs']} epochs, stopped after "
        f"{training['patience']} without a better validation AUC. {_trained_on_all(run)}{note} {total:.1f} minutes of "
        "training on one core."
    )


def _trained_on_all(run: dict) -> str:
    """Return which systems use the validation blocks for training."""
    is_default = DEFAULT.name in run["systems"]
    systems = "Trees and the [default fit](defaults.md)" if is_default else "Trees"
    sizes = ", and the sizes of the default's networks follow from the data" if is_default else ""
    return f"{systems} do not stop early and train on the validation blocks too{sizes}."


def scores_table(run: dict, rows: dict[str, dict]) -> str:
    """Return a table of systems against situations, with differences to the reference, the sweep's middle, and costs."""
    kinds = list(next(iter(rows.values()))["auc"])
    patterns = list(next(iter(rows.values()))["sweep"])
    middle = run["settings"]["shares"][len(run["settings"]["shares"]) // 2]
    head = ["system"]
    for kind in kinds:
        head += [TITLES[kind], f"− {reference(rows)}"]
    head += [f"{middle:.0%} gone {p.replace('-', ' ')}" for p in patterns]
    head += ["weights", "training, s", "1,000 cells, s"]
    order = sorted(rows, key=lambda n: -np.mean(list(rows[n]["auc"].values())))
    best = {k: max(r["auc"][k] for r in rows.values()) for k in kinds}
    cells = [[n, *_row(rows[n], kinds, patterns, best, run)] for n in order]
    return table(head, cells)


def _row(result: dict, kinds: list, patterns: list, best: dict, run: dict) -> Iterator[str]:
    for kind in kinds:
        value = result["auc"][kind]
        yield f"**{value:.3f}**" if value == best[kind] else f"{value:.3f}"
        yield _points(result["against"].get(kind))
    middle = len(run["settings"]["shares"]) // 2
    for pattern in patterns:
        yield f"{result['sweep'][pattern][middle]:.3f}"
    yield f"{result['parameters']:,.0f}" if result["parameters"] else ""
    yield f"{result['seconds']:.0f}"
    yield f"{result['cost']:.2f}" if result["cost"] is not None else ""


def winner(case: dict) -> str:
    """Return the best system of a situation, its lead, and the systems level with it."""
    start = f"{SITUATION_WORDS[case['situation']]}, {case['best']} is best ({case['mean']:.3f})"
    if not case["against"]:
        return f"{start}."
    second = min(case["against"], key=lambda n: case["points"][n])
    lead = f"{start}, {_points(case['against'][second])} against {second}"
    behind = [n for n in case["against"] if n not in case["close"]]
    if not case["close"]:
        return f"{lead}; the difference to every other system is beyond two standard errors."
    close = f"it is level with {', '.join(case['close'])}"
    return f"{lead}; {close}" + (f", and is ahead of {', '.join(behind)}." if behind else ".")


def emptiest(run: dict) -> Iterator[str]:
    """Yield the best system at the largest missing share, and its lead."""
    sweep = as_table(run["results"])["sweep"].mean("seed").isel(share=-1)
    for pattern in sweep["pattern"].values:
        ranking = sweep.sel(pattern=pattern).sortby(sweep.sel(pattern=pattern), ascending=False)
        names, values = [str(s) for s in ranking["system"].values], ranking.values
        lead = (
            f", {100 * (values[0] - values[1]):+.1f} against {names[1]}" if len(names) > 1 else ""
        )
        missing_text = f"{run['settings']['shares'][-1]:.0%} gone {str(pattern).replace('-', ' ')}"
        yield f"With {missing_text}, {names[0]} keeps most ({values[0]:.3f}{lead})."


def part_effects(run: dict) -> str:
    """Return the effects of MAESTRO's parts (the whole minus the whole without one), and of masks and network."""
    kinds = _situations(run)
    present_systems = [str(s) for s in kinds["system"].values]
    off = {
        run["systems"][n]["without"]: (WHOLE, n)
        for n in present_systems
        if run["systems"][n]["without"]
    }
    pairs = {part: two for part, two in (off | APART).items() if set(two) <= set(present_systems)}
    if not pairs:
        return ""
    rows, sentences = [], []
    for part, (system, baseline) in pairs.items():
        effects = {
            str(s): paired(*(kinds.sel(system=n, situation=s) for n in (system, baseline)))
            for s in kinds["situation"].values
        }
        rows.append([part, *map(_points, effects.values())])
        sentences.append(f"{part}: {_verdict(effects)}")
    head = ["part (with − without it)", *(TITLES[str(s)] for s in kinds["situation"].values)]
    lead = "What each of MAESTRO's parts (Mohapatra et al. 2025) does here. " + "; ".join(sentences)
    return f"{lead}.\n\n{table(head, rows)}"


def _verdict(effects: dict[str, dict]) -> str:
    helps = [TITLES[s] for s, e in effects.items() if clear(e) and e["mean"] > 0]
    hurts = [TITLES[s] for s, e in effects.items() if clear(e) and e["mean"] < 0]
    effect = [f"helps ({', '.join(helps)})"] * bool(helps) + [f"hurts ({', '.join(hurts)})"] * bool(
        hurts
    )
    return " and ".join(effect) or "makes no difference beyond two standard errors"


def _situations(run: dict) -> xr.DataArray:
    return in_situations(as_table(run["results"]), list(run["settings"]["data"]["modalities"]))


def _points(difference: dict | None) -> str:
    if not difference or difference["mean"] is None:
        return ""
    error = difference["error"]
    return f"{100 * difference['mean']:+.1f}" + ("" if error is None else f" ± {100 * error:.1f}")


def _many(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
