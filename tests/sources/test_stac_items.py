"""What items of STAC state: places, times, processing, offsets, bands; right, or refused by name."""

from __future__ import annotations

import datetime as dt
import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox

import geomiam as gm

pytest.importorskip("odc.stac", reason="needs pip install 'geomiam[stac]'")
pytest.importorskip("pystac_client", reason="needs pip install 'geomiam[stac]'")

from helpers_stac import GRID, SIZE, numbers, read, scene, write_tif
from pyproj import Transformer

from geomiam.errors import AssetsFailed, NoScenes, SourceError
from geomiam.sources.scenes.reflectance import baseline, rule
from geomiam.sources.stac import extent
from geomiam.sources.stac.times import period

FLAT = {"red": np.full((SIZE, SIZE), 2000, "uint16")}


def changed(item, **fields):
    """Return a copy of an item with other fields, ``properties__x`` for those of its properties."""
    copy = json.loads(json.dumps(item))
    for name, value in fields.items():
        target = copy["properties"] if name.startswith("properties__") else copy
        target[name.removeprefix("properties__")] = value
    return copy


# Times -------------------------------------------------------------------------------------------

EAST = dt.timezone(dt.timedelta(hours=10))
JUNE_1 = ("2020-06-01T00:00:00Z", "2020-06-01T23:59:59Z")
AT_NOON = ("2020-06-01T00:00:00Z", "2020-06-01T12:00:00Z")
IN_SYDNEY = ("2020-05-31T14:00:00Z", "2020-06-01T13:59:59Z")


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        (dt.date(2020, 6, 1), JUNE_1),
        (dt.datetime(2020, 6, 1), JUNE_1),
        (pd.Timestamp("2020-06-01"), JUNE_1),
        (pd.Period("2020-06-01", "D"), JUNE_1),
        (np.datetime64("2020-06-01"), JUNE_1),
        (np.datetime64("2020-06-01", "ns"), JUNE_1),
        (slice("2020-06-01", "2020-06-01"), JUNE_1),
        (slice(dt.date(2020, 6, 1), dt.date(2020, 6, 1)), JUNE_1),
        (xr.DataArray(pd.date_range("2020-06-01", periods=1), dims="time").time, JUNE_1),
        (pd.DatetimeIndex(["2020-06-01", "2020-06-01"]), JUNE_1),
        (iter(["2020-06-01", "2020-06-01"]), JUNE_1),
        ((dt.date(2020, 6, 1), dt.datetime(2020, 6, 1, 12)), AT_NOON),
        ((np.datetime64("2020-06-01"), np.datetime64("2020-06-01T12:00:00")), AT_NOON),
        (dt.datetime(2020, 6, 1, tzinfo=EAST), IN_SYDNEY),
        (pd.Timestamp("2020-06-01", tz="Australia/Brisbane"), IN_SYDNEY),
        (("2020-06-01T00:00:00+10:00", "2020-06-01T23:59:59+10:00"), IN_SYDNEY),
        ("2020-06-01T00:00:00Z/2020-06-01T12:00:00Z", AT_NOON),
        (2020, ("2020-01-01T00:00:00Z", "2020-12-31T23:59:59Z")),
        (np.datetime64("2020-02"), ("2020-02-01T00:00:00Z", "2020-02-29T23:59:59Z")),
        (("../2015-07"), ("2015-06-23T00:00:00Z", "2015-07-31T23:59:59Z")),
        (slice(None, "2015-07"), ("2015-06-23T00:00:00Z", "2015-07-31T23:59:59Z")),
    ],
)
def test_periods_that_are_no_text_have_their_last_day_and_their_time_zone(time, expected):
    assert period(time) == expected


@pytest.mark.parametrize(
    "time",
    [
        *(None, pd.NaT, "NaT", 3.5, True, 20200601, [], ("..", None), object()),
        *(slice("2020", "2021", 2), pd.date_range("2020", periods=3)),
        (dt.date(2020, 6, 2), dt.date(2020, 6, 1)),
    ],
)
def test_periods_that_are_none_are_refused(time):
    with pytest.raises(SourceError, match="time="):
        period(time)


def test_an_open_end_is_now():
    assert period(("2020-06", None))[1][:4] >= "2024"


# Places ------------------------------------------------------------------------------------------


