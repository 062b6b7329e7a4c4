"""Novelty against published formulas: base R on the same data, and examples by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from helpers_novelty import FILES, compare, model_of, sites_of

import geomiam as gm

MODALITIES = {"a": "climate", "b": "climate", "c": "soil", "d": "terrain"}


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    return {name: pd.read_csv(FILES / f"{name}.csv") for name in ("sites", "cells", "result")}


@pytest.fixture(scope="module")
def data(tables) -> tuple:
    return tuple(sites_of(tables[name], **MODALITIES) for name in ("cells", "sites"))


@pytest.mark.parametrize(
    ("case", "options"),
    [
        ("folds", {"folds": True}),
        ("loo", {}),
        ("ac", {"folds": True, "using": ["a", "c"]}),
        ("weighted", {"folds": True, "weights": {"a": 3, "b": 1, "d": 0.5}}),
    ],
)
def test_dissimilarity_equals_that_of_r(tables, data, case, options):
    if options.pop("folds", False):
        options["folds"] = tables["sites"]["fold"].to_numpy()
    new, expected = compare(*data, **options), tables["result"]
    np.testing.assert_allclose(
        new["dissimilarity"], expected[f"{case}_index"], rtol=1e-6, atol=1e-6
    )
    assert 0 < expected[f"{case}_inside"].sum() < len(expected)
    np.testing.assert_array_equal(new["inside"], expected[f"{case}_inside"])
    np.testing.assert_array_equal(new["point_density"], expected[f"{case}_density"])


def test_mess_equals_that_of_r(tables, data):
    new, expected = compare(*data), tables["result"]
    np.testing.assert_allclose(new["mess"], expected["mess"], rtol=1e-6, atol=1e-4)
    np.testing.assert_array_equal(new["most_dissimilar"], expected["mess_variable"])


@pytest.mark.parametrize(("case", "using"), [("exdet", None), ("bcd_exdet", ["b", "c", "d"])])
def test_exdet_equals_that_of_r(tables, data, case, using):
    new, expected = compare(*data, using=using), tables["result"]
    assert (expected[case] < 0).any() and (expected[case] > 1).any()
    np.testing.assert_allclose(new["exdet"], expected[case], rtol=1e-6, atol=1e-6)
    variable = expected[f"{case}_variable"].to_numpy(int)
    numbers = np.array([0, 1, 2, 3] if using is None else [1, 2, 3])  # of all variables
    np.testing.assert_array_equal(
        new["most_influential"], np.where(variable >= 0, numbers[variable], -1)
    )


def test_a_hidden_predictor_gives_the_values_of_r_without_it(tables, data):
    cells, sites = data
    cells = cells.assign(b=cells["b"] * np.nan, d=cells["d"] * np.nan)
    folds = tables["sites"]["fold"].to_numpy()
    new = compare(cells, sites, folds=folds)
    np.testing.assert_allclose(new["dissimilarity"], tables["result"]["ac_index"], atol=1e-6)
    np.testing.assert_array_equal(new["inside"], tables["result"]["ac_inside"])
    np.testing.assert_array_equal(new["point_density"], tables["result"]["ac_density"])


def test_mess_by_hand():
    # Elith et al. 2010: twice the share of sites at or below, twice the share above, distances to the range.
    sites = sites_of({"a": [0, 1, 2, 3, 4, 5, 6, 7, 8, 10]}, a="climate")
    values = [-5, 0, 2.5, 4.5, 7.5, 10, 12]
    expected = [-50, 20, 60, 100, 40, 0, -20]
    new = compare(sites_of({"a": values}, a="climate"), sites)
    np.testing.assert_allclose(new["mess"], expected, atol=1e-4)


def test_dissimilarity_by_hand():
    # Sites 0, 1, 3: pairs at 1, 2 and 3, mean 2; nearest at 1, 1 and 2: whisker 1.5 + 1.5 * 0.5, at most 2.
    sites = sites_of({"a": [0, 1, 3]}, a="climate")
    new = compare(sites_of({"a": [-1.9, 2.1, 5.1, 9.0]}, a="climate"), sites)
    np.testing.assert_allclose(new["dissimilarity"], [0.95, 0.45, 1.05, 3.0], atol=1e-6)
    np.testing.assert_array_equal(new["inside"], [1, 1, 0, 0])  # the threshold is 1
    np.testing.assert_array_equal(new["point_density"], [1, 2, 0, 0])


def test_distances_between_classes_angles_and_channels_by_hand():
    # A class has the variance 1: of 2 classes at 5 of 10 sites each, 1 / 2 in all columns, so 2 sites of
    # different classes have the squared distance 2 / (1 / 2) = 4, and their mean distance is 2 * 50 / 90.
    codes = [1] * 5 + [2] * 5
    table = sites_of({"cover": codes}, cover="cover")
    table["cover"].attrs |= {"flag_values": [1, 2, 3], "flag_meanings": "water wood field"}
    cells = table.isel(site=[0, 5, 0]).copy(deep=True)
    cells["cover"][2] = 3  # not in training
    new = compare(cells, table)
    np.testing.assert_allclose(new["dissimilarity"], [0, 0, 2 / (2 * 50 / 90)], atol=1e-6)
    np.testing.assert_array_equal(new["mess"], [100, 100, -100])
    np.testing.assert_array_equal(new["exdet"], [0, 0, -1])
    assert new["most_dissimilar"].attrs["flag_meanings"].split() == ["none", "cover"]


def test_a_series_counts_by_the_means_of_its_channels(sites, cube):
    names = ["landsat"]
    series = gm.infer_schema(sites[names])
    model = model_of(sites[names], series)
    means = sites["landsat"].mean("time").to_dataset("band")
    flat = means.assign({b: means[b].assign_attrs(modality="landsat") for b in means.data_vars})
    flat_model = model_of(flat)
    new = gm.novelty(cube[names], model, reference=sites[names])
    cells = cube["landsat"].mean("time").to_dataset("band")
    expected = gm.novelty(cells, flat_model, reference=flat)
    # the index has no unit, so the factor 1 / sqrt(2) of each of two channels has no effect
    np.testing.assert_allclose(new["dissimilarity"], expected["dissimilarity"], atol=1e-5)
    np.testing.assert_allclose(new["mess"], expected["mess"], atol=1e-3)
    np.testing.assert_allclose(new["exdet"], expected["exdet"], rtol=1e-4, atol=1e-5)
