"""Error of predictions against novelty, on held-out spatial blocks and on held-out environments.

    geomiam-bench novelty FOLDER --json out/bench/novelty.json

FOLDER holds ``maps/france_birds`` and ``maps/bryce_canyon``, two surveys with absences, and ``maps/neotropics``,
records of 41 species that are background of each other. Each fold is predicted
by a model that never saw it, and its sites are compared with the training sites. The error of a site is the
mean squared error over species. It is related to each measure of novelty with complete predictors, and
with modalities hidden at random: there also for a dissimilarity index of sites whose gaps are filled with the mean
of the training sites, the usual way to compute one.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
import xarray as xr
from scipy.stats import spearmanr

import geomiam as gm
from geomiam.schema.schema import Schema
from geomiam.splits import site_blocks, spatial_folds
from geomiam_bench.defaults_data import bryce_canyon, french_birds, neotropics
from geomiam_bench.options import Json
from geomiam_bench.results import write_json

SETS: dict[str, Callable[[Path], xr.Dataset]] = {
    "French birds": french_birds,
    "Bryce Canyon plants": bryce_canyon,
    "neotropical plants": neotropics,
}
FOLDS = 4
HIDDEN = 0.4
"""Share of the modalities that test sites lose."""
SETTINGS: dict[str, Any] = {
    "network": {"fusion": "sum", "members": 2},
    "training": {"steps": 400},
    "validation": False,
}
BINS = 5
FEWEST = 20
"""Sites of a pattern of hidden modalities, at least, for a correlation within it."""
MEASURES = ("predictors", "tokens", "filled", "mess", "exdet", "point_density")


def folds_of(sites: xr.Dataset, kind: str) -> np.ndarray:
    """Return the fold of each site ``(n,)``: spatial blocks, or clusters of the predictors."""
    labels = sites["presence"].transpose("site", "species").values
    if kind == "spatial":
        blocks = site_blocks(sites, None, min_blocks=2 * FOLDS).number
        return spatial_folds(labels, blocks, folds=FOLDS, rng=np.random.default_rng(0))
    fold = np.zeros(len(labels), int)
    for number, (_, test) in enumerate(gm.splits.EnvironmentalBlocks(FOLDS, rng=0).split(sites)):
        fold[test] = number
    return fold


def site_errors(model: gm.Model, test: xr.Dataset) -> dict[str, np.ndarray]:
    """Return the mean squared error over species of each site, NaN where nothing is observed, and its pattern ``(n,)``."""
    maps = gm.predict(test, model)
    suitability = maps["suitability"].transpose("site", "species").values
    labels = test["presence"].transpose("site", "species").values
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all modalities of a site may be hidden
        error = np.nanmean(np.square(suitability - labels), axis=1)
    return {"error": error, "pattern": maps["observed"].values}


def measured(
    test: xr.Dataset, model: gm.Model, train: xr.Dataset, folds: np.ndarray
) -> dict[str, np.ndarray]:
    """Return each measure of novelty of test sites, larger = newer, and whether they are inside ``(n,)``."""
    options: dict[str, Any] = {"folds": folds}
    new = gm.novelty(test, model, reference=train, options=gm.NoveltyOptions(**options))
    tokens = gm.NoveltyOptions(**options, space="tokens", measures=["dissimilarity"])
    in_tokens = gm.novelty(test, model, reference=train, options=tokens)
    without_gaps = gm.novelty(
        with_means(test, train),
        model,
        reference=train,
        options=gm.NoveltyOptions(**options, measures=["dissimilarity"]),
    )
    exdet = new["exdet"].values
    return {
        "predictors": new["dissimilarity"].values,
        "tokens": in_tokens["dissimilarity"].values,
        "filled": without_gaps["dissimilarity"].values,
        "mess": -new["mess"].values,
        "exdet": np.where(exdet < 0, 1 - exdet, exdet),  # both types rise from 1
        "point_density": -new["point_density"].values,
        "inside": new["inside"].values,
    }


def with_means(test: xr.Dataset, train: xr.Dataset) -> xr.Dataset:
    """Return test sites whose gaps are the mean, or the most frequent class, of the training sites."""
    sites = test.copy()
    for name in (n for n in test.data_vars if n != "presence"):
        values = train[name]
        fill = values.mean("site")
        if "flag_values" in values.attrs:
            codes, counts = np.unique(values.values[np.isfinite(values.values)], return_counts=True)
            fill = codes[counts.argmax()]
        sites[name] = test[name].fillna(fill).assign_attrs(test[name].attrs)
    return sites


def one_set(sites: xr.Dataset, kind: str) -> dict[str, dict[str, np.ndarray]]:
    """Return errors, measures and folds of all sites, with complete and with hidden predictors."""
    fold = folds_of(sites, kind)
    schema = gm.infer_schema(sites)
    n = sites.sizes["site"]
    columns = {
        case: {name: np.full(n, np.nan) for name in ("error", *MEASURES, "inside", "pattern")}
        for case in ("complete", "hidden")
    }
    for number in range(FOLDS):
        rows = np.flatnonzero(fold == number)
        train, test = sites.isel(site=fold != number), sites.isel(site=rows)
        often = train["presence"].sum("site") >= 2
        train, test = train.isel(species=often.values), test.isel(species=often.values)
        model = gm.fit(train, schema, **SETTINGS, rng=number)
        inner = folds_of(train, kind)
        for case in columns:
            sites_of_case = test if case == "complete" else hidden(test, schema, number)
            values = {
                **site_errors(model, sites_of_case),
                **measured(sites_of_case, model, train, inner),
            }
            for name, value in values.items():
                columns[case][name][rows] = value
    return {case: {**values, "fold": fold} for case, values in columns.items()}


def hidden(test: xr.Dataset, schema: Schema, seed: int) -> xr.Dataset:
    """Return test sites without modalities that are drawn at random."""
    pattern = gm.evaluation.by_modality(test, schema, share=HIDDEN, rng=seed)
    return gm.evaluation.hide(test, pattern, schema)


def summary(columns: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return correlations with the error, over all sites and as mean over folds, and errors by bin of the index."""
    error, fold, inside = columns["error"], columns["fold"], columns["inside"]
    correlation, within, patterns = {}, {}, {}
    for name in MEASURES:
        value = columns[name]
        has_both = np.isfinite(error) & np.isfinite(value)
        correlation[name] = spearman(error[has_both], value[has_both])
        of_folds = [
            spearman(error[has_both & (fold == k)], value[has_both & (fold == k)])
            for k in range(FOLDS)
        ]
        patterns[name] = _within(error[has_both], value[has_both], columns["pattern"][has_both])
        within[name] = round(float(np.mean([v for v in of_folds if v is not None] or [np.nan])), 3)
    has_both = np.isfinite(error) & np.isfinite(columns["predictors"])
    order = np.argsort(columns["predictors"][has_both], kind="stable")
    parts = np.array_split(np.flatnonzero(has_both)[order], BINS)
    return {
        "sites": int(has_both.sum()),
        "correlation": correlation,
        "correlation_within_folds": within,
        "correlation_within_patterns": patterns,
        "bins": {
            "dissimilarity": [_rounded(np.median(columns["predictors"][p])) for p in parts],
            "error": [_rounded(error[p].mean()) for p in parts],
            "standard_error": [_rounded(error[p].std() / len(p) ** 0.5) for p in parts],
        },
        "share_inside": _rounded(inside[has_both].mean()),
        "error_inside": _rounded(error[has_both & (inside == 1)].mean())
        if (inside == 1).any()
        else None,
        "error_outside": _rounded(error[has_both & (inside == 0)].mean())
        if (inside == 0).any()
        else None,
    }


