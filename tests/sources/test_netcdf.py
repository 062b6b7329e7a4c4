"""NetCDF as data centres write it: xarray's decoding and pyproj are the reference."""

from __future__ import annotations

import h5netcdf
import numpy as np
import pyproj
import pytest
import xarray as xr
from affine import Affine
from conftest import SHARED
from helpers_build import FINE, UTM, field, one, warped
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

import geomiam as gm
from geomiam.data.grid.grid import geobox
from geomiam.errors import DoubtfulSource, GridError, SourceError
from geomiam.geo.crs import crs_of

N = {"kind": "netcdf", "path": "n.nc", "variable": "v"}
X, Y = FINE.affine * (np.arange(80) + 0.5, np.arange(80) + 0.5)
EXTRA = SHARED / "s2" / "extra"


def write(folder, values, *, x=None, y=None, attrs=None, fill=None, crs="EPSG:32631", dtype="f8"):
    """Write a variable with its attributes as they are, and axes with theirs."""
    x, y = x or (X, {}), y or (Y, {})
    with h5netcdf.File(folder / "n.nc", "w") as file:
        file.dimensions = {"y": len(y[0]), "x": len(x[0])}
        for name, (axis, about) in (("y", y), ("x", x)):
            variable = file.create_variable(name, (name,), dtype)
            variable[:] = axis
            variable.attrs.update(about)
        variable = file.create_variable("v", ("y", "x"), values.dtype, fillvalue=fill)
        variable[...] = values
        variable.attrs.update(attrs or {})
        if crs:
            mapping = file.create_variable("crs", (), "i4")
            mapping.attrs["crs_wkt"] = pyproj.CRS(crs).to_wkt()
            mapping.attrs["grid_mapping_name"] = "transverse_mercator"
            variable.attrs["grid_mapping"] = "crs"


def built(folder, source=None, **options):
    return gm.build_cube(
        one(folder, {**N, **(source or {})}, options.pop("variable", None)), UTM
    ).layer


def wanted(values):
    return warped(np.asarray(values, "float64"), FINE, UTM, "average")


@pytest.mark.parametrize(
    "dtype, attrs, fill",
    [
        ("i2", {"scale_factor": 0.01, "add_offset": 3.0}, -32768),
        ("i1", {"_Unsigned": "true", "scale_factor": 0.5}, -1),
        ("u1", {"_Unsigned": "false"}, 255),
        ("f4", {}, 1e20),
        ("i4", {"scale_factor": 1e-4, "missing_value": np.int32(-5)}, -9),
    ],
)
def test_numbers_are_unpacked_as_by_xarray(tmp_path, dtype, attrs, fill):
    values = np.clip(field(FINE)[0], 60, 120).astype(dtype)
    values[:20] = np.array(fill).astype(dtype)
    values[20:24] = attrs.get("missing_value", 100)
    write(tmp_path, values, attrs=attrs, fill=values[0, 0])
    with xr.open_dataset(tmp_path / "n.nc", engine="h5netcdf") as ds:
        truth = ds.v.values
    assert np.isnan(truth).any()
    np.testing.assert_allclose(built(tmp_path), wanted(truth), rtol=1e-5)


def test_numbers_outside_the_valid_range_are_missing(tmp_path):
    values = (field(FINE)[0] * 10).astype("i2")
    values[:20] = 32000
    attrs = {"scale_factor": 0.1, "valid_min": np.int16(0), "valid_max": np.int16(10000)}
    write(tmp_path, values, attrs=attrs)
    truth = np.where(values == 32000, np.nan, values * 0.1)
    np.testing.assert_allclose(built(tmp_path), wanted(truth), rtol=1e-5)


def test_the_nodata_of_a_catalog_is_that_of_packed_numbers(tmp_path):
    values = (field(FINE)[0] * 100).astype("i2")
    values[:20] = -999
    write(tmp_path, values, attrs={"scale_factor": 0.01})
    truth = np.where(values == -999, np.nan, values * 0.01)
    np.testing.assert_allclose(built(tmp_path, {"nodata": -999}), wanted(truth), rtol=1e-5)
    with pytest.warns(DoubtfulSource, match="nodata: -99.5 cannot occur in int16"):
        built(tmp_path, {"nodata": -99.5})


