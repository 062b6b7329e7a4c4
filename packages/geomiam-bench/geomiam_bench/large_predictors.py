"""Memory and seconds of a fit on predictors that are larger than memory.

    geomiam-bench large-predictors --json out/bench/large-predictors.json

Sites with images, scalars and labels of 20 species are written as Zarr, opened lazily and fitted with a small
network and few optimiser steps, in a separate process. Its anonymous memory is sampled: pages of temporary files do not
count, since the system drops them when memory is needed. With ``--limit`` the process may not allocate
more than so many GiB (``RLIMIT_DATA``). Seconds are CPU time of one thread. A slope is that of the log of a cost on
the log of the size, 1 for linear growth. Linux only.
"""

from __future__ import annotations

import resource
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import dask.array as da
import numpy as np
import psutil
import typer
import xarray as xr

import geomiam as gm
from geomiam_bench.many_sites import Timed, step_times
from geomiam_bench.options import Json
from geomiam_bench.planning import slope
from geomiam_bench.processes import in_process, print_costs
from geomiam_bench.results import as_text, write_json

GIB = (0.5, 2.0, 8.0, 26.0)
"""Sizes of the predictors."""
BANDS, PIXELS = 3, 32
"""Bands and width of the image of a site."""
SCALARS, SPECIES = 6, 20
CHUNK = 1000
STEPS = 50
COSTS = ("fit_seconds", "memory_gib", "step_ms")


def random_sites(gib: float) -> xr.Dataset:
    """Return lazy sites whose images need so many GiB; species follow the scalars and the mean of an image."""
    n = round(gib * 2**30 / (4 * BANDS * PIXELS**2) / CHUNK) * CHUNK
    rng = np.random.default_rng(0)
    scalars = rng.normal(size=(SCALARS, n)).astype(np.float32)
    level = rng.integers(0, 200, n).astype(np.float32)
    logits = rng.normal(size=(SPECIES, SCALARS)) @ scalars + (level - 100) / 50 - 1
    presence = rng.random((n, SPECIES)) < 1 / (1 + np.exp(-logits.T))
    pattern = rng.integers(0, 16, (BANDS, PIXELS, PIXELS)).astype(np.float32)
    images = da.from_array(level, chunks=CHUNK)[:, None, None, None] + pattern
    layers: dict[str, Any] = {
        f"bio{i}": ("site", x, {"modality": "climate"}) for i, x in enumerate(scalars)
    }
    layers["image"] = (("site", "band", "iy", "ix"), images, {"modality": "image"})
    layers["presence"] = (("site", "species"), presence.astype(np.float32))
    side = int(np.ceil(np.sqrt(n)))
    coords = {
        "lon": ("site", np.arange(n) % side * 40 / side),
        "lat": ("site", 30 + np.arange(n) // side * 30 / side),
        "species": [f"species {i}" for i in range(SPECIES)],
        "band": ["red", "green", "blue"],
    }
    sites = xr.Dataset(layers, coords=coords, attrs={"crs": "EPSG:4326"})
    return sites.chunk(site=CHUNK)


class AnonymousMemory(threading.Thread):
    """Greatest memory of this process that belongs to no file, in bytes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.greatest = 0

    def run(self) -> None:
        """Sample until the process ends."""
        while True:
            lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
            size = next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
            self.greatest = max(self.greatest, 1024 * size)
            time.sleep(0.02)


def print_fit(path: str, steps: int, limit: float | None) -> None:
    """Fit sites that are opened lazily, and print the costs."""
    import torch

    torch.set_num_threads(1)
    gm.masking.STRATEGIES["timed"] = Timed
    if limit:
        resource.setrlimit(resource.RLIMIT_DATA, (int(limit * 2**30),) * 2)
    memory = AnonymousMemory()
    memory.start()
    start, clock, sites = time.process_time(), time.perf_counter(), gm.open_sites(path, chunks={})
    gm.fit(sites, network={"fusion": "sum"}, training={"steps": steps}, masking=Timed())
    print_costs(
        {
            "rows": sites.sizes["site"],
            "gib": sites["image"].nbytes / 2**30,
            "fit_seconds": time.process_time() - start,
            "elapsed_seconds": time.perf_counter() - clock,
            # The last steps are those of the members, which train on all sites.
            "step_ms": 1000 * float(np.median(np.diff(step_times[-steps:]))),
            "memory_gib": memory.greatest / 2**30,
        }
    )


def run(
    sizes: Sequence[float] = GIB, *, steps: int = STEPS, limit: float | None = None
) -> dict[str, Any]:
    """Return the costs of each size of the predictors, and their slopes."""
    rows = []
    for gib in sizes:
        with tempfile.TemporaryDirectory() as folder:
            path = gm.write_sites(random_sites(gib), f"{folder}/sites.zarr")
            rows.append(in_process(print_fit, str(path), steps, limit))
        print(as_text(rows[-1]), flush=True)
    return {
        "image": [BANDS, PIXELS, PIXELS],
        "scalars": SCALARS,
        "species": SPECIES,
        "steps": steps,
        "limit_gib": limit,
        "machine_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "sizes": rows,
        "slopes": {cost: slope(rows, "rows", cost) for cost in COSTS},
    }


def main(
    gib: Annotated[
        list[float] | None, typer.Option(help="Size of the predictors in GiB; repeat.")
    ] = None,
    limit: Annotated[float | None, typer.Option(help="Most GiB that the fit may allocate.")] = None,
    out: Json = Path("out/bench/large-predictors.json"),
) -> None:
    """Measure memory and seconds of a fit on predictors that are larger than memory."""
    results = run(gib or GIB, limit=limit)
    write_json(out, results)
    print(as_text(results))
