"""Packed numbers and fill values: what xarray and rasterio unpack is the reference."""

from __future__ import annotations

import dask.array
import numpy as np
import pytest
import rioxarray
import xarray as xr
from helpers_build import FINE, tif

import geomiam as gm
from geomiam.data.coverage import coverage, observed_cells
from geomiam.data.predictors import predictors
from geomiam.data.values import as_float, is_fill
from geomiam.errors import GridError, VariableMismatch
from geomiam.schema.schema import Schema
from geomiam.schema.variable import Modality, Variable
from geomiam.tokens.scaler import fit_scaler


def plane(values, **attrs):
    return xr.DataArray(np.asarray(values), dims="x", attrs=attrs, name="v")


def by_xarray(array):
    decoded_array = xr.conventions.decode_cf_variable("v", array.variable, decode_times=False)
    return decoded_array.values.astype("float32")


@pytest.mark.parametrize(
    "stored_fill, fill",
    [
        (np.float32(-99.99), -99.99),
        (np.float32(1e20), 1e20),
        (np.float32(-3.4e38), -3.4e38),
        (np.finfo("f4").min, -3.4028235e38),
        (np.finfo("f4").min, -3.4e38),
        (np.finfo("f4").min, -1.7976931348623157e308),
        (np.float64(np.float32(-99.99)), -99.99),
        (np.float64(-99.99), -99.99),
        (np.int16(-9999), -9999.0),
        (np.uint8(255), 255),
        (np.int64(-(2**63)), -(2**63)),
    ],
)
def test_a_fill_value_matches_whatever_its_spelling(stored_fill, fill):
    values = np.array([stored_fill, 7, 0], dtype=stored_fill.dtype)
    assert is_fill(values, [fill]).tolist() == [True, False, False]


@pytest.mark.parametrize(
    "value, fill", [(-99.98, -99.99), (-3.3e38, 3.4e38), (0.0, 1e20), (1e-7, 0.0)]
)
def test_a_number_beside_a_fill_value_stays(value, fill):
    assert not is_fill(np.array([value], "f4"), [fill])[0]


@pytest.mark.parametrize("fill", [-1, 0.5, 300, np.nan, 1e20])
def test_a_fill_value_that_integers_cannot_hold_matches_none(fill):
    assert not is_fill(np.arange(256, dtype="u1"), [fill]).any()


@pytest.mark.parametrize(
    "values, attrs",
    [
        (np.array([1, 2, -9999], "i2"), {"_FillValue": np.int16(-9999), "scale_factor": 0.1}),
        (np.array([1, 2, -2], "i2"), {"missing_value": np.int16(-2), "add_offset": 3.5}),
        (np.array([0, -56, -1], "i1"), {"_Unsigned": "true", "_FillValue": np.int8(-1)}),
        (np.array([3, 200, 255], "u1"), {"_Unsigned": "false", "_FillValue": np.uint8(255)}),
        (np.array([2**31 - 1, 5, 0], "i4"), {"scale_factor": 1e-3, "add_offset": -2147483.0}),
        (np.array([1.5, 1e20], "f4"), {"_FillValue": np.float32(1e20)}),
    ],
)
def test_numbers_are_unpacked_as_by_xarray(values, attrs):
    array = plane(values, **attrs)
    lazy = as_float(array.chunk(x=2))
    np.testing.assert_allclose(as_float(array), by_xarray(array), rtol=1e-6, equal_nan=True)
    assert isinstance(lazy.data, dask.array.Array) and lazy.dtype == np.float32
    np.testing.assert_array_equal(lazy, as_float(array))
    assert not set(attrs) & set(as_float(array).attrs)


def test_unpacking_twice_is_unpacking_once():
    array = plane(np.array([5, 300], "i2"), scale_factor=0.1, valid_max=np.int16(100), units="m")
    once = as_float(array)
    xr.testing.assert_identical(as_float(once), once)
    assert once.attrs == {"units": "m"}


@pytest.mark.parametrize(
    "attrs, valid",
    [
        ({"valid_range": np.array([0, 100], "i2")}, [True, True, False, False]),
        ({"valid_min": np.int16(0), "valid_max": np.int16(100)}, [True, True, False, False]),
        ({"valid_max": np.int16(100)}, [True, True, False, True]),
        ({"valid_range": np.array([0.0, 1.0])}, [True, False, False, False]),  # unpacked: CF 2.5.1
    ],
)
def test_numbers_outside_the_valid_range_are_missing(attrs, valid):
    array = plane(np.array([10, 50, 101, -1], "i2"), scale_factor=0.1, **attrs)
    assert np.isfinite(as_float(array)).values.tolist() == valid