def test_items_with_other_forms_of_bbox_are_found(tmp_path):
    item = scene(tmp_path)
    west, south, east, north = item["bbox"]
    expected = read([item]).red.compute()
    for bbox in ([west, south, 0, east, north, 9], None, [-180, -90, 180, 90], [170, -80, 10, 80]):
        np.testing.assert_array_equal(read([changed(item, bbox=bbox)]).red, expected)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("bbox", []), ("bbox", ["a"] * 4), ("bbox", [3, 91, 4, 92])),
        *(("id", None), ("id", ""), ("id", ["x"]), ("collection", [])),
        *(("assets", None), ("properties", 3)),
        *(("properties__datetime", None), ("properties__datetime", "soon")),
    ],
)
def test_an_item_that_cannot_be_used_is_named_and_the_rest_is_read(tmp_path, field, value):
    good, bad = scene(tmp_path, "good"), scene(tmp_path, "bad", date="2020-06-02T10:50:00Z")
    name = "an item without an id" if field == "id" and not value else ""
    with pytest.warns(AssetsFailed, match=f"{name}.*not a usable STAC item"):
        ds = read([good, changed(bad, **{field: value})]).compute()
    assert list(ds.item_id.values) == ["good"] and np.isfinite(ds.red).all()


@pytest.mark.parametrize("cover", [None, "5", "unknown", [], True])
def test_cloud_cover_that_is_no_number_keeps_the_scene(tmp_path, cover):
    item = changed(scene(tmp_path), **{"properties__eo:cloud_cover": cover})
    ds = read([item], max_cloud=50)
    assert ds.sizes["time"] == 1
    assert ds.cloud_cover.item() == 5 if cover == "5" else np.isnan(ds.cloud_cover.item())


@pytest.mark.parametrize(
    "transform",
    [
        [float("nan")] * 6,
        [0, 0, 5e5, 0, 0, 5.6e6],
        [1e-6, 0, 5e5, 0, -1e-6, 5600040.0],
        [500000, 10, 0, 5600040, 0, -10],
        "x",
        [1],
    ],
)
def test_a_transform_that_cannot_be_is_read_from_the_file(tmp_path, transform):
    item = scene(tmp_path)
    expected = read([item]).red.compute()
    for asset in item["assets"].values():
        asset["proj:transform"] = transform
    np.testing.assert_array_equal(read([item]).red.compute(), expected)


def test_metadata_that_disagree_with_the_file_are_named(tmp_path):
    item = scene(tmp_path)
    for change, message in [
        ({"proj:transform": [10, 0, 500100, 0, -10, 5600040]}, "the item's metadata state"),
        ({"proj:shape": [10, 10]}, "rows and columns"),
    ]:
        bad = json.loads(json.dumps(item))
        bad["assets"]["red"].update(change)
        with pytest.warns(AssetsFailed, match=f"s / red.*{message}"):
            ds = read([bad]).compute()
        assert np.isnan(ds.red).all() and np.isfinite(ds.nir).any()


def test_a_grid_far_from_the_bbox_is_named(tmp_path):
    item = scene(tmp_path)
    for asset in item["assets"].values():
        asset["proj:transform"][2] += 100_000
    with pytest.raises(NoScenes, match=r"its grid .* its bbox"):
        read([item])


def test_a_file_that_would_fill_the_memory_is_named(tmp_path):
    item = scene(tmp_path)
    origin = (500000.0, 5600040.0)
    write_tif(tmp_path / "s" / "red.tif", numbers(1), res=0.5, origin=origin, crs="EPSG:32631")
    for asset in item["assets"].values():  # one grid is stated for all, and is wrong for this one
        place = {k: asset.pop(k) for k in ("proj:transform", "proj:shape")}
        item["properties"] |= place if asset["gsd"] == 10 else {}
    with pytest.warns(AssetsFailed, match=r"s / red.*far finer"):
        assert np.isnan(read([item]).red.compute()).all()


# Across the antimeridian --------------------------------------------------------------------------


def fiji(folder, name, zone, shift, seconds):
    """A scene near 180 degrees whose numbers are its longitudes."""
    crs = f"EPSG:327{zone:02d}"
    change = Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    x, y = (round(v / 10) * 10 for v in change.transform(180.0, -17.0))
    origin = (x + shift, y + 200)
    cols, rows = np.meshgrid(np.arange(SIZE) + 0.5, np.arange(SIZE) + 0.5)
    lon, lat = change.transform(origin[0] + 10 * cols, origin[1] - 10 * rows, direction="INVERSE")
    values = ((lon % 360 - 179) * 10_000).round().astype("uint16")
    date = f"2020-06-01T22:15:{seconds:02d}Z"
    item = scene(folder, name, date=date, origin=origin, crs=crs, bands={"red": values})
    lon = lon % 360
    east = lon.max() if lon.max() <= 180 else lon.max() - 360
    west = lon.min() if lon.min() <= 180 else lon.min() - 360
    return changed(item, bbox=[west, lat.min(), east, lat.max()]), origin