def _within(error: np.ndarray, value: np.ndarray, pattern: np.ndarray) -> float | None:
    """Return the mean rank correlation within patterns of observed groups, by their sites."""
    counts = dict(zip(*np.unique(pattern, return_counts=True)))
    pairs = [
        (n, r)
        for p, n in counts.items()
        if n >= FEWEST and (r := spearman(error[pattern == p], value[pattern == p])) is not None
    ]
    return (
        _rounded(np.average([r for _, r in pairs], weights=[n for n, _ in pairs]))
        if pairs
        else None
    )


def spearman(a: np.ndarray, b: np.ndarray) -> float | None:
    """Return the rank correlation; None where one side is constant."""
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return _rounded(spearmanr(a, b).statistic)


def _rounded(value: float) -> float:
    return round(float(value), 4)


def main(
    folder: Annotated[Path, typer.Argument(help="Folder with maps/.")],
    out: Json = Path("out/bench/novelty.json"),
) -> None:
    """Relate the error of predictions at held-out sites to their novelty."""
    start, results = time.process_time(), {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for name, read in SETS.items():
            sites = read(folder)
            results[name] = {
                kind: {case: summary(c) for case, c in one_set(sites, kind).items()}
                for kind in ("spatial", "environmental")
            }
            print(name, results[name])
    settings = {"folds": FOLDS, "hidden": HIDDEN, "bins": BINS, **SETTINGS}
    seconds = round(time.process_time() - start, 1)
    write_json(out, {"settings": settings, "sets": results, "cpu_seconds": seconds})
