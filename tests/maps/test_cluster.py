"""Maps, cubes and trainings on workers that die, start late and have another working directory."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import odc.geo.xr  # noqa: F401
import pytest
import xarray as xr
from conftest import make_cube, make_sites
from helpers_build import FINE, UTM, catalog, field, tif
from helpers_cluster import Log, process_cluster, processes, wait_for_processes
from helpers_small import TINY_NETWORK, untrained

import geomiam as gm
from geomiam import workers
from geomiam.data.predictors import bind
from geomiam.data.store import resume
from geomiam.errors import NoWorkers

pytestmark = pytest.mark.slow
VARIABLES = ["bio1", "bio12", "slope"]


def content(path: Path) -> dict[str, bytes]:
    """Every file of a store."""
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The working directory, with a cube, a model and a log; workers have another one."""
    monkeypatch.chdir(tmp_path)
    cube = make_cube()[VARIABLES]
    sites = make_sites(make_cube())[VARIABLES]
    schema = bind(gm.infer_schema(sites), sites)
    untrained(schema).save("model")
    gm.write_cube(cube, "cube.zarr", chunks={"y": 2, "x": 2}, progress=False)
    (tmp_path / "log").mkdir()
    return tmp_path


def write(name: str, cube: xr.Dataset | None = None, **options) -> dict[str, bytes]:
    """Write the map of the cube to a relative path; the content of the store."""
    cube = gm.open_cube("cube.zarr") if cube is None else cube
    gm.write_map(cube, "model", name, chunks={"y": 2, "x": 2}, progress=False, **options)
    return content(Path(name))


def test_a_worker_that_dies_changes_nothing(folder):
    expected = write("alone.zarr")
    with process_cluster(1) as (_, client):
        client.register_plugin(Log(folder / "log", "geomiam-", dies_after=5))
        assert set(client.run(os.getcwd).values()) != {os.getcwd()}
        assert write("map.zarr", client=client) == expected
    assert processes(folder / "log") == 2


def test_workers_that_start_late_receive_blocks(folder):
    """The cluster starts empty and grows with the work; with one worker, two blocks are under way."""
    expected, cube, log = write("alone.zarr"), gm.open_cube("cube.zarr"), str(folder / "log")
    wait = {"folder": log, "count": 3, "meta": np.empty((0, 0), "f4")}
    slow = cube["bio1"].copy(data=da.map_blocks(wait_for_processes, cube["bio1"].data, **wait))
    with process_cluster(0) as (cluster, client):
        client.register_plugin(Log(folder / "log", "geomiam-"))
        cluster.adapt(minimum=0, maximum=3, interval="50ms", target_duration="10ms")
        assert write("map.zarr", cube.assign(bio1=slow), client=client) == expected
    assert processes(folder / "log") >= 3  # dask may close a worker and start another one


def test_a_cluster_without_workers_is_reported_until_one_joins(folder, monkeypatch):
    expected = write("alone.zarr")
    monkeypatch.setattr(workers, "PATIENCE", 0.3)
    with process_cluster(0) as (cluster, client), pytest.warns(NoWorkers) as caught:
        threading.Timer(1.0, cluster.scale, [1]).start()
        assert write("map.zarr", client=client) == expected
        address = client.scheduler.address
    texts = [str(w.message) for w in caught if w.category is NoWorkers]
    waits = [float(re.search(r"for (\d+) s", t)[1]) for t in texts]
    assert len(waits) >= 2 and waits == sorted(waits) and all(address in t for t in texts)


def test_a_cube_is_built_although_a_worker_joins_late_and_dies(folder, monkeypatch):
    monkeypatch.setattr(resume, "BAND", 1)
    Path("data").mkdir()
    for seed, name in enumerate("ab"):
        tif(Path("data", f"{name}.tif"), field(FINE, seed=seed), FINE)
    source, variables = {"files": {"path": "{variable}.tif"}}, {"a": {}, "b": {}}
    path = catalog(Path("data"), source, {"m": {"from": "files", "variables": variables}})
    options = {"options": gm.sources.BuildOptions(chunks={"y": 8, "x": 16}), "progress": False}
    with dask.config.set(scheduler="synchronous"):
        gm.build_cube(path, UTM, out="alone.zarr", **options)
    monkeypatch.setattr(workers, "PATIENCE", 0.2)
    with process_cluster(0) as (cluster, client), pytest.warns(NoWorkers):
        client.register_plugin(Log(folder / "log", "store", dies_after=3))
        threading.Timer(0.5, cluster.scale, [1]).start()
        gm.build_cube(path, UTM, out="built.zarr", **options)
    assert processes(folder / "log") == 2
    assert content(Path("built.zarr")) == content(Path("alone.zarr"))


def fit_species(path: str, species: str) -> str:
    """Train a model of one species; its digest."""
    sites = gm.open_sites(path).sel(species=[species])
    return gm.fit(sites, network=TINY_NETWORK, training={"steps": 5}).id


def test_trainings_on_a_cluster_equal_those_without(folder):
    gm.write_sites(make_sites(make_cube())[[*VARIABLES, "presence"]], "sites.zarr")
    path, names = str(Path("sites.zarr").resolve()), ["species 0", "species 1"]
    with process_cluster(1) as (_, client):
        client.register_plugin(Log(folder / "log", "fit_species", dies_after=1))
        models = client.gather([client.submit(fit_species, path, n) for n in names])
    assert models == [fit_species(path, n) for n in names]
    assert processes(folder / "log") == 2
