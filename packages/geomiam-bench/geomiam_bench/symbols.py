"""A cloudy series of NDVI as symbols (SAX) against plain windows: tokens, time, skill.

    python -m geomiam_bench.symbols FOLDER --json out/bench/symbols.json

FOLDER is the Zarr cube of ``cloud_gaps.py``; its classes of land cover are the species. Windows and
symbols of 1, 3, 6 and 12 dates go through one network, trained alike on the same folds of spatial
blocks. ``auc`` is the mean over classes; ``auc_noise`` the same with noise of half the series'
deviation added to the test sites, ``auc_shift`` with half the deviation added to every value: what a
change of product does. Time is that of predicting the test sites, on one thread.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr

import geomiam as gm
from geomiam.metrics import mean_auc
from geomiam.schema.schema import Schema
from geomiam.tokens.layout import Layout
from geomiam_bench.cloud_series import TESTS, fold_of, make_sites, read_cube

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
"""How the series is read; None: as numbers, in windows."""


def schema_of(way: str, every: int) -> Schema:
    """Return the schema of a way of reading."""
    settings = WAYS[way]
    breakpoints: Any = settings["breakpoints"] if settings else "gaussian"
    made = SCHEMA.symbolic(20, every=every, breakpoints=breakpoints)
    return made if settings else made.symbolic(None)


def run(way: str, every: int, train: xr.Dataset, test: xr.Dataset, *, seed: int) -> dict[str, Any]:
    """Train one way of reading, time it and score it."""
    reading: Any = (WAYS[way] or {}).get("symbols", "embedding")
    network = gm.NetworkConfig(symbols=reading, **SIZES)
    model = gm.fit(train, schema_of(way, every), network=network, training=TRAINING, rng=seed)
    noisy, shifted = changed(test, seed=seed)
    return {
        "way": way,
        "every": every,
        "seed": seed,
        "tokens": int(Layout.of(model.schema).sizes[1]),
        "seconds_per_1000": seconds(test, model) / test.sizes["site"] * 1000,
        "auc": auc(test, model),
        "auc_noise": auc(noisy, model),
        "auc_shift": auc(shifted, model),
    }


def changed(sites: xr.Dataset, *, seed: int) -> tuple[xr.Dataset, xr.Dataset]:
    """Sites with noise, and with a shift, of half the series' deviation."""
    half = 0.5 * float(sites["ndvi"].std())
    noise = np.random.default_rng(seed).normal(0, half, sites["ndvi"].shape)
    return sites.assign(ndvi=sites["ndvi"] + noise), sites.assign(ndvi=sites["ndvi"] + half)


def auc(sites: xr.Dataset, model: gm.Model) -> float:
    """Mean AUC over classes."""
    scores = gm.predict(sites, model, scale="logit")["suitability"].transpose("site", "species")
    return mean_auc(sites["presence"].values, scores.values)


def seconds(sites: xr.Dataset, model: gm.Model, *, times: int = 5) -> float:
    """Least time of a few predictions."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        gm.predict(sites, model)
        found.append(time.perf_counter() - start)
    return min(found)


def main() -> None:
    """Train, score and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--folds", type=int, nargs="+", default=list(TESTS), choices=list(TESTS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sites = make_sites(read_cube(arguments.folder))
    folds, rows, start = fold_of(sites), [], time.time()
    for test in arguments.folds:
        parts = [sites.isel(site=np.isin(folds, f)) for f in (TESTS[test], [test])]
        for seed, way, every in (
            (s, w, e) for s in range(arguments.seeds) for w in WAYS for e in EVERY
        ):
            rows.append({"fold": test, **run(way, every, *parts, seed=seed)})
    made = {"network": SIZES, "training": TRAINING.model_dump(), "sites": sites.sizes["site"]}
    result = {"settings": made, "seconds": time.time() - start, "rows": rows}
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(result, indent=1), encoding="utf-8")
    table = pd.DataFrame(rows).groupby(["way", "every"], sort=False).mean()
    print(table.drop(columns=["fold", "seed"]).round(4).to_string())


if __name__ == "__main__":
    main()
