"""Every metric against scikit-learn, scipy or a plain loop of its definition, and what it leaves out."""

import tracemalloc
import warnings
from itertools import pairwise

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import minimize
from scipy.special import expit, logit
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    cohen_kappa_score,
    f1_score,
    jaccard_score,
    log_loss,
    recall_score,
    roc_auc_score,
    roc_curve,
)

import geomiam as gm
from geomiam.errors import LabelError
from geomiam.metrics import METRICS, auc, mean_auc, tables
from geomiam.metrics.registry import measure_one_by_one


def one_by_one(labels, scores):
    """The same by scikit-learn, one species at a time."""
    result = []
    for y, x in zip(np.asarray(labels, float).T, np.asarray(scores, float).T, strict=True):
        valid = ~(np.isnan(y) | np.isnan(x))
        two_classes = len(np.unique(y[valid])) == 2
        result.append(roc_auc_score(y[valid], x[valid]) if two_classes else np.nan)
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
    in_one_block = auc(labels, scores)
    monkeypatch.setattr(tables, "BLOCK", block)
    np.testing.assert_array_equal(auc(labels, scores), in_one_block)


def test_memory_follows_the_block_and_not_the_table(monkeypatch):
    monkeypatch.setattr(tables, "BLOCK", 2**15)
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
        (np.zeros(3), np.zeros((3, 1)), r"labels must be a table .* labels\[:, None\]"),
        (np.zeros((3, 2)), np.zeros((2, 3)), r"\(2, 3\) do not fit labels of shape \(3, 2\)"),
        (np.full((3, 2), 7), np.zeros((3, 2)), r"labels must be 0, 1 or NaN, found 7.0"),
    ],
)
def test_wrong_tables_are_refused_with_what_was_found(labels, scores, message):
    with pytest.raises(ValueError, match=message):
        auc(labels, scores)


# --- all metrics ---------------------------------------------------------------------------------


def prg_loop(y, z):
    """Flach and Kull's area, point by point, with exact fractions of counts."""
    n, ones = len(y), int(y.sum())
    points, share = [(0, 0)], ones / n
    for cut in sorted(set(z), reverse=True):
        points.append((int(y[z >= cut].sum()), int((1 - y)[z >= cut].sum())))
    gains = []
    for (hits_0, false_0), (hits, false) in pairwise(points):
        cut = ones * share  # presences found where recall gain is 0
        if hits >= cut and hits_0 < cut:
            part = (cut - hits_0) / (hits - hits_0)
            gains.append((cut, false_0 + part * (false - false_0)))
        if hits >= cut:
            gains.append((hits, false))
    area, before = 0.0, None
    for hits, false in gains:
        precision, recall = hits / (hits + false), hits / ones
        gain = [(v - share) / ((1 - share) * v) for v in (recall, precision)]
        if before:
            area += (gain[0] - before[0]) * (gain[1] + before[1]) / 2
        before = gain
    return area


def boyce_loop(y, z, *, drop=True, window=0.1, resolution=100):
    """Hirzel's index, window by window."""
    low, high = z.min(), z.max()
    width, ratios, places = (high - low) * window, [], []
    for k, start in enumerate(np.linspace(low, high - width, resolution + 1)):
        end = start + width if k < resolution else np.inf
        inside = (z >= start) & (z <= end)
        if inside.any():
            ratios.append(round(inside[y == 1].mean() / inside.mean(), 10))
            places.append(start)
    ratios, places = np.array(ratios), np.array(places)
    if drop:
        changes = np.append(ratios[1:] != ratios[:-1], True)
        ratios, places = ratios[changes], places[changes]
    return spearmanr(ratios, places)[0] if len(set(ratios)) > 1 else np.nan


def calibration_fit(y, p):
    """Maximum likelihood by a general optimiser: intercept, slope."""
    x = logit(p)

    def loss(line):
        eta = line[0] + line[1] * x
        return np.mean(np.logaddexp(0, eta) - y * eta)

    def slope(line):
        error = expit(line[0] + line[1] * x) - y
        return np.array([error.mean(), (error * x).mean()])

    return minimize(loss, [0.0, 0.5], jac=slope, method="BFGS", options={"gtol": 1e-10}).x


