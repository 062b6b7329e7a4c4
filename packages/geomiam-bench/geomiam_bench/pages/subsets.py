"""The section "Best from any subset" of the benchmark page, from what ``geomiam-bench subsets`` stored."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from geomiam_bench.pages.markdown import table

LEAD = """One group and one sum member, trained without each of three folds of spatial blocks and scored on that fold, from
every subset of the modalities. Regions of NCEAS are training records with target-group background (their surveys are not
read), at the settings of `disdat`; the other sets are surveys, at the steps of the default fit. AUC in percent, mean
over the seeds. Differences are to the first row, paired by species, ± their standard error over species. *Worst* is the
subset of the lowest mean, *cost* the largest loss of mean AUC when a modality is added to any subset (negative: each
addition gains). A difference below two standard errors may be chance."""


def subsets_section(path: Path) -> str:
    """Return one table per set: every candidate against the first."""
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    parts = ["## Best from any subset", LEAD, *_over_sets(rows)]
    for name in dict.fromkeys(r["set"] for r in rows):
        of_set = [r for r in rows if r["set"] == name]
        candidates = list(dict.fromkeys(r["candidate"] for r in of_set))
        seeds = {r["seed"] for r in of_set}
        scores = {c: _mean([r for r in of_set if r["candidate"] == c]) for c in candidates}
        first, *_ = scores.values()
        lines = [[c, *_cells(scores[c], first, of_set[0]["modalities"])] for c in candidates]
        head = ["training", "all", "mean of subsets", "single modalities", "worst", "cost"]
        text = f"**{name}**, {of_set[0]['sites']:,} sites, {len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'}"
        parts += [text, table(head, lines)]
    return "\n\n".join(parts)


def _over_sets(rows: list[dict]) -> list[str]:
    """Return a table of the mean differences to the first training over all sets; nothing for a single set."""
    names = list(dict.fromkeys(r["set"] for r in rows))
    candidates = list(dict.fromkeys(r["candidate"] for r in rows))
    if len(names) < 2:
        return []
    differences: dict[str, list[list[float]]] = {c: [] for c in candidates}
    for name in names:
        scores = {
            c: _mean([r for r in rows if (r["set"], r["candidate"]) == (name, c)])
            for c in candidates
            if any((r["set"], r["candidate"]) == (name, c) for r in rows)
        }
        means = {c: {s: float(np.nanmean(v)) for s, v in auc.items()} for c, auc in scores.items()}
        first, *_ = means.values()
        complete, worst = max(first, key=len), min(first, key=lambda s: first[s])
        for candidate, of_subset in means.items():
            steps = {s: of_subset[s] - first[s] for s in first}
            differences[candidate].append(
                [steps[complete], float(np.mean(list(steps.values()))), steps[worst]]
            )
    lines = [
        [c, *(_with_error(np.array(column)) for column in zip(*differences[c]))]
        for c in candidates[1:]
    ]
    lead = (
        f"**Over the {len(names)} sets**, difference to *{candidates[0]}* in points, mean over the sets ± its "
        "standard error over the sets:"
    )
    return [lead, table(["training", "all", "mean of subsets", "worst"], lines)]


def _with_error(values: np.ndarray) -> str:
    text = f"{values.mean():+.2f}"
    return f"{text} ± {values.std(ddof=1) / len(values) ** 0.5:.2f}" if len(values) > 1 else text


def _mean(rows: list[dict]) -> dict[frozenset[str], np.ndarray]:
    """Return the AUC of each species ``(S,)`` in percent by subset, mean over seeds; the whole is the last."""
    values: dict[frozenset[str], np.ndarray] = {}
    for name in rows[0]["auc"]:
        members = rows[0]["modalities"] if name == "all" else name.split("+")
        auc = np.array([r["auc"][name] for r in rows], float)
        values[frozenset(members)] = 100 * auc.mean(0)
    return values


def _cells(
    auc: dict[frozenset[str], np.ndarray],
    first: dict[frozenset[str], np.ndarray],
    modalities: list[str],
) -> list[str]:
    """Return the cells of one candidate."""
    singles = [s for s in auc if len(s) == 1]
    worst = min(first, key=lambda s: float(np.nanmean(first[s])))
    cells = []
    for group in ([frozenset(modalities)], list(auc), singles, [worst]):
        mean, reference = (np.mean([x[s] for s in group], 0) for x in (auc, first))
        text = f"{np.nanmean(mean):.1f}"
        cells.append(text if auc is first else f"{text} ({_paired(mean - reference)})")
    steps = [
        np.nanmean(auc[s]) - np.nanmean(auc[s | {m}]) for s in auc for m in modalities if m not in s
    ]
    return [*cells, f"{max(steps):+.1f}"]


def _paired(difference: np.ndarray) -> str:
    points = difference[np.isfinite(difference)]
    return f"{points.mean():+.2f} ± {points.std(ddof=1) / len(points) ** 0.5:.2f}"
