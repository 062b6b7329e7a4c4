"""Sentinel-2 by STAC: offsets by item, clouds before resampling, gaps as NaN, failures by name."""

from __future__ import annotations

import json
import warnings

import dask
import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.warp import Resampling, reproject
from scipy.ndimage import binary_dilation

import geomiam as gm
from geomiam.data.grid.grid import same_grid

pytest.importorskip("odc.stac", reason="needs pip install 'geomiam[stac]'")
pytest.importorskip("pystac_client", reason="needs pip install 'geomiam[stac]'")

from conftest import SHARED, needs_shared
from helpers_stac import (
    GRID,
    JUNE,
    ORIGIN,
    SIZE,
    five,
    numbers,
    read,
    scene,
    sky,
)

from geomiam.errors import AssetsFailed, SourceError
from geomiam.sources.scenes import mosaic
from geomiam.sources.scenes.clouds import CloudMask, cloud_mask, grow, hidden_by_asset
from geomiam.sources.scenes.reflectance import baseline, rule, to_reflectance
from geomiam.sources.scenes.sentinel2 import SCL
from geomiam.sources.stac.stac_source import StacSource
from geomiam.sources.stac.times import period

STAC, FIXTURES = SHARED / "s2" / "stac", SHARED / "s2" / "fixtures"
SITE_B = GeoBox((64, 64), Affine(10, 0, 574680, 0, -10, 5622440), "EPSG:32631")
NAN = float("nan")


def computes_nothing(*args, **kwargs):
    raise AssertionError("something was computed")


# Offsets -----------------------------------------------------------------------------------------


@needs_shared
def test_one_scene_in_two_catalogs_with_the_same_metadata_needs_two_offsets():
    names = {"l2a": "S2B_20EPT_20250731_0_L2A", "c1-l2a": "S2B_T20EPT_20250731T131905_L2A"}
    result = {}
    for collection, name in names.items():
        path = FIXTURES / f"earth-search_sentinel-2-{collection}_{name}.json"
        item = json.loads(path.read_text("utf-8"))
        result[collection] = rule(item["properties"], item["assets"]["red"])
        assert item["assets"]["red"]["raster:bands"][0]["offset"] == -0.1
    assert (result["l2a"].offset, result["c1-l2a"].offset) == (0, -0.1)
    dn = np.float32(2345)  # as in c1; in l2a the 1000 are off
    assert to_reflectance(dn, 1e-4, -0.1) == pytest.approx(to_reflectance(dn - 1000, 1e-4, 0))


@needs_shared
def test_planetary_computer_before_baseline_4_has_no_offset():
    item = json.loads((FIXTURES / "pc_S2B_T06VVN_20190629_baseline02.json").read_text("utf-8"))
    assert rule(item["properties"], item["assets"]["B04"]).offset == 0


PC = {"s2:processing_baseline": "05.09"}
FLAG = "earthsearch:boa_offset_applied"


def raster(offset):
    return {"raster:bands": [{"scale": 1e-4, "offset": offset}]}


@pytest.mark.parametrize(
    ("properties", "asset", "offset"),
    [
        (PC, {}, -0.1),
        ({"s2:product_uri": "S2B_MSIL2A_20190629T212529_N0212_R043_T06VVN_2020.SAFE"}, {}, 0),
        ({"s2:product_uri": "S2B_MSIL2A_20190629T212529_N0500_R043_T06VVN_2020.SAFE"}, {}, -0.1),
        ({FLAG: True, **PC}, raster(-0.1), 0),
        ({FLAG: False, "s2:processing_baseline": "02.08"}, raster(0), 0),
        (PC, raster(-0.1), -0.1),
        (PC, {"raster:scale": 1e-4, "raster:offset": -0.1}, -0.1),
        (PC, {"bands": [{"name": "B04", "raster:offset": -0.1}]}, -0.1),
        ({}, raster(0), 0),
    ],
)
def test_offsets_are_decided_by_what_the_item_states(properties, asset, offset):
    assert rule(properties, asset).offset == offset
    assert not rule(properties, asset).doubt


@pytest.mark.parametrize(
    ("properties", "asset"),
    [
        ({FLAG: False, **PC}, raster(-0.1)),
        ({FLAG: False, "s2:processing_baseline": "02.08"}, raster(-0.1)),
        (PC, raster(0)),
        ({"s2:processing_baseline": "03.01"}, raster(-0.1)),
        ({}, {}),
    ],
)
def test_contradictions_are_doubted_until_the_caller_settles_them(properties, asset):
    assert rule(properties, asset).doubt
    fixed_offset = rule(properties, asset, offset=-0.1)
    assert fixed_offset.offset == -0.1 and not fixed_offset.doubt


