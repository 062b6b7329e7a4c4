"""The benchmark of calibrations: lines by an independent fit, and errors that a known distortion causes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

import geomiam as gm
from geomiam_bench.calibration import calibrated, difference, line, losses


@pytest.fixture(scope="module")
def survey() -> tuple[np.ndarray, np.ndarray]:
    """Logits ``(patterns, n, s)``, of which the first pattern is twice too certain, and labels ``(n, s)``."""
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 1.5, (3000, 2))
    labels = (rng.random(truth.shape) < expit(truth)).astype(float)
    return np.stack([2 * truth, truth]), labels


def test_a_line_is_that_of_a_logistic_regression(survey):
    logits, labels = survey
    intercept, slope = line(logits[0], labels)
    for s in range(2):
        model = LogisticRegression(C=1e9).fit(logits[0][:, [s]], labels[:, s])
        assert intercept[s] == pytest.approx(model.intercept_[0], abs=0.01)
        assert slope[s] == pytest.approx(model.coef_[0, 0], abs=0.01)
    cox_line = gm.metrics.calibration(labels, expit(logits[0]))
    np.testing.assert_allclose(slope, cox_line.slope, atol=0.01)


def test_only_a_calibration_per_pattern_corrects_one_pattern(survey):
    logits, labels = survey
    train = np.arange(3000) % 2 == 0
    table = {
        name: losses(p, labels[~train])
        for name, p in calibrated(logits, labels, train, ~train).items()
    }
    assert set(table) >= {"none", "all", "one, shared", "own, shared", "isotonic own"}
    assert table["own, shared"]["log_loss"].mean() < table["one, shared"]["log_loss"].mean() - 0.005
    assert table["own"]["ece"] < table["none"]["ece"] / 2
    fits = [(np.arange(1500) // 50, table)]
    mean, error = difference(fits, "own, shared", "one, shared", "log_loss")
    assert mean < -3 * error < 0
