"""What novelty costs: the error of a site without similar training sites, less its error with similar ones.

    geomiam-bench extrapolation FOLDER --json out/bench/extrapolation.json

The error of a site depends on its species as much as on its predictors: a site with few species has small errors under any model. Here
each held-out site is predicted twice. The *far* model lacks the fold of the site. The *near* models have the same number of
training sites, among them half of the fold, without the site. The difference of both errors, the excess, contains no
property of the site that both models share. All errors that were tried are in the results: the squared error, the log loss, the squared error less
that of the prevalence in training, and the excess of the first two. FOLDER and data sets are those of ``geomiam-bench novelty``.
"""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
import xarray as xr

import geomiam as gm
from geomiam.splits import site_blocks
from geomiam.splits.environment import environment
from geomiam_bench.novelty import BINS, FOLDS, SETS, SETTINGS, folds_of, spearman
from geomiam_bench.options import Json
from geomiam_bench.results import write_json

KINDS = ("environmental", "gradient", "spatial")
"""Folds: clusters of the predictors, quarters of their first principal component, and spatial blocks."""
ERRORS = ("squared", "log loss", "squared less prevalence", "excess squared", "excess log loss")
MEASURES = ("dissimilarity", "tokens", "mess")
SMALLEST = 1e-4
"""Smallest probability in a log loss."""
FEWEST = 2
"""Presences of a species in each training set, at least."""
RESAMPLES, BLOCKS = 400, 30
"""Resamples of an interval, and the spatial blocks, at least, that are drawn."""


def folds(sites: xr.Dataset, kind: str) -> np.ndarray:
    """Return the fold of each site ``(n,)``."""
    if kind != "gradient":
        return folds_of(sites, kind)
    table = environment(sites.drop_vars("presence"), None)
    axis = np.linalg.svd(table - table.mean(0), full_matrices=False)[2][0]
    rank = np.argsort(np.argsort(table @ axis, kind="stable"), kind="stable")
    number: np.ndarray = rank * FOLDS // len(rank)
    return number


