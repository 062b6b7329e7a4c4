"""A cloudy series of NDVI as symbols (SAX) against plain windows: tokens, time, skill.

    geomiam-bench symbols FOLDER --json out/bench/symbols.json

FOLDER is the Zarr cube of ``cloud_gaps.py``; its classes of land cover are the species. Windows and
symbols of 1, 3, 6 and 12 dates go through one network, trained alike on the same folds of spatial
blocks. ``auc`` is the mean over classes; ``auc_noise`` the same with noise of half the series'
deviation added to the test sites, ``auc_shift`` with half the deviation added to every value: what a
change of product does. Time is that of predicting the test sites, on one thread.
"""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
import typer
import xarray as xr

import geomiam as gm
from geomiam.metrics import mean_auc
from geomiam.schema.schema import Schema
from geomiam.tokens.layout import Layout
from geomiam_bench.cloud_series import TESTS, fold_of, make_sites, read_cube
from geomiam_bench.options import Json, listed
from geomiam_bench.results import write_json

EVERY = (1, 3, 6, 12)
"""Dates per token."""
SIZES = {"width": 64, "heads": 4, "depth": 1, "inner": 1, "dropout": 0.1}
TRAINING = gm.TrainingConfig(
    loss="weighted-bce",
    epochs=10,
    batch=128,
    lr=3e-3,
    holdout=0,
    keep="last",
    epoch_steps=1,
    warmup=100,
)
SCHEMA = Schema.from_dict(
    {
        "modalities": {
            "terrain": {"variables": {"elevation": {}}},
            "sentinel2": {"variables": {"ndvi": {"kind": "series"}}},
        }
    }
)
WAYS: dict[str, dict[str, str] | None] = {
    "windows": None,
    "symbols": {"breakpoints": "gaussian", "symbols": "embedding"},
    "symbols, quantiles": {"breakpoints": "quantile", "symbols": "embedding"},
    "symbols, as numbers": {"breakpoints": "gaussian", "symbols": "scalar"},
}
"""Settings of the symbols; None: windows of numbers."""


def schema_of(way: str, dates_per_token: int) -> Schema:
    """Return the schema of a way of reading."""
    settings = WAYS[way]
    breakpoints: Any = settings["breakpoints"] if settings else "gaussian"
    symbolic_schema = SCHEMA.symbolic(20, window=dates_per_token, breakpoints=breakpoints)
    return symbolic_schema if settings else symbolic_schema.symbolic(None)


def run(
    way: str, dates_per_token: int, train: xr.Dataset, test: xr.Dataset, *, seed: int
) -> dict[str, Any]:
    """Train one way of reading, time it and score it."""
    reading: Any = (WAYS[way] or {}).get("symbols", "embedding")
    network = gm.NetworkConfig(symbols=reading, **SIZES)
    model = gm.fit(
        train, schema_of(way, dates_per_token), network=network, training=TRAINING, rng=seed
    )
    noisy, shifted_sites = changed(test, seed=seed)
    return {
        "way": way,
        "every": dates_per_token,
        "seed": seed,
        "tokens": int(Layout.of(model.schema).sizes[1]),
        "seconds_per_1000": seconds(test, model) / test.sizes["site"] * 1000,
        "auc": auc(test, model),
        "auc_noise": auc(noisy, model),
        "auc_shift": auc(shifted_sites, model),
    }


def changed(sites: xr.Dataset, *, seed: int) -> tuple[xr.Dataset, xr.Dataset]:
    """Return sites with noise, and with a shift, of half the series' deviation."""
    half = 0.5 * float(sites["ndvi"].std())
    noise = np.random.default_rng(seed).normal(0, half, sites["ndvi"].shape)
    return sites.assign(ndvi=sites["ndvi"] + noise), sites.assign(ndvi=sites["ndvi"] + half)


def auc(sites: xr.Dataset, model: gm.Model) -> float:
    """Return the mean AUC over classes."""
    scores = gm.predict(sites, model, scale="logit")["suitability"].transpose("site", "species")
    return mean_auc(sites["presence"].values, scores.values)


def seconds(sites: xr.Dataset, model: gm.Model, *, times: int = 5) -> float:
    """Return the least time of a few predictions, in seconds."""
    durations = []
    for _ in range(times):
        start = time.perf_counter()
        gm.predict(sites, model)
        durations.append(time.perf_counter() - start)
    return min(durations)


def main(
    folder: Annotated[Path, typer.Argument(help="Zarr cube, as cloud-gaps reads.")],
    out: Json,
    seeds: Annotated[int, typer.Option(help="Trainings of each way of reading.")] = 1,
    folds: Annotated[str, typer.Option(help="Folds that are scored.")] = ",".join(map(str, TESTS)),
) -> None:
    """Compare symbols with windows of a series: tokens, seconds and AUC."""
    torch.set_num_threads(1)
    sites = make_sites(read_cube(folder))
    fold, rows, start = fold_of(sites), [], time.time()
    for test in map(int, listed(folds)):
        train_sites, test_sites = (sites.isel(site=np.isin(fold, f)) for f in (TESTS[test], [test]))
        for seed, way, dates_per_token in itertools.product(range(seeds), WAYS, EVERY):
            row = run(way, dates_per_token, train_sites, test_sites, seed=seed)
            rows.append({"fold": test, **row})
    settings = {"network": SIZES, "training": TRAINING.model_dump(), "sites": sites.sizes["site"]}
    write_json(out, {"settings": settings, "seconds": time.time() - start, "rows": rows})
    table = pd.DataFrame(rows).groupby(["way", "every"], sort=False).mean()
    print(table.drop(columns=["fold", "seed"]).round(4).to_string())
