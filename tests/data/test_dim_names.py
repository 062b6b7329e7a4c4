"""y and x are the rows and columns, whatever a cube calls them, and the other way round."""

from __future__ import annotations

import numpy as np
import odc.geo.xr  # noqa: F401
import pytest
import xarray as xr
from helpers_small import quick

import geomiam as gm
from geomiam.errors import GridError, MemoryRefused
from geomiam.geo.dims import as_named

SMALL = gm.NetworkConfig(width=8, heads=2, depth=1, inner=0)
NAMES = [("y", "x"), ("latitude", "longitude"), ("lat", "lon")]
PAIRS = [(dims, chunks) for dims in NAMES for chunks in NAMES if NAMES[0] in (dims, chunks)]


def cube_of(rows: str, cols: str) -> xr.Dataset:
    """A cube of 12 × 10 cells with a scalar and a monthly series."""
    rng = np.random.default_rng(0)
    place = {rows: 50 - 0.5 * np.arange(12), cols: 5 + 0.5 * np.arange(10), "month": [1, 7]}
    bio1 = ((rows, cols), rng.normal(size=(12, 10)).astype("f4"))
    rain = (("month", rows, cols), rng.normal(size=(2, 12, 10)).astype("f4"))
    return xr.Dataset({"bio1": bio1, "rain": rain}, coords=place).odc.assign_crs("EPSG:4326")


@pytest.fixture(scope="module")
def model() -> gm.Model:
    sites = cube_of("y", "x").stack(site=("y", "x")).reset_index("site").transpose("site", ...)
    sites["presence"] = ("site", "species"), (sites["bio1"].values > 0).astype(float)[:, None]
    sites = sites.assign_coords(species=["a"])
    validation_sites = np.arange(120) % 4 == 0
    return gm.fit(sites, network=SMALL, training=quick(epochs=1), validation=validation_sites)


@pytest.mark.filterwarnings("ignore:The specified chunks separate:UserWarning")
@pytest.mark.parametrize(("dims", "chunk_names"), PAIRS)
def test_chunks_may_name_rows_and_columns_in_either_way(tmp_path, model, dims, chunk_names):
    rows, cols = dims
    cube, chunks = cube_of(*dims), dict(zip(chunk_names, (6, 5), strict=True))
    gm.write_cube(cube, tmp_path / "cube.zarr", chunks=chunks)
    read_back = gm.open_cube(tmp_path / "cube.zarr")
    assert read_back["rain"].chunks == ((2,), (6, 6), (5, 5))
    finer = gm.open_cube(tmp_path / "cube.zarr", chunks={chunk_names[0]: 3})
    assert finer["bio1"].chunksizes[rows] == (3, 3, 3, 3)
    assert gm.open_cube(cube, chunks=chunks)["bio1"].chunksizes[cols] == (5, 5)
    lazy = gm.open_cube(tmp_path / "cube.zarr")
    maps = gm.write_map(lazy, model, tmp_path / "map", chunks=chunks, progress=False)
    assert maps["suitability"].encoding["chunks"] == (1, 6, 5)
    expected = gm.predict(cube, model)["suitability"]
    np.testing.assert_allclose(maps["suitability"], expected, atol=2e-6)
    plan = gm.plan_map(lazy, model, chunks=chunks)
    assert (plan.steps, plan.share) == ({rows: 6, cols: 5}, 1.0)


@pytest.mark.filterwarnings("ignore:The specified chunks separate:UserWarning")
def test_a_tree_is_opened_in_chunks_of_either_name(tmp_path):
    cube = cube_of("latitude", "longitude")
    tree = xr.DataTree.from_dict({"/heat": cube[["bio1"]], "/rain": cube[["rain"]]})
    tree.to_zarr(tmp_path / "tree.zarr", zarr_format=3, consolidated=False)
    tree_cube = gm.open_cube(tmp_path / "tree.zarr", chunks={"y": 4, "x": 5})
    assert tree_cube["bio1"].chunks == ((4, 4, 4), (5, 5))
    assert tree_cube["rain"].chunksizes["latitude"] == (4, 4, 4)


def test_a_dim_that_is_not_there_is_refused_with_the_nearest(tmp_path):
    gm.write_cube(cube_of("y", "x"), tmp_path / "cube.zarr")
    with pytest.raises(GridError, match="'mont', which the data do not have; did you mean 'month'"):
        gm.open_cube(tmp_path / "cube.zarr", chunks={"mont": 1})
    with pytest.raises(GridError, match="both stand for the dim 'y'; pass only one"):
        gm.open_cube(tmp_path / "cube.zarr", chunks={"y": 4, "latitude": 4})


def test_other_dims_keep_their_names():
    assert as_named({"y": 1, "species": 2}, ["species", "latitude", "longitude"]) == {
        "latitude": 1,
        "species": 2,
    }
    assert as_named({"site": 3}, ["site"]) == {"site": 3}


def test_a_refusal_names_the_dims_of_the_data(model):
    cube = cube_of("latitude", "longitude")
    with pytest.raises(MemoryRefused, match=r"ds\.chunk\(latitude=\d+, longitude=\d+\)"):
        gm.predict(cube.chunk(), model, options=gm.PredictOptions(memory_limit=2000))
    sites = cube.stack(site=("latitude", "longitude")).reset_index("site")
    with pytest.raises(MemoryRefused, match=r"ds\.chunk\(site=\d+\)"):
        gm.predict(sites.chunk(site=60), model, options=gm.PredictOptions(memory_limit=1000))


def test_a_map_has_rows_before_columns_as_the_predictors_have(model):
    cube = cube_of("y", "x")
    transposed_cube = xr.Dataset(coords={"x": cube["x"], "y": cube["y"]}).merge(
        cube
    )  # as rioxarray opens it
    assert list(transposed_cube.dims)[:2] == ["x", "y"]
    assert transposed_cube["bio1"].dims == ("y", "x")
    expected, layers = gm.predict(cube, model), gm.predict(transposed_cube, model)
    assert layers["suitability"].dims == ("species", "y", "x")
    np.testing.assert_array_equal(layers["suitability"].values, expected["suitability"].values)
    assert gm.shapley(transposed_cube, model)["shapley"].dims[-2:] == ("y", "x")