def halves(
    fold: np.ndarray, number: int, rng: np.random.Generator
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the training and test rows of the near models of a fold: as many training sites as the far model has."""
    rows = rng.permutation(np.flatnonzero(fold == number))
    size = len(fold) - len(rows)
    pairs = []
    for test in np.array_split(rows, 2):
        other_rows = np.setdiff1d(np.arange(len(fold)), test)
        pairs.append((np.sort(rng.choice(other_rows, size, replace=False)), test))
    return pairs


def errors_of(
    sites: xr.Dataset, train: np.ndarray, test: np.ndarray, *, species: np.ndarray, seed: int
) -> tuple[gm.Model, dict[str, np.ndarray]]:
    """Return a model and the errors of test sites ``(n,)``, means over species."""
    part = sites.isel(species=species)
    model = gm.fit(part.isel(site=train), gm.infer_schema(part), **SETTINGS, rng=seed)
    p = gm.predict(part.isel(site=test), model)["suitability"].transpose("site", "species").values
    labels = part["presence"].transpose("site", "species").values
    y, prevalence = labels[test], np.nanmean(labels[train], 0)
    p_in_range = np.clip(p, SMALLEST, 1 - SMALLEST)
    errors = {
        "squared": (p - y) ** 2,
        "log loss": -np.log(np.where(y > 0, p_in_range, 1 - p_in_range)),
        "prevalence": (prevalence - y) ** 2,
    }
    return model, {n: np.nanmean(np.where(np.isnan(y), np.nan, e), 1) for n, e in errors.items()}


def one_fold(
    sites: xr.Dataset, fold: np.ndarray, number: int, kind: str
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the rows of a fold, their errors under the far and the near models, and their novelty."""
    rows, train = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
    near = halves(fold, number, np.random.default_rng(number))
    present = sites["presence"].transpose("site", "species").values == 1
    counts = np.stack([present[t].sum(0) for t in (train, *(t for t, _ in near))])
    species = np.flatnonzero((counts >= FEWEST).all(0))
    model, far = errors_of(sites, train, rows, species=species, seed=number)
    columns = {n: np.full(len(fold), np.nan) for n in ("near squared", "near log loss")}
    for near_train, test in near:
        _, errors = errors_of(sites, near_train, test, species=species, seed=number)
        for name in ("squared", "log loss"):
            columns[f"near {name}"][test] = errors[name]
    values = {n: c[rows] for n, c in columns.items()}
    values |= far | novelty_of(sites, model, rows, train, kind)
    values["squared less prevalence"] = far["squared"] - far["prevalence"]
    for name in ("squared", "log loss"):
        values[f"excess {name}"] = far[name] - values.pop(f"near {name}")
    return rows, values


def novelty_of(
    sites: xr.Dataset, model: gm.Model, rows: np.ndarray, train: np.ndarray, kind: str
) -> dict[str, np.ndarray]:
    """Return measures of novelty from the training sites of the far model ``(n,)``, larger = newer."""
    test, reference = sites.isel(site=rows), sites.isel(site=train)
    options: dict[str, Any] = {
        "folds": folds(reference, kind),
        "measures": ["dissimilarity", "mess"],
    }
    new = gm.novelty(test, model, reference=reference, options=gm.NoveltyOptions(**options))
    tokens = gm.NoveltyOptions(space="tokens", measures=["dissimilarity"])
    in_network = gm.novelty(test, model, reference=reference, options=tokens)
    return {
        "dissimilarity": new["dissimilarity"].values,
        "tokens": in_network["dissimilarity"].values,
        "mess": -new["mess"].values,
        "inside": new["inside"].values,
    }


def one_kind(sites: xr.Dataset, kind: str) -> dict[str, Any]:
    """Return correlations of each error with each measure, and the errors by fifth of the dissimilarity."""
    fold = folds(sites, kind)
    parts = [one_fold(sites, fold, number, kind) for number in range(FOLDS)]
    rows = np.concatenate([r for r, _ in parts])
    columns = {n: np.concatenate([v[n] for _, v in parts]) for n in parts[0][1]}
    columns["fold"] = fold[rows]
    blocks = site_blocks(sites, None, min_blocks=BLOCKS).number[rows]
    order = np.argsort(columns["dissimilarity"], kind="stable")
    fifths = np.array_split(order, BINS)
    bins: dict[str, Any] = {
        "dissimilarity": [rounded(np.median(columns["dissimilarity"][p])) for p in fifths]
    }
    for error in ERRORS:
        values = columns[error]
        bins[error] = [rounded(values[p].mean()) for p in fifths]
        bins[f"{error}, standard error"] = [
            rounded(values[p].std() / len(p) ** 0.5) for p in fifths
        ]
    inside = columns["inside"] == 1
    return {
        "sites": len(rows),
        "correlation": {e: {m: of_pair(columns, e, m, blocks) for m in MEASURES} for e in ERRORS},
        "error of the prevalence": of_pair(columns, "prevalence", "dissimilarity", blocks),
        "share_inside": rounded(inside.mean()),
        "inside": {e: rounded(columns[e][inside].mean()) for e in ERRORS} if inside.any() else None,
        "outside": {e: rounded(columns[e][~inside].mean()) for e in ERRORS}
        if not inside.all()
        else None,
        "bins": bins,
    }


def of_pair(
    columns: dict[str, np.ndarray], error: str, measure: str, blocks: np.ndarray
) -> dict[str, Any]:
    """Return the rank correlation of an error with a measure, its interval by resampled blocks, and its mean within folds."""
    a, b = columns[error], columns[measure]
    rng = np.random.default_rng(0)
    by_block = [np.flatnonzero(blocks == k) for k in np.unique(blocks)]
    draws = []
    for _ in range(RESAMPLES):
        rows = np.concatenate([by_block[k] for k in rng.integers(0, len(by_block), len(by_block))])
        draws.append(spearman(a[rows], b[rows]) or 0.0)
    within = [
        spearman(a[columns["fold"] == k], b[columns["fold"] == k]) or 0.0 for k in range(FOLDS)
    ]
    low, high = np.quantile(draws, [0.025, 0.975])
    return {
        "spearman": spearman(a, b),
        "interval": [rounded(low), rounded(high)],
        "within folds": rounded(float(np.mean(within))),
    }


def rounded(value: float) -> float:
    """Return a number with four decimals."""
    return round(float(value), 4)


def main(
    folder: Annotated[Path, typer.Argument(help="Folder with maps/.")],
    out: Json = Path("out/bench/extrapolation.json"),
) -> None:
    """Relate the excess of the error at sites without similar training sites to their novelty."""
    start = time.process_time()
    results: dict[str, Any] = {name: {} for name in SETS}
    settings = {"folds": FOLDS, "bins": BINS, "resamples": RESAMPLES, **SETTINGS}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for kind in KINDS:
            for name, read in SETS.items():
                results[name][kind] = one_kind(read(folder), kind)
                print(name, kind, results[name][kind]["correlation"]["excess squared"], flush=True)
                seconds = round(time.process_time() - start, 1)
                write_json(out, {"settings": settings, "sets": results, "cpu_seconds": seconds})
