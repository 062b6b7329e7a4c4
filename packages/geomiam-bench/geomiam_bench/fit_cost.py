"""CPU seconds of ``gm.fit(sites)`` with default settings, by number of sites, species and predictors.

Each fit runs in a separate process with one thread, so that its seconds include the imports and no other
process lengthens them.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from geomiam_bench.processes import in_process, print_costs


class Size(NamedTuple):
    """Numbers of sites, species and predictors of a fit."""

    sites: int
    species: int
    predictors: int


SIZES = (Size(100, 40, 6), Size(2300, 1, 19), Size(10_000, 20, 19))


def random_sites(size: Size) -> xr.Dataset:
    """Return bioclimatic variables and labels that depend on two of them, one value in twenty missing."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(size.sites, size.predictors)).astype(np.float32)
    effects = rng.normal(size=(2, size.species))
    chance = 1 / (1 + np.exp(1 - values[:, :2] @ effects))
    labels = (rng.random((size.sites, size.species)) < chance).astype(np.float32)
    values[rng.random(values.shape) < 0.05] = np.nan
    layers = {f"bio{i + 1}": ("site", column) for i, column in enumerate(values.T)}
    place = {
        "longitude": ("site", rng.uniform(0, 10, size.sites)),
        "latitude": ("site", rng.uniform(40, 50, size.sites)),
    }
    names = [f"s{i}" for i in range(size.species)]
    sites = xr.Dataset(layers, coords={**place, "species": names})
    return sites.assign(presence=(("site", "species"), labels))


def print_seconds(*size: int) -> None:
    """Print the CPU seconds of this process before a fit and after it."""
    import torch

    import geomiam as gm

    torch.set_num_threads(1)
    sites = random_sites(Size(*size))
    before = time.process_time()
    gm.fit(sites, progress=False)
    print_costs({"before": before, "after": time.process_time()})


def seconds_of_fits(*, repeat: int) -> list[dict[str, Any]]:
    """Return the CPU seconds of fits, each in a separate process, repeated in turn.

    ``fit`` begins before the modules that only a fit imports; ``process`` includes torch, xarray and the sites.
    """
    seconds: dict[Size, list[dict[str, float]]] = {size: [] for size in SIZES}
    for _ in range(repeat):
        for size in SIZES:
            seconds[size].append(in_process(print_seconds, *size))
    return [
        {
            **size._asdict(),
            "fit": [round(r["after"] - r["before"], 2) for r in runs],
            "process": [round(r["after"], 2) for r in runs],
        }
        for size, runs in seconds.items()
    ]
