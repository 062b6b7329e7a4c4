"""The measure of planning: slopes, and the growth of tasks beside odc-stac."""

from __future__ import annotations

import pytest

pytest.importorskip("odc.stac", reason="needs pip install 'geomiam[stac]'")

from geomiam_bench import planning, static_catalogs


def test_a_slope_is_the_power_of_the_growth():
    rows = [{"n": n, "cost": 7 * n**2} for n in (1, 10, 1000)]
    assert planning.slope(rows, "n", "cost") == pytest.approx(2)


def test_tasks_of_tiles_are_within_twice_those_of_odc_stac():
    one_tile, four_tiles = planning.of_tiles((1, 2))
    assert four_tiles["tasks"] < 4 * one_tile["tasks"]  # tiles overlap
    assert four_tiles["tasks"] < 2 * four_tiles["odc_tasks"]


def test_items_of_a_plan_are_counted_without_the_cost_of_making_them():
    (row,) = planning.of_items((2,))
    assert row["items"] == 50 and row["seconds"] > 0 and row["megabytes"] >= 0
    assert row["ms_per_item"] == pytest.approx(1000 * row["seconds"] / 50)


@pytest.mark.parametrize("layout", static_catalogs.LAYOUTS)
def test_a_month_of_a_static_catalog_has_the_scenes_of_its_days(tmp_path, layout):
    static_catalogs.write(tmp_path, layout, 500)
    days = [day for _, _, day, _ in static_catalogs.places(layout, 500)]
    row = static_catalogs.measure(str(tmp_path))
    assert row["scenes"] == sum(f"{day:%Y-%m}" == static_catalogs.MONTH for day in days) > 0
    assert row["not_read"] == 0  # no link was followed that leads to no file
    files = len(list(tmp_path.rglob("*.json")))
    assert files == 501 if "no dates" in layout else files < 150