def test_an_item_that_contradicts_itself_is_not_read_but_named(tmp_path):
    doubtful = scene(tmp_path, "doubt", offset=-0.1, properties={FLAG: False, **PC})
    good = scene(tmp_path, "good", date="2020-06-11T10:50:00Z")
    with pytest.warns(
        AssetsFailed, match="doubt / red.*boa_offset_applied false.*offset=0 or -0.1"
    ):
        ds = read([doubtful, good]).compute()
    assert np.isnan(ds.red[0]).all() and np.isfinite(ds.red[1]).all()
    assert len(ds.attrs["failed_assets"]) == 2  # two bands
    assert list(ds.failed.sel(asset="red").values) == [1, 0]


def test_a_collection_of_both_kinds_is_one_series(tmp_path):
    dn = numbers(3)
    old = scene(tmp_path, "old", properties={"s2:processing_baseline": "03.00"}, bands={"red": dn})
    new = scene(
        tmp_path, "new", date="2020-06-11T10:00:00Z", offset=-0.1,
        properties=PC, bands={"red": dn + 1000},
    )  # fmt: skip
    ds = read([old, new], mask=None).compute()
    np.testing.assert_allclose(ds.red[0], ds.red[1], atol=1e-6)
    np.testing.assert_allclose(ds.red[0], dn * 1e-4, atol=1e-6)
    np.testing.assert_allclose(ds.offset, [0, -0.1])
    assert ds.baseline.values.tolist() == [3, 5.09]


def test_nodata_never_becomes_a_negative_reflectance(tmp_path):
    dn = numbers(3)
    dn[:10] = 0
    ds = read([scene(tmp_path, offset=-0.1, bands={"red": dn})], mask=None).compute()
    assert np.isnan(ds.red[0, :10]).all()
    assert float(ds.red.min()) >= 0.0199
    assert "nodata" not in ds.red.attrs and "_FillValue" not in ds.red.attrs


def test_nodata_is_known_even_where_no_file_states_it():
    out = to_reflectance(np.array([0, 1, NAN, 3000], "float32"), 1e-4, -0.1)
    np.testing.assert_allclose(out, [NAN, -0.0999, NAN, 0.2], atol=1e-6)
    assert out.dtype == np.float32


def test_baselines_are_found_where_catalogs_put_them():
    assert baseline({"s2:tile_id": "S2B_OPER_MSI_L2A_TL_2BPS_2025_A043879_T20EPT_N05.11"}) == 5.11
    assert baseline({"sentinel:processing_baseline": "02.12"}) == 2.12
    assert baseline({"s2:processing_baseline": "unknown"}) is None


# CloudMask ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("radius", [0, 1, 3])
def test_masks_grow_as_scipy_grows_them_and_no_data_does_not(radius):
    scl = np.random.default_rng(0).choice([0, 4, 4, 4, 4, 9], (30, 31)).astype("float32")
    box = np.ones((2 * radius + 1,) * 2)
    expected = binary_dilation(scl == 9, box) | (scl == 0)
    np.testing.assert_array_equal(hidden_by_asset(scl, CloudMask(SCL, (0, 9)), radius), expected)
    np.testing.assert_array_equal(grow(scl == 9, radius), binary_dilation(scl == 9, box))


def test_the_default_mask_hides_cloud_snow_and_a_margin_and_keeps_class_7(tmp_path):
    item = scene(tmp_path, bands={"scl": sky((5, 5, 9), (12, 12, 11), (2, 15, 7))})
    ds = read([item]).compute()
    expected = np.zeros((20, 20), bool)
    expected[4:7, 4:7] = expected[11:14, 11:14] = True
    np.testing.assert_array_equal(np.isnan(ds.red[0]), expected.repeat(2, 0).repeat(2, 1))
    np.testing.assert_array_equal(ds.clear_fraction[0] == 0, np.isnan(ds.red[0]))
    remaining = read([item], snow="keep", dilate=0).compute()
    assert int(np.isnan(remaining.red).sum()) == 4