def test_a_valid_range_holds_after_xarray_unpacked_the_numbers():
    raw = plane(np.array([10, 50, 101], "i2"), scale_factor=0.1, valid_max=np.int16(100))
    decoded_array = xr.decode_cf(raw.to_dataset()).v
    np.testing.assert_array_equal(as_float(decoded_array), np.array([1, 5, np.nan], "f4"))
    without_encoding = decoded_array.drop_encoding()  # whether 100 is packed or not is unknown
    assert np.isfinite(as_float(without_encoding)).all()


def test_a_limit_of_float32_does_not_cut_its_own_rounding():
    assert np.isfinite(as_float(plane(np.array([0.1], "f4"), valid_max=0.1))).all()


def test_a_fill_value_that_is_no_number_is_an_error():
    with pytest.raises(GridError, match=r"'_FillValue' is 'none', not a number; .*attrs.pop"):
        as_float(plane([1], _FillValue="none"))


def sea(**attrs):
    codes = np.full((4, 5), 7, "i2")
    codes[:2] = -9999
    coords = {"y": 50 - np.arange(4.0), "x": np.arange(5.0)}
    ds = xr.Dataset({"v": (("y", "x"), codes, attrs)}, coords)
    return ds.odc.assign_crs("EPSG:4326")


@pytest.mark.parametrize("holder", ["attrs", "encoding"])
def test_every_verb_reads_undecoded_fill_values(holder):
    ds = sea()
    getattr(ds.v, holder)["_FillValue"] = np.int16(-9999)
    schema = gm.infer_schema(ds)
    target = np.where(ds.v == -9999, np.nan, 7).astype("f4")
    np.testing.assert_array_equal(predictors(ds, schema)["v"], target)
    assert int(observed_cells(ds).sum()) == int(coverage(ds, schema).cells) == 10
    assert int(np.isfinite(gm.add_location(ds).longitude).sum()) == 10


def test_a_raster_as_rioxarray_opens_it_is_read_in_its_units(tmp_path):
    ds = sea()
    path = tmp_path / "v.tif"
    ds.v.rio.write_nodata(-9999).rio.write_crs(4326).rio.to_raster(path)
    raw = rioxarray.open_rasterio(path).isel(band=0, drop=True).to_dataset(name="v")
    is_masked = rioxarray.open_rasterio(path, masked=True).isel(band=0, drop=True)
    np.testing.assert_array_equal(gm.open_cube(raw).v, is_masked)
    assert int(coverage(raw, gm.infer_schema(raw)).cells) == 10


@pytest.mark.parametrize("is_masked", [False, True])
def test_scales_of_bands_that_differ_are_those_of_each_band(tmp_path, is_masked):
    path = tmp_path / "two.tif"
    tif(path, np.full((2, *FINE.shape), 7, "i2"), FINE, scales=(0.1, 10), offsets=(0, 5))
    ds = rioxarray.open_rasterio(path, masked=is_masked).to_dataset(name="v")
    truth = rioxarray.open_rasterio(path, mask_and_scale=True)
    np.testing.assert_allclose(gm.open_cube(ds).v, truth, rtol=1e-6)
    np.testing.assert_allclose(gm.open_cube(ds.isel(band=1)).v, truth[1], rtol=1e-6)
    np.testing.assert_allclose(gm.open_cube(ds.chunk(x=9)).v, truth, rtol=1e-6)
    assert gm.open_cube(ds).v.dtype == np.float32 and "scales" not in gm.open_cube(ds).v.attrs
    with pytest.raises(GridError, match=r"2 bands, but no coordinate 'band'.*mask_and_scale=True"):
        gm.open_cube(ds.isel(band=0, drop=True))


@pytest.mark.parametrize("dtype", ["i4", "i8", "f8"])
def test_codes_of_classes_beyond_float32_are_refused(dtype):
    codes = np.array([1040503410, 1040503421], dtype)
    with pytest.raises(GridError, match=r"1040503410 is above 16,777,216.*renumber"):
        as_float(plane(codes, kind="categorical"))
    with pytest.raises(GridError, match="renumber"):
        as_float(plane(codes.astype("f4"), flag_values=codes.astype("i8").tolist()))
    lazy = as_float(plane(codes, kind="categorical").chunk(x=1))  # reads nothing yet
    with pytest.raises(GridError, match="renumber"):
        lazy.compute()
    assert np.isfinite(as_float(plane(codes))).all()  # a count may be rounded


def test_fit_refuses_classes_that_were_rounded_already():
    variable = Variable(name="basin", kind="categorical")
    schema = Schema(name="s", modalities={"m": Modality(name="m", variables={"basin": variable})})
    with pytest.raises(VariableMismatch, match=r"class codes up to 2120000000.*renumber"):
        fit_scaler({"basin": np.array([2120000010, 2120000020], "f4")}, schema)
    small = fit_scaler({"basin": np.array([2**24 - 1, 3], "f4")}, schema)
    assert small.classes["basin"].tolist() == [3, 2**24 - 1]
