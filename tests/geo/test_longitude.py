"""Longitudes repeat: the value of a cell is that of its meridian, on any grid."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from pyproj import Transformer

import geomiam as gm
from geomiam.data.grid.source_windows import reach
from geomiam.errors import MissingModality
from geomiam.geo.longitude import full_turn, lonlat_bounds


def world(west, cols, res=1.0):
    """A map of sine and cosine of its longitudes."""
    rows = int(180 / res)
    box = GeoBox((rows, cols), Affine(res, 0, west, 0, -res, 90), "EPSG:4326")
    angle = np.radians(west + res * (np.arange(cols) + 0.5))
    parts = {"cos": np.cos(angle), "sin": np.sin(angle)}
    values = {k: (("y", "x"), np.broadcast_to(v, box.shape).astype("f4")) for k, v in parts.items()}
    return xr.Dataset(values, xr_coords(box, dims=("y", "x")))


def centres(box):
    cols, rows = np.meshgrid(*(np.arange(n) + 0.5 for n in box.shape.xy))
    x, y = box.affine * (cols, rows)
    return Transformer.from_crs(box.crs.proj, "EPSG:4326", always_xy=True).transform(x, y)


def degrees_off(out, box):
    """Degrees between each cell's value and its longitude; NaN stays NaN."""
    lon, lat = centres(box)
    value_angle = np.degrees(np.arctan2(out.sin.values, out.cos.values))
    off = np.abs((value_angle - lon + 180) % 360 - 180)
    return np.where(np.abs(lat) < 85, off, 0)  # a cell at a pole has no longitude


X, Y = Transformer.from_crs("EPSG:4326", "EPSG:32760", always_xy=True).transform(180, -17)
GRIDS = {
    "0 to 360": GeoBox((18, 36), Affine(10, 0, 0, 0, -10, 90), "EPSG:4326"),
    "-180 to 180": GeoBox((18, 36), Affine(10, 0, -180, 0, -10, 90), "EPSG:4326"),
    "across 180": GeoBox((20, 30), Affine(1, 0, 165.5, 0, -1, 10), "EPSG:4326"),
    "west of -180": GeoBox((20, 30), Affine(1, 0, -195, 0, -1, 10), "EPSG:4326"),
    "another datum": GeoBox((20, 30), Affine(1, 0, 165, 0, -1, 10), "EPSG:4269"),
    "another datum, world": GeoBox((17, 36), Affine(10, 0, 0, 0, -10, 85), "EPSG:4269"),
    "UTM 60": GeoBox((12, 12), Affine(4e4, 0, X - 2.6e5, 0, -4e4, Y + 2e5), "EPSG:32760"),
    "polar": GeoBox((30, 30), Affine(2e5, 0, -3e6, 0, -2e5, 3e6), "EPSG:3995"),
    "Pacific": GeoBox((12, 18), Affine(1e6, 0, -9e6, 0, -1e6, 6e6), "+proj=eqearth +lon_0=170"),
}
SOURCES = {"-180 to 180": (-180, 360), "0 to 360": (0, 360), "361 columns": (-0.5, 361)}


@pytest.mark.parametrize("method", ["nearest", "bilinear", "average"])
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("source", SOURCES)
def test_every_cell_has_the_value_of_its_own_meridian(source, grid, method):
    box = GRIDS[grid]
    out = gm.align(dict(world(*SOURCES[source]).data_vars), like=box, resampling=method)
    off = degrees_off(out, box)
    assert not np.isnan(off).any()
    assert off.max() < (4 if grid == "polar" else 1.01)  # a belt averaged is off by up to 180


def test_chunks_do_not_matter_across_the_seam():
    ds, box = world(0, 360), GRIDS["UTM 60"]
    plain = gm.align(dict(ds.data_vars), like=box, resampling="average")
    for chunks in ({"x": 50, "y": 40}, {"x": 360, "y": 7}):
        lazy = gm.align(dict(ds.chunk(chunks).data_vars), like=box, resampling="average")
        xr.testing.assert_identical(lazy.compute(), plain)