def test_masks_of_classes_and_functions_are_the_same_mask(tmp_path):
    item = scene(tmp_path, bands={"scl": sky((5, 5, 9), (9, 3, 3))})
    by_class = read([item], mask=[3, 9]).compute()
    by_function = read([item], mask=lambda ds: ds.scl.isin([3, 9])).compute()
    xr.testing.assert_equal(by_class.drop_attrs(), by_function.drop_attrs())
    assert np.isnan(by_class.red).any()
    bright = read([item], mask=lambda ds: ds.red > 0.3, dilate=0).compute()
    plain = read([item], mask=None).compute()
    np.testing.assert_array_equal(np.isnan(bright.red), plain.red > 0.3)


def test_settings_that_are_none_are_errors_that_say_what_is():
    for settings_result in (
        {"mask": "fmask"},
        {"mask": [12]},
        {"snow": "maybe"},
        {"dilate": "a bit"},
    ):
        with pytest.raises(SourceError):
            cloud_mask(
                **{"mask": "scl", "rule": SCL, "snow": "mask", "dilate": 0, **settings_result}
            )


# Grids -------------------------------------------------------------------------------------------


def patchy(tmp_path, seed=0) -> tuple[dict, np.ndarray]:
    """A scene with a third of its pixels under clouds, and its reflectance with NaN there."""
    rng = np.random.default_rng(seed)
    scl = np.where(rng.random((20, 20)) < 0.33, 9, 4).astype("uint8")
    dn = numbers(seed + 5)
    item = scene(tmp_path, f"patchy{seed}", bands={"scl": scl, "red": dn})
    hidden = (scl == 9).repeat(2, 0).repeat(2, 1)
    return item, np.where(hidden, np.nan, dn * 1e-4)


def test_a_coarse_cell_is_the_mean_of_its_clear_pixels(tmp_path):
    item, fine = patchy(tmp_path)
    coarse = GeoBox((5, 5), Affine(80, 0, ORIGIN[0], 0, -80, ORIGIN[1]), "EPSG:32631")
    ds = read([item], coarse, dilate=0).compute()
    blocks = fine.reshape(5, 8, 5, 8).swapaxes(1, 2)
    np.testing.assert_allclose(ds.red[0], np.nanmean(blocks, (2, 3)), atol=1e-6)
    np.testing.assert_allclose(ds.clear_fraction[0], np.isfinite(blocks).mean((2, 3)), atol=1e-6)
    assert np.isfinite(ds.red).all()  # masked afterwards, cells would be lost
    assert same_grid(ds.odc.geobox, coarse)


@pytest.mark.parametrize(
    "grid",
    [
        GeoBox((30, 31), Affine(9.9948, 0, ORIGIN[0] + 41, 0, -9.9974, ORIGIN[1] - 33), "EPSG:32631"),
        GeoBox((9, 8), Affine(35, 0, ORIGIN[0] + 15, 0, -35, ORIGIN[1] - 15), "EPSG:32631"),
    ],
)  # fmt: skip
def test_a_grid_off_the_lattice_is_the_mean_of_pixels_by_area(tmp_path, grid):
    item, fine = patchy(tmp_path)
    ds = read([item], grid, dilate=0).compute()
    rows, cols = (shares(grid, axis) for axis in (0, 1))
    values_result = np.isfinite(fine).astype(float)
    area = rows @ values_result @ cols.T
    with np.errstate(invalid="ignore"):
        expected = rows @ np.nan_to_num(fine) @ cols.T / area
    expected[area < 1e-6] = np.nan
    np.testing.assert_array_equal(np.isnan(ds.red[0]), np.isnan(expected))
    np.testing.assert_allclose(ds.red[0], expected, atol=2e-6)
    np.testing.assert_allclose(ds.clear_fraction[0], area, atol=1e-5)


def shares(grid: GeoBox, axis: int) -> np.ndarray:
    """The share of each cell of a grid that each pixel of the scene covers, along one axis."""
    step, start = (grid.affine.e, grid.affine.f) if axis == 0 else (grid.affine.a, grid.affine.c)
    edges = (start + step * np.arange(grid.shape[axis] + 1) - ORIGIN[1 - axis]) / np.copysign(
        10, step
    )
    lo, hi = edges[:-1, None], edges[1:, None]
    pixels = np.arange(SIZE)
    return np.clip(np.minimum(hi, pixels + 1) - np.maximum(lo, pixels), 0, None) / (hi - lo)