def tss_of(y, z):
    below, above, _ = roc_curve(y, z, drop_intermediate=False)
    return (above - below).max()


def classes_of_best(y, z):
    """Classes at the highest threshold of the greatest true skill statistic, in whole numbers."""
    ones, zeros = (y == 1).sum(), (y == 0).sum()
    gain = {t: ((z >= t) & (y == 1)).sum() * zeros - ((z >= t) & (y == 0)).sum() * ones for t in z}
    return z >= max(t for t in gain if gain[t] == max(gain.values()))


def at_best(reference, **options):
    return lambda y, z: reference(y, classes_of_best(y, z), **options)


REFERENCES = {
    "auc": roc_auc_score,
    "auc_prg": prg_loop,
    "average_precision": average_precision_score,
    "tss": tss_of,
    "boyce": boyce_loop,
    "cor": lambda y, z: pearsonr(y, z)[0],
    "brier": brier_score_loss,
    "log_loss": log_loss,
    "calibration_slope": lambda y, p: calibration_fit(y, p)[1],
    "sensitivity": at_best(recall_score),
    "specificity": at_best(recall_score, pos_label=0),
    "omission": lambda y, z: 1 - recall_score(y, classes_of_best(y, z)),
    "kappa": at_best(cohen_kappa_score),
    "f1": at_best(f1_score),
    "sorensen": at_best(f1_score),
    "jaccard": at_best(jaccard_score),
}
TOLERANCE = {"calibration_slope": 1e-6}


def chances(n, species, *, seed=0, gaps=0.2, levels=None):
    """Labels drawn from probabilities, and scores that are overconfident about them."""
    rng = np.random.default_rng(seed)
    true = rng.normal(rng.uniform(-2, 1, species), 1, (n, species))
    labels = (rng.random(true.shape) < expit(true)).astype(float)
    scores = expit(2 * true + rng.normal(size=true.shape))
    if levels:
        scores = (np.round(scores * levels) + 0.5) / (levels + 1)
    labels[rng.random(true.shape) < gaps] = np.nan
    scores[rng.random(true.shape) < gaps] = np.nan
    return labels, scores


def each(reference, labels, scores):
    result = []
    for y, z in zip(labels.T, scores.T, strict=True):
        valid = ~(np.isnan(y) | np.isnan(z))
        two_classes = len(set(y[valid])) == 2
        result.append(reference(y[valid], z[valid]) if two_classes else np.nan)
    return np.array(result)


def test_every_metric_has_a_reference():
    assert set(REFERENCES) == set(METRICS)


@pytest.mark.parametrize("levels", [None, 4], ids=["no-ties", "ties"])
@pytest.mark.parametrize("name", METRICS)
def test_each_metric_equals_its_reference(name, levels):
    labels, scores = chances(200, 12, levels=levels)
    labels[:, 3] = np.where(np.isnan(labels[:, 3]), np.nan, 1)  # a species of one class
    result = METRICS[name](labels, scores)
    np.testing.assert_allclose(
        result, each(REFERENCES[name], labels, scores), atol=TOLERANCE.get(name, 1e-12), rtol=0
    )
    assert np.isnan(result).tolist() == [s == 3 for s in range(12)]


@given(
    st.integers(2, 14).flatmap(
        lambda n: st.tuples(
            arrays(float, (n, 1), elements=st.sampled_from([0.0, 1.0]) | gap),
            arrays(float, (n, 1), elements=st.integers(0, 6).map(lambda v: v / 6) | gap),
        )
    )
)
@settings(max_examples=150, deadline=None)
@pytest.mark.parametrize(
    "name", ["auc_prg", "average_precision", "tss", "brier", "log_loss", "kappa", "sorensen"]
)
def test_small_tables_full_of_ties_agree_too(name, pair):
    labels, scores = pair
    np.testing.assert_allclose(
        METRICS[name](labels, scores),
        each(REFERENCES[name], labels, scores),
        atol=1e-12,
        rtol=1e-12,
    )


