"""Areas, range change, shift and overlap: equal to geodesic polygons and to sums by hand."""

from __future__ import annotations

import numpy as np
import odc.geo.xr  # noqa: F401
import pytest
import xarray as xr
from pyproj import Geod, Transformer

import geomiam as gm

GEOD = Geod(ellps="WGS84")


def grid(crs: str, y, x, values=None, **attrs) -> xr.DataArray:
    """A map on a grid; values default to 0."""
    y, x = np.asarray(y, float), np.asarray(x, float)
    data = np.zeros((len(y), len(x))) if values is None else np.asarray(values, float)
    array = xr.DataArray(
        data, dims=("y", "x"), coords={"y": y, "x": x}, name="suitability", attrs=attrs
    )
    return array.odc.assign_crs(crs)


def polygon_area(crs: str, x, y, width: float, height: float) -> float:
    """Geodesic area in km² of a cell with 50 points per side."""
    t = np.linspace(-0.5, 0.5, 50)
    half = np.full(50, 0.5)
    u = np.concatenate([t, half, -t, -half]) * width + x
    v = np.concatenate([-half, t, half, -t]) * height + y
    lon, lat = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(u, v)
    return abs(GEOD.polygon_area_perimeter(lon, lat)[0]) / 1e6


@pytest.mark.parametrize(
    "crs, y, x",
    [
        ("EPSG:4326", [60.5, 60.0, 59.5], [-0.5, 0.0, 0.5]),
        ("EPSG:4326", [-1, 0, 1], [179, 180, 181]),
        ("EPSG:32633", [7.1e6, 7.0e6], [2e5, 3e5]),
        ("EPSG:3857", [8.4e6, 8.3e6], [1e6, 1.1e6]),
        ("EPSG:3035", [3.3e6, 3.2e6], [4.1e6, 4.2e6]),
        ("EPSG:6933", [7.0e6, 6.99e6], [1e6, 1.01e6]),
        ("EPSG:2263", [2e5, 2.1e5], [9e5, 9.1e5]),  # feet
    ],
)
def test_areas_of_cells_are_those_of_geodesic_polygons(crs, y, x):
    areas = gm.ranges.cell_areas(grid(crs, y, x))
    for i, yy in enumerate(y):
        for j, xx in enumerate(x):
            expected = polygon_area(crs, xx, yy, x[1] - x[0], y[1] - y[0])
            assert float(areas[i, j]) == pytest.approx(expected, rel=2e-4), (crs, yy)


def test_areas_of_cells_are_those_of_terra():
    # values of cellSize(rast(...), unit = "km") in R, terra 1.7
    degrees = gm.ranges.cell_areas(grid("EPSG:4326", [60.5, 60.0, 59.5], [-0.5, 0.0, 0.5]))
    np.testing.assert_allclose(degrees[:, 0], [1530.788, 1554.184, 1577.455], rtol=1e-5)
    web = gm.ranges.cell_areas(grid("EPSG:3857", [8.4e6, 8.3e6], [1e6, 1.1e6]))
    np.testing.assert_allclose(web[:, 0], [2508.21, 2576.86], rtol=1e-5)


def test_the_cells_of_the_world_add_up_to_the_earth():
    world = grid("EPSG:4326", np.arange(-88, 90, 4), np.arange(-178, 180, 4))
    assert float(gm.ranges.cell_areas(world).sum()) == pytest.approx(510_065_622, rel=1e-8)


def test_large_projected_grids_are_interpolated_closely():
    big = grid("EPSG:3857", np.linspace(8e6, 7e6, 1001), np.linspace(0, 1e6, 1201))
    areas = gm.ranges.cell_areas(big)
    part = gm.ranges.cell_areas(big[400:500, 600:700])
    np.testing.assert_allclose(areas[400:500, 600:700], part, rtol=1e-6)


BEFORE = [[1, 1, 0, np.nan], [0, 1, 0, 1]]
AFTER = [[1, 0, 1, 1], [0, 0, 0, np.nan]]


def test_range_change_by_hand():
    before, after = (grid("EPSG:4326", [60, 0], [0, 1, 2, 3], v) for v in (BEFORE, AFTER))
    result = gm.ranges.change(before, after)
    expected = [[3, 2, 1, np.nan], [0, 2, 0, np.nan]]
    np.testing.assert_array_equal(result["change"], expected)
    areas = gm.ranges.cell_areas(before).values
    north, south = areas[0, 0], areas[1, 0]
    by_class = result["area"].to_series()
    assert by_class["loss"] == pytest.approx(north + south)
    assert by_class["gain"] == by_class["stable_present"] == pytest.approx(north)
    assert by_class["stable_absent"] == pytest.approx(2 * south)
    assert float(result["percent_loss"]) == pytest.approx(
        100 * (north + south) / (2 * north + south)
    )
    assert float(result["percent_change"]) == pytest.approx(-100 * south / (2 * north + south))
    assert float(result["area_after"]) == pytest.approx(2 * north)
    table = gm.ranges.class_areas(result["change"])
    xr.testing.assert_allclose(table, result["area"])
    assert result["change"].odc.crs == "EPSG:4326"