@pytest.mark.parametrize(
    ("method", "res"),
    [("average", 30), ("average", 11), ("nearest", 30), ("bilinear", 30), ("bilinear", 11)],
)
def test_a_grid_of_another_crs_is_what_rasterio_makes_of_the_masked_scene(tmp_path, method, res):
    item, fine = patchy(tmp_path)
    grid = GeoBox.from_geopolygon(GRID[6:34, 6:34].extent.to_crs("EPSG:3035"), resolution=res)
    ds = read([item], grid, dilate=0, resample=method).compute()
    expected = np.full(grid.shape, np.nan, "float32")
    kernel = (
        {} if method == "average" else {"XSCALE": 1, "YSCALE": 1}
    )  # one pixel wide, as odc-geo's
    reproject(
        fine.astype("float32"), expected, src_transform=GRID.affine, src_crs="EPSG:32631",
        dst_transform=grid.affine, dst_crs="EPSG:3035", src_nodata=NAN, dst_nodata=NAN,
        resampling=Resampling[method], **kernel,
    )  # fmt: skip
    np.testing.assert_allclose(ds.red[0], expected, atol=1e-6)
    assert np.isfinite(ds.red).mean() > 0.4


def test_a_window_is_a_crop(tmp_path):
    item, _ = patchy(tmp_path)
    crop = (slice(7, 22), slice(3, 18))
    full_result, part = read([item]).compute(), read([item], GRID[crop]).compute()
    for name in ("red", "clear_fraction"):
        np.testing.assert_array_equal(full_result[name][0].values[crop], part[name][0].values)


def test_chunks_do_not_matter(tmp_path, monkeypatch):
    item, _ = patchy(tmp_path)
    coarse = GeoBox((9, 8), Affine(35, 0, ORIGIN[0] + 15, 0, -35, ORIGIN[1] - 15), "EPSG:32631")
    before = [read([item], g).compute() for g in (GRID, coarse)]
    monkeypatch.setattr(mosaic, "CHUNK", 13)
    for expected, grid in zip(before, (GRID, coarse), strict=True):
        xr.testing.assert_allclose(read([item], grid).compute(), expected, atol=1e-6)


def test_the_grid_of_a_dataset_keeps_its_names_and_coordinates(tmp_path):
    from odc.geo.xr import xr_coords

    grid = GeoBox.from_geopolygon(GRID.extent.to_crs("EPSG:4326"), resolution=0.0005)
    like = xr.Dataset(coords=xr_coords(grid, dims=("lat", "lon")))
    like = like.assign(v=(("lat", "lon"), np.zeros(grid.shape, "float32")))
    ds = read([scene(tmp_path)], like)
    assert ds.red.dims == ("time", "lat", "lon")
    xr.testing.assert_identical(ds.lat, like.lat)
    assert xr.merge([ds, like], join="exact").sizes["lat"] == grid.shape.y
    assert np.isfinite(ds.red.compute()).any()


def test_scenes_of_two_utm_zones_are_joined_on_one_grid(tmp_path):
    from pyproj import Transformer

    x, y = Transformer.from_crs("EPSG:32631", "EPSG:32632", always_xy=True).transform(*ORIGIN)
    east = (np.floor(x / 20) * 20, np.ceil(y / 20) * 20)
    flat = {"red": np.full((SIZE, SIZE), 2000, "uint16")}
    half = np.full((20, 20), 4, "uint8")
    half[:, :10] = 9
    a = scene(tmp_path, "a", bands={**flat, "scl": half})
    b = scene(tmp_path, "b", origin=east, crs="EPSG:32632", bands={"red": flat["red"] * 2})
    ds = read([a, b], GRID[10:30, 5:35], dilate=0).compute()
    assert ds.sizes["time"] == 1 and ds.item_id.item() == "a b"
    left, right = ds.red[0, :, :14], ds.red[0, :, 16:]
    np.testing.assert_allclose(left, 0.4, atol=1e-6)
    np.testing.assert_allclose(right, 0.2, atol=1e-6)


def test_scenes_of_one_day_are_masked_before_they_are_joined(tmp_path):
    full_result = {"red": np.full((SIZE, SIZE), 3000, "uint16")}
    cloudy = scene(tmp_path, "a", bands={**full_result, "scl": sky((5, 5, 9))})
    clear = scene(
        tmp_path, "b", bands={"red": full_result["red"] + 1000}, date="2020-06-01T10:50:20Z"
    )
    ds = read([cloudy, clear], dilate=0).compute()
    assert ds.sizes["time"] == 1
    assert np.isfinite(ds.red).all()
    assert int((ds.red > 0.35).sum()) == 4


