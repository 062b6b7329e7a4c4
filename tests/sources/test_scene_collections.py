"""Landsat Collection 2 and Sentinel-1 RTC: real files in the layout of the providers, against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.warp import transform_bounds
from scipy.ndimage import binary_dilation

pytest.importorskip("odc.stac", reason="needs pip install 'geomiam[stac]'")
pytest.importorskip("pystac_client", reason="needs pip install 'geomiam[stac]'")

from helpers_build import catalog
from helpers_servers import write_stac_catalog
from helpers_stac import numbers, write_tif

import geomiam as gm
from geomiam.errors import AssetsFailed, NoScenes, SourceError
from geomiam.sources.stac.link_dates import ACQUIRED
from geomiam.sources.web.allow_list import allow_list_of

SIDE, CORNER, CRS = 24, (491985.0, -683685.0), "EPSG:32617"
CLEAR, WATER, DILATED, CLOUD, CIRRUS, SHADOW, SNOW, FILL = (
    21824, 21952, 21826, 22280, 54596, 23888, 30048, 1,
)  # fmt: skip
"""Values of QA_PIXEL as they are in the files, with their bits of confidence."""
SR, ST = {"scale": 2.75e-05, "offset": -0.2}, {"scale": 0.00341802, "offset": 149.0}


def grid_of(size, res=None, side=SIDE):
    step = res or size
    return GeoBox((side * size // step,) * 2, Affine(step, 0, CORNER[0], 0, -step, CORNER[1]), CRS)


LIKE, RADAR = grid_of(30), grid_of(10)


def item_of(name, *, size, collection, date, assets, properties, corner=CORNER):
    """An item with the grid of its files among its properties, as both collections state it."""
    left, top = corner
    west, south, east, north = transform_bounds(
        CRS, "EPSG:4326", left, top - SIDE * size, left + SIDE * size, top
    )
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    grid = {"proj:shape": [SIDE, SIDE], "proj:transform": [size, 0, left, 0, -size, top]}
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": name, "collection": collection,
        "geometry": {"type": "Polygon", "coordinates": [ring]}, "bbox": [west, south, east, north],
        "properties": {"datetime": date, "proj:epsg": 32617, **grid, **properties},
        "links": [], "assets": assets,
    }  # fmt: skip


def landsat_item(
    folder, name="LC09_L2SP_010065_20220129_02_T1", *, date="2022-01-29T15:28:34.39Z",
    platform="landsat-9", bands=None, qa=None, corner=CORNER, has_scale=True,
):  # fmt: skip
    """A scene in the layout of Planetary Computer; ``has_scale=False``: of USGS, without scale and offset."""
    values = {"red": numbers(1, low=7273, high=43636, size=SIDE), **(bands or {})}
    values["qa_pixel"] = np.full((SIDE, SIDE), CLEAR, "uint16") if qa is None else qa
    assets = {}
    for key, array in values.items():
        path = folder / name / f"{key}.tif"
        nodata = (1 if has_scale else None) if key == "qa_pixel" else 0
        write_tif(path, array, res=30, origin=corner, crs=CRS, nodata=nodata)
        assets[key] = {"href": str(path), "type": "image/vnd.stac.geotiff; cloud-optimized=true"}
        if has_scale and key != "qa_pixel":
            conversion = ST if key.startswith("lwir") else SR
            assets[key]["raster:bands"] = [{"nodata": 0, "data_type": "uint16", **conversion}]
    properties = {"platform": platform, "eo:cloud_cover": 21.12}
    return item_of(
        name, size=30, collection="landsat-c2-l2", date=date, assets=assets, properties=properties,
        corner=corner,
    )  # fmt: skip


def read(items, like=LIKE, *, bands="red", time="2022-01", **settings):
    options = gm.sources.SceneOptions(**settings)
    return gm.sources.landsat(like, time, bands=bands, source=items, options=options)


def quality(seed=0):
    """QA_PIXEL with all kinds of pixels."""
    kinds = [CLEAR, WATER, DILATED, CLOUD, CIRRUS, SHADOW, SNOW, FILL]
    shares = [0.5, 0.3, 0.04, 0.04, 0.03, 0.03, 0.03, 0.03]
    return np.random.default_rng(seed).choice(kinds, (SIDE, SIDE), p=shares).astype("uint16")


def by_numpy(dn, qa, *, bits=(1, 2, 3, 4, 5), radius=1):
    """Reflectance where no bit is set within ``radius`` pixels, and the pixel is not fill."""
    bad = np.zeros(qa.shape, bool)
    for bit in bits:
        bad |= (qa >> bit) % 2 == 1
    if radius:
        bad = binary_dilation(bad, np.ones((2 * radius + 1,) * 2))
    return np.where(bad | (qa == FILL) | (dn == 0), np.nan, dn.astype("f8") * 2.75e-5 - 0.2)


# Landsat ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_scale", [True, False])
@pytest.mark.parametrize(
    ("settings", "reference"),
    [
        ({}, {}),
        ({"dilate": 0, "snow": "keep"}, {"bits": (1, 2, 3, 4), "radius": 0}),
        ({"mask": [3, 4], "dilate": "60m"}, {"bits": (3, 4), "radius": 2}),
        ({"mask": None}, {"bits": (), "radius": 0}),
    ],
)
def test_landsat_is_reflectance_without_the_bits_of_qa_pixel(
    tmp_path, has_scale, settings, reference
):
    qa, dn = quality(), numbers(1, low=7273, high=43636, size=SIDE)
    dn[3, 3:9] = 0
    item = landsat_item(tmp_path, qa=qa, bands={"red": dn}, has_scale=has_scale)
    ds = read([item], **settings).compute()
    codes = np.where(qa == FILL, CLEAR, qa) if settings == {"mask": None} else qa
    expected = by_numpy(dn, codes, **reference)
    assert 0.1 < np.isfinite(expected).mean() < 1
    np.testing.assert_allclose(ds.red[0], expected, atol=1e-6)
    np.testing.assert_array_equal(ds.clear_fraction[0], np.isfinite(expected))
    assert ds.platform.values.tolist() == ["landsat-9"] and "baseline" not in ds.coords
    assert ds.red.attrs["modality"] == "landsat" and ds.red.attrs["units"] == "1"
    assert ds.attrs["mask"] == str(settings.get("mask", "qa_pixel"))


def test_a_coarse_landsat_cell_is_the_mean_of_its_clear_pixels(tmp_path):
    qa, dn = quality(1), numbers(2, low=7273, high=43636, size=SIDE)
    ds = read([landsat_item(tmp_path, qa=qa, bands={"red": dn})], grid_of(30, 90), dilate=0)
    blocks = by_numpy(dn, qa, radius=0).reshape(8, 3, 8, 3).swapaxes(1, 2)
    share = np.isfinite(blocks).mean((2, 3))
    expected = np.where(share > 0, np.nansum(blocks, (2, 3)) / np.maximum(9 * share, 1), np.nan)
    np.testing.assert_allclose(ds.red[0], expected, atol=1e-6)
    np.testing.assert_allclose(ds.clear_fraction[0], share, atol=1e-6)


def test_surface_temperature_has_one_name_for_all_sensors(tmp_path):
    dn = numbers(3, low=30000, high=50000, size=SIDE)
    old = landsat_item(
        tmp_path, "LT05_L2SP_010065_19900115_02_T1", date="1990-01-15T15:00:00Z",
        platform="landsat-5", bands={"lwir": dn},
    )  # fmt: skip
    new = landsat_item(tmp_path, bands={"lwir11": dn, "nir08": dn})
    assert {"nir", "lwir11"} <= set(read([new], bands=["nir", "lwir11"], mask=None).compute())
    ds = read([old, new], bands="lwir11", time="../2022-02").compute()
    assert ds.sizes["time"] == 2 and ds.lwir11.attrs["units"] == "K"
    np.testing.assert_allclose(ds.lwir11[0], dn * 0.00341802 + 149.0, rtol=1e-6)
    np.testing.assert_array_equal(ds.lwir11[0], ds.lwir11[1])
    assert ds.platform.values.tolist() == ["landsat-5", "landsat-9"]


def test_rows_of_one_path_are_one_step_in_time(tmp_path):
    cloudy = np.full((SIDE, SIDE), CLOUD, "uint16")
    south_corner = (CORNER[0], CORNER[1] - 30 * (SIDE - 6))
    north = landsat_item(tmp_path, qa=cloudy)
    south = landsat_item(
        tmp_path,
        "LC09_L2SP_010066_20220129_02_T1",
        date="2022-01-29T15:28:58Z",
        corner=south_corner,
    )
    ds = read([north, south]).compute()
    assert ds.sizes["time"] == 1
    dn = numbers(1, low=7273, high=43636, size=SIDE)
    assert np.isnan(ds.red[0, : SIDE - 6]).all()
    np.testing.assert_allclose(ds.red[0, SIDE - 6 :], dn[:6] * 2.75e-5 - 0.2, atol=1e-6)


def test_another_scale_than_that_of_collection_2_is_not_read(tmp_path):
    item = landsat_item(tmp_path)
    item["assets"]["red"]["raster:bands"][0] |= {"scale": 1e-4, "offset": 0}
    with pytest.warns(AssetsFailed, match=r"red: scale 0.0001 and offset 0.* 2.75e-05 and -0.2"):
        ds = read([item])
    assert np.isnan(ds.red.compute()).all() and ds.failed.sel(asset="red").values.tolist() == [1]
    with pytest.raises(SourceError, match="is for Sentinel-2; remove it"):
        read(gm.StacSource(str(tmp_path), offset=0))


def test_bands_and_masks_that_landsat_has_not_are_refused(tmp_path):
    item = landsat_item(tmp_path)
    with pytest.raises(SourceError, match=r"'B04' is not a band of Landsat.*'lwir11'"):
        read([item], bands="B04")
    with pytest.raises(SourceError, match="mask='scl' is not supported; use 'qa_pixel'"):
        read([item], mask="scl")
    with pytest.raises(SourceError, match="bits of qa_pixel, which are 0 to 7"):
        read([item], mask=[11])
    with pytest.raises(SourceError, match="is a pixel quality band, not a band"):
        read([item], bands="qa_pixel")
    with pytest.raises(SourceError, match=r"earth-search, usgs|planetary-computer"):
        read("nowhere")


def test_a_function_masks_by_the_quality_band(tmp_path):
    qa = quality(2)
    item = landsat_item(tmp_path, qa=qa)
    ds = read([item], mask=lambda part: part.qa_pixel == WATER, dilate=0).compute()
    np.testing.assert_array_equal(np.isnan(ds.red[0]), qa == WATER)


def test_the_plan_of_landsat_states_scenes_bytes_and_platforms(tmp_path):
    plan = gm.sources.plan_landsat(LIKE, "2022-01", bands="red", source=[landsat_item(tmp_path)])
    assert plan.bytes == 2 * 2 * SIDE**2  # one band and QA_PIXEL
    assert plan.windows[0].scenes[0].scene.files["red"].transform == (
        30,
        0,
        491985,
        0,
        -30,
        -683685,
    )
    row = plan.scenes.iloc[0]
    assert (row["platform"], row["offset"], row["clear"]) == (
        "landsat-9",
        -0.2,
        pytest.approx(0.7888),
    )


def test_static_catalogs_are_read_by_the_dates_in_the_names(tmp_path):
    names = [f"LC09_L2SP_010065_2022{m:02d}29_02_T1" for m in range(1, 13) if m != 2]
    items = [landsat_item(tmp_path / "f", n, date=f"2022-{n[21:23]}-29T15:28:34Z") for n in names]
    write_stac_catalog(tmp_path / "c", items)
    ds = read(str(tmp_path / "c"), time="2022-05")
    assert ds.item_id.values.tolist() == ["LC09_L2SP_010065_20220529_02_T1"]
    assert "10 items were not read" in " ".join(ds.attrs["notes"])


@pytest.mark.parametrize(
    ("name", "day"),
    [
        ("LT04_L2SP_002026_19830110_20200918_02_T1_SR", "19830110"),
        ("S1A_IW_GRDH_1SDV_20191215T004339_20191215T004404_030352_0378DC_rtc", "20191215"),
        ("S2B_MSIL2A_20200615T105031_N0500_R051_T31UDS_20230615T000000", "20200615"),
    ],
)
def test_names_of_products_have_the_day_of_acquisition(name, day):
    assert ACQUIRED.match(name)[1] == day


def test_files_of_landsat_are_allowed_at_their_catalogs():
    for url in (
        "https://earth-search.aws.element84.com/v1",
        "https://landsatlook.usgs.gov/stac-server",
    ):
        assert not allow_list_of(url).refusal("s3://usgs-landsat/collection02/x.TIF")


# Sentinel-1 ---------------------------------------------------------------------------------------


def power(seed, shape=(SIDE, SIDE)):
    return np.random.default_rng(seed).gamma(4.4, 0.02, shape).astype("float32")


def radar_item(folder, name, *, date, orbit="ascending", bands=None, mask=None, corner=CORNER):
    """A scene as on Planetary Computer; ``mask`` is an asset that other providers have."""
    assets = {}
    for key, array in {"vv": power(1), "vh": power(2) / 4, **(bands or {})}.items():
        path = folder / name / f"{key}.rtc.tiff"
        write_tif(path, array, res=10, origin=corner, crs=CRS, nodata=-32768)
        raster = [{"nodata": -32768, "data_type": "float32", "spatial_resolution": 10.0}]
        assets[key] = {"href": str(path), "type": "image/tiff", "raster:bands": raster}
    if mask is not None:
        path = folder / name / "mask.tif"
        write_tif(path, mask, res=10, origin=corner, crs=CRS, nodata=255)
        assets["mask"] = {"href": str(path), "type": "image/tiff"}
    properties = {"sat:orbit_state": orbit, "platform": "SENTINEL-1A"}
    return item_of(
        name, size=10, collection="sentinel-1-rtc", date=date, assets=assets,
        properties=properties, corner=corner,
    )  # fmt: skip


def backscatter(items, like=RADAR, *, time="2019-12", mask="auto", **settings):
    options = gm.sources.SceneOptions(mask=mask)
    return gm.sources.sentinel1(like, time, source=items, options=options, **settings)


def test_sentinel1_is_linear_power_and_decibels_of_its_mean(tmp_path):
    values = power(5)
    values[:4], values[4, :3] = -32768, 0
    item = radar_item(tmp_path, "a", date="2019-12-15T00:43:39Z", bands={"vv": values})
    valid = np.where(values > 0, values, np.nan)
    ds = backscatter([item]).compute()
    np.testing.assert_array_equal(ds.vv[0], valid)
    np.testing.assert_array_equal(ds.vh[0], power(2) / 4)
    assert ds.vv.attrs["units"] == "1" and ds.vv.attrs["modality"] == "sentinel1"
    assert ds.orbit.values.tolist() == ["ascending"] and ds.attrs["mask"] == "None"
    coarse = backscatter([item], grid_of(10, 40), units="dB").compute()
    means = np.nanmean(valid[4:].reshape(5, 4, 6, 4).swapaxes(1, 2).astype("f8"), (2, 3))
    np.testing.assert_allclose(coarse.vv[0, 1:], 10 * np.log10(means), rtol=1e-5)
    assert np.isnan(coarse.vv[0, 0]).all() and coarse.vv.attrs["units"] == "dB"
    assert coarse.vv.dtype == "float32" and coarse.clear_fraction.attrs["units"] == "1"


def test_directions_of_the_orbit_are_separate_steps_and_can_be_selected(tmp_path):
    passes = [
        ("d1", "2019-12-15T11:30:00Z", "descending", 3), ("a1", "2019-12-15T23:40:00Z", "ascending", 4),
        ("a2", "2019-12-15T23:40:25Z", "ascending", 5), ("d2", "2019-12-27T11:30:00Z", "descending", 6),
    ]  # fmt: skip
    items = [
        radar_item(tmp_path, name, date=date, orbit=orbit, bands={"vv": power(seed)})
        for name, date, orbit, seed in passes
    ]
    ds = backscatter(items[::-1]).compute()
    assert ds.item_id.values.tolist() == ["d1", "a1 a2", "d2"]
    assert ds.orbit.values.tolist() == ["descending", "ascending", "descending"]
    assert (np.diff(ds.time) > np.timedelta64(0)).all()
    for step, seed in enumerate((3, 4, 6)):
        np.testing.assert_array_equal(ds.vv[step], power(seed))
    down = backscatter(items, orbit="descending", composite="median").compute()
    np.testing.assert_allclose(down.vv[0], (power(3) + power(6)) / 2, rtol=1e-6)
    assert int(down.looks.max()) == 2 and down.attrs["orbit"] == "descending"
    with pytest.raises(NoScenes):
        backscatter(items[:1], orbit="ascending")
    with pytest.raises(SourceError, match="use 'ascending', 'descending' or None"):
        backscatter(items, orbit="up")


def test_the_orbit_is_a_condition_on_a_stac_catalog_too(tmp_path):
    items = [
        radar_item(tmp_path / "f", o, date="2019-12-15T11:30:00Z", orbit=o)
        for o in ("ascending", "descending")
    ]
    write_stac_catalog(tmp_path / "c", items)
    plan = gm.sources.plan_sentinel1(
        RADAR, "2019-12", source=str(tmp_path / "c"), orbit="ascending"
    )
    assert plan.scenes["id"].tolist() == ["ascending"]
    assert plan.bytes == 2 * 4 * SIDE**2


def test_codes_of_layover_and_shadow_are_hidden_where_they_are_named(tmp_path):
    mask = np.random.default_rng(3).choice([0, 1, 2, 3, 255], (SIDE, SIDE)).astype("uint8")
    item = radar_item(tmp_path, "masked", date="2019-12-15T00:43:39Z", mask=mask)
    assert np.isfinite(backscatter([item]).vv.compute()).all()
    options = gm.sources.SceneOptions(mask=[1, 2, 3], dilate=0)
    ds = gm.sources.sentinel1(RADAR, "2019-12", source=[item], options=options).compute()
    np.testing.assert_array_equal(np.isnan(ds.vv[0]), mask != 0)
    with pytest.raises(SourceError, match="none of 1 items has a mask of layover and shadow"):
        backscatter([radar_item(tmp_path, "pc", date="2019-12-15T00:43:39Z")], mask=[2])


def test_a_mask_that_hides_nothing_is_refused(tmp_path):
    item = radar_item(tmp_path, "pc", date="2019-12-15T00:43:39Z")
    with pytest.raises(
        SourceError, match="mask='mask' would hide nothing: the codes of a mask of layover"
    ):
        backscatter([item], mask="mask")
    with pytest.raises(
        SourceError, match="mask='scl' is not supported; use 'auto', a list of its cl"
    ):
        backscatter([item], mask="scl")
    for codes in (3, True, ["cloud"], [], [256]):
        with pytest.raises(SourceError, match="use a list of classes of mask, which are 0 to 255"):
            backscatter([item], mask=codes)


def test_a_function_masks_by_the_bands_where_no_item_has_a_mask(tmp_path, recwarn):
    item = radar_item(tmp_path, "pc", date="2019-12-15T00:43:39Z")
    options = gm.sources.SceneOptions(mask=lambda part: part.vv > 0.1, dilate=0)
    ds = gm.sources.sentinel1(RADAR, "2019-12", source=[item], options=options).compute()
    np.testing.assert_array_equal(np.isnan(ds.vv[0]), power(1) > 0.1)
    assert ds.asset.values.tolist() == ["vv", "vh"] and not ds.failed.values.any()
    assert not [w for w in recwarn if issubclass(w.category, AssetsFailed)]
    with pytest.raises(SourceError, match=r"its argument is a Dataset of \['vv', 'vh'\]"):
        backscatter([item], mask=lambda part: part.mask == 2)


def test_plans_state_offsets_only_where_items_decide_on_them(tmp_path):
    radar = radar_item(tmp_path, "r", date="2019-12-15T00:43:39Z")
    plans = [
        gm.sources.plan_sentinel1(RADAR, "2019-12", source=[radar]),
        gm.sources.plan_landsat(LIKE, "2022", source=[landsat_item(tmp_path, "l")], bands="red"),
    ]
    for plan in plans:
        assert "offset" not in repr(plan) and "offset" not in plan._repr_html_()


def test_one_call_per_collection_merges_into_one_cube(tmp_path):
    radar = radar_item(tmp_path, "a", date="2022-01-15T00:43:39Z")
    backscatter_cube = gm.sources.sentinel1(LIKE, "2022-01", source=[radar], composite="median")
    optical = gm.sources.landsat(
        LIKE, "2022-01", bands="red", source=[landsat_item(tmp_path)], composite="median"
    )
    cube = (
        backscatter_cube[["vv", "vh"]]
        .squeeze("time", drop=True)
        .merge(optical[["red"]].squeeze("time", drop=True), compat="override")
    )
    assert set(gm.infer_schema(cube).modalities) == {"sentinel1", "landsat"}


def test_a_catalog_names_the_product(tmp_path):
    write_stac_catalog(tmp_path / "c", [landsat_item(tmp_path / "f", qa=quality())])
    place = {"kind": "stac", "product": "landsat", "root": str(tmp_path / "c"), "time": "2022-01"}
    place |= {"overviews": True}
    variable = {"kind": "series", "dims": ["time"], "window": 1}
    path = catalog(
        tmp_path, {"usgs": place}, {"optical": {"from": "usgs", "variables": {"red": variable}}}
    )
    cube = gm.build_cube(path, LIKE, out=tmp_path / "cube.zarr", progress=False)
    expected = read(str(tmp_path / "c"))
    np.testing.assert_array_equal(cube.red, expected.red)
    assert np.isnan(cube.red).any() and np.isfinite(cube.red).any()