@pytest.mark.parametrize("name", METRICS)
def test_what_is_not_known_changes_nothing(name):
    labels, scores = chances(150, 4, gaps=0)
    gappy, partly = labels.copy(), scores.copy()
    gappy[:40, 0], partly[40:60, 1] = np.nan, np.nan
    result = METRICS[name](gappy, partly)
    scored_sites = np.r_[0:40, 60:150]
    np.testing.assert_allclose(result[0], METRICS[name](labels[40:], scores[40:])[0], rtol=1e-12)
    np.testing.assert_allclose(
        result[1], METRICS[name](labels[scored_sites], scores[scored_sites])[1], rtol=1e-12
    )
    np.testing.assert_allclose(result[2:], METRICS[name](labels, scores)[2:], rtol=1e-12)


@pytest.mark.parametrize("name", METRICS)
def test_one_class_no_sites_and_no_species_give_nan_without_a_warning(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        labels = np.array([[0, 1, np.nan, 1], [0, 1, np.nan, 0]])
        scores = np.array([[0.1, 0.1, 0.1, 0.1], [0.2, 0.2, 0.2, np.nan]])
        assert np.isnan(METRICS[name](labels, scores)).all()
        assert np.isnan(METRICS[name](np.empty((0, 3)), np.empty((0, 3)))).tolist() == [True] * 3
        assert METRICS[name](np.empty((4, 0)), np.empty((4, 0))).shape == (0,)


@pytest.mark.parametrize("name", METRICS)
def test_blocks_broadcasting_and_types_change_nothing(name, monkeypatch):
    labels, scores = chances(120, 9, gaps=0)
    in_one_block = METRICS[name](labels, scores)
    np.testing.assert_array_equal(METRICS[name](labels.astype(bool), scores), in_one_block)
    broadcast = METRICS[name](labels, scores[:, :1])
    np.testing.assert_array_equal(
        broadcast, METRICS[name](labels, np.repeat(scores[:, :1], 9, axis=1))
    )
    single = METRICS[name](labels, scores.astype(np.float32))
    np.testing.assert_allclose(single, in_one_block, atol=1e-2 if name == "boyce" else 1e-5)
    monkeypatch.setattr(tables, "BLOCK", 250)
    np.testing.assert_array_equal(METRICS[name](labels, scores), in_one_block)


@pytest.mark.parametrize("name", METRICS)
def test_metrics_refuse_what_they_cannot_read(name):
    with pytest.raises(ValueError, match=r"labels must be 0, 1 or NaN, found 7.0"):
        METRICS[name](np.full((3, 2), 7), np.full((3, 2), 0.5))
    with pytest.raises(ValueError, match=r"\(2, 3\) do not fit labels of shape \(3, 2\)"):
        METRICS[name](np.zeros((3, 2)), np.zeros((2, 3)))


@pytest.mark.parametrize("name", METRICS)
def test_only_metrics_of_the_number_need_probabilities(name):
    labels, scores = chances(100, 3)
    on_logits = ("auc", "auc_prg", "average_precision", "tss", "kappa", "jaccard")
    if name in on_logits:  # the order of sites is all that counts
        np.testing.assert_allclose(
            METRICS[name](labels, logit(scores)), METRICS[name](labels, scores), atol=1e-12
        )
    elif name in ("brier", "log_loss", "calibration_slope"):
        with pytest.raises(ValueError, match=r"from 0 to 1, found .* scipy.special.expit"):
            METRICS[name](labels, logit(scores))


def test_measure_returns_what_each_metric_returns_and_sorts_once(monkeypatch):
    labels, scores = chances(80, 5)
    sorts, curve = [], tables.Curve
    alone = {name: metric(labels, scores) for name, metric in METRICS.items()}
    monkeypatch.setattr(tables, "Curve", lambda *parts: sorts.append(1) or curve(*parts))
    together = gm.metrics.measure(labels, scores, list(METRICS))
    assert sorts == [1]
    assert list(together) == list(METRICS)
    for name, values in alone.items():
        np.testing.assert_array_equal(together[name], values)
    assert gm.metrics.measure(labels, scores, []) == {}
    with pytest.raises(ValueError, match=r"no metric \['auk'\]; choose from auc, auc_prg"):
        gm.metrics.measure(labels, scores, ["auk"])


def test_a_species_found_late_starts_its_gain_curve_at_the_absences_before_it():
    # Two absences, then both presences together, then two absences: recall gain 0 lies at
    # 4/6 presences, on the line from (0 presences, 2 absences) to (2, 2), at precision gain
    # 1 − (2/4) · 2 / (4/6) = −0.5; at recall gain 1 precision gain is 1 − (2/4) · 2/2 = 0.5.
    labels = np.array([[0], [0], [1], [1], [0], [0]])
    scores = np.array([[5], [4], [3], [3], [2], [1]])
    assert gm.metrics.auc_prg(labels, scores)[0] == pytest.approx((-0.5 + 0.5) / 2, abs=1e-12)


def test_gain_is_one_for_perfect_and_zero_for_constant_scores():
    labels = np.array([[0, 0], [1, 1], [0, 0], [1, 1], [0, 0]])
    scores = np.array([[0, 3], [2, 3], [1, 3], [3, 3], [0, 3]])
    np.testing.assert_allclose(gm.metrics.auc_prg(labels, scores), [1, 0], atol=1e-12)


@pytest.mark.parametrize("levels", [None, 4], ids=["no-ties", "ties"])
def test_the_best_threshold_reaches_the_best_tss_and_is_the_highest_that_does(levels):
    labels, scores = chances(150, 8, levels=levels)
    best = gm.metrics.tss(labels, scores)
    at = gm.metrics.best_threshold(labels, scores)
    for y, z, value, threshold in zip(labels.T, scores.T, best, at, strict=True):
        y, z = y[~(np.isnan(y) | np.isnan(z))], z[~(np.isnan(y) | np.isnan(z))]
        tss_at = {t: (z[y == 1] >= t).mean() - (z[y == 0] >= t).mean() for t in z}
        assert tss_at[threshold] == pytest.approx(value, abs=1e-12)
        assert all(v < value - 1e-12 for t, v in tss_at.items() if t > threshold)


@pytest.mark.parametrize("drop", [True, False])
@pytest.mark.parametrize(("window", "resolution"), [(0.1, 100), (0.25, 20), (0.02, 60)])
def test_boyce_options_are_those_of_the_definition(drop, window, resolution):
    labels, scores = chances(120, 6, levels=40)
    options = {"window": window, "resolution": resolution}
    result = gm.metrics.boyce(labels, scores, drop_duplicates=drop, **options)
    expected = each(lambda y, z: boyce_loop(y, z, drop=drop, **options), labels, scores)
    np.testing.assert_allclose(result, expected, atol=1e-12)


def test_boyce_without_a_range_is_nan_and_wrong_windows_are_refused():
    labels = np.array([[0, 0], [1, 1], [0, 0], [1, 1]])
    scores = np.array([[0.5, 0.1], [0.5, np.inf], [0.5, 0.2], [0.5, 0.3]])
    assert np.isnan(gm.metrics.boyce(labels, scores)).all()
    with pytest.raises(ValueError, match=r"found 1.5; the usual one is 0.1"):
        gm.metrics.boyce(labels, scores, window=1.5)


def test_correlation_is_that_of_the_numbers_whatever_their_size():
    labels, scores = chances(100, 4, gaps=0)
    usual = gm.metrics.cor(labels, scores)
    np.testing.assert_allclose(gm.metrics.cor(labels, scores * 1e-200), usual, atol=1e-12)
    np.testing.assert_allclose(gm.metrics.cor(labels, 1e6 - 1e3 * scores), -usual, atol=1e-9)
    assert np.isnan(gm.metrics.cor(labels, np.full_like(scores, 0.1))).all()


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_certain_and_wrong_costs_as_much_as_in_scikit_learn(kind):
    labels = np.array([[1], [0], [1], [0]])
    scores = np.array([[0], [0], [1], [1]], kind)
    expected = log_loss(labels[:, 0], scores[:, 0])
    assert gm.metrics.log_loss(labels, scores)[0] == pytest.approx(expected, rel=1e-6)


def test_calibration_finds_intercept_and_slope_of_known_miscalibration():
    labels, scores = chances(400, 10)
    expected = each(lambda y, p: calibration_fit(y, p)[0], labels, scores)
    line = gm.metrics.calibration(labels, scores)
    np.testing.assert_allclose(line.intercept, expected, atol=1e-6)
    # logit(p') = (logit(p) − 3) / 2 must be undone: slope doubles, the intercept gains 3 slopes.
    shifted_line = gm.metrics.calibration(labels, expit((logit(scores) - 3) / 2))
    np.testing.assert_allclose(shifted_line.slope, 2 * line.slope, rtol=1e-8)
    np.testing.assert_allclose(shifted_line.intercept, line.intercept + 3 * line.slope, rtol=1e-7)


@pytest.mark.parametrize("power", [0.01, 1, 8])
@pytest.mark.parametrize("sign", [1, -1])
def test_calibration_settles_far_from_calibrated(power, sign):
    labels, scores = chances(300, 20, gaps=0)
    usual = gm.metrics.calibration_slope(labels, scores)
    bent = gm.metrics.calibration_slope(
        labels, expit(sign * power * np.clip(logit(scores), -1.7, 1.7))
    )
    slope = gm.metrics.calibration_slope(labels, expit(np.clip(logit(scores), -1.7, 1.7)))
    assert np.isfinite(usual).all()
    np.testing.assert_allclose(bent, sign * slope / power, rtol=1e-6)


def test_separated_classes_have_no_slope():
    labels = np.array([[0, 0, 1, 0], [0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 0, 1]])
    scores = np.array(
        [[0.1, 0.1, 0.1, 0.3], [0.2, 0.4, 0.2, 0.3], [0.3, 0.4, 0.3, 0.3], [0.4, 0.5, 0.4, 0.3]]
    )
    line = gm.metrics.calibration(labels, scores)
    assert np.isnan(line.slope).all() and np.isnan(line.intercept).all()
    mixed = gm.metrics.calibration_slope(np.array([[0], [1], [0], [1]]), scores[:, :1])
    assert np.isfinite(mixed).all()


def test_the_summary_reports_how_many_species_it_covers():
    actual = gm.metrics.summary([0.5, np.nan, 0.9, 0.6, np.nan])
    assert actual == (pytest.approx(2 / 3), 0.6, 3, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        without_values = gm.metrics.summary([np.nan])
    assert np.isnan(without_values.mean) and np.isnan(without_values.median)
    assert (without_values.scored, without_values.unscored) == (0, 1)


@pytest.mark.parametrize("name", METRICS)
def test_memory_of_each_metric_follows_the_block(name, monkeypatch):
    monkeypatch.setattr(tables, "BLOCK", 2**14)
    labels, scores = chances(400, 2500, gaps=0)
    tracemalloc.start()
    METRICS[name](labels, scores)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < labels.nbytes / 2


def test_a_threshold_is_never_taken_inside_a_run_of_equal_scores():
    """The highest scores are absences only, so every threshold but the lowest loses."""
    labels = np.array([[0], [0], [0], [1], [1], [0]])
    scores = np.array([[9.0], [9.0], [9.0], [5.0], [1.0], [1.0]])
    assert gm.metrics.tss(labels, scores).tolist() == [0.0]
    assert gm.metrics.best_threshold(labels, scores).tolist() == [1.0]


def test_boyce_keeps_the_highest_score_whatever_the_rounding():
    """The last window ends at the highest score, also where lowest + width rounds below it."""
    low, high = 0.1, 0.85
    width = (high - low) * 0.1
    assert np.linspace(low, high - width, 101)[-1] + width < high
    y = np.array([0, 0, 1, 0, 0, 0, 1, 0, 0, 1.0])
    z = np.array([*np.linspace(low, 0.7, 8), 0.8, high])
    actual = gm.metrics.boyce(y[:, None], z[:, None])[0]
    assert actual == pytest.approx(boyce_loop(y, z), abs=1e-12)


def test_boyce_takes_as_few_as_two_windows_and_refuses_the_ends_of_its_ranges():
    labels, scores = chances(80, 3, gaps=0)
    two = gm.metrics.boyce(labels, scores, window=0.5, resolution=1)
    expected = each(lambda y, z: boyce_loop(y, z, window=0.5, resolution=1), labels, scores)
    np.testing.assert_allclose(two, expected, atol=1e-12)
    share, count = "window must be a share", "resolution must be at least 1"
    for options, message in (
        ({"window": 0}, share),
        ({"window": 1}, share),
        ({"resolution": 0}, count),
    ):
        with pytest.raises(ValueError, match=message):
            gm.metrics.boyce(labels, scores, **options)


# --- DataArrays and single species ---------------------------------------------------------------


@pytest.fixture
def labels_and_scores():
    rng = np.random.default_rng(0)
    labels = xr.DataArray(
        (rng.random((40, 3)) < 0.4).astype(float),
        dims=("site", "species"),
        coords={"species": ["a", "b", "c"]},
    )
    return labels, labels * 0.3 + rng.random((40, 3)) * 0.5


@pytest.mark.parametrize("name", METRICS)
def test_metrics_match_species_of_dataarrays_by_name(labels_and_scores, name):
    labels, scores = labels_and_scores
    expected = METRICS[name](labels.values, scores.values)
    values = METRICS[name](labels, scores.transpose("species", "site").sel(species=["c", "a", "b"]))
    assert values.dims == ("species",) and values.name == name
    np.testing.assert_allclose(values.sel(species=["a", "b", "c"]), expected)
    score = METRICS[name](labels.sel(species="b"), scores.sel(species="b"))
    assert score.dims == () and float(score) == pytest.approx(expected[1])
    assert METRICS[name](labels.values[:, 1], scores.values[:, 1]) == pytest.approx(expected[1])


def test_further_dims_of_the_scores_are_kept(labels_and_scores):
    labels, scores = labels_and_scores
    stacked_scores = xr.concat([scores, 1 - scores], xr.IndexVariable("subset", ["all", "none"]))
    values = auc(labels, stacked_scores.chunk())
    assert set(values.dims) == {"subset", "species"}
    np.testing.assert_allclose(values.sel(subset="none"), 1 - auc(labels, scores))
    line = gm.metrics.calibration(labels, scores)
    assert line.slope.dims == line.intercept.dims == ("species",)


def test_dataarrays_of_other_species_sites_or_dims_are_refused(labels_and_scores):
    labels, scores = labels_and_scores
    with pytest.raises(LabelError, match=r"scores lack 1 species of the labels: \['c'\]"):
        auc(labels, scores.sel(species=["a", "b"]))
    with pytest.raises(LabelError, match="need the dim 'site'"):
        auc(labels.rename(site="row"), scores)
    with pytest.raises(LabelError, match="both need the dim 'species', or neither"):
        auc(labels.isel(species=0), scores)
    with pytest.raises(LabelError, match="different sites"):
        auc(labels.assign_coords(site=range(40)), scores.assign_coords(site=range(1, 41)))


def test_a_metric_of_the_user_skips_missing_labels_and_species_of_one_class():
    labels = np.array([[1.0, 1], [0, 1], [np.nan, 1]])
    values = measure_one_by_one(lambda y, p: len(y), labels, np.full((3, 2), 0.5))
    assert values[0] == 2 and np.isnan(values[1])