@pytest.mark.parametrize("west, cols", [(165, 30), (-195, 30), (525, 30)])
def test_a_part_of_the_world_is_found_in_any_turn(west, cols):
    ds = world(west, cols)
    for name in ("0 to 360", "-180 to 180"):
        box = GeoBox((180, 360), Affine(1, 0, GRIDS[name].affine.c, 0, -1, 90), "EPSG:4326")
        out = gm.align(dict(ds.data_vars), like=box)
        is_finite = np.isfinite(out.sin.values[90])
        assert is_finite.sum() == 30
        lon = centres(box)[0][0][is_finite] % 360
        assert lon.min() == 165.5 and lon.max() == 194.5
        assert np.nanmax(degrees_off(out, box)) < 0.01


def test_columns_that_do_not_close_the_circle_keep_their_gap():
    ds = world(-180, 250, res=0.7)  # to -5 degrees: 0.7 is no part of 360
    box = GeoBox((10, 72), Affine(5, 0, 0, 0, -5, 25), "EPSG:4326")
    out = gm.align(dict(ds.data_vars), like=box)
    is_seen = np.isfinite(out.sin.values[0])
    lon = np.arange(2.5, 360, 5)
    np.testing.assert_array_equal(is_seen, (lon > 180) & (lon < 355))
    assert np.nanmax(degrees_off(out, box)) < 0.4


@pytest.mark.parametrize("crs, edge", [("ESRI:54009", 18040095.7), ("EPSG:3857", 20037508.34)])
def test_maps_of_the_world_in_metres_are_not_averaged_over_the_belt(crs, edge):
    res = 2 * edge / 400
    src = GeoBox((200, 400), Affine(res, 0, -edge, 0, -res, res * 100), crs)
    angle = np.radians(centres(src)[0])
    angle[~np.isfinite(angle)] = np.nan
    values = {"cos": np.cos(angle), "sin": np.sin(angle)}
    ds = xr.Dataset(
        {k: (("y", "x"), v.astype("f4")) for k, v in values.items()},
        xr_coords(src, dims=("y", "x")),
    )
    box = GRIDS["UTM 60"]
    off = degrees_off(gm.align(dict(ds.data_vars), like=box, resampling="average"), box)
    assert np.nanmax(off) < 1.5
    assert np.isnan(off).mean() < 0.1  # a pixel at the edge of the map has its middle outside


def test_a_source_that_lies_elsewhere_is_named_with_both_extents():
    ds = world(165, 30)
    box = GeoBox((5, 5), Affine(1, 0, 0, 0, -1, 10), "EPSG:4326")
    with pytest.warns(
        MissingModality, match=r"'sin'.*covers x 165 to 195.*grid covers x 0 to 5.*CRS"
    ):
        out = gm.align({"sin": ds.sin}, like=box)
    assert np.isnan(out.sin).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error", MissingModality)
        gm.align({"sin": ds.sin}, like=GRIDS["across 180"])


@pytest.mark.parametrize(
    "grid, bounds",
    [
        ("0 to 360", [(-180, -90, 180, 90)]),
        ("across 180", [(165.5, -10, 180, 10), (-180, -10, -164.5, 10)]),
        ("west of -180", [(165, -10, 180, 10), (-180, -10, -165, 10)]),
    ],
)
def test_bounds_in_degrees_are_two_across_the_antimeridian(grid, bounds):
    np.testing.assert_allclose(lonlat_bounds(GRIDS[grid]), bounds)


def test_bounds_of_a_projected_grid_are_those_of_its_points():
    (west, _, east, north), (west2, _, east2, _) = lonlat_bounds(GRIDS["UTM 60"])
    lon, lat = centres(GRIDS["UTM 60"])
    assert west < lon[lon > 0].min() < 180 == east and west2 == -180 < lon[lon < 0].max() < east2
    assert north > lat.max() and (east2 - west2) + (east - west) < 8
    (polar,) = lonlat_bounds(GRIDS["polar"])
    assert polar[0] == -180 and polar[2] == 180 and polar[3] == pytest.approx(90, abs=1)


def test_only_what_is_needed_is_read():
    src = GeoBox((180, 360), Affine(1, 0, -180, 0, -1, 90), "EPSG:4326")
    assert sum(p.pixels for p in reach(src, GRIDS["UTM 60"])) < 2000  # of 64,800


def test_only_a_geographic_grid_has_a_full_turn():
    assert full_turn(GRIDS["polar"].crs) is None
    assert full_turn(GRIDS["0 to 360"].crs) == pytest.approx(360)
