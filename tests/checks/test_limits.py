"""Sizes that catalogs, rasters and stores state: refused with the numbers, before memory is taken."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import odc.geo.xr  # noqa: F401 (registers .odc)
import pytest
import rasterio
import xarray as xr
import yaml
import zarr
from rasterio.transform import from_origin

import geomiam as gm
from geomiam.checks.sizes import check_block, check_cells
from geomiam.errors import GeomiamError, GridError, SchemaError, SourceError, UnreadableFile

BOUNDS = [500000, 5500000, 500160, 5500160]


@pytest.fixture
def home(tmp_path) -> Path:
    place = {"crs": "EPSG:32631", "transform": from_origin(500000, 5500160, 20, 20)}
    shape = {"count": 1, "height": 8, "width": 8, "dtype": "float32"}
    with rasterio.open(tmp_path / "v.tif", "w", driver="GTiff", **shape, **place) as file:
        file.write(np.ones((1, 8, 8), "float32"))
    return tmp_path


def plan(home: Path, *, grid: dict | None = None, source: dict | None = None, **variable):
    catalog = {
        "name": "c",
        "grid": {"crs": "EPSG:32631", "resolution": 20, "bounds": BOUNDS, **(grid or {})},
        "sources": {"s": {"path": "v.tif", **(source or {})}},
        "modalities": {"m": {"from": "s", "variables": {"v": variable}}},
    }
    (home / "c.yaml").write_text(yaml.safe_dump(catalog))
    return gm.plan_cube(home / "c.yaml")


def test_the_plain_catalog_is_planned(home):
    assert "v" in str(plan(home))


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"resolution": 0.0003}, r"more than 150,000; raise 'resolution:'"),
        ({"resolution": 1e-300}, r"1\.6e\+302 x 1\.6e\+302 cells"),
        ({"resolution": 1e300}, "far smaller than one cell"),
        ({"crs": "EPSG:999999"}, "is not a known CRS.*use a code such as EPSG:4326"),
        ({"crs": "nonsense"}, "'nonsense' is not a known CRS"),
        ({"crs": "EPSG:5773"}, "neither geographic nor projected"),
    ],
)
def test_a_grid_that_cannot_be_built_is_refused(home, grid, message):
    with pytest.raises(GridError, match=message):
        plan(home, grid=grid)


@pytest.mark.parametrize(
    ("grid", "source", "message"),
    [
        ({"resolution": float("nan")}, {}, "finite|greater than 0"),
        ({"bounds": [0, 0, float("inf"), 1]}, {}, "finite number"),
        ({}, {"tiles": float("inf")}, "finite"),
        ({}, {"band": []}, "expected a name"),
        ({}, {"path": ""}, "expected a name"),
        ({}, {"scale": float("nan")}, "finite"),
        ({}, {"resampling": "bilinaer"}, "no resampling 'bilinaer'; use bilinear"),
    ],
)
def test_values_that_mean_nothing_are_refused_with_their_line(home, grid, source, message):
    with pytest.raises(SchemaError, match=rf"line \d+.*({message})"):
        plan(home, grid=grid, source=source)


@pytest.mark.parametrize(
    "path",
    [
        "{variable:>3000000000}",
        "{month:03000000000d}",
        "{variable[x]}",
        "{variable.__class__}",
        "{variable!r}",
        "{",
        "a" * 5000,
        "a\0b.tif",
    ],
)
def test_a_path_has_plain_fields_and_an_end(home, path):
    tracemalloc.start()
    with pytest.raises(SourceError, match=r"cannot be filled in|characters, or a NUL"):
        plan(home, source={"path": path})
    assert tracemalloc.get_traced_memory()[1] < 50 * 2**20
    tracemalloc.stop()


def test_fields_of_a_path_are_filled_as_numbers_and_texts():
    from geomiam.schema.source import Source
    from geomiam.sources.paths import _fill

    source = Source(name="s", path="x")
    fields = {"variable": "v", "month": 3, "lat": 7.5, "year": "2001"}
    assert _fill("{variable}_{month:02d}_{month}_{lat}_{year}", fields, source) == "v_03_3_7.5_2001"
    assert _fill("{lat:03d}", {"lat": 7.0}, source) == "007"


def test_more_files_than_can_be_listed_are_refused(home):
    labels = {"t": list(range(400)), "b": list(range(400))}
    with pytest.raises(SourceError, match="160,000 files, more than 100,000"):
        plan(home, source={"path": "{t}{b}.tif"}, kind="series", dims=["b", "t"], labels=labels)


def test_a_crs_of_a_source_is_checked_before_its_files(home):
    with pytest.raises(GridError, match="'crs:' of source 's': 'x' is not a known CRS"):
        plan(home, source={"crs": "x"})


def test_chunks_of_a_deep_variable_count_by_their_numbers():
    check_cells([(10**9, 1)] * 30, remedy="")
    with pytest.raises(GridError, match="1,000,000,000 cells in 1 variables"):
        check_cells([(10**9, 4000)], remedy="")
    check_block(2**29, location="x")
    with pytest.raises(UnreadableFile, match="blocks of 536,870,913 bytes"):
        check_block(2**29 + 1, location="x")


def store_of(folder: Path, **change) -> Path:
    """A Zarr store whose variable ``v`` states other shapes or chunks than it has."""
    cube = xr.Dataset(
        {"v": (("y", "x"), np.ones((8, 8), "f4"))},
        {"y": 50 - 0.25 * np.arange(8), "x": 5 + 0.25 * np.arange(8)},
    )
    gm.write_cube(cube.odc.assign_crs("EPSG:4326"), folder / "c.zarr")
    array = change.pop("array", "v")
    file = folder / "c.zarr" / array / "zarr.json"
    meta = json.loads(file.read_text())
    if "chunks" in change:
        meta["chunk_grid"]["configuration"]["chunk_shape"] = change.pop("chunks")
    meta.update(change)
    file.write_text(json.dumps(meta))
    return folder / "c.zarr"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chunks": [2**20, 2**20]}, "'v' of .* is stored in blocks"),
        ({"array": "x", "shape": [2**40], "chunks": [8]}, "'x' of .* declares"),
    ],
)
def test_a_store_that_states_huge_chunks_or_coordinates_is_not_opened(tmp_path, change, message):
    path = store_of(tmp_path, **change)
    tracemalloc.start()
    with pytest.raises(UnreadableFile, match=message):
        gm.open_cube(path)
    assert tracemalloc.get_traced_memory()[1] < 50 * 2**20
    tracemalloc.stop()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("file_name", ["zarr.json", "v/zarr.json"])
def test_a_store_with_pipes_for_metadata_is_refused_without_waiting(tmp_path, file_name):
    path = store_of(tmp_path)
    (path / file_name).unlink()
    os.mkfifo(path / file_name)
    with pytest.raises(UnreadableFile, match="device or pipe"):
        gm.open_cube(path)


def test_a_netcdf_file_that_states_huge_chunks_is_refused(home):
    h5py = pytest.importorskip("h5py")
    with h5py.File(home / "v.nc", "w") as file:
        file.create_dataset("v", shape=(2**16, 2**16), chunks=(2**14, 2**15), dtype="f4")
    with pytest.raises(SourceError, match=r"'v' of .* is stored in blocks of 2,147,483,648 bytes"):
        plan(home, source={"kind": "netcdf", "path": "v.nc"})
    with h5py.File(home / "v.nc", "w") as file:
        file.create_dataset("x", shape=(2**40,), chunks=(1024,), dtype="f4")
    with pytest.raises(SourceError, match=r"'x' of .* declares 1,099,511,627,776 values"):
        plan(home, source={"kind": "netcdf", "path": "v.nc"})


def test_a_netcdf_file_that_reads_other_files_is_refused(home):
    h5py = pytest.importorskip("h5py")
    (home / "secret").write_bytes(bytes(16))
    with h5py.File(home / "v.nc", "w") as file:
        secret = [(str(home / "secret"), 0, 16)]
        file.create_dataset("v", shape=(4,), dtype="f4", external=secret)
    with pytest.raises(SourceError, match=r"'v' of .* lies in other files"):
        plan(home, source={"kind": "netcdf", "path": "v.nc"})
    with h5py.File(home / "v.nc", "w") as file:
        file["v"] = h5py.ExternalLink(str(home / "other.nc"), "/v")
    with pytest.raises(SourceError, match=r"'v' of .* is a link to another file"):
        plan(home, source={"kind": "netcdf", "path": "v.nc"})


def test_a_tiff_of_one_huge_block_is_refused(home):
    shape = {"count": 1, "height": 40_000, "width": 40_000, "dtype": "float32"}
    place = {"crs": "EPSG:32631", "transform": from_origin(500000, 5500160, 20, 20)}
    options = {"blockysize": 40_000, "SPARSE_OK": True, "compress": "deflate", "tiled": False}
    with rasterio.open(home / "v.tif", "w", driver="GTiff", **shape, **place, **options):
        pass
    assert (home / "v.tif").stat().st_size < 2**20
    with pytest.raises(SourceError, match=r"is stored in blocks of 6,400,000,000 bytes"):
        plan(home)


@pytest.mark.parametrize("content", [b"", b"II*\0", b"not a raster", bytes(1000)])
@pytest.mark.parametrize("kind", ["raster", "netcdf", "zarr"])
def test_files_that_are_something_else_are_refused(home, kind, content):
    (home / "bad.tif").write_bytes(content)
    with pytest.raises(GeomiamError, match=r"bad\.tif"):
        plan(home, source={"kind": kind, "path": "bad.tif"})


def test_zarr_is_still_the_library_that_was_checked():
    group = zarr.open_group(store={}, mode="w")
    group.create_array("v", shape=(4,), chunks=(2,), dtype="f4")
    (name, array), *_ = group.arrays()
    assert (name, array.shape, array.chunks, array.dtype.itemsize) == ("v", (4,), (2,), 4)
