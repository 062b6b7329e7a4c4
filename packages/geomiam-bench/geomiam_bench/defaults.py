"""Judge the default fit against tuned logistic regressions and a balanced forest.

    geomiam-bench defaults --data FOLDER [--only "French birds"] [--draws 5] [--json out.json]

Every set and size is learned by ``gm.fit(sites, rng=0)`` with no settings. Real sets are scored on three
spatially blocked folds, by the AUC within folds of each species; synthetic ones on other cells of the same
landscape. At most 20 species are scored, spread over prevalence.
A random part of a set is one draw of many; with ``--draws`` several parts are judged, and the standard error
is that over the parts. Results are written after every set; those that are there are not computed again.
"""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
import xarray as xr

import geomiam as gm
from geomiam.errors import GeomiamError
from geomiam.evaluation.evaluate import Masked
from geomiam.splits import site_blocks, spatial_folds
from geomiam_bench.defaults_baselines import baselines
from geomiam_bench.defaults_data import Case, makers
from geomiam_bench.options import listed
from geomiam_bench.results import read_json, write_json

MOST_SPECIES, FOLDS = 20, 3
RARE = 5
"""Presences and absences of a species that is scored, if there are such species."""
OURS = "default"


def main(
    data: Annotated[
        Path | None, typer.Option(help="Folder with maps/ and disdat/; without: bundled data.")
    ] = None,
    only: Annotated[str, typer.Option(help="Parts of names of sets, separated by ';'.")] = "",
    draws: Annotated[int, typer.Option(min=1, help="Random parts of a set of each size.")] = 1,
    out: Annotated[Path, typer.Option("--json", help="Results; sets in it are skipped.")] = Path(
        "out/bench/defaults.json"
    ),
) -> None:
    """Compare the default fit with tuned logistic regressions and a balanced forest."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    results = read_json(out) if out.exists() else {}
    sets = makers(data)
    name_parts = listed(only, separator=";") or ("",)
    for name in sorted(
        sets, key=lambda n: next((i for i, w in enumerate(name_parts) if w in n), 99)
    ):
        if not any(w in name for w in name_parts):
            continue
        stored_row = results.get(name)
        try:
            results[name] = _judged(name, data, draws, stored_row)
        except (ValueError, GeomiamError) as error:  # such as a size that the set does not have
            print(f"{name}: {error}")
            continue
        if results[name] == stored_row:
            continue
        write_json(out, results)
        columns = {k: v for k, v in results[name].items() if k not in ("by_species", "parts")}
        print(name, columns, flush=True)


def _judged(name: str, data: Path | None, draws: int, stored_row: dict | None) -> dict[str, Any]:
    """Judge as many random parts of a set as are missing, or the set itself."""
    rows = list(stored_row.get("parts", [stored_row])) if stored_row else []
    while len(rows) < draws:
        case = makers(data, draw=len(rows))[name]()
        if rows and not case.is_part:
            break
        rows.append(judge(case))
    if stored_row and len(rows) == stored_row.get("draws", 1):
        return stored_row
    return rows[0] if len(rows) == 1 else over_parts(rows)


def over_parts(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the mean over random parts of a set; the standard error is that over the parts."""
    auc = {k: round(float(np.mean([r["auc"][k] for r in rows])), 4) for k in rows[0]["auc"]}
    best = max((k for k in auc if k != OURS), key=lambda k: auc[k])
    gaps = np.array([r["auc"][OURS] - r["auc"][best] for r in rows])
    return {
        "sites": rows[0]["sites"],
        "species": [r["species"] for r in rows],
        "auc": auc,
        "best": best,
        "difference": round(float(gaps.mean()), 4),
        "standard_error": round(float(gaps.std(ddof=1) / np.sqrt(len(gaps))), 4),
        "fusions": [f for r in rows for f in r["fusions"]],
        "seconds": [s for r in rows for s in r["seconds"]],
        "draws": len(rows),
        "parts": rows,
    }


