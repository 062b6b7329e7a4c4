"""Thresholds against plain loops over all scores, and scikit-learn's ROC curve."""

import warnings

import numpy as np
import pytest
from sklearn.metrics import roc_curve

import geomiam as gm
from geomiam.errors import SelectionError
from geomiam.metrics.thresholds import KINDS


def of_roc(y, z, gap):
    """The score with the least gap of true and false positive rates; then the greatest TSS, then the highest."""
    false, true, scores = roc_curve(y, z, drop_intermediate=False)
    keys = [
        (round(gap(t, f, y.mean()), 9), -round(t - f, 9), -s)
        for f, t, s in zip(false, true, scores, strict=True)
        if np.isfinite(s)
    ]
    return -min(keys)[2]


def leaving_out(y, z, count):
    """The highest score that leaves out at most so many presences."""
    return max(s for s in z if (z[y == 1] < s).sum() <= count)


REFERENCES = {
    "max-tss": lambda y, z: of_roc(y, z, lambda true, false, _: false - true),
    "equal-sensitivity-specificity": lambda y, z: of_roc(
        y, z, lambda true, false, _: abs(true - (1 - false))
    ),
    "omission-10": lambda y, z: leaving_out(y, z, (y == 1).sum() // 10),
    "prevalence": lambda y, z: of_roc(
        y, z, lambda true, false, p: abs(true * p + false * (1 - p) - p)
    ),
    "minimum-presence": lambda y, z: z[y == 1].min(),
}


@pytest.mark.parametrize("levels", [None, 6], ids=["no-ties", "ties"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_threshold_equals_its_definition(kind, levels):
    rng = np.random.default_rng(0)
    labels = (rng.random((160, 25)) < rng.uniform(0.05, 0.7, 25)).astype(float)
    scores = labels * 0.25 + rng.random(labels.shape) * 0.7
    if levels:
        scores = np.round(scores * levels) / levels
    for table in (labels, scores):
        table[rng.random(table.shape) < 0.2] = np.nan
    labels[:, 3] = 1
    result = gm.metrics.threshold(labels, scores, kind=kind)
    for k in range(25):
        is_scored = np.isfinite(labels[:, k]) & np.isfinite(scores[:, k])
        if k == 3:
            assert np.isnan(result[k])
        else:
            assert result[k] == REFERENCES[kind](labels[is_scored, k], scores[is_scored, k])


@pytest.mark.parametrize("kind", KINDS)
def test_small_tables_and_empty_ones(kind):
    rng = np.random.default_rng(1)
    for _ in range(60):
        y, z = rng.integers(0, 2, 7).astype(float), rng.integers(0, 4, 7) / 4
        result = gm.metrics.threshold(y, z, kind=kind)
        if len(set(y)) == 2:
            assert result == REFERENCES[kind](y, z)
        else:
            assert np.isnan(result)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(gm.metrics.threshold(np.empty((0, 2)), np.empty((0, 2)), kind=kind)).all()


def test_ten_presences_leave_out_one_and_nine_none():
    scores = np.arange(1, 12) / 12
    for presences in (10, 9):
        labels = np.r_[np.zeros(11 - presences), np.ones(presences)]
        left_out = (
            scores[labels == 1] < gm.metrics.threshold(labels, scores, kind="omission-10")
        ).sum()
        assert left_out == presences // 10


def test_an_unknown_kind_is_refused_with_the_list():
    with pytest.raises(SelectionError, match="no threshold 'tss'; choose from max-tss, equal"):
        gm.metrics.threshold([0, 1], [0.1, 0.2], kind="tss")
