"""Memory is a promise: writing a map needs no more for a larger map. Run as a script, it writes maps."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from conftest import make_cube, make_sites
from helpers_small import untrained

import geomiam as gm
from geomiam.data.predictors import bind
from geomiam.maps import trial
from geomiam.maps.memory import peak_memory

VARIABLES = ["bio1", "bio12", "slope"]
CHUNK = 500
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system forks no processes")


def sparse(block: np.ndarray, block_info: dict | None = None) -> np.ndarray:
    """Data in one cell of five hundred: reading and writing weigh, not the network."""
    assert block_info is not None
    rng = np.random.default_rng(block_info[None]["chunk-location"])
    return np.where(rng.random(block.shape) < 0.002, np.float32(1), np.float32(np.nan))


def lazy_cube(side: int) -> xr.Dataset:
    """A cube of side × side cells that exists only block by block."""
    import odc.geo.xr  # noqa: F401

    zeros = da.zeros((side, side), chunks=CHUNK, dtype="f4")
    layer = da.map_blocks(sparse, zeros, dtype="f4", meta=np.empty((0, 0), "f4"))
    place = {"y": 50 - 0.001 * np.arange(side), "x": 5 + 0.001 * np.arange(side)}
    cube = xr.Dataset({v: (("y", "x"), layer) for v in VARIABLES}, coords=place)
    return cube.odc.assign_crs("EPSG:4326")


def output_of(*arguments: str) -> list[int]:
    """Run this file as a script, which imports the modules that this process can; what it prints."""
    paths = os.pathsep.join(filter(None, sys.path))
    command, environment = (
        [sys.executable, __file__, *arguments],
        {**os.environ, "PYTHONPATH": paths},
    )
    options = {"capture_output": True, "text": True, "check": True, "env": environment}
    return list(map(int, subprocess.run(command, **options).stdout.split()))


def random_model(*, species: int = 3, **config) -> gm.Model:
    """A model without a training: how much memory a map needs does not depend on the weights."""
    sites = make_sites(make_cube())[VARIABLES]
    return untrained(bind(gm.infer_schema(sites), sites), species=species, **config)


def peak_of_a_map(side: int) -> int:
    """Write a map of side × side cells; peak memory of the process in bytes."""
    import odc.geo.xr  # noqa: F401

    model = random_model(width=8, heads=2, depth=1, inner=0, frequencies=4)
    with (
        tempfile.TemporaryDirectory() as folder,
        dask.config.set(scheduler="threads", num_workers=2),
    ):
        gm.write_map(lazy_cube(side), model, Path(folder) / "map.zarr", progress=False)
    return peak_memory()


@pytest.mark.slow
@needs_fork
def test_peak_memory_does_not_grow_with_the_map():
    peaks = output_of("1000", "2500")  # six times the cells
    assert peaks[1] <= 1.05 * peaks[0], peaks


def promised_map(kind: str) -> tuple[xr.Dataset, gm.Model, dict]:
    """A dense cube, and a model whose network, results or explanation need most of the memory."""
    model = random_model(
        fusion="token" if kind == "token" else "group",
        species=60 if kind == "species" else 3,
        width=64,
        depth=2,
        inner=1,
        frequencies=16,
    )
    shape = (200, 400)  # two blocks, for two threads
    rng = np.random.default_rng(0)
    place = {"y": 50 - 0.001 * np.arange(shape[0]), "x": 5 + 0.001 * np.arange(shape[1])}
    layers = {v: (("y", "x"), rng.normal(size=shape).astype("f4")) for v in VARIABLES}
    cube = xr.Dataset(layers, place).odc.assign_crs("EPSG:4326").chunk(y=200, x=200)
    return cube, model, {"shapley": kind == "shapley"}


KINDS = ("token", "species", "shapley")


def each_in_a_process(sizes: list[Callable[[], int]]) -> None:
    """Print the result of each call, which has a forked process: modules are imported once."""
    import odc.geo.xr  # noqa: F401

    for size in sizes:
        if not (child := os.fork()):
            print(size(), flush=True)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0


def promise_or_peak(kind: str, act: str) -> int:
    """The promise for a map, or the peak memory of this process after it has written the map."""
    cube, model, options = promised_map(kind)
    with (
        tempfile.TemporaryDirectory() as folder,
        dask.config.set(scheduler="threads", num_workers=2),
    ):
        if act == "plan":
            # A slow machine would extrapolate the memory of a slab; here it is measured on every machine.
            trial.LONG_ENOUGH = 60.0
            return gm.plan_map(cube, model, **options).peak_per_worker
        gm.write_map(cube, model, Path(folder) / "map.zarr", progress=False, **options)
    return peak_memory()


@pytest.mark.slow
@needs_fork
def test_a_process_holds_no_more_than_the_plan_promises():
    """The map has a separate process; the peak is what the system reports at its end.

    The trial of a plan leaves modules and memory in its process that are no part of the map.
    """
    sizes_in_bytes = iter(output_of(*KINDS))
    for kind, promised_bytes, peak in zip(KINDS, sizes_in_bytes, sizes_in_bytes, strict=True):
        sizes = f"{kind}: {peak / 2**20:.0f} MiB of {promised_bytes / 2**20:.0f} promised"
        assert peak <= promised_bytes, sizes
        # The reserve of a process and two threads, 192 MiB, is most of the difference.
        assert promised_bytes <= 1.6 * peak, sizes


def test_tensors_are_counted_while_they_live():
    import torch

    from geomiam.maps.trial import TensorMeter

    with TensorMeter() as meter, torch.inference_mode():
        a = torch.zeros(1000)
        b = a.view(10, 100)  # the same storage
        c = b + 1
        del a, b, c
        d = torch.ones(500) * 2
    assert meter.peak == 8000 and d.sum() == 1000
    assert meter.now == 2000
    with TensorMeter() as meter:
        pass
    assert meter.peak == 0


if __name__ == "__main__":
    if sys.argv[1].isdigit():
        each_in_a_process([partial(peak_of_a_map, int(side)) for side in sys.argv[1:]])
    else:
        pairs = itertools.product(sys.argv[1:], ("plan", "write"))
        each_in_a_process([partial(promise_or_peak, *pair) for pair in pairs])
