"""The benchmark of cloud gaps: the shares of lost dates, and the fillings that are compared."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from typer.testing import CliRunner

import geomiam as gm
from geomiam_bench import cloud_gaps, cloud_series
from geomiam_bench.cli import app

DATES = pd.to_datetime(
    ["2015-07-11", "2015-07-31", "2015-08-20", "2015-11-09", "2015-11-19", "2016-07-02"]
)


@pytest.fixture(scope="module")
def bench():
    return cloud_gaps, cloud_series


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A cube of 40 × 40 pixels of 20 m with two classes, a rare third one, and clouds."""
    rng = np.random.default_rng(0)
    cover = np.ones((40, 40), np.uint8)
    cover[(np.arange(40)[:, None] // 5 + np.arange(40) // 5) % 2 == 1] = 2
    cover[:3, :3], cover[-1] = 3, 0
    cloud = np.zeros((6, 40, 40), np.uint8)
    cloud[1, :20], cloud[3, :, 30:], cloud[4] = 1, 1, 1
    ndvi = 0.2 * cover + rng.normal(0, 0.05, (6, 40, 40)) + 0.1 * np.arange(6)[:, None, None]
    dims = ("time", "y", "x")
    cube = xr.Dataset(
        {
            "ndvi": (dims, ndvi.astype(np.float32)),
            "cloud": (dims, cloud),
            "has_data": (dims, np.ones_like(cloud)),
            "elevation": (dims[1:], rng.normal(300, 9, (40, 40)).astype(np.float32)),
            "land_cover": (dims[1:], cover),
        },
        coords={"time": DATES, "y": 800 - 20.0 * np.arange(40), "x": 20.0 * np.arange(40)},
        attrs={"crs": "EPSG:32633"},
    )
    path = tmp_path_factory.mktemp("cube") / "cube.zarr"
    cube.to_zarr(path, consolidated=False)
    return path


@pytest.fixture(scope="module")
def sites(bench, folder) -> xr.Dataset:
    """Sites of the cube."""
    return bench[1].make_sites(bench[1].read_cube(folder), per_class=120)


def seen(sites: xr.Dataset) -> np.ndarray:
    return np.isfinite(sites["ndvi"].transpose("site", "time").values)


def test_sites_are_pixels_of_the_large_classes_and_clouds_are_nan(bench, folder, sites):
    cube = bench[1].read_cube(folder)
    assert sites["species"].values.tolist() == ["class 1", "class 2"]
    assert sites["presence"].sum("site").values.tolist() == [120, 120]
    assert (sites["presence"].sum("species") == 1).all()
    raw = xr.open_zarr(folder, consolidated=False)
    for i in range(0, 240, 7):
        at = {"y": int(sites["row"][i]), "x": int(sites["column"][i])}
        code = int(sites["presence"].values[i].argmax()) + 1
        assert int(raw["land_cover"].isel(at)) == code
        values = np.where(raw["cloud"].isel(at) == 1, np.nan, raw["ndvi"].isel(at))
        np.testing.assert_array_equal(sites["ndvi"][i], values)
    assert len(bench[1].cloud_masks(cube)) == 2  # neither clear dates nor those all cloud


@pytest.mark.parametrize("share", [0.0, 0.2, 0.4, 0.6, 0.8])
def test_whole_dates_are_lost_for_all_sites_and_as_many_as_requested(bench, sites, share):
    rng = np.random.default_rng(1)
    before, after = seen(sites), seen(bench[1].lose_dates(sites, share=share, rng=rng))
    dates = before.any(0)
    assert dates.sum() == 5
    is_kept = after.any(0)
    assert (dates & ~is_kept).sum() == round(share * 5)
    np.testing.assert_array_equal(after, before & is_kept)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.4, 0.6, 0.8])
def test_clouds_hide_the_requested_share_of_clear_values(bench, folder, sites, share):
    masks = bench[1].cloud_masks(bench[1].read_cube(folder))
    rng = np.random.default_rng(2)
    after = seen(bench[1].lose_to_clouds(sites, masks, share=share, rng=rng))
    before = seen(sites)
    assert (before & ~after).sum() == round(share * before.sum())
    assert not (after & ~before).any()


def test_clouds_of_a_smaller_share_lie_inside_those_of_a_larger(bench, folder, sites):
    masks = bench[1].cloud_masks(bench[1].read_cube(folder))
    lower_share, higher_share = (
        seen(bench[1].lose_to_clouds(sites, masks, share=s, rng=np.random.default_rng(3)))
        for s in (0.3, 0.6)
    )
    assert not (higher_share & ~lower_share).any() and (lower_share & ~higher_share).any()