def judge(case: Case) -> dict[str, Any]:
    """Train and score all methods on one set."""
    labels = case.sites["presence"].transpose("site", "species").values
    species = scored_species(labels)
    if case.test is not None:
        scores, fit = fitted(case.sites, case.test, species)
        truth_array = case.test["truth" if "truth" in case.test else "presence"]
        truth = truth_array.transpose("site", "species").values[:, species]
        auc_by_method = {k: expected_auc(truth, z) for k, z in scores.items()}
        fits = [fit]
    else:
        auc_by_method, fits = _out_of_fold(case.sites, labels, species)
    row = summary(auc_by_method, n=case.sites.sizes["site"], species=labels.shape[1])
    if case.test is not None and "truth" in case.test:
        low = truth[:, 0] < 0.01
        row["suitability_where_absent"] = round(float(_sigmoid(scores[OURS][low]).mean()), 4)
    return row | {
        "fusions": [f["fusion"] for f in fits],
        "seconds": [f["seconds"] for f in fits],
        "reported_auc": [f["auc"] for f in fits],
    }


def scored_species(labels: np.ndarray) -> np.ndarray:
    """At most 20 species ``(s,)``, evenly spread over the order of their presences."""
    counts = np.minimum((labels == 1).sum(0), (labels == 0).sum(0))
    often = np.flatnonzero(counts >= RARE)
    often = often if len(often) else np.flatnonzero(counts >= 2)
    order = often[np.argsort((labels == 1).sum(0)[often], kind="stable")]
    picks = np.linspace(0, len(order) - 1, min(MOST_SPECIES, len(order))).round().astype(int)
    return np.sort(order[np.unique(picks)])


def fitted(
    train: xr.Dataset, test: xr.Dataset, species: np.ndarray
) -> tuple[dict[str, np.ndarray], dict]:
    """Scores ``(n_test, s)`` by method, and how the default fit was configured."""
    start = time.process_time()
    model = gm.fit(train, rng=0)
    about = {
        "fusion": model.config.fusion,
        "seconds": round(time.process_time() - start, 1),
        "auc": model.about["validation_auc"]["all"],
    }
    blocks = site_blocks(train, min_blocks=3).number
    scores = baselines(train, test, species=species, blocks=blocks, seed=0)
    model_scores = Masked(model).scores(test.drop_vars(["presence", "truth"], errors="ignore"))
    return scores | {OURS: model_scores[:, species]}, about


def _out_of_fold(
    sites: xr.Dataset, labels: np.ndarray, species: np.ndarray
) -> tuple[dict[str, np.ndarray], list[dict]]:
    blocks = site_blocks(sites, min_blocks=2 * FOLDS).number
    fold = spatial_folds(labels, blocks, folds=FOLDS, rng=np.random.default_rng(0))
    scores_by_method: dict[str, np.ndarray] = {}
    about = []
    for number in range(FOLDS):
        inside = np.flatnonzero(fold == number)
        outside = np.flatnonzero(fold != number)
        scores, fold_about = fitted(sites.isel(site=outside), sites.isel(site=inside), species)
        about.append(fold_about)
        for name, values in scores.items():
            table = scores_by_method.setdefault(name, np.full((len(labels), len(species)), np.nan))
            table[inside] = values
    return {
        k: gm.metrics.auc_within_folds(labels[:, species], z, fold)
        for k, z in scores_by_method.items()
    }, about


def expected_auc(chance: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Expected AUC ``(s,)`` of scores on sites whose chances of presence ``(n, s)`` are known."""
    values = []
    for p, z in zip(chance.T, scores.T):
        p = p[np.argsort(z, kind="stable")]
        values.append((np.cumsum(1 - p) * p).sum() / (p.sum() * (1 - p).sum()))
    return np.array(values)


def summary(auc_by_method: dict[str, np.ndarray], *, n: int, species: int) -> dict[str, Any]:
    """Mean AUC by method, and the default's difference to the better baseline with its standard error."""
    auc = {k: round(float(np.nanmean(v)), 4) for k, v in auc_by_method.items()}
    best = max((k for k in auc if k != OURS), key=lambda k: auc[k])
    gap = auc_by_method[OURS] - auc_by_method[best]
    gap = gap[np.isfinite(gap)]
    error = round(float(gap.std(ddof=1) / np.sqrt(len(gap))), 4) if len(gap) > 1 else None
    return {
        "sites": n,
        "species": species,
        "auc": auc,
        "best": best,
        "difference": round(float(gap.mean()), 4),
        "standard_error": error,
        "by_species": {k: [round(float(x), 4) for x in v] for k, v in auc_by_method.items()},
    }


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))
