"""AOO and EOO: equal to counts and polygons by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from pyproj import Geod, Transformer

import geomiam as gm


def records_of(lon, lat, species="a", presence=1.0) -> pd.DataFrame:
    return pd.DataFrame({"species": species, "lon": lon, "lat": lat, "presence": presence})


def on_plane(x, y) -> pd.DataFrame:
    """Records at coordinates in km of the cylindrical equal-area grid of the world."""
    to_degrees = Transformer.from_crs("EPSG:6933", "EPSG:4326", always_xy=True)
    return records_of(*to_degrees.transform(np.multiply(x, 1e3), np.multiply(y, 1e3)))


def test_cells_of_a_fixed_grid_are_counted_by_hand():
    # cells (0, 0), (0, 0), (1, 0), (0, -1), (10, 7)
    table = on_plane([0.5, 1.5, 2.5, 0.5, 21], [0.5, 1.9, 1, -0.5, 14.5])
    fixed = gm.ranges.aoo(table, origins=1, crs="EPSG:6933")
    assert float(fixed.sel(species="a")) == 4 * 4
    assert float(gm.ranges.aoo(table, cell="1 km", origins=1, crs="EPSG:6933")[0]) == 5


def test_the_least_area_over_origins_joins_what_fits_into_one_cell():
    table = on_plane(
        [1.5, 2.5, 1.5, 2.5], [1.5, 1.5, 2.5, 2.5]
    )  # a square of 1 km across four cells
    assert float(gm.ranges.aoo(table, origins=1, crs="EPSG:6933")[0]) == 16
    assert float(gm.ranges.aoo(table, crs="EPSG:6933")[0]) == 4
    assert float(gm.ranges.aoo(table)[0]) == 4


def test_the_least_area_is_that_of_a_search_by_loops():
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0, 30, (2, 60))
    counts = {
        len({(int((a + i / 2) // 2), int((b + j / 2) // 2)) for a, b in zip(x, y)})
        for i in range(4)
        for j in range(4)
    }
    table = on_plane(x, y)
    assert float(gm.ranges.aoo(table, origins=4, crs="EPSG:6933")[0]) == 4 * min(counts)


def gift_wrapping(points: np.ndarray) -> list[int]:
    """Convex hull by Jarvis' march."""
    start = current = int(points[:, 0].argmin())
    hull = [start]
    while True:
        best = (current + 1) % len(points)
        for k in range(len(points)):
            (ax, ay), (bx, by) = points[best] - points[current], points[k] - points[current]
            if ax * by - ay * bx < 0:
                best = k
        if best == start:
            return hull
        current = best
        hull.append(best)


def test_the_extent_is_the_geodesic_polygon_of_the_hull():
    rng = np.random.default_rng(1)
    lon, lat = 10 + rng.normal(size=40), 47 + rng.normal(size=40)
    hull = gift_wrapping(np.stack([lon * np.cos(np.deg2rad(47)), lat], 1))
    area = abs(Geod(ellps="WGS84").polygon_area_perimeter(lon[hull], lat[hull])[0]) / 1e6
    assert float(gm.ranges.eoo(records_of(lon, lat))[0]) == pytest.approx(area, rel=2e-3)


def test_the_extent_of_a_square_on_an_equal_area_plane():
    table = on_plane([0, 100, 100, 0, 40], [0, 0, 50, 50, 20])
    assert float(gm.ranges.eoo(table, crs="EPSG:6933")[0]) == pytest.approx(5000, rel=1e-7)
    assert float(gm.ranges.eoo(table)[0]) == pytest.approx(5000, rel=1e-3)


def test_the_extent_crosses_the_antimeridian_and_the_pole():
    lon, lat = np.array([-1.0, 1, 1, -1]), np.array([10.0, 10, 12, 12])
    at_zero, at_180 = (
        float(gm.ranges.eoo(records_of(x, lat))[0]) for x in (lon, (lon + 360) % 360 - 180)
    )
    assert at_180 == pytest.approx(at_zero, rel=1e-6)
    pole = gm.ranges.eoo(records_of([0, 90, 180, -90], [80.0] * 4))
    assert float(pole[0]) == pytest.approx(
        2 * 1113.2**2, rel=0.02
    )  # a square with these half diagonals


def test_few_places_have_no_extent():
    for lon, lat in (([1], [2]), ([1, 2], [2, 3]), ([5, 5, 5], [1, 1, 1])):
        assert float(gm.ranges.eoo(records_of(lon, lat))[0]) == 0
    line = on_plane([0, 1, 2], [0, 0, 0])
    assert float(gm.ranges.eoo(line, crs="EPSG:6933")[0]) == pytest.approx(0, abs=1e-6)


def test_the_table_has_the_thresholds_of_the_red_list():
    near, far = records_of([0, 0.3, 0.3], [0, 0, 0.3], "b"), records_of([0, 5, 5], [0, 0, 5], "a")
    absent = records_of([50], [50], "b", presence=0.0)
    table = gm.ranges.red_list(pd.concat([near, far, absent]))
    assert table["species"].values.tolist() == ["a", "b"]
    assert table["records"].values.tolist() == [3, 3]
    assert table["aoo"].values.tolist() == [12, 12] and table["b2"].values.tolist() == ["EN", "EN"]
    assert table["b1"].values.tolist() == ["", "EN"]
    cell = gm.ranges.red_list(records_of([1], [1]))
    assert (float(cell["eoo"][0]), cell["b1"].item(), cell["b2"].item()) == (4, "CR", "CR")


def test_sites_are_read_in_their_crs():
    lonlat = np.array([[10.0, 50.0], [10.5, 50.0], [10.5, 50.5]])
    x, y = Transformer.from_crs("EPSG:4326", "EPSG:32632", always_xy=True).transform(*lonlat.T)
    presence = [[1.0, 0.0], [1.0, 1.0], [1.0, np.nan]]
    sites = xr.Dataset(
        {"presence": (("site", "species"), presence)},
        coords={"x": ("site", x), "y": ("site", y), "species": ["a", "b"]},
        attrs={"crs": "EPSG:32632"},
    )
    expected = gm.ranges.eoo(records_of(*lonlat.T))
    assert float(gm.ranges.eoo(sites).sel(species="a")) == pytest.approx(
        float(expected[0]), rel=1e-6
    )
    assert float(gm.ranges.aoo(sites).sel(species="b")) == 4


def test_wrong_input_is_refused():
    table = records_of([1], [1])
    with pytest.raises(gm.errors.GridError, match="projected"):
        gm.ranges.aoo(table, crs="EPSG:4326")
    with pytest.raises(gm.errors.OccurrenceError, match="no presences"):
        gm.ranges.eoo(records_of([1], [1], presence=0.0))
    with pytest.raises(gm.errors.LabelError, match="class_areas"):
        gm.ranges.aoo(xr.Dataset({"suitability": (("y", "x"), np.zeros((2, 2)))}))
    with pytest.raises(gm.errors.LengthError):
        gm.ranges.aoo(table, cell="2 miles")
