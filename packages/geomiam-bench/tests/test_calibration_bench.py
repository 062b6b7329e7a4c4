"""The benchmark of calibrations: lines by an independent fit, and errors that a known distortion causes."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

import geomiam as gm
from geomiam_bench import shrinkage
from geomiam_bench.calibration import calibrated, difference, line, losses
from geomiam_bench.defaults_data import synthetic


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


def folds(slope: float | None) -> list[shrinkage.Fold]:
    """Three folds of rare and frequent species, whose logits without shrinkage are three times too large."""
    rng = np.random.default_rng(0)
    parts = []
    for number in range(3):
        z = rng.normal([-2, 0, 1], 1.5, (1000, 3))
        labels = (rng.random(z.shape) < expit(z)).astype("f4")
        logits = {"without": np.stack([z, 3 * z]), "with": np.stack([z, z])}
        blocks = 100 * number + np.arange(1000) // 50
        parts.append(shrinkage.Fold(labels, logits, blocks, slope, "sum"))
    return parts


def test_the_gain_of_a_known_shrinkage_is_that_of_the_log_loss():
    parts = folds(0.33)
    row = shrinkage.summary(parts)
    labels = np.concatenate([f.labels for f in parts])
    for kind, slope in (("without", 1 / 3), ("with", 1)):
        p = np.clip(expit(np.concatenate([f.logits[kind][1] for f in parts])), 0.001, 0.999)
        assert row[kind]["log_loss"] == pytest.approx(log_loss(labels.ravel(), p.ravel()), abs=1e-4)
        assert row[kind]["slope"] == pytest.approx(slope, rel=0.15)
        assert row[kind]["richness"] == pytest.approx(p.sum() / labels.sum(), abs=1e-3)
    assert row["without"]["auc"] == row["with"]["auc"]
    gain = row["with"]["log_loss"] - row["without"]["log_loss"]
    assert row["difference"] == pytest.approx(gain, abs=2e-4)
    assert row["difference"] < -3 * row["standard_error"] < 0


def test_one_fit_gives_the_predictions_of_both():
    sites = synthetic("sites", "interaction", n=90, species=5, predictors=4).sites
    held_out = np.arange(sites.sizes["site"]) % 4 == 0
    options = {
        "network": {"width": 8, "heads": 2},
        "training": {"steps": 25, "epoch_steps": 25, "lr": 0.05, "loss": "bce"},
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shrunk_fold = shrinkage.one_fold(
            sites, held_out, np.zeros(len(held_out), int), options=options
        )
        options["training"]["shrink"] = False
        plain = shrinkage.one_fold(sites, held_out, np.zeros(len(held_out), int), options=options)
    assert shrunk_fold.slope is not None and shrunk_fold.slope < 1 and plain.slope is None
    np.testing.assert_allclose(shrunk_fold.logits["without"], plain.logits["with"], atol=0.01)
