"""The cost of a map: core hours, workers, price and storage, from the rate of a plan."""

from __future__ import annotations

import math
from dataclasses import replace

import odc.geo.xr  # noqa: F401
import pytest
from conftest import make_cube, make_sites
from helpers_small import untrained
from typer.testing import CliRunner

import geomiam as gm
from geomiam.cli.app import app
from geomiam.data.predictors import bind
from geomiam.errors import SettingError

VARIABLES = ["bio1", "bio12", "slope", "landsat"]


def any_model() -> gm.Model:
    sites = make_sites(make_cube())[VARIABLES]
    return untrained(bind(gm.infer_schema(sites), sites))


@pytest.fixture(scope="module")
def plan() -> gm.MapPlan:
    cube, model = make_cube()[VARIABLES], any_model()
    return gm.plan_map(cube, model, chunks={"y": 4, "x": 5}, shapley=True)


def test_core_hours_are_cells_over_the_rate_of_one_core(plan):
    cost = replace(plan, rate=1000.0, workers=4).cost(0.5, cells=7.2e9)
    assert cost.core_hours == pytest.approx(2000) and cost.price == pytest.approx(1000)
    assert (cost.workers, cost.hours) == (4, pytest.approx(500))


def test_workers_follow_from_the_hours(plan):
    cost = replace(plan, rate=1000.0).cost(0.5, cells=7.2e9, hours=300)
    assert cost.workers == math.ceil(2000 / 300) and cost.hours == pytest.approx(2000 / 7)


def test_the_memory_of_a_worker_is_that_of_one_thread(plan):
    serial_plan, parallel_plan = replace(plan, threads=1), replace(plan, threads=16)
    assert parallel_plan.peak_per_worker > serial_plan.peak_per_worker
    assert parallel_plan.cost(0.5).bytes_per_worker == int(1.5 * serial_plan.peak_per_worker)


def test_storage_is_that_of_the_predictors_and_the_map(plan):
    """17 values of each cell are read: three scalars and two bands of seven years."""
    cost = plan.cost(0, cells=10**9, price_per_gb_month=0.02)
    assert cost.bytes_of_cube == 4 * 17 * 10**9
    assert cost.bytes_of_map == pytest.approx(plan.bytes_of_map / plan.cells * 10**9)
    gigabytes = (cost.bytes_of_cube + cost.bytes_of_map) / 10**9
    assert cost.price_of_storage == pytest.approx(0.02 * gigabytes) and cost.price == 0
    assert "68.0 GB of predictors" in str(cost) and "per month" in cost._repr_html_()


def test_without_a_number_the_cells_are_those_of_the_cube(plan):
    assert plan.cost(1).cells == int(plan.cells * plan.share)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"price": -1.0}, "price_per_core_hour=-1.0 is no price"),
        ({"cells": 0}, "cells=0 is not above 0"),
        ({"hours": 0}, "hours=0 is not"),
        ({"hours": math.nan}, "hours=nan is not"),
    ],
)
def test_numbers_without_a_meaning_are_refused(plan, change, reason):
    options = {"price": 0.05, **change}
    with pytest.raises(SettingError, match=reason):
        plan.cost(options.pop("price"), **options)


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cost")
    gm.write_cube(make_cube()[VARIABLES], folder / "cube.zarr", progress=False)
    any_model().save(folder / "model")
    return ["predict", str(folder / "model"), str(folder / "cube.zarr")]


CORE_HOUR = ("--price-per-core-hour", "0.05")


def test_the_command_line_prints_the_cost_with_the_plan(command):
    price = [*CORE_HOUR, "--cells", "5.8e8", "--hours", "12", "--price-per-gb-month", "0.02"]
    result = CliRunner().invoke(app, [*command, "--plan", *price])
    assert result.exit_code == 0, result.output
    assert "580,000,000, at" in result.output and "price: " in result.output
    rows = dict(line.split(": ", 1) for line in result.output.splitlines() if ": " in line)
    assert rows["duration"].endswith("hours") and rows["price of storage"].endswith("per month")


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--out", "map.zarr", *CORE_HOUR), "pass --plan as well"),
        (("--plan", "--cells", "0"), "--cells: without a price of core hours"),
        (
            ("--plan", "--cells", "0", "--hours", "0"),
            "--cells and --hours: without a price of core hours",
        ),
        (
            ("--plan", "--price-per-gb-month", "0"),
            "--price-per-gb-month: without a price of core hours",
        ),
        (("--plan", *CORE_HOUR, "--cells", "0"), "cells=0.0 is not above 0"),
        (("--plan", *CORE_HOUR, "--hours", "nan"), "hours=nan is not above 0"),
        (
            ("--plan", *CORE_HOUR, "--price-per-gb-month", "-1"),
            "price_per_gb_month=-1.0 is no price",
        ),
    ],
)
def test_the_command_line_refuses_what_has_no_effect_before_the_trial(
    command, flags, reason, monkeypatch
):
    monkeypatch.delattr(gm, "plan_map")  # a refusal comes before it
    refusal = CliRunner().invoke(app, [*command, *flags])
    assert refusal.exit_code and reason in str(refusal.exception or refusal.output)
