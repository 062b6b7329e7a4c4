"""Contributions by zone against numpy and polygons, planted regions, and the points of a dependence plot."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import geomiam as gm
from geomiam.errors import SelectionError, SettingError


@pytest.fixture(scope="module")
def contributions(small_model, cube):
    return gm.shapley(cube, small_model("group"))


def test_means_by_class_are_weighted_by_area(cube, contributions):
    classes = cube["landcover"]
    table = gm.explain.by_zone(contributions, classes)
    areas = gm.ranges.cell_areas(cube).values
    for zone, code in (("water", 1), ("wood", 2), ("field", 3)):
        values = contributions["shapley"].sel(group="climate", species="species 1").values
        is_in = (classes.values == code) & np.isfinite(values)
        of_zone = table.sel(zone=zone, group="climate", species="species 1")
        expected = np.average(np.abs(values[is_in]), weights=areas[is_in])
        np.testing.assert_allclose(of_zone["mean_absolute"], expected, rtol=1e-6)
        expected = np.average(values[is_in], weights=areas[is_in])
        np.testing.assert_allclose(of_zone["mean"], expected, rtol=1e-5, atol=1e-9)
        np.testing.assert_allclose(of_zone["area"], areas[is_in].sum(), rtol=1e-6)
    in_chunks = gm.explain.by_zone(contributions.chunk(y=5, x=4), classes.chunk(x=3))
    xr.testing.assert_allclose(in_chunks, table)
    of_texts = gm.explain.by_zone(contributions, (classes == 2).astype(str))
    xr.testing.assert_allclose(
        of_texts.sel(zone="True", drop=True), table.sel(zone="wood", drop=True)
    )
    with pytest.raises(SelectionError, match="all of its values are NaN"):
        gm.explain.by_zone(contributions, classes * np.nan)


def test_polygons_are_zones_in_any_crs(cube, contributions):
    geopandas = pytest.importorskip("geopandas")
    from shapely.geometry import box

    west, east, south, north = 4.875, 8.375, 47.125, 50.125
    halves = [box(west, south, 6.625, north), box(6.625, south, 7.5, north), box(7.5, south, east, north)]  # fmt: skip
    table = geopandas.GeoDataFrame({"land": ["A", "B", "A"]}, geometry=halves, crs="EPSG:4326")
    actual = gm.explain.by_zone(contributions, table.to_crs("EPSG:3857"), name="land")
    is_b = ((cube["x"] > 6.625) & (cube["x"] < 7.5)).astype(float).expand_dims(y=cube["y"])
    expected = gm.explain.by_zone(contributions, is_b)
    assert actual["zone"].values.tolist() == ["A", "B"]
    for name in ("mean", "mean_absolute", "area"):
        np.testing.assert_allclose(actual[name], expected[name])
    with pytest.raises(SelectionError, match="no column 'name'; choose from land"):
        gm.explain.by_zone(contributions, table, name="name")
    far = table.set_geometry(table.translate(90))
    with pytest.raises(SelectionError, match="no cell with contributions lies in one of 2 zones"):
        gm.explain.by_zone(contributions, far, name="land")


def test_zones_of_sites_count_sites(small_model, sites):
    values = gm.shapley(sites, small_model("group"))
    table = gm.explain.by_zone(values, sites["landcover"])
    is_in = (sites["landcover"] == 2) & values["suitability"].isel(species=0).notnull()
    assert int(table["sites"].sel(zone="wood")) == int(is_in.sum())
    expected = np.abs(values["shapley"]).where(is_in).mean("site")
    np.testing.assert_allclose(table["mean_absolute"].sel(zone="wood"), expected, rtol=1e-5)
    with pytest.raises(SettingError, match="zones= has the sizes"):
        gm.explain.by_zone(values, sites["landcover"][:-1])


def test_planted_regions_are_recovered_and_numbered_by_size(contributions):
    true_region = np.repeat([2, 1, 3], [40, 100, 28]).reshape(12, 14)
    levels = np.array([0.0, 0.5, -0.5, 0.2])[true_region]
    noise = np.random.default_rng(0).normal(0, 0.01, contributions["shapley"].shape)
    shapley = contributions["shapley"].copy(data=(levels + noise).astype(np.float32))
    shapley = shapley.where(contributions["suitability"].notnull())
    fixed = contributions.assign(shapley=shapley)
    result = gm.explain.regions(fixed, count=3)
    has_value = contributions["suitability"].isel(species=0).notnull().values
    sizes = [int(((true_region == n) & has_value).sum()) for n in (1, 2, 3)]
    assert sizes == sorted(sizes, reverse=True)
    np.testing.assert_array_equal(result["region"], np.where(has_value, true_region, np.nan))
    np.testing.assert_allclose(result["share"], np.array(sizes) / has_value.sum())
    assert float(result["explained"]) > 0.99
    lazy = gm.explain.regions(fixed.chunk(y=5, group=2), count=3)
    assert lazy["region"].chunks is not None
    np.testing.assert_array_equal(lazy["region"], result["region"])
    with pytest.raises(SettingError, match="count=3 regions need as many cells"):
        gm.explain.regions(fixed.assign(shapley=xr.ones_like(shapley)), count=3)


def test_points_of_a_dependence_plot_are_the_cells(cube, contributions):
    ax = gm.plot.dependence(contributions, cube["bio1"], group="climate", species="species 1")
    points = ax.collections[0].get_offsets()
    values = contributions["shapley"].sel(group="climate", species="species 1")
    is_drawn = (cube["bio1"].notnull() & values.notnull()).values
    expected = np.stack([cube["bio1"].values[is_drawn], values.values[is_drawn]], 1)
    order = [np.lexsort(a.T) for a in (points, expected)]
    np.testing.assert_allclose(np.asarray(points)[order[0]], expected[order[1]], rtol=1e-6)
    with pytest.raises(SelectionError, match="no group 'soil'; choose from climate"):
        gm.plot.dependence(contributions, cube["bio1"], group="soil")
    with pytest.raises(SettingError, match="pass one value per cell"):
        gm.plot.dependence(contributions, cube["landsat"], group="landsat")


def test_a_selected_species_and_data_without_a_map(cube, contributions, sites, small_model):
    oak = contributions.sel(species="species 1")
    table = gm.explain.by_zone(oak, cube["landcover"])
    expected = gm.explain.by_zone(contributions, cube["landcover"]).sel(species=["species 1"])
    xr.testing.assert_allclose(table, expected)
    beech = contributions.sel(species="species 0")
    parts = gm.explain.difference(beech, oak)
    np.testing.assert_allclose(
        parts["later"].squeeze("species", drop=True), oak["suitability"].drop_vars("species")
    )
    gm.plot.limiting(gm.explain.limiting(oak))
    of_sites = gm.explain.limiting(gm.shapley(sites, small_model("group")))
    for maps, message in (
        (of_sites, "needs a grid"),
        (contributions, "needs the layer 'limiting'"),
    ):
        with pytest.raises(SettingError, match=f"{message}.*gm.explain.limiting"):
            gm.plot.limiting(maps)
    with pytest.raises(SettingError, match="no table of zones"):
        gm.plot.zones(contributions)