def test_suitability_has_thresholds_by_species():
    values = np.array([[[0.2, 0.6]], [[0.4, 0.8]]])
    maps = xr.DataArray(
        values,
        dims=("species", "y", "x"),
        coords={"species": ["a", "b"], "y": [0.0], "x": [0.0, 1.0]},
    )
    maps = xr.concat([maps, maps.assign_coords(y=[1.0])], "y").odc.assign_crs("EPSG:4326")
    with pytest.raises(gm.errors.SettingError, match="threshold="):
        gm.ranges.change(maps, maps)
    result = gm.ranges.change(maps, 1 - maps, threshold={"a": 0.5, "b": 0.7})
    assert result["change"].sel(species="a", y=0).values.tolist() == [1, 2]
    assert result["change"].sel(species="b", y=0).values.tolist() == [0, 2]
    with pytest.raises(gm.errors.SelectionError, match="no species 'yew'; choose from"):
        gm.plot.range_change(result, species="yew")
    with pytest.raises(gm.errors.SelectionError, match="'b'"):
        gm.ranges.change(maps, maps, threshold={"a": 0.5})
    for wrong in (np.nan, "0.5"):
        with pytest.raises(gm.errors.SettingError, match="threshold must be a number"):
            gm.ranges.change(maps, maps, threshold=wrong)
    lazy = gm.ranges.change(maps.chunk(y=1), 1 - maps, threshold=0.5)
    assert lazy["change"].chunks is not None
    xr.testing.assert_allclose(lazy.compute(), gm.ranges.change(maps, 1 - maps, threshold=0.5))


def test_classified_maps_need_no_threshold(cube):
    values = np.random.default_rng(0).random((2, 12, 14))
    coords = {"species": ["a", "b"], "y": cube["y"], "x": cube["x"]}
    maps = xr.Dataset({"suitability": (("species", "y", "x"), values)}, coords=coords)
    maps = maps.odc.assign_crs("EPSG:4326")
    later = maps.assign(suitability=maps["suitability"] ** 2)
    limits = {"a": 0.3, "b": 0.6}
    pair = [gm.classify(m, limits) for m in (maps, later)]
    of_classes = gm.ranges.change(*pair)["area"].drop_vars("threshold")
    xr.testing.assert_allclose(of_classes, gm.ranges.change(maps, later, threshold=limits)["area"])
    areas = gm.ranges.class_areas(pair[0])
    assert areas["class"].values.tolist() == ["absent", "present"]
    xr.testing.assert_allclose(
        areas.drop_vars("threshold"), gm.ranges.class_areas(maps, threshold=limits)
    )


def test_different_grids_are_refused():
    first, second = grid("EPSG:4326", [1, 0], [0, 1]), grid("EPSG:4326", [2, 1], [0, 1])
    with pytest.raises(gm.errors.GridError, match="align"):
        gm.ranges.change(first, second)


def test_areas_of_classes_and_of_ranges_of_suitability():
    maps = grid("EPSG:3035", [3.2e6, 3.1e6], [4.1e6, 4.2e6], [[0.1, 0.3], [np.nan, 0.9]])
    areas = gm.ranges.class_areas(maps, edges=[0.2, 0.5]).to_series()
    assert areas.to_dict() == pytest.approx(
        {"below 0.2": 1e4, "0.2 to 0.5": 1e4, "from 0.5": 1e4}, rel=1e-5
    )
    lazy = gm.ranges.class_areas(maps.chunk(y=1), edges=[0.2, 0.5])
    assert isinstance(lazy.data, np.ndarray)  # few numbers, which users print
    present = gm.ranges.class_areas(maps, threshold=0.3).to_series()
    assert present.to_dict() == pytest.approx({"absent": 1e4, "present": 2e4}, rel=1e-5)
    for settings in ({"edges": [0.5, 0.2]}, {"edges": [0.5], "threshold": 1}, {}):
        with pytest.raises(gm.errors.SettingError):
            gm.ranges.class_areas(maps, **settings)


def test_the_shift_is_the_geodesic_between_the_centroids():
    y, x = [50, 40, 30], [10, 20, 30]
    before, after = np.zeros((2, 3, 3))
    before[1, 0], after[0, 2] = 1, 1
    result = gm.ranges.shift(
        grid("EPSG:4326", y, x, before), grid("EPSG:4326", y, x, after), threshold=0.5
    )
    azimuth, _, metres = GEOD.inv(10, 40, 30, 50)
    assert float(result["distance"]) == pytest.approx(metres / 1000)
    assert float(result["azimuth"]) == pytest.approx(azimuth)
    assert str(result["direction"].item()) == "NE"
    by_suitability = gm.ranges.shift(
        grid("EPSG:4326", y, x, before / 2), grid("EPSG:4326", y, x, after / 3)
    )
    assert float(by_suitability["distance"]) == pytest.approx(metres / 1000)


