"""Metrics at a threshold and the calibration curve, against scikit-learn on every species."""

import inspect

import numpy as np
import pytest
import xarray as xr
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve as sk_curve

import geomiam as gm
from geomiam.errors import SettingError

REFERENCES = {
    "sensitivity": sk.recall_score,
    "specificity": lambda y, c: sk.recall_score(y, c, pos_label=0),
    "omission": lambda y, c: 1 - sk.recall_score(y, c),
    "kappa": sk.cohen_kappa_score,
    "f1": sk.f1_score,
    "sorensen": lambda y, c: 2 * ((y == 1) & c).sum() / ((y == 1).sum() + c.sum()),
    "jaccard": sk.jaccard_score,
    "tss": lambda y, c: sk.balanced_accuracy_score(y, c, adjusted=True),
}


def table(n=300, species=20, seed=0):
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, species)) < rng.uniform(0.05, 0.6, species)).astype(float)
    scores = np.clip(labels * 0.3 + rng.random((n, species)) * 0.7, 0, 1)
    for array in (labels, scores):
        array[rng.random(array.shape) < 0.2] = np.nan
    labels[:, 4] = np.where(np.isnan(labels[:, 4]), np.nan, 0)
    return labels, scores


def each(reference, labels, scores, threshold):
    values = []
    for y, z, t in zip(
        labels.T, scores.T, np.broadcast_to(threshold, labels.shape[1]), strict=True
    ):
        is_scored = np.isfinite(y) & np.isfinite(z)
        has_both = len(set(y[is_scored])) == 2 and np.isfinite(t)
        values.append(reference(y[is_scored], z[is_scored] >= t) if has_both else np.nan)
    return np.array(values)


@pytest.mark.parametrize("name", REFERENCES)
def test_metrics_at_thresholds_equal_scikit_learn(name):
    labels, scores = table()
    thresholds = np.random.default_rng(1).uniform(0.2, 0.8, labels.shape[1])
    thresholds[7] = np.nan
    for threshold in (0.5, thresholds):
        np.testing.assert_allclose(
            getattr(gm.metrics, name)(labels, scores, threshold=threshold),
            each(REFERENCES[name], labels, scores, threshold),
            atol=1e-12,
        )
    assert list(inspect.signature(getattr(gm.metrics, name)).parameters) == [
        "labels",
        "scores",
        "threshold",
    ]


@pytest.mark.parametrize("name", REFERENCES)
def test_without_a_threshold_they_are_those_at_the_best_threshold(name):
    labels, scores = table()
    metric = getattr(gm.metrics, name)
    best = gm.metrics.best_threshold(labels, scores)
    np.testing.assert_array_equal(metric(labels, scores), metric(labels, scores, threshold=best))


def test_thresholds_are_matched_by_name_of_the_species():
    labels, scores = (
        xr.DataArray(a, dims=("site", "species"), coords={"species": list("abcdefghijklmnopqrst")})
        for a in table()
    )
    threshold = xr.DataArray(
        np.linspace(0.2, 0.8, 20), dims="species", coords={"species": labels["species"]}
    )
    expected = gm.metrics.kappa(labels.values, scores.values, threshold=threshold.values)
    mixed = threshold.isel(species=np.random.default_rng(0).permutation(20))
    result = gm.metrics.kappa(labels, scores, threshold=mixed)
    np.testing.assert_array_equal(result.values, expected)
    assert result.dims == ("species",)
    has_both = gm.metrics.kappa(labels, xr.concat([scores, scores], "subset"), threshold=threshold)
    assert has_both.dims == ("subset", "species")
    np.testing.assert_array_equal(has_both.values[1], expected)
    kappa = gm.metrics.kappa(
        labels.values[:, 0], scores.values[:, 0], threshold=threshold.values[0]
    )
    assert kappa == expected[0]


def test_a_threshold_that_calls_no_site_present_has_no_f1():
    labels, scores = np.array([1, 0]), np.array([0.2, 0.1])
    assert gm.metrics.f1(labels, scores, threshold=0.9) == 0
    assert gm.metrics.kappa(labels, scores, threshold=0.9) == 0
    assert gm.metrics.specificity(labels, scores, threshold=0.9) == 1


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
@pytest.mark.parametrize("bins", [1, 5, 10])
def test_the_calibration_curve_is_that_of_scikit_learn(strategy, bins):
    labels, scores = table()
    curve = gm.metrics.calibration_curve(labels, scores, bins=bins, strategy=strategy)
    assert curve.sites.shape == (bins, 20)
    for k in range(20):
        is_scored = np.isfinite(labels[:, k]) & np.isfinite(scores[:, k])
        y, z = labels[is_scored, k], scores[is_scored, k]
        observed, mean = sk_curve(y, z, n_bins=bins, strategy=strategy)
        is_filled = curve.sites[:, k] > 0
        np.testing.assert_allclose(curve.observed[is_filled, k], observed, atol=1e-12)
        np.testing.assert_allclose(curve.predicted[is_filled, k], mean, atol=1e-12)
        assert np.isnan(curve.observed[~is_filled, k]).all()
        assert curve.sites[:, k].sum() == is_scored.sum()


def test_the_calibration_curve_of_names_of_one_species_and_of_nothing():
    labels, scores = table()
    expected = gm.metrics.calibration_curve(labels, scores)
    names = {"species": [f"s{i}" for i in range(20)]}
    y, z = (xr.DataArray(a, dims=("site", "species"), coords=names) for a in (labels, scores))
    mixed = z.isel(species=slice(None, None, -1)).transpose("species", "site")
    for actual, expected_values in zip(
        gm.metrics.calibration_curve(y, mixed), expected, strict=True
    ):
        np.testing.assert_array_equal(actual, expected_values)
    single = gm.metrics.calibration_curve(labels[:, 2], scores[:, 2])
    np.testing.assert_array_equal(single.sites, expected.sites[:, 2])
    empty = gm.metrics.calibration_curve(
        np.full((4, 1), np.nan), np.zeros((4, 1)), strategy="quantile"
    )
    assert empty.sites.sum() == 0
    with pytest.raises(SettingError, match="bins must be at least 1"):
        gm.metrics.calibration_curve(labels, scores, bins=0)
    with pytest.raises(SettingError, match="strategy='even'; use one of uniform, quantile"):
        gm.metrics.calibration_curve(labels, scores, strategy="even")
    with pytest.raises(SettingError, match="must be probabilities"):
        gm.metrics.calibration_curve([0, 1], [-1.0, 2.0])
