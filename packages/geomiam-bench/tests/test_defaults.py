"""The judgement of the default fit over random parts of a set."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
import xarray as xr

import geomiam as gm
from geomiam_bench import defaults, defaults_data
from geomiam_bench.defaults_data import Case, makers
from geomiam_bench.defaults_fields import seasonal, textured


def row_of(auc: dict[str, float], species: int = 5) -> dict:
    """The row of one part."""
    return {
        "sites": 50,
        "species": species,
        "auc": auc,
        "difference": 0.0,
        "fusions": ["linear+sum"] * 3,
        "seconds": [1.0] * 3,
    }


def test_the_error_over_parts_is_that_of_their_differences_to_one_baseline():
    rows = [
        row_of({"LR": 0.6, "RF": 0.5, "default": 0.58}),
        row_of({"LR": 0.5, "RF": 0.8, "default": 0.7}, species=7),
        row_of({"LR": 0.6, "RF": 0.7, "default": 0.72}),
    ]
    row = defaults.over_parts(rows)
    gaps = [0.08, -0.1, 0.02]  # RF is the best in the mean, not the best of each part
    assert row["best"] == "RF" and row["draws"] == 3 and row["species"] == [5, 7, 5]
    assert row["difference"] == pytest.approx(statistics.mean(gaps), abs=1e-4)
    assert row["standard_error"] == pytest.approx(statistics.stdev(gaps) / math.sqrt(3), abs=1e-4)
    assert len(row["fusions"]) == len(row["seconds"]) == 9 and row["parts"] == rows


def test_parts_that_are_stored_are_not_judged_again(monkeypatch):
    judged_parts = []

    def fake_makers(data, *, draw=0):
        sites = xr.Dataset(attrs={"draw": draw})
        return {n: lambda n=n: Case(n, sites, is_part=n == "part") for n in ("part", "whole")}

    def judge(case):
        judged_parts.append((case.name, case.sites.attrs["draw"]))
        return row_of({"LR": 0.5, "RF": 0.6, "default": 0.6 + 0.01 * len(judged_parts)})

    monkeypatch.setattr(defaults, "makers", fake_makers)
    monkeypatch.setattr(defaults, "judge", judge)
    first = defaults._judged("part", None, 1, None)
    three = defaults._judged("part", None, 3, first)
    assert judged_parts == [("part", 0), ("part", 1), ("part", 2)]
    assert three["parts"][0] == first and three["draws"] == 3
    assert defaults._judged("part", None, 2, three) is three and len(judged_parts) == 3
    whole_set = defaults._judged("whole", None, 3, None)
    assert (
        judged_parts[3:] == [("whole", 0)] and "draws" not in whole_set
    )  # there is only one whole set


def test_random_parts_differ_by_draw_and_are_stable(monkeypatch):
    presence = (np.arange(90)[:, None] + np.arange(3)) % 3 == 0
    sites = xr.Dataset({"presence": (("site", "species"), presence.astype(float))})
    sites = sites.assign(number=("site", np.arange(90)))
    monkeypatch.setattr(defaults_data, "ariolimax", lambda: sites)
    name = "Ariolimax buttoni, 50 sites"
    draws = [makers(draw=k)[name]().sites["number"].values for k in (0, 0, 1)]
    assert (draws[0] == draws[1]).all() and len(draws[0]) == 50
    assert set(draws[0]) != set(draws[2])
    assert makers()["Ariolimax buttoni, all sites"]().is_part is False


@pytest.mark.parametrize("make", [seasonal, textured])
def test_synthetic_series_and_images_have_a_truth_that_their_labels_follow(make):
    train, test = make(300, 5)
    again, _ = make(300, 5)
    assert train.identical(again) and "truth" not in train
    assert train.sizes["site"] == 300 and test.sizes["site"] == 2000
    kinds = {v.kind for v in gm.infer_schema(train).variables.values()}
    assert kinds == {"scalar", "series" if make is seasonal else "image"}
    truth, labels = test["truth"].values, test["presence"].values
    for low, high in ((0.0, 0.2), (0.4, 0.6), (0.8, 1.0)):  # labels are draws of the truth
        inside = (truth >= low) & (truth < high)
        expected = truth[inside].mean()
        assert abs(labels[inside].mean() - expected) < 4 * np.sqrt(0.25 / inside.sum()) + 0.01
    places = {tuple(p) for p in np.stack([train.x, train.y], 1)}
    assert not places & {tuple(p) for p in np.stack([test.x, test.y], 1)}