def test_centroids_cross_the_antimeridian_and_the_pole():
    values = [[1, 0, 0, 1], [0, 0, 0, 0]]
    first = grid("EPSG:4326", [0.5, -0.5], [-179.5, -179, -178.5, -178], values)
    assert float(gm.ranges.shift(first, first)["distance"]) == pytest.approx(0, abs=1e-6)
    wide = grid("EPSG:4326", [1, -1], [-135, -45, 45, 135], [[1, 0, 0, 1], [1, 0, 0, 1]])
    result = gm.ranges.shift(wide, wide)
    assert abs(float(result["lon_before"])) == pytest.approx(180)
    empty = gm.ranges.shift(wide, wide * 0)
    assert np.isnan(float(empty["distance"])) and empty["direction"].item() == ""
    plane = grid("EPSG:3031", [1e6, -1e6], [-1e6, 1e6], np.ones((2, 2)))
    assert float(gm.ranges.shift(plane, plane)["lat_before"]) == pytest.approx(-90)


def overlap_by_hand(a, b, weights) -> tuple[float, float]:
    """Schoener's D and Warren's I by loops."""
    pairs = [(u * w, v * w) for u, v, w in zip(a.flat, b.flat, weights.flat) if np.isfinite(u + v)]
    p_sum, q_sum = (sum(pair[i] for pair in pairs) for i in (0, 1))
    d = 1 - sum(abs(u / p_sum - v / q_sum) for u, v in pairs) / 2
    hellinger = sum(((u / p_sum) ** 0.5 - (v / q_sum) ** 0.5) ** 2 for u, v in pairs)
    return d, 1 - hellinger / 2


@pytest.mark.parametrize("weights", ["area", "cells"])
def test_overlap_by_hand(weights):
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 4, 5))
    b[1, 2] = np.nan
    y, x = np.linspace(70, 10, 4), np.arange(5.0)
    first, second = grid("EPSG:4326", y, x, a), grid("EPSG:4326", y, x, b)
    areas = gm.ranges.cell_areas(first).values if weights == "area" else np.ones((4, 5))
    result = gm.ranges.overlap(first, second, weights=weights)
    d, i = overlap_by_hand(a, b, areas)
    assert float(result["schoener_d"]) == pytest.approx(d)
    assert float(result["warren_i"]) == pytest.approx(i)
    assert int(result["cells"]) == 19


def test_overlap_is_one_for_proportional_and_zero_for_disjoint_maps():
    y, x = [1.0, 0.0], [0.0, 1.0]
    a = grid("EPSG:6933", np.array(y) * 1e4, np.array(x) * 1e4, [[0.2, 0.4], [0, 0]])
    same, disjoint = gm.ranges.overlap(a, a * 2), gm.ranges.overlap(a, a[::-1].values + 0 * a)
    assert float(same["schoener_d"]) == float(same["warren_i"]) == pytest.approx(1)
    assert float(disjoint["schoener_d"]) == float(disjoint["warren_i"]) == pytest.approx(0)
    assert np.isnan(float(gm.ranges.overlap(a, a * 0)["schoener_d"]))
    with pytest.raises(gm.errors.SettingError, match="probability"):
        gm.ranges.overlap(a, a - 1)


def test_agreement_counts_models():
    values = np.array([[[0.9, 0.1, np.nan]], [[0.8, 0.7, np.nan]], [[0.7, 0.2, 0.9]]])
    maps = {
        n: grid("EPSG:4326", [1, 0], [0, 1, 2], np.repeat(v, 2, 0)) for n, v in zip("abc", values)
    }
    result = gm.ranges.agreement(maps, threshold=0.5)
    np.testing.assert_allclose(result["present_share"][0], [1, 1 / 3, 1])
    np.testing.assert_allclose(result["agreement"][0], [1, 2 / 3, 1])
    np.testing.assert_array_equal(result["majority"][0], [1, 0, 1])
    np.testing.assert_array_equal(result["models"][0], [3, 3, 1])
    np.testing.assert_allclose(result["mean"][0], np.nanmean(values, 0)[0])
    np.testing.assert_allclose(result["spread"][0], np.nanstd(values, 0)[0])
    tree = xr.DataTree.from_dict({k: v.to_dataset() for k, v in maps.items()})
    stack = xr.concat(list(maps.values()), "scenario")
    for other_form in (tree, stack, list(maps.values())):
        again = gm.ranges.agreement(other_form, threshold=0.5)
        xr.testing.assert_allclose(again["present_share"], result["present_share"])
    with pytest.raises(gm.errors.SelectionError, match="dim="):
        gm.ranges.agreement(stack, threshold=0.5, dim="gcm")


def test_figure():
    import matplotlib.pyplot as plt

    before, after = (grid("EPSG:4326", [60, 0], [0, 1, 2, 3], v) for v in (BEFORE, AFTER))
    ax = gm.plot.range_change(gm.ranges.change(before, after))
    assert ax.get_legend().get_texts()[1].get_text().startswith("gain: ")
    ax.figure.canvas.draw()
    plt.close("all")
