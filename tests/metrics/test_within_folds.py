"""AUC within folds: the law for a model without skill, and agreement with pairs counted one by one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import geomiam as gm
from geomiam.errors import LabelError, SettingError


def test_a_model_without_skill_has_an_auc_of_one_half_within_folds():
    """Each fold is predicted by the prevalence of the other folds, without any predictor."""
    rng = np.random.default_rng(0)
    within, all_pairs = [], []
    for _ in range(300):
        labels = (rng.random((60, 1)) < 0.3).astype(float)
        fold = rng.permutation(np.arange(60) % 5)
        prevalence = np.array([labels[fold != f].mean() for f in range(5)])
        scores = prevalence[fold][:, None] + rng.normal(0, 1e-6, (60, 1))
        within.append(gm.metrics.auc_within_folds(labels, scores, fold)[0])
        all_pairs.append(gm.metrics.auc(labels, scores)[0])
    assert np.nanmean(within) == pytest.approx(0.5, abs=0.02)
    assert np.nanmean(all_pairs) < 0.4


def test_pairs_of_the_same_fold_are_counted_one_by_one():
    rng = np.random.default_rng(1)
    labels = (rng.random((50, 3)) < 0.4).astype(float)
    labels[rng.random(labels.shape) < 0.1] = np.nan
    scores = rng.normal(size=(50, 3)).round(1)
    scores[rng.random(scores.shape) < 0.1] = np.nan
    fold = np.arange(50) % 4 - 1  # sites of fold -1 are not tested
    for s, actual in enumerate(gm.metrics.auc_within_folds(labels, scores, fold)):
        total = weights = 0.0
        for f in range(3):
            rows = np.flatnonzero(
                (fold == f) & np.isfinite(labels[:, s]) & np.isfinite(scores[:, s])
            )
            ones, zeros = (rows[labels[rows, s] == v] for v in (1, 0))
            if not len(ones) or not len(zeros):
                continue
            wins = [
                float(scores[a, s] > scores[b, s]) + 0.5 * (scores[a, s] == scores[b, s])
                for a, b in itertools.product(ones, zeros)
            ]
            weight = len(ones) * len(zeros) / (len(ones) + len(zeros) + 1)
            total, weights = total + weight * np.mean(wins), weights + weight
        assert actual == pytest.approx(total / weights)


def test_one_fold_is_the_plain_auc_and_a_shift_of_a_fold_changes_nothing():
    rng = np.random.default_rng(2)
    labels, scores = (rng.random((40, 2)) < 0.5).astype(float), rng.normal(size=(40, 2))
    one_fold = gm.metrics.auc_within_folds(labels, scores, np.zeros(40))
    np.testing.assert_allclose(one_fold, gm.metrics.auc(labels, scores))
    fold = np.arange(40) % 3
    shift = 100.0 * fold[:, None]
    np.testing.assert_array_equal(
        gm.metrics.auc_within_folds(labels, scores + shift, fold),
        gm.metrics.auc_within_folds(labels, scores, fold),
    )


def test_a_species_without_pairs_has_no_value():
    labels = np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    values = gm.metrics.auc_within_folds(labels, np.arange(8.0).reshape(4, 2), [0, 0, 1, 1])
    assert np.isnan(values[0]) and values[1] == 0.0


def test_a_fold_number_is_needed_for_each_site():
    zeros = np.zeros((4, 1))
    for fold in ([0, 1], ["a", "a", "b", "b"], 0):
        with pytest.raises(LabelError, match="each of 4 sites"):
            gm.metrics.auc_within_folds(zeros, zeros, fold)
    with pytest.raises(LabelError, match="each of 4 sites"):
        gm.metrics.measure(zeros, zeros, ["auc"], fold=[0, 1, 2])


@pytest.mark.parametrize(
    "weights", [[1, 1], [-1, -1, -1, -1], [1, 1, 1, -3], 1.0, [1, 1, 1, np.nan]]
)
def test_weights_are_one_number_per_site_and_not_negative(weights):
    labels, scores = np.array([[1], [0], [1], [0]]), np.array([[0.2], [0.1], [0.9], [0.8]])
    with pytest.raises(SettingError, match=r"weights must be one finite number per site \(4\)"):
        gm.metrics.auc_within_folds(labels, scores, [0, 0, 0, -1], weights=weights)