def test_packed_coordinates_are_unpacked(tmp_path):
    values, step = field(FINE)[0], np.arange(80)
    x = (step, {"scale_factor": 10.0, "add_offset": X[0]})
    y = (step, {"scale_factor": -10.0, "add_offset": Y[0]})
    write(tmp_path, values, x=x, y=y, dtype="i2")
    np.testing.assert_allclose(built(tmp_path), wanted(values), rtol=1e-6)


@pytest.mark.parametrize("unit, metres", [("km", 1000), ("kilometers", 1000), ("m", 1), ("", 1)])
def test_coordinates_come_in_the_units_of_the_crs(tmp_path, unit, metres):
    values = field(FINE)[0]
    write(tmp_path, values, x=(X / metres, {"units": unit}), y=(Y / metres, {"units": unit}))
    np.testing.assert_allclose(built(tmp_path), wanted(values), rtol=1e-6)


def test_coordinates_in_degrees_of_a_crs_in_metres_are_refused(tmp_path):
    degrees = {"units": "degrees_east"}
    write(tmp_path, field(FINE)[0], x=(X / 1e5, degrees))
    with pytest.raises(
        SourceError, match=r"'x' is in 'degrees_east', but the CRS EPSG:32631 is not"
    ):
        built(tmp_path)


def test_degrees_north_and_east_need_no_grid_mapping(tmp_path):
    box = GeoBox.from_bbox((2, 48, 4, 50), crs="EPSG:4326", resolution=0.1)
    values = field(box)[0]
    lon, lat = box.affine * (np.arange(20) + 0.5, np.arange(20) + 0.5)
    east, north = {"units": "degrees_east"}, {"units": "degrees_north"}
    write(tmp_path, values, x=(lon, east), y=(lat, north), crs=None)
    cube = gm.build_cube(one(tmp_path, N), box)
    np.testing.assert_array_equal(cube.layer, values)
    bare = tmp_path / "bare"
    bare.mkdir()
    write(bare, values, x=(lon, {}), y=(lat, {}), crs=None)
    with pytest.raises(SourceError, match="has no CRS; add 'crs:'"):
        gm.build_cube(one(bare, N), box)


@pytest.mark.parametrize("scale", [1, 100])
def test_latitude_and_longitude_by_name_need_no_units(tmp_path, scale):
    box = GeoBox.from_bbox((2, 48, 4, 50), crs="EPSG:4326", resolution=0.1)
    values = field(box)[0]
    lon, lat = box.affine * (np.arange(20) + 0.5, np.arange(20) + 0.5)
    layer = xr.DataArray(values, {"lat": lat * scale, "lon": lon * scale}, ("lat", "lon"), name="v")
    layer.to_netcdf(tmp_path / "n.nc")
    if scale == 1:
        np.testing.assert_array_equal(gm.build_cube(one(tmp_path, N), box).layer, values)
    else:  # these numbers are no degrees
        with pytest.raises(SourceError, match="has no CRS; add 'crs:'"):
            gm.build_cube(one(tmp_path, N), box)


def test_a_rotated_pole_is_read_from_its_parameters(tmp_path):
    pole = {
        "grid_mapping_name": "rotated_latitude_longitude",
        "grid_north_pole_latitude": 39.25,
        "grid_north_pole_longitude": -162.0,
    }
    rlat, rlon = np.linspace(-5, 5, 101), np.linspace(-15, -5, 101)
    values = np.broadcast_to(rlon, (101, 101)).astype("f4")
    ds = xr.Dataset(
        {"v": (("rlat", "rlon"), values, {"grid_mapping": "pole"}), "pole": ((), 0, pole)},
        {"rlat": rlat, "rlon": rlon},
    )
    ds.to_netcdf(tmp_path / "n.nc", engine="h5netcdf")
    layer = built(tmp_path)
    x, y = UTM.affine * (15.5, 10.5)
    pole_crs = pyproj.CRS.from_cf(pole)
    truth, _ = pyproj.Transformer.from_crs("EPSG:32631", pole_crs, always_xy=True).transform(x, y)
    assert -15 < truth < -5
    assert float(layer[10, 15]) == pytest.approx(truth, abs=0.01)


def test_a_grid_mapping_that_is_none_is_refused():
    ds = xr.Dataset(coords={"y": [1.0, 0], "x": [0.0, 1], "m": ((), 0, {"grid_mapping_name": "q"})})
    with pytest.raises(
        GridError, match=r"grid mapping 'm' does not define a CRS.*crs: in the catalog"
    ):
        crs_of(ds)


