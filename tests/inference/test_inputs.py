"""What a prediction is made for: Datasets, arrays, tables, lists and vector data cubes, and what is refused."""

from __future__ import annotations

import re

import numpy as np
import odc.geo.xr  # noqa: F401
import pandas as pd
import pytest
import xarray as xr
from helpers_small import TINY_NETWORK, quick

import geomiam as gm
from geomiam.data.dataset import as_dataset
from geomiam.errors import GridError, MissingVariable, SelectionError, VariableMismatch

NAMES = ("bio1", "bio12")


@pytest.fixture(scope="module")
def small_cube() -> xr.Dataset:
    rng = np.random.default_rng(0)
    layers = {
        n: (("y", "x"), rng.normal(size=(6, 7)).astype("f4"), {"modality": "c"}) for n in NAMES
    }
    return xr.Dataset(layers, {"y": 20 - np.arange(6.0), "x": np.arange(7.0)}).odc.assign_crs(
        "EPSG:4326"
    )


@pytest.fixture(scope="module")
def points(small_cube) -> xr.Dataset:
    return small_cube.stack(site=("y", "x")).reset_index("site")


@pytest.fixture(scope="module")
def fitted_model(points) -> gm.Model:
    labels = np.random.default_rng(0).integers(0, 2, (42, 2)).astype("f4")
    sites = points.assign(presence=(("site", "species"), labels)).assign_coords(species=["a", "b"])
    validation_sites = np.arange(42) % 3 == 0
    return gm.fit(
        sites, network=TINY_NETWORK, training=quick(epochs=1), validation=validation_sites, rng=0
    )


@pytest.fixture(scope="module")
def expected(fitted_model, small_cube) -> np.ndarray:
    return gm.predict(small_cube, fitted_model)["suitability"].values


def bands(cube: xr.Dataset, **attrs) -> xr.DataArray:
    """As rioxarray opens a file of two bands."""
    array = cube.to_dataarray("band").assign_coords(band=[1, 2]).assign_attrs(attrs)
    return array.rename(None)


def test_an_array_of_named_layers_is_a_cube(small_cube, fitted_model, expected):
    named_bands = bands(small_cube).assign_coords(band=list(NAMES))
    stack = named_bands.rename("stackstac-3f2a").expand_dims(time=1).isel(time=0)
    for array in (
        small_cube.to_dataarray(),
        named_bands,
        bands(small_cube, long_name=NAMES),
        stack,
    ):
        result = gm.predict(array, fitted_model)["suitability"]
        assert result.dims == ("species", "y", "x") and result["spatial_ref"].attrs["crs_wkt"]
        np.testing.assert_allclose(result, expected, rtol=1e-6)


def test_an_array_with_a_name_is_one_predictor(small_cube, fitted_model):
    alone = gm.predict(small_cube["bio1"], fitted_model, using="bio1")["suitability"]
    from_cube = gm.predict(small_cube, fitted_model, using="bio1")["suitability"]
    np.testing.assert_allclose(alone, from_cube, rtol=1e-6)
    series = xr.DataArray(np.zeros((2, 3, 4)), dims=("band", "time", "site"), name="landsat")
    assert list(as_dataset(series)) == ["landsat"]  # band is a dim of the variable here
    reflectance = xr.DataArray(np.zeros((2, 4)), dims=("band", "site"), name="reflectance")
    assert list(as_dataset(reflectance)) == ["reflectance"]


def test_lists_are_joined(small_cube, fitted_model, expected):
    for parts in ([small_cube[[n]] for n in NAMES], [small_cube[n] for n in NAMES]):
        np.testing.assert_allclose(
            gm.predict(parts, fitted_model)["suitability"], expected, rtol=1e-6
        )
    with pytest.raises(GridError, match=r"another grid.*geomiam\.align"):
        gm.predict([small_cube[["bio1"]], small_cube[["bio12"]].isel(x=slice(3))], fitted_model)


def test_a_table_has_one_site_per_row(points, fitted_model, expected):
    table = pd.DataFrame(
        {n: points[n].values for n in ("x", "y", *NAMES)}, index=[f"p{i}" for i in range(42)]
    )
    table["plot"] = "text"
    result = gm.predict(table, fitted_model)
    np.testing.assert_allclose(result["suitability"].values.ravel(), expected.ravel(), rtol=1e-6)
    assert result["site"].values.tolist() == table.index.tolist()
    np.testing.assert_array_equal(result["x"], table["x"])
    explanation = gm.shapley(table, fitted_model)
    assert explanation["shapley"].sizes["site"] == 42
    with pytest.raises(MissingVariable, match=r"found columns x, y.*gm\.sample\(cube, table"):
        gm.predict(table[["x", "y"]], fitted_model)


def test_a_table_of_points_has_coordinates(points, fitted_model, expected):
    geopandas = pytest.importorskip("geopandas")
    geometry = geopandas.points_from_xy(points["x"], points["y"])
    table = geopandas.GeoDataFrame(
        {n: points[n].values for n in NAMES}, geometry=geometry, crs=4326
    )
    result = gm.predict(table, fitted_model)
    np.testing.assert_allclose(result["suitability"].values.ravel(), expected.ravel(), rtol=1e-6)
    np.testing.assert_array_equal(result["y"], points["y"])
    assert "4326" in result["spatial_ref"].attrs["crs_wkt"]
    with pytest.raises(GridError, match=r"not points; use table\.set_geometry\(table\.centroid\)"):
        gm.predict(table.set_geometry(table.to_crs(3857).buffer(1)), fitted_model)


