"""Memory is a promise: writing a map needs no more for a larger map. Run as a script, it writes one."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from conftest import make_cube, make_sites

import geomiam as gm
from geomiam.inference.memory import peak_memory

VARIABLES = ["bio1", "bio12", "slope"]
CHUNK = 500


def sparse(block: np.ndarray, block_info: dict | None = None) -> np.ndarray:
    """Data in one cell of a hundred: reading and writing weigh, not the network."""
    assert block_info is not None
    rng = np.random.default_rng(block_info[None]["chunk-location"])
    return np.where(rng.random(block.shape) < 0.01, np.float32(1), np.float32(np.nan))


def lazy_cube(side: int) -> xr.Dataset:
    """A cube of side × side cells that exists only block by block."""
    import odc.geo.xr  # noqa: F401

    zeros = da.zeros((side, side), chunks=CHUNK, dtype="f4")
    layer = da.map_blocks(sparse, zeros, dtype="f4", meta=np.empty((0, 0), "f4"))
    place = {"y": 50 - 0.001 * np.arange(side), "x": 5 + 0.001 * np.arange(side)}
    cube = xr.Dataset({v: (("y", "x"), layer) for v in VARIABLES}, coords=place)
    return cube.odc.assign_crs("EPSG:4326")


def peak_of_a_map(side: int) -> int:
    """Write a map of side × side cells; peak memory of the process in bytes."""
    import odc.geo.xr  # noqa: F401

    sites = make_sites(make_cube())[[*VARIABLES, "presence"]]
    network = gm.NetworkConfig(width=8, heads=2, depth=1, inner=0, frequencies=4)
    model = gm.fit(sites, network=network, training=gm.TrainingConfig(epoch_steps=1, epochs=1))
    with (
        tempfile.TemporaryDirectory() as folder,
        dask.config.set(scheduler="threads", num_workers=2),
    ):
        gm.write_map(lazy_cube(side), model, Path(folder) / "map.zarr", progress=False)
    return peak_memory()


@pytest.mark.slow
def test_peak_memory_does_not_grow_with_the_map():
    peaks = []
    for side in (1000, 3200):  # ten times the cells
        command = [sys.executable, __file__, str(side)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout))
    assert peaks[1] <= 1.1 * peaks[0], peaks


if __name__ == "__main__":
    print(peak_of_a_map(int(sys.argv[1])))