def test_later_processing_of_a_scene_comes_first(tmp_path):
    old = scene(
        tmp_path,
        "a",
        bands={"red": numbers(1) * 0 + 3000},
        properties={"s2:processing_baseline": "02.08"},
    )
    new = scene(
        tmp_path, "b", bands={"red": numbers(1) * 0 + 5000},
        properties={"s2:processing_baseline": "05.00"}, offset=-0.1,
    )  # fmt: skip
    np.testing.assert_allclose(read([old, new]).red.compute(), 0.4, atol=1e-6)


# Time --------------------------------------------------------------------------------------------


def test_a_median_is_of_clear_looks_only(tmp_path):
    cube_result = [patchy(tmp_path, i) for i in range(4)]
    items = [i for i, _ in cube_result]
    for day, item in enumerate(items):
        item["properties"]["datetime"] = f"2020-0{6 + day // 3}-0{1 + day}T10:50:00Z"
    times_result = ("2020-06", "2020-07")
    fine = np.stack([f for _, f in cube_result])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        expected = np.nanmedian(fine, 0)
        monthly = np.stack([np.nanmedian(fine[:3], 0), fine[3]])
        ds = read(items, time=times_result, dilate=0, composite="median").compute()
        by_month = read(items, time=times_result, dilate=0, composite="1MS").compute()
    np.testing.assert_allclose(ds.red[0], expected, atol=1e-6)
    np.testing.assert_array_equal(ds.looks[0], np.isfinite(fine).sum(0))
    np.testing.assert_allclose(ds.clear_fraction[0], np.isfinite(fine).mean(0), atol=1e-6)
    np.testing.assert_allclose(by_month.red, monthly, atol=1e-6)
    with pytest.raises(SourceError, match="not a frequency"):
        read(items, time=times_result, composite="sometimes")


def test_periods_count_both_ends_whole():
    assert period("2018-02") == ("2018-02-01T00:00:00Z", "2018-02-28T23:59:59Z")
    assert period(("2018-02", "2018-03-05")) == ("2018-02-01T00:00:00Z", "2018-03-05T23:59:59Z")
    for wrong in (("2018-03", "2018-02"), "soon", ("2018", "2019", "2020")):
        with pytest.raises(SourceError, match="time="):
            period(wrong)


def test_a_continent_costs_tasks_where_scenes_are_only(tmp_path):
    bounds = (2_500_000, 1_400_000, 7_400_000, 5_500_000)
    europe = GeoBox.from_bbox(bounds, crs="EPSG:3035", resolution=1000)
    ds = read([scene(tmp_path)], europe, bands="red")
    assert len(ds.red.data.dask) < 300
    out = ds[["red", "clear_fraction"]].compute()
    values_result = out.clear_fraction.values > 0
    assert 1 <= values_result.sum() <= 4
    np.testing.assert_array_equal(np.isfinite(out.red), values_result)
    area = (SIZE * 10) ** 2 / 1e6  # pixels under the corners of turned cells count twice
    assert area * 0.95 <= float(out.clear_fraction.sum()) <= area * 1.4


# Lazy, and a part of a cube -----------------------------------------------------------------------


def test_building_reads_nothing_and_a_loader_can_be_plugged_in(tmp_path):
    calls = []

    def loader(items, bands, box):
        calls.append((items[0].id, *bands))
        return xr.Dataset({b: (("y", "x"), np.full(box.shape, 4, "uint16")) for b in bands})

    with dask.config.set(scheduler=computes_nothing):
        ds = read([scene(tmp_path)], bands="red", loader=loader)
        coarse = read([scene(tmp_path)], GRID.zoom_out(4), bands="red", loader=loader)
    assert not calls and ds.red.chunks and coarse.red.chunks
    np.testing.assert_allclose(ds.red.compute(), 4e-4)
    assert set(calls) == {("s", "red"), ("s", "scl")}


def test_the_result_is_a_part_of_a_cube_and_survives_zarr(tmp_path):
    item, fine = patchy(tmp_path)
    ds = read([item], dilate=0)
    gm.write_cube(ds, tmp_path / "s2.zarr", progress=False)
    back = gm.open_cube(tmp_path / "s2.zarr")
    np.testing.assert_allclose(back.red[0], fine, atol=1e-6)
    assert same_grid(back.odc.geobox, GRID)
    assert back.attrs["failed_assets"] == [] and back.failed.values.sum() == 0
    assert {"red", "nir"} <= set(gm.infer_schema(back).variables)
    assert json.loads(back.attrs["scenes"])[0]["offset"] == 0
    coarse = back.red.isel(time=0).odc.reproject(GRID.zoom_out(8), resampling="average")
    assert np.isfinite(coarse.values).all()  # NaN is nodata, not a value


