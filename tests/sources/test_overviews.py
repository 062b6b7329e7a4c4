"""Overviews of scenes: fewer pixels are read, and no cloud is averaged into a coarse cell."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from scipy.ndimage import binary_dilation

pytest.importorskip("odc.stac", reason="needs pip install 'geomiam[stac]'")
pytest.importorskip("pystac_client", reason="needs pip install 'geomiam[stac]'")

from helpers_stac import GRID, JUNE, ORIGIN, numbers, read, scene, sky

import geomiam as gm
from geomiam.sources.scenes import mosaic
from geomiam.sources.scenes.windows import overview_step

SIDE = 160


def wide(cell, side=SIDE):
    n = side * 10 // cell
    return GeoBox((n, n), rasterio.Affine(cell, 0, ORIGIN[0], 0, -cell, ORIGIN[1]), GRID.crs)


def overviews(item, method=Resampling.average, factors=(2, 4, 8, 16)):
    """Give the bands of an item overviews, and return the item."""
    for key, asset in item["assets"].items():
        with rasterio.open(asset["href"], "r+") as file:
            file.build_overviews(factors, Resampling.nearest if key == "scl" else method)
    return item


def clouds(seed=0, side=SIDE // 2):
    """Classes of 20 m: a few clouds of several pixels."""
    rng = np.random.default_rng(seed)
    seeds = rng.random((side, side)) < 0.004
    return np.where(binary_dilation(seeds, np.ones((4, 3))), 9, 4).astype("uint8")


def below(values, step, reduce):
    n = len(values) // step
    return reduce(values.reshape(n, step, n, step), (1, 3))


def of_cells(values, step):
    """Means of the finite values in square blocks."""
    valid = np.isfinite(values)
    count = below(valid, step, np.sum)
    total = below(np.where(valid, values, 0), step, np.sum)
    return np.where(count, total / np.maximum(count, 1), np.nan)


def hidden_by(scl, radius=2):
    return binary_dilation((scl == 9).repeat(2, 0).repeat(2, 1), np.ones((2 * radius + 1,) * 2))


@pytest.mark.parametrize(("cell", "step"), [(160, 4), (80, 4), (50, 2)])
def test_a_coarse_cell_is_the_mean_of_overview_pixels_without_a_hidden_pixel(tmp_path, cell, step):
    dn, scl = numbers(3, size=SIDE), clouds()
    item = overviews(scene(tmp_path, bands={"red": dn, "nir": dn, "scl": scl}))
    ds = read([item], wide(cell), overviews=True).compute()
    means = np.round(below(dn.astype("f8"), step, np.mean))
    bad = below(hidden_by(scl), step, np.any)
    reflectance = np.where(bad, np.nan, means * 1e-4)
    pixels = reflectance.repeat(step, 0).repeat(step, 1)  # equal weights within a cell
    expected = of_cells(pixels, cell // 10)
    np.testing.assert_array_equal(np.isnan(ds.red[0]), np.isnan(expected))
    np.testing.assert_allclose(ds.red[0], expected, atol=1.5e-4)  # overviews are integers
    share = below(np.isfinite(pixels), cell // 10, np.mean)
    np.testing.assert_allclose(ds.clear_fraction[0], share, atol=1e-6)
    assert (
        f"bands of 1 of 1 scenes are read from overviews of {step} × {step} pixels"
        in ds.attrs["notes"]
    )


def test_the_values_are_those_of_the_overviews(tmp_path):
    dn = numbers(4, size=SIDE)
    item = overviews(scene(tmp_path, bands={"red": dn}), Resampling.nearest)
    values = read([item], wide(80), bands="red", mask=None, overviews=True).red[0]
    with rasterio.open(item["assets"]["red"]["href"], overview_level=1) as file:
        pixels = file.read(1)  # one of sixteen, not their mean
    assert set(pixels.ravel()) <= set(dn.ravel())
    np.testing.assert_allclose(values, below(pixels.astype("f8"), 2, np.mean) * 1e-4, atol=1e-6)


@pytest.mark.parametrize("nodata", [0, None])
def test_files_without_overviews_are_averaged_without_pixels_without_data(tmp_path, nodata):
    dn = numbers(5, size=SIDE)
    dn[:6], dn[40:44, 40:48] = 0, 0
    item = scene(tmp_path, bands={"red": dn})
    with rasterio.open(item["assets"]["red"]["href"], "r+") as file:
        file.nodata = nodata
    values = read([item], wide(80), bands="red", mask=None, overviews=True).red[0].values
    valid = np.where(dn > 0, dn * 1e-4, np.nan)
    blocks = valid.reshape(40, 4, 40, 4).swapaxes(1, 2)
    count = np.isfinite(blocks).sum((2, 3))
    means = np.where(count, np.nansum(blocks, (2, 3)) / np.maximum(count, 1), np.nan)
    means[(count < 16) & (nodata is None)] = np.nan
    np.testing.assert_allclose(values, of_cells(means, 2), atol=1e-4)
    assert np.isfinite(values[1:]).all() and np.nanmin(values) > 0.12  # no zero is averaged


def test_no_cloud_is_averaged_however_bright_it_is(tmp_path):
    scl = clouds(7)
    cloud = (scl == 9).repeat(2, 0).repeat(2, 1)
    dn = np.where(cloud, 60000, 2000).astype("uint16")
    item = overviews(scene(tmp_path, bands={"red": dn, "scl": scl}))
    values = read([item], wide(100), bands="red", dilate=0, overviews=True).red.values
    np.testing.assert_allclose(values[np.isfinite(values)], 0.2, atol=1e-6)
    assert cloud.mean() > 0.03 and np.isfinite(values).mean() > 0.9


def test_a_fine_grid_and_a_function_as_mask_have_full_resolution(tmp_path):
    item = overviews(scene(tmp_path, bands={"red": numbers(6, size=SIDE), "scl": clouds()}))
    for grid, mask in ((wide(40), "auto"), (wide(160), lambda part: part.scl == 9)):
        ds, full = (read([item], grid, bands="red", mask=mask, overviews=o) for o in (True, False))
        np.testing.assert_array_equal(ds.red, full.red)
        assert ds.attrs["notes"] == []


def test_windows_and_chunks_do_not_matter(tmp_path, monkeypatch):
    dn, scl = numbers(8, size=SIDE), clouds(3)
    item = overviews(scene(tmp_path, bands={"red": dn, "scl": scl}))
    origin = (ORIGIN[0] + 33, ORIGIN[1] - 47)
    grid = GeoBox((14, 15), rasterio.Affine(87, 0, origin[0], 0, -87, origin[1]), GRID.crs)
    full = read([item], grid, bands="red", overviews=True).red[0].values
    part = read([item], grid[3:11, 4:12], bands="red", overviews=True).red[0].values
    np.testing.assert_allclose(part, full[3:11, 4:12], atol=1e-6)
    monkeypatch.setattr(mosaic, "CHUNK", 5)
    np.testing.assert_allclose(
        read([item], grid, bands="red", overviews=True).red[0], full, atol=1e-6
    )
    assert 0.3 < np.isfinite(full).mean() < 1


def test_tiles_whose_overviews_have_no_common_grid_are_joined_by_cell(tmp_path):
    dn = np.full((SIDE, SIDE), 3000, "uint16")
    east = (ORIGIN[0] + 10 * (SIDE - 6), ORIGIN[1])
    a = overviews(scene(tmp_path, "a", bands={"red": dn, "scl": sky(size=SIDE // 2)}))
    b = overviews(scene(tmp_path, "b", origin=east, bands={"red": dn, "scl": sky(size=SIDE // 2)}))
    n = 2 * SIDE // 10
    grid = GeoBox((SIDE // 10, n), wide(100).affine, GRID.crs)
    ds = read([a, b], grid[:, : n - 1], bands="red", overviews=True).compute()
    assert ds.sizes["time"] == 1
    np.testing.assert_allclose(ds.red, 0.3, atol=1e-6)


def test_without_a_mask_overviews_may_be_coarser(tmp_path):
    item = scene(tmp_path, bands={"red": numbers(9, size=SIDE), "scl": clouds()})
    plans = {}
    for name, settings in {
        "mask": {},
        "none": {"mask": None},
        "full": {"overviews": False},
    }.items():
        options = gm.sources.SceneOptions(**{"overviews": True, **settings})
        plans[name] = gm.plan_sentinel2(
            wide(400), JUNE, bands="red", source=[item], options=options
        )
    assert "overviews of 4 × 4 pixels" in repr(plans["mask"])
    assert "overviews of 16 × 16 pixels" in repr(plans["none"])
    assert "overviews" not in repr(plans["full"])
    pixels = SIDE**2
    assert plans["full"].bytes == 2 * (pixels + pixels // 4)
    assert plans["mask"].bytes == 2 * (pixels // 16 + pixels // 4)
    assert plans["none"].bytes == 2 * pixels // 256


def test_the_step_depends_on_the_cell_not_on_the_extent_of_the_grid():
    tile = GeoBox((10980, 10980), rasterio.Affine(10, 0, 300000, 0, -10, 6000000), "EPSG:32631")
    for size, step in ((40, 1), (41, 2), (80, 4), (100, 4), (1000, 32), (9000, 64)):
        grid = GeoBox((9, 9), rasterio.Affine(size, 0, 330000, 0, -size, 5950000), "EPSG:32631")
        assert overview_step(tile, grid, largest=64) == step
        assert overview_step(tile, grid, largest=4) == min(step, 4)
        assert overview_step(tile, grid, largest=1) == 1
    # a cell of 0.01° is about 650 m wide at 54° north
    degrees = GeoBox((400, 400), rasterio.Affine(0.01, 0, 0, 0, -0.01, 55), "EPSG:4326")
    assert {overview_step(tile, g, largest=64) for g in (degrees, degrees[5:8, 390:])} == {32}
