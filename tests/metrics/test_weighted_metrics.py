"""Metrics with a weight per site, against scikit-learn's ``sample_weight``."""

import numpy as np
import pytest
import xarray as xr
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

import geomiam as gm
from geomiam.errors import SettingError
from geomiam.metrics import METRICS

REFERENCES = {
    "auc": roc_auc_score,
    "average_precision": average_precision_score,
    "brier": brier_score_loss,
    "log_loss": log_loss,
}


def weighted_table(levels, *, n=200, species=7):
    """Labels and probabilities with gaps and ties, and weights over many orders, some of them 0."""
    rng = np.random.default_rng(0)
    labels = (rng.random((n, species)) < 0.4).astype(float)
    scores = np.round((labels * 0.2 + rng.random((n, species)) * 0.8) * levels) / levels
    labels[rng.random(labels.shape) < 0.2] = np.nan
    scores[rng.random(labels.shape) < 0.1] = np.nan
    return labels, scores, rng.lognormal(-9, 3, n) * (rng.random(n) < 0.8)


@pytest.mark.parametrize("levels", [4, 1000])
@pytest.mark.parametrize("name", REFERENCES)
def test_weighted_metrics_equal_scikit_learn(name, levels):
    labels, scores, weights = weighted_table(levels)
    expected = []
    for y, z in zip(labels.T, scores.T, strict=True):
        valid = np.isfinite(y) & np.isfinite(z)
        value = REFERENCES[name](y[valid], z[valid], sample_weight=weights[valid])
        expected.append(value)
    np.testing.assert_allclose(METRICS[name](labels, scores, weights=weights), expected, rtol=1e-9)
    values = gm.metrics.measure(labels, scores, ["auc", name], weights=weights)
    np.testing.assert_allclose(values[name], expected, rtol=1e-9)


@pytest.mark.parametrize("name", REFERENCES)
def test_whole_weights_repeat_sites_and_equal_ones_change_nothing(name):
    labels, scores, _ = weighted_table(20)
    metric, counts = METRICS[name], np.arange(len(labels)) % 4
    of_repeated_sites = metric(np.repeat(labels, counts, 0), np.repeat(scores, counts, 0))
    np.testing.assert_allclose(
        metric(labels, scores, weights=counts), of_repeated_sites, rtol=1e-12
    )
    equal = metric(labels, scores, weights=np.full(len(labels), 1e-200))
    np.testing.assert_allclose(equal, metric(labels, scores), rtol=1e-12)
    of_one_species = metric(labels[:, 0], scores[:, 0], weights=counts)
    arrays = [xr.DataArray(t, dims=("site", "species")) for t in (labels, scores)]
    assert of_one_species == pytest.approx(metric(*arrays, weights=counts).values[0], rel=1e-12)
    only_absences = np.where(labels[:, 0] == 1, 0, 1)
    assert np.isnan(metric(labels[:, 0], scores[:, 0], weights=only_absences))


def test_other_metrics_and_wrong_weights_are_refused():
    labels, scores, weights = weighted_table(20)
    with pytest.raises(
        SettingError, match="no weights for tss: leave weights= out, or choose from auc"
    ):
        gm.metrics.measure(labels, scores, ["auc", "tss"], weights=weights)
    assert sorted(m for m in METRICS if METRICS[m].takes_weights) == sorted(REFERENCES)
    for wrong in (weights[:-1], -weights, np.full(200, np.nan)):
        with pytest.raises(
            SettingError, match=r"weights must be one finite number per site \(200\)"
        ):
            gm.metrics.auc(labels, scores, weights=wrong)