def test_a_curvilinear_grid_is_named_as_one(tmp_path):
    lat, lon = np.meshgrid(np.linspace(50, 51, 4), np.linspace(3, 4, 5), indexing="ij")
    ds = xr.Dataset({"v": (("y", "x"), lat)}, {"lat": (("y", "x"), lat), "lon": (("y", "x"), lon)})
    ds.to_netcdf(tmp_path / "n.nc", engine="h5netcdf")
    with pytest.raises(GridError, match=r"\['lat', 'lon'\].*regrid this curvilinear"):
        built(tmp_path)


@pytest.mark.parametrize("key", ["bounds", "coordinates", "units", "grid_mapping", "cell_measures"])
def test_attributes_that_are_no_text_do_not_break_a_file(tmp_path, key):
    values = field(FINE)[0]
    write(tmp_path, values)
    with h5netcdf.File(tmp_path / "n.nc", "a") as file:
        file.variables["v"].attrs[key] = np.array([501360, 5629040])
        file.attrs["bounds"] = np.array([501360, 5629040])
    np.testing.assert_allclose(built(tmp_path), wanted(values), rtol=1e-6)


def test_a_time_axis_that_has_no_calendar_keeps_its_numbers(tmp_path):
    ds = xr.Dataset(
        {"v": (("time", "y", "x"), field(FINE, bands=3))},
        {**xr_coords(FINE), "time": ("time", [0, 1, 2], {"units": "months since 2019-01-01"})},
    )
    ds.to_netcdf(tmp_path / "n.nc", engine="h5netcdf")
    series = {"kind": "series", "dims": ["time"], "window": 1}
    assert built(tmp_path, variable=series).time.values.tolist() == [0, 1, 2]


def test_a_single_cell_takes_its_size_from_the_attribute(tmp_path):
    ds = xr.Dataset({"v": (("y", "x"), [[1.0]])}, {"y": [5629360.0], "x": [501680.0]})
    ds = ds.odc.assign_crs("EPSG:32631")
    with pytest.raises(GridError, match="does not define its width"):
        geobox(ds)
    box = geobox(ds.assign_attrs(resolution=1000))
    assert box.boundingbox.bbox == (501180, 5628860, 502180, 5629860)


@pytest.mark.skipif(not EXTRA.is_dir(), reason="needs the real files in ../shared/data")
@pytest.mark.parametrize(
    "name, variable, dim",
    [
        (
            "AgERA5_DAILY_1000m_00002806639B424A_32631_2017-08-01_2018-11-30",
            "temperature_mean",
            "timestamp",
        ),
        ("S1_GRD-ASCENDING_20m_00002806639B424A_32631_2017-08-01_2018-11-30", "VV", "timestamp"),
        ("worldcereal_monthly_S2_S1_AgERA5_DEM_100x100x12", "S2-L2A-B08", "t"),
        ("worldcereal_monthly_S2_S1_AgERA5_DEM_100x100x12", "AGERA5-TMEAN", "t"),
    ],
)
def test_real_files_open_and_hold_the_numbers_that_h5py_reads(tmp_path, name, variable, dim):
    path = EXTRA / f"{name}.nc"
    with h5netcdf.File(path) as file:
        raw, attrs = file.variables[variable][...], dict(file.variables[variable].attrs)
        x, y = file.variables["x"][...], file.variables["y"][...]
    raw = raw.view("u2") if str(attrs.get("_Unsigned")) == "true" else raw
    truth = np.where(
        raw == attrs.get("_FillValue", -1), np.nan, raw * attrs.get("scale_factor", 1.0)
    )
    side = 1000.0 if len(x) == 1 else abs(x[1] - x[0])
    west, north = x.min() - side / 2, y.max() + side / 2
    grid = GeoBox((len(y), len(x)), Affine(side, 0, west, 0, -side, north), "EPSG:32631")
    series = {"kind": "series", "dims": [dim], "window": 1}
    catalog = one(tmp_path, {"kind": "netcdf", "path": str(path), "variable": variable}, series)
    cube = gm.build_cube(catalog, grid).layer
    assert cube[dim].dtype.kind == "M"
    np.testing.assert_allclose(cube, truth, rtol=1e-6)
    assert np.isfinite(truth).mean() > 0.5
