"""A damaged chunk of a store is a clear error wherever it is read, with dask and without it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from odc.geo.xr import assign_crs

import geomiam as gm
from geomiam.data.store.store import open_zarr
from geomiam.errors import UnreadableFile

AXES = {"y": 50 - 0.25 * np.arange(16), "x": 5 + 0.25 * np.arange(16)}
CHUNKS = [pytest.param({}, id="dask"), pytest.param(None, id="without dask")]


@pytest.fixture(scope="module")
def cube() -> xr.Dataset:
    values = np.random.default_rng(0).normal(size=(2, 16, 16)).astype("f4")
    layers = {k: (("y", "x"), v, {"modality": k}) for k, v in zip("ab", values, strict=True)}
    series = {"s": (("month", "y", "x"), values * 2, {"modality": "s"})}
    return assign_crs(xr.Dataset(layers | series, AXES | {"month": [1, 2]}), "EPSG:4326")


@pytest.fixture(scope="module")
def model(cube):
    rng = np.random.default_rng(1)
    place = {"lon": rng.uniform(5, 8.7, 60), "lat": rng.uniform(46.3, 49.9, 60)}
    table = pd.DataFrame({"species": "t", **place, "presence": rng.integers(0, 2, 60)})
    network = gm.NetworkConfig(width=8, heads=1, depth=1, inner=0, fusion="sum")
    training = gm.TrainingConfig(epoch_steps=1, epochs=1, holdout=0, keep="last")
    return gm.fit(gm.sample(cube[["a", "b"]], table), network=network, training=training, rng=0)


@pytest.fixture
def store(cube, tmp_path) -> Path:
    return gm.write_cube(cube, tmp_path / "cube.zarr", chunks={"y": 8, "x": 8})


def last_chunk(store: Path, name: str = "a") -> Path:
    return sorted(p for p in (store / name / "c").rglob("*") if p.is_file())[-1]


@pytest.mark.parametrize("chunks", CHUNKS)
def test_intact_stores_are_read_as_before_with_every_kind_of_index(cube, store, chunks):
    store_cube = gm.open_cube(store, chunks=chunks)
    y, x = xr.DataArray([15, 0, 9], dims="p"), xr.DataArray([0, 15, 9], dims="p")
    for pick in ({"y": y, "x": x}, {"y": [9, 2], "x": slice(1, 16, 3)}, {"y": 3}):
        xr.testing.assert_equal(store_cube.s.isel(pick).load(), cube.s.isel(pick))


@pytest.mark.parametrize("chunks", CHUNKS)
def test_a_store_that_is_missing_on_a_machine_is_an_error_and_not_nan(store, chunks):
    """A missing chunk alone is NaN; a worker that does not share the disk lacks the entire store."""
    store_cube = gm.open_cube(store, chunks=chunks)
    store.rename(store.with_name("elsewhere.zarr"))
    with pytest.raises(UnreadableFile, match=r"no folder .* on this machine"):
        store_cube["a"].load()


def test_a_store_opened_by_a_relative_path_is_read_from_another_folder(store, cube, monkeypatch):
    """Workers of a cluster have other working directories."""
    monkeypatch.chdir(store.parent)
    store_cube = gm.open_cube(store.name)
    monkeypatch.chdir("/")
    xr.testing.assert_equal(store_cube["a"].load(), cube["a"])


@pytest.mark.parametrize("chunks", CHUNKS)
def test_groups_of_a_store_are_read_and_guarded_too(cube, tmp_path, chunks):
    tree = xr.DataTree.from_dict({"m": cube[["a"]], "n": cube[["b"]]})
    tree.to_zarr(tmp_path / "tree.zarr", consolidated=False)
    assert gm.open_cube(tmp_path / "tree.zarr", chunks=chunks).b.equals(cube.b)
    last_chunk(tmp_path / "tree.zarr" / "n", "b").write_bytes(b"damaged")
    with pytest.raises(UnreadableFile, match=r"'b' of .*tree\.zarr/n"):
        gm.open_cube(tmp_path / "tree.zarr", chunks=chunks).b.load()


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("damage", ["bytes", "loop", "pipe", "device"])
def test_a_damaged_chunk_names_store_variable_and_remedy(store, damage, chunks):
    chunk = last_chunk(store)
    chunk.unlink()
    if damage == "bytes":
        chunk.write_bytes(b"damaged")
    elif damage == "pipe":
        os.mkfifo(chunk)
    else:
        chunk.symlink_to(chunk.name if damage == "loop" else "/dev/zero")
    store_cube = gm.open_cube(store, chunks=chunks)
    assert np.isfinite(store_cube.a.isel(y=0, x=0).values), "other chunks are read"
    with pytest.raises(
        UnreadableFile, match=r"chunk of 'a' of .*cube\.zarr.*write the store again"
    ):
        store_cube.load()


@pytest.mark.parametrize("chunks", CHUNKS)
def test_every_reader_of_a_cube_refuses_a_damaged_chunk(store, model, tmp_path, chunks):
    last_chunk(store).write_bytes(b"damaged")
    store_cube = gm.open_cube(store, chunks=chunks)
    table = pd.DataFrame({"species": "t", "lon": [8.7, 5.1], "lat": [46.4, 49.9]})
    calls = {
        "sample": lambda: gm.sample(store_cube, table).load(),
        "predict": lambda: gm.predict(store_cube, model).load(),
        "shapley": lambda: gm.shapley(store_cube, model).load(),
        "write_map": lambda: gm.write_map(store_cube, model, tmp_path / "map.zarr", progress=False),
        "write_cube": lambda: gm.write_cube(store_cube, tmp_path / "copy.zarr", progress=False),
    }
    for name, call in calls.items():
        with pytest.raises(UnreadableFile, match="chunk of 'a'"):
            call()
        assert not os.path.exists(tmp_path / "copy.zarr"), name


def test_damaged_sites_are_refused(store):
    last_chunk(store).write_bytes(b"damaged")
    with pytest.raises(UnreadableFile, match="chunk of 'a'"):
        open_zarr(store, chunks=None).load()


def test_a_member_of_a_zip_that_states_more_than_a_chunk_is_refused(
    cube, store, tmp_path, monkeypatch
):
    shutil.make_archive(str(tmp_path / "cube.zarr"), "zip", store)
    assert gm.open_cube(tmp_path / "cube.zarr.zip").b.equals(cube.b)
    monkeypatch.setattr("geomiam.checks.sizes.MAX_BLOCK", 100)
    with pytest.raises(
        UnreadableFile, match=r"of .*cube\.zarr\.zip is stored in blocks of .* bytes"
    ):
        gm.open_cube(tmp_path / "cube.zarr.zip")
