"""The vectorised AUC against scikit-learn, and what it leaves out."""

import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import roc_auc_score

from geomiam import metrics
from geomiam.metrics import auc, mean_auc


def one_by_one(labels, scores):
    """The same by scikit-learn, one species at a time."""
    result = []
    for y, x in zip(np.asarray(labels, float).T, np.asarray(scores, float).T, strict=True):
        known = ~(np.isnan(y) | np.isnan(x))
        both = len(np.unique(y[known])) == 2
        result.append(roc_auc_score(y[known], x[known]) if both else np.nan)
    return np.array(result)


def table(n, species, *, seed=0, gaps=0.2, levels=None):
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, species)) < rng.uniform(0.02, 0.6, species)).astype(float)
    scores = labels * 0.3 + rng.normal(size=(n, species))
    if levels:
        scores = np.round(scores * levels) / levels
    labels[rng.random(labels.shape) < gaps] = np.nan
    scores[rng.random(labels.shape) < gaps] = np.nan
    return labels, scores


@pytest.mark.parametrize("levels", [None, 1, 5], ids=["no-ties", "many-ties", "ties"])
@pytest.mark.parametrize("gaps", [0.0, 0.3])
def test_auc_equals_scikit_learn_with_ties_and_gaps(levels, gaps):
    labels, scores = table(300, 40, levels=levels, gaps=gaps)
    np.testing.assert_allclose(auc(labels, scores), one_by_one(labels, scores), rtol=0, atol=1e-12)


shape = st.tuples(st.integers(1, 12), st.integers(1, 4))
gap = st.just(float("nan"))


@given(
    shape.flatmap(
        lambda s: st.tuples(
            arrays(float, s, elements=st.sampled_from([0.0, 1.0]) | gap),
            arrays(float, s, elements=st.integers(-3, 3).map(float) | st.floats(-1e6, 1e6) | gap),
        )
    )
)
@settings(max_examples=200, deadline=None)
def test_auc_equals_scikit_learn_on_any_table(pair):
    labels, scores = pair
    np.testing.assert_allclose(auc(labels, scores), one_by_one(labels, scores), rtol=0, atol=1e-12)


def test_perfect_reversed_and_constant_scores_give_one_zero_and_a_half():
    labels = np.array([[0, 0, 0], [1, 1, 1], [0, 0, 0], [1, 1, 1]])
    scores = np.array([[0, 9, 5], [2, 1, 5], [1, 8, 5], [3, 0, 5]])
    assert auc(labels, scores).tolist() == [1.0, 0.0, 0.5]


def test_a_species_of_one_class_has_no_auc():
    labels = np.array([[0, 1, np.nan, 1], [0, 1, np.nan, 0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = auc(labels, np.array([[0.1, 0.1, 0.1, 0.1], [0.2, 0.2, 0.2, np.nan]]))
    assert np.isnan(result).all()


def test_gaps_are_left_out_species_by_species():
    labels, scores = table(200, 2, gaps=0)
    gappy = labels.copy()
    gappy[:50, 0] = np.nan
    result = auc(gappy, scores)
    assert result[0] == auc(labels[50:], scores[50:])[0]
    assert result[1] == auc(labels, scores)[1]


def test_infinite_scores_are_the_highest_and_the_lowest():
    labels = np.array([[1], [0], [1], [0], [np.nan]])
    scores = np.array([[np.inf], [-np.inf], [0.0], [np.inf], [np.inf]])
    assert auc(labels, scores).tolist() == [(0.5 + 1 + 0 + 1) / 4]


@pytest.mark.parametrize("kind", [bool, np.int8, np.float32])
def test_the_type_of_the_labels_does_not_matter(kind):
    labels, scores = table(100, 5, gaps=0)
    np.testing.assert_array_equal(auc(labels.astype(kind), scores), auc(labels, scores))


def test_one_score_per_site_serves_all_species():
    labels, scores = table(100, 5, gaps=0)
    np.testing.assert_array_equal(
        auc(labels, scores[:, :1]), auc(labels, np.repeat(scores[:, :1], 5, axis=1))
    )


@pytest.mark.parametrize("block", [1, 150, 1000])
def test_blocks_change_nothing(block, monkeypatch):
    labels, scores = table(100, 23)
    whole = auc(labels, scores)
    monkeypatch.setattr(metrics, "_BLOCK", block)
    np.testing.assert_array_equal(auc(labels, scores), whole)


def test_memory_follows_the_block_and_not_the_table(monkeypatch):
    monkeypatch.setattr(metrics, "_BLOCK", 2**15)
    labels, scores = table(500, 4000, gaps=0)
    tracemalloc.start()
    auc(labels, scores)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < labels.nbytes / 2


def test_the_inputs_are_left_unchanged():
    labels, scores = table(50, 3)
    before = labels.copy(), scores.copy()
    auc(labels, scores)
    np.testing.assert_array_equal(labels, before[0])
    np.testing.assert_array_equal(scores, before[1])


def test_no_sites_and_no_species_are_allowed():
    assert np.isnan(auc(np.empty((0, 3)), np.empty((0, 3)))).tolist() == [True] * 3
    assert auc(np.empty((4, 0)), np.empty((4, 0))).shape == (0,)


def test_the_mean_is_over_species_that_have_an_auc():
    labels, scores = table(100, 6)
    labels[:, 2] = 0
    assert mean_auc(labels, scores) == pytest.approx(np.nanmean(auc(labels, scores)))


def test_the_mean_of_nothing_is_nan_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(mean_auc(np.zeros((4, 2)), np.zeros((4, 2))))


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        (np.zeros(3), np.zeros(3), r"labels must be a table .* labels\[:, None\]"),
        (np.zeros((3, 2)), np.zeros((2, 3)), r"\(2, 3\) do not fit labels of shape \(3, 2\)"),
        (np.full((3, 2), 7), np.zeros((3, 2)), r"labels must be 0, 1 or NaN, found 7.0"),
    ],
)
def test_wrong_tables_are_refused_with_what_was_found(labels, scores, message):
    with pytest.raises(ValueError, match=message):
        auc(labels, scores)