def test_a_dim_of_geometries_counts_as_site(points, fitted_model, expected):
    shapely = pytest.importorskip("shapely")
    geometry = np.array(
        [shapely.Point(x, y) for x, y in zip(points["x"].values, points["y"].values)]
    )
    vectors = xr.Dataset({n: ("county", points[n].values) for n in NAMES}, {"county": geometry})
    for data in (vectors, vectors.to_dataarray(), [vectors[n] for n in NAMES][0:1]):
        using = None if not isinstance(data, list) else "bio1"
        if using:
            data = vectors["bio1"]
        result = gm.predict(data, fitted_model, using=using)["suitability"]
        assert result.dims == ("species", "county") and result["county"].values[3] is geometry[3]
        if not using:
            np.testing.assert_allclose(result.values.ravel(), expected.ravel(), rtol=1e-6)
    assert gm.shapley(vectors, fitted_model)["shapley"].sizes["county"] == 42


def test_a_single_row_of_a_grid_is_predicted(small_cube, fitted_model, expected):
    row = gm.predict(small_cube.isel(y=2), fitted_model)["suitability"]
    np.testing.assert_allclose(row, expected[:, 2], rtol=1e-6)


def test_a_model_may_be_a_path(small_cube, points, fitted_model, expected, tmp_path):
    path = fitted_model.save(tmp_path / "model")
    for geometry in (path, str(path)):
        np.testing.assert_allclose(
            gm.predict(small_cube, geometry)["suitability"], expected, rtol=1e-6
        )
    maps = gm.write_map(small_cube.chunk(y=3, x=4), path, tmp_path / "map.zarr", progress=False)
    np.testing.assert_allclose(maps["suitability"], expected, rtol=1e-5)
    assert gm.plan_map(small_cube.chunk(), path).cells == 42
    labels = (np.arange(84).reshape(42, 2) % 3 == 0).astype("f4")
    sites = points.assign(presence=(("site", "species"), labels)).assign_coords(
        species=["a", "b"], x=points["x"] + 0.5
    )
    assert gm.evaluate(path, sites, subsets="all")["sites"] == 42
    assert gm.explain.importance(path, sites, groups="variables")["group"].size == 2
    swept = gm.evaluation.missingness_sweep(
        sites,
        sites,
        fitted_model.schema,
        predictors={"path": path, "model": fitted_model},
        shares=[0, 0.5],
    )
    xr.testing.assert_equal(
        swept.sel(predictor="path", drop=True), swept.sel(predictor="model", drop=True)
    )


def refused(data, model, *, error: type, using=None) -> str:
    with pytest.raises(error) as caught:
        gm.predict(data, model, using=using)
    return str(caught.value)


def test_advice_on_bands_without_names_works(small_cube, fitted_model, expected):
    message = refused(bands(small_cube), fitted_model, error=GridError)
    call = re.search(r"array\.assign_coords.*", message)[0].replace("'bio2'", "'bio12'")
    corrected_data = eval(call, {"array": bands(small_cube)})
    np.testing.assert_allclose(
        gm.predict(corrected_data, fitted_model)["suitability"], expected, rtol=1e-6
    )
    unnamed_array = small_cube["bio1"].rename(None)
    corrected_data = eval(
        refused(unnamed_array, fitted_model, error=GridError).split("predictor, ")[1],
        {"array": unnamed_array},
    )
    assert list(corrected_data) == ["bio1"]


@pytest.mark.parametrize(
    ("change", "corrected_data"),
    [
        (lambda ds: ds.stack(z=("y", "x")), lambda ds: ds.rename({"z": "site"})),
        (lambda ds: ds.rename(y="row", x="col"), lambda ds: ds.rename({"row": "y", "col": "x"})),
        (lambda ds: ds.expand_dims(time=3), lambda ds: ds.isel(time=0)),
    ],
)
def test_advice_on_dims_works(small_cube, fitted_model, change, corrected_data):
    data = change(small_cube)
    message = refused(data, fitted_model, error=VariableMismatch)
    call = re.search(r"ds\.(rename|isel)\(.*?\)", message)[0]
    result = eval(call, {"ds": data})
    xr.testing.assert_equal(result, corrected_data(data))
    assert gm.predict(result, fitted_model)["suitability"].notnull().all()


@pytest.mark.parametrize(
    ("data", "advice"),
    [
        ("cube.zarr", "gm.open_cube('cube.zarr')"),
        ("bio1.tif", "rioxarray.open_rasterio('bio1.tif', masked=True)"),
        (["bio1.tif", "bio12.tif"], "open each file first"),
        ("records.csv", "gm.sample(cube, 'records.csv')"),
        ("cru.nc", "xr.open_dataset('cru.nc'"),
        ({"bio1": xr.DataArray([1.0])}, "xr.Dataset(arrays)"),
        (np.zeros((2, 3)), "xr.Dataset({'bio1'"),
        (None, "gm.open_cube(path)"),
        ([], "gm.open_cube(path)"),
    ],
)
def test_other_data_are_refused_with_the_call_that_makes_them(fitted_model, data, advice):
    assert advice in refused(data, fitted_model, error=GridError)


def test_swapped_arguments_are_named(small_cube, fitted_model):
    assert "the order is data, model" in refused(fitted_model, small_cube, error=SelectionError)
    assert "the order is data, model" in refused(small_cube, None, error=SelectionError)
    with pytest.raises(GridError, match="data come first and the model second"):
        as_dataset(fitted_model)