def test_one_cloud_is_a_mask_moved_as_a_whole(bench, sites):
    mask = np.zeros((1, 40, 40), bool)
    mask[0, :20] = True  # however it is shifted and flipped, half of the rows
    after = bench[1].lose_to_clouds(sites, mask, share=0.02, rng=np.random.default_rng(0))
    is_lost = seen(sites) & ~seen(after)
    assert is_lost.any(0).sum() == 1 and len(np.unique(sites["row"].values[is_lost.any(1)])) <= 20


def test_linear_filling_is_numpy_interp(bench, sites):
    gappy = sites.assign(ndvi=sites["ndvi"].where(np.random.default_rng(4).random((240, 6)) > 0.4))
    days = (DATES - DATES[0]).days.to_numpy(float)
    filled_series = bench[1].linear(gappy)["ndvi"].values
    for filled_row, row in zip(filled_series, gappy["ndvi"].values, strict=True):
        is_finite = np.isfinite(row)
        expected = np.interp(days, days[is_finite], row[is_finite]) if is_finite.any() else row
        np.testing.assert_allclose(filled_row, expected, atol=1e-6)


def test_composites_are_the_medians_of_a_pandas_groupby(bench, sites):
    filled_series = bench[1].monthly(sites)["ndvi"]
    table = sites["ndvi"].transpose("time", "site").to_pandas()
    expected = table.groupby(table.index.to_period("M")).median()
    at = filled_series.sel(time=expected.index.to_timestamp()).transpose("time", "site")
    np.testing.assert_allclose(at.values, expected.to_numpy(), atol=1e-6)
    assert int(filled_series.notnull().any("site").sum()) == expected.notna().any(axis=1).sum()


def test_candidates_are_changes_of_one_network_and_the_default_fit(bench):
    gaps, _ = bench
    for name, changes in gaps.CANDIDATES.items():
        network = gaps.fit_options(name)["network"]
        assert network.model_dump() == gaps.NETWORK.model_dump() | changes
    assert gaps.fit_options(gaps.DEFAULT) == {}
    assert gaps.CHOICE in (*gaps.CANDIDATES, gaps.DEFAULT)


def test_tuning_trains_every_candidate_on_the_folds_without_a_test(bench):
    gaps, series = bench
    candidates = (*gaps.CANDIDATES, gaps.DEFAULT)
    planned_tasks = gaps.tasks(
        candidates, "asis", seeds=2, folds=list(series.TUNING), patterns=["clouds"]
    )
    assert [(t.candidate, t.seed, t.fold) for t in planned_tasks] == [
        (name, seed, fold) for name in candidates for seed in (0, 1) for fold in (0, 1)
    ]
    used_folds = {*series.TUNING, *(f for train in series.TUNING.values() for f in train)}
    assert not used_folds & set(series.TESTS)


@pytest.mark.slow
def test_a_run_scores_every_method_and_goes_on_where_it_stopped(
    bench, folder, tmp_path, monkeypatch
):
    gaps, _ = bench
    monkeypatch.setattr(gaps, "NETWORK", gm.NetworkConfig(fusion="sum", width=8, heads=2))
    quick = gaps.TRAINING.model_copy(update={"epochs": 8, "batch": 32, "lr": 0.01, "warmup": 2})
    monkeypatch.setattr(gaps, "TRAINING", quick)
    monkeypatch.setattr(gaps, "SHARES", (0.0, 0.5))
    monkeypatch.setattr(gaps, "make_sites", partial(cloud_series.make_sites, per_class=120))
    file = tmp_path / "run.json"

    def command(*options: str) -> dict:
        command = ["cloud-gaps", str(folder), "--json", str(file), "--seeds", "1", *options]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
        return json.loads(file.read_text(encoding="utf-8"))

    first = command()
    start = f"{gaps.CHOICE}, asis: seed 0"
    assert first["done"] == [f"{start}, fold 2", f"{start}, fold 3"]
    assert len(first["rows"]) == 2 * 2 * 2 * 6  # folds, patterns, shares, methods
    assert command() == first
    result = command("--train", "same", "--figure", str(tmp_path / "figure.png"))
    assert result["rows"][:48] == first["rows"] and len(result["rows"]) == 96
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    table = gaps.as_table(result["rows"])
    assert table["mean_auc"].sizes["pattern"] == 4
    clear = table.sel(share=0.0, predictor=gaps.NATIVE)["mean_auc"].mean()
    assert float(clear) > 0.9  # the classes differ by four deviations