def test_one_pass_over_the_antimeridian_is_one_day_in_its_place(tmp_path):
    left, origin = fiji(tmp_path, "left", 60, -400, 0)
    right, _ = fiji(tmp_path, "right", 1, -10, 4)
    grid = GeoBox((30, 60), Affine(10, 0, origin[0] + 50, 0, -10, origin[1] - 50), "EPSG:32760")
    ds = read([left, right], grid, dilate=0).compute()
    assert ds.sizes["time"] == 1
    change = Transformer.from_crs("EPSG:32760", "EPSG:4326", always_xy=True)
    x, y = np.meshgrid(ds.x, ds.y)
    expected = change.transform(x, y)[0] % 360 - 179
    assert np.isfinite(ds.red).all()
    np.testing.assert_allclose(ds.red[0], expected, atol=1.1e-4)


@pytest.mark.parametrize(
    ("grid", "west", "east"),
    [
        (GeoBox((300, 400), Affine(1000, 0, 1.8e6, 0, -1000, 4.1e6), "EPSG:3460"), 176.85, -179.35),
        (GeoBox((9, 30), Affine(0.1, 0, 178.5, 0, -0.1, -17), "EPSG:4326"), 178.5, -178.5),
        (GeoBox((18, 36), Affine(10, 0, 0, 0, -10, 90), "EPSG:4326"), -180, 180),
        (GeoBox((40, 40), Affine(50000, 0, -1e6, 0, -50000, 1e6), "EPSG:3995"), -180, 180),
    ],
)
def test_a_search_is_of_the_narrow_side_of_the_earth(grid, west, east):
    box = extent.extent_of_grid(grid)
    assert box[0] == pytest.approx(west, abs=0.02) and box[2] == pytest.approx(east, abs=0.02)
    assert (box[3] == 90) == (grid.crs.epsg == 3995 or grid.shape.x == 36)
    parts = extent.halves(box)
    assert len(parts) == (1 if west < east else 2)
    assert all(p[0] <= p[2] for p in parts)


# Processing ---------------------------------------------------------------------------------------

SAME = {"s2:processing_baseline": "02.14"}


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ({"s2:generation_time": "2020-06-01T13:00:00Z", "s2:sequence": "1"},
         {"s2:generation_time": "2020-06-09T13:00:00Z", "s2:sequence": "0"}),
        ({"s2:sequence": "9"}, {"s2:sequence": "10"}),
        ({"created": "2020-06-02T00:00:00Z"}, {"created": "2020-06-10T00:00:00Z"}),
        ({}, {"created": "2020-06-10T00:00:00Z"}),
        ({}, {}),
    ],
)  # fmt: skip
def test_later_processing_comes_first_at_equal_baselines(tmp_path, older, newer):
    later = {"red": FLAT["red"] + 1000}
    a = scene(tmp_path, "S2A_31UFU_20200601_0_L2A", bands=FLAT, properties={**SAME, **older})
    b = scene(tmp_path, "S2A_31UFU_20200601_1_L2A", bands=later, properties={**SAME, **newer})
    for items in ([a, b], [b, a]):
        np.testing.assert_allclose(read(items).red.compute(), 0.3, atol=1e-6)


def test_two_collections_may_use_one_id(tmp_path):
    a = changed(scene(tmp_path, "x", bands=FLAT), collection="other")
    new = {"s2:processing_baseline": "05.00"}
    b = scene(tmp_path / "b", "x", bands=FLAT, offset=-0.1, properties=new)
    ds = read([a, b]).compute()
    assert ds.item_id.values.tolist() == ["x x"] and np.isnan(ds.offset.item())
    np.testing.assert_allclose(ds.red, 0.1, atol=1e-6)


def stated(scale, offset):
    return {"raster:bands": [{"scale": scale, "offset": offset}]}


NEW = {"s2:processing_baseline": "05.09"}
OLD = {"s2:processing_baseline": "02.08"}
URI = "S2B_MSIL2A_20190629T212529_N0509_R043_T06VVN_2020.SAFE"
APPLIED = "earthsearch:boa_offset_applied"