# The plan ----------------------------------------------------------------------------------------


def test_the_plan_states_what_would_be_read(tmp_path):
    items = five(tmp_path)
    items[0]["properties"]["s2:high_proba_clouds_percentage"] = 40.0
    del items[3]["assets"]["red"]
    with dask.config.set(scheduler=computes_nothing):
        plan = gm.plan_sentinel2(GRID[:20, :], JUNE, bands=["red", "nir"], source=items)
    assert len(plan.dates) == 5 and plan.scenes["clear"].tolist() == [0.6, 0.9, 0.9, 0.9, 0.9]
    per_scene = 2 * 20 * 40 * 2 + 10 * 20 * 2
    assert plan.bytes == pytest.approx(5 * per_scene - 20 * 40 * 2, rel=0.001)
    assert "the asset states offset 0" in plan.scenes["rule"][0]
    assert "5 scenes on 5 dates" in repr(plan) and "s3 / red: no such asset" in repr(plan)


def test_the_search_counts_items_where_somebody_sees_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("geomiam.progress.DELAY", 0)
    settings = {"bands": ["red"], "source": five(tmp_path)}
    for call in (gm.plan_sentinel2, gm.sentinel2):
        call(GRID[:20, :], JUNE, **settings)
        assert capsys.readouterr().err == ""
        call(GRID[:20, :], JUNE, **settings, progress=True)
        assert "scenes" in capsys.readouterr().err


# Real scenes -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real() -> dict[str, xr.Dataset]:
    times_result, bands = ("2018-08", "2019-11"), ["red", "nir08"]
    collections = ("sentinel-2-c1-l2a", "sentinel-2-l2a")
    return {
        c: gm.sentinel2(SITE_B, times_result, bands=bands, source=StacSource(str(STAC), c))
        for c in collections
    }


@needs_shared
def test_collection_1_is_the_old_collection(real):
    new, old = real["sentinel-2-c1-l2a"].compute(), real["sentinel-2-l2a"]
    assert (new.sizes["time"], old.sizes["time"]) == (12, 72)
    old = old.sel(time=new.time).compute()
    for name in ("red", "nir08", "clear_fraction"):
        np.testing.assert_array_equal(np.isnan(new[name]), np.isnan(old[name]))
        np.testing.assert_allclose(new[name], old[name], atol=1e-6)
    assert 0.1 < float(np.isnan(new.red).mean()) < 0.6


@needs_shared
def test_clouds_of_real_scenes_cost_no_cell_with_a_clear_pixel(real):
    new = real["sentinel-2-c1-l2a"].red.compute()
    coarse = gm.sentinel2(
        SITE_B.zoom_out(16), ("2018-08", "2019-11"), bands="red", source=str(STAC)
    ).compute()
    blocks = new.values.reshape(12, 4, 16, 4, 16).swapaxes(2, 3)
    values_result = np.isfinite(blocks).mean((3, 4))
    np.testing.assert_array_equal(np.isfinite(coarse.red), values_result > 0)
    np.testing.assert_allclose(coarse.clear_fraction, values_result, atol=1e-6)
    assert ((values_result > 0) & (values_result < 1)).sum() == 15
    means = (
        np.nansum(blocks, (3, 4))[values_result > 0]
        / np.isfinite(blocks).sum((3, 4))[values_result > 0]
    )
    np.testing.assert_allclose(coarse.red.values[values_result > 0], means, atol=1e-6)


@needs_shared
def test_a_lattice_of_9_995_metres_is_read_as_it_is():
    path = STAC / "sentinel-2-l1c-eolearn" / "S2_33TVL_20150830T100547_L1C"
    with rasterio.open(path / "B04.tif") as file:
        dn = file.read(1)
        grid = GeoBox(file.shape, file.transform, file.crs)
    source = StacSource(str(STAC), "sentinel-2-l1c-eolearn")
    ds = gm.sentinel2(
        grid, "2015-08-30", bands=["B04"], source=source, options=gm.sources.SceneOptions(mask=None)
    ).compute()
    assert (dn > 0).any()
    np.testing.assert_allclose(ds.B04[0], np.where(dn > 0, dn * 1e-4, np.nan), atol=1e-6)