@pytest.mark.parametrize(
    ("properties", "asset", "doubt"),
    [
        (NEW, stated(1e-4, -1000), "offset -1000"),
        (NEW, stated(1e-4, 0.1), "offset 0.1"),
        (NEW, stated(1e-4, -0.2), "contradicts"),
        (OLD, stated(1, 0), "scale 1"),
        (OLD, stated(-1e-4, 0), "scale -0.0001"),
        (OLD, stated("x", 0), "cannot be read"),
        (OLD, stated(float("nan"), 0), "cannot be read"),
        (OLD, {"raster:bands": "x"}, "cannot be read"),
        (OLD, {"raster:bands": 5}, "cannot be read"),
        ({**OLD, "s2:product_uri": URI}, {}, "product's name has 05.09"),
        ({**OLD, "s2:product_uri": URI}, stated(1e-4, 0), "product's name has 05.09"),
    ],
)
def test_what_cannot_be_is_doubted_and_can_be_settled(properties, asset, doubt):
    assert doubt in rule(properties, asset).doubt
    fixed_offset = rule(properties, asset, offset=-0.1)
    assert (fixed_offset.scale, fixed_offset.offset, fixed_offset.doubt) == (1e-4, -0.1, "")


@pytest.mark.parametrize(
    ("properties", "asset", "offset"),
    [
        ({**NEW, APPLIED: "true"}, stated(1e-4, -0.1), 0),
        ({**NEW, APPLIED: None}, stated(1e-4, -0.1), -0.1),
        (NEW, stated("0.0001", "-0.1"), -0.1),
        ({"s2:processing_baseline": "N0509"}, {}, -0.1),
        ({"s2:processing_baseline": 5.09}, {}, -0.1),
        ({"processing:version": "2.3", "s2:product_uri": URI}, {}, -0.1),
        ({**NEW, "s2:product_uri": URI.replace("N0509", "N0510")}, {}, -0.1),
    ],
)
def test_other_spellings_are_understood(properties, asset, offset):
    assert rule(properties, asset).offset == offset and not rule(properties, asset).doubt


def test_a_baseline_in_the_id_is_the_last_resort():
    name = "S2B_MSIL2A_20230101T102339_N0510_R065_T32UPC_20240806T223544"
    assert baseline({}, name) == 5.1 and baseline(OLD, name) == 2.08


# Bands, masks, levels -----------------------------------------------------------------------------


@pytest.mark.parametrize(("band", "near"), [("redd", "red"), ("B8", "B08"), ("NIRR", "nir")])
def test_a_band_that_no_item_has_is_an_error_with_the_nearest_name(tmp_path, band, near):
    items = [scene(tmp_path, n, date=f"2020-06-0{n}T10:50:00Z") for n in "12"]
    with pytest.raises(SourceError, match=f"band '{band}': none of 2 items.*did you mean '{near}'"):
        read(items, bands=["nir", band])
    with pytest.raises(SourceError, match="did you mean"):
        gm.plan_sentinel2(GRID, "2020-06", bands=band, source=items)


def test_items_without_a_scene_classification_need_another_mask(tmp_path):
    item = scene(tmp_path)
    del item["assets"]["scl"]
    with pytest.raises(SourceError, match=r"none of 1 items has a scene classification.*mask=None"):
        read([item])
    assert np.isfinite(read([item], mask=None).red.compute()).all()


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (lambda ds: ds.blue > 0, "raised AttributeError"),
        (lambda ds: ds.red, "float32.*booleans"),
        (lambda ds: (ds.red > 0)[:5], "returned"),
    ],
)
def test_masks_that_are_none_are_errors(tmp_path, mask, message):
    with pytest.raises(SourceError, match=f"mask= .*{message}"):
        read([scene(tmp_path)], mask=mask)


def test_a_mask_may_be_an_array_of_numpy(tmp_path):
    item = scene(tmp_path)
    by_array = read([item], mask=lambda ds: ds.red.values > 0.3, dilate=0).compute()
    by_name = read([item], mask=lambda ds: ds.red > 0.3, dilate=0).compute()
    np.testing.assert_array_equal(by_array.red, by_name.red)


def test_level_1c_is_noted(tmp_path):
    item = changed(scene(tmp_path), **{"properties__s2:product_type": "S2MSI1C"})
    assert "Level-1C" in read([item]).attrs["notes"][0]
