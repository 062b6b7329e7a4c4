"""Laws and numbers of the masking strategies."""

import itertools
import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from geomiam.masking import (
    MIAM,
    OPM,
    Balance,
    BetaCube,
    Constant,
    Dirichlet,
    ModalityDropout,
    Strategy,
    Uniform,
    UniformCube,
    balance,
    hide,
    named,
    to_dict,
)

N = 200_000
ALL = [
    Constant(),
    Constant(0.3),
    Uniform(),
    Dirichlet(),
    Dirichlet(0.4),
    Dirichlet(simplex="visible"),
    ModalityDropout(),
    ModalityDropout(0.3, keep_one=True),
    OPM(),
    OPM(0.3, 1.5),
    UniformCube(),
    BetaCube(),
    BetaCube(2.5),
    MIAM(),
    MIAM(10, 3),
    MIAM(1, 0),
]
NAMES = [
    "miam",
    "uniform",
    "dirichlet",
    "dirichlet-visible",
    "dropout",
    "opm",
    "constant",
    "uniform-cube",
    "beta-cube",
    "subset",
    "ramp",
]
# Scores and speeds of a dominant, a middle and a dominated modality.
S, D = np.array([0.90, 0.87, 0.60]), np.array([0.002, 0.004, 0.010])
TOKENS = (48, 202, 100)


def show(strategy: object) -> str:
    return str(strategy).split(", per_sample")[0]


def two_epochs(s, d):
    """Score table that ends at s and moved by d in its last step."""
    s, d = np.asarray(s), np.asarray(d)
    return np.stack([s - d, s])


def with_r(*r):
    return Balance(s=np.linspace(0.9, 0.5, len(r)), d=np.full(len(r), 0.01), r=np.array(r))


def draw(strategy, n=N, *, sizes=TOKENS, b=None, seed=0):
    b = Balance.neutral(len(sizes)) if b is None else b
    return strategy.sample(n, sizes=sizes, balance=b, rng=np.random.default_rng(seed))


# --- every strategy ---------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [TOKENS, (1, 1, 1)], ids=["many-tokens", "one-token"])
@pytest.mark.parametrize("strategy", ALL, ids=show)
def test_the_closed_form_mean_is_the_mean_of_the_draws(strategy, sizes):
    b = with_r(2.49, 1.21, 0.33)
    p = draw(strategy, sizes=sizes, b=b)
    error = np.abs(p.mean(axis=0) - strategy.expected(sizes=sizes, balance=b))
    assert (error <= 4 * p.std(axis=0) / np.sqrt(N) + 1e-9).all()


@pytest.mark.parametrize("m", [1, 2, 5])
@pytest.mark.parametrize("size", [1, 4])
def test_the_closed_form_mean_of_miam_holds_for_few_and_many_modalities(m, size):
    strategy, b = MIAM(10, 2), with_r(*np.geomspace(2, 0.5, m))
    p = draw(strategy, sizes=[size] * m, b=b)
    error = np.abs(p.mean(axis=0) - strategy.expected(sizes=[size] * m, balance=b))
    assert (error <= 4 * p.std(axis=0) / np.sqrt(N)).all()


@pytest.mark.parametrize("m", [1, 2, 3, 5, 200])
@pytest.mark.parametrize("strategy", ALL, ids=show)
def test_draws_are_probabilities_for_any_number_of_modalities(strategy, m):
    if m == 1 and isinstance(strategy, Dirichlet) and strategy.simplex == "masked":
        with pytest.raises(ValueError, match="hides every token"):
            draw(strategy, 5, sizes=[7], b=with_r(1.0))
        return
    b = with_r(*np.geomspace(5, 0.2, m))
    for size in (1, 7):
        p = draw(strategy, 500, sizes=[size] * m, b=b)
        assert p.shape == (500, m) and p.dtype == np.float64
        assert ((p >= 0) & (p <= 1)).all()
        assert strategy.expected(sizes=[size] * m, balance=b).shape == (m,)


@pytest.mark.parametrize("strategy", ALL, ids=show)
def test_the_same_rng_gives_the_same_draw_and_another_rng_another(strategy):
    p = draw(strategy, 50, b=with_r(2, 1, 0.5), seed=3)
    assert np.array_equal(p, draw(strategy, 50, b=with_r(2, 1, 0.5), seed=3))
    if not isinstance(strategy, Constant):
        assert not np.array_equal(p, draw(strategy, 50, b=with_r(2, 1, 0.5), seed=4))


@pytest.mark.parametrize("strategy", ALL, ids=show)
def test_every_strategy_satisfies_the_protocol_and_reads_the_score_table(strategy):
    assert isinstance(strategy, Strategy)
    assert strategy.per_sample is False
    assert type(strategy)(per_sample=True).per_sample is True
    b = strategy.balance(two_epochs(S, D))
    np.testing.assert_allclose(b.s, S)
    assert np.isnan(strategy.balance(np.empty((0, 3))).s).all()


@pytest.mark.parametrize("strategy", ALL, ids=show)
def test_a_strategy_survives_the_way_through_json(strategy):
    assert named(**json.loads(json.dumps(to_dict(strategy)))) == strategy


@pytest.mark.parametrize("name", NAMES)
def test_every_name_gives_a_strategy_with_its_defaults(name):
    assert to_dict(named(name))["name"] == name.removesuffix("-visible")
    if name != "ramp":  # it draws as the strategy inside
        assert named(name, per_sample=True).per_sample


def test_the_visible_dirichlet_is_found_by_its_own_name():
    assert named("dirichlet-visible") == Dirichlet(simplex="visible")


# --- the published numbers --------------------------------------------------------------------


def test_the_three_modality_example_has_the_quotients_worked_out_by_hand():
    r = balance(two_epochs(S, D), strict_paper=True, eps=1e-9).r
    np.testing.assert_allclose(r, [2.49, 1.21, 0.33], atol=0.005)
    np.testing.assert_allclose(r, (S / D) / stats.gmean(S / D))


@pytest.mark.parametrize(
    ("lam", "mean"), [(1, (0.580, 0.515, 0.401)), (3, (0.801, 0.549, 0.136)), (0, (0.5, 0.5, 0.5))]
)
def test_the_signs_hide_the_dominant_modality_most(lam, mean):
    strategy = MIAM(10, lam, strict_paper=True, eps=1e-9)
    b = strategy.balance(two_epochs(S, D))
    pull = ((S / D) / stats.gmean(S / D)) ** lam
    exact = 0.5 / (1 + 10 / pull) + 0.5 * 10 * pull / (1 + 10 * pull)
    np.testing.assert_allclose(strategy.expected(sizes=TOKENS, balance=b), exact)
    # The table comes from 200k draws, as do these: each is off by up to 0.002.
    np.testing.assert_allclose(exact, mean, atol=0.002)
    np.testing.assert_allclose(draw(strategy, b=b).mean(axis=0), mean, atol=0.004)


# E[p], P(empty), P(only modality m visible) for T = (48, 202, 100), from 400k draws.
EXPOSED = [
    (Constant(), (0.75, 0.75, 0.75), 0.0, (0, 0, 0)),
    (Uniform(), (0.5, 0.5, 0.5), 0.0029, (0.0005, 0.0039, 0.0011)),
    (UniformCube(), (0.5, 0.5, 0.5), 0.0, (0.0001, 0.0002, 0.0001)),
    (Dirichlet(simplex="visible"), (2 / 3, 2 / 3, 2 / 3), 0.0, (0.0001, 0.0004, 0.0002)),
    (Dirichlet(), (1 / 3, 1 / 3, 1 / 3), 0.0, (0, 0, 0)),
    (ModalityDropout(), (0.1, 0.1, 0.1), 0.001, (0.009, 0.009, 0.009)),
    (BetaCube(), (0.5, 0.5, 0.5), 0.0002, (0.0013, 0.0050, 0.0025)),
    (MIAM(10, 3), (0.514, 0.755, 0.221), 0.0001, (0.0007, 0.0004, 0.0232)),
]


def empty_and_only(p, sizes):
    """Exact given p: chance that nothing is visible, and that only modality m is."""
    all_hidden = p ** np.array(sizes)
    rest_hidden = np.stack(
        [np.delete(all_hidden, m, axis=1).prod(axis=1) for m in range(len(sizes))], axis=1
    )
    return all_hidden.prod(axis=1).mean(), (rest_hidden * (1 - all_hidden)).mean(axis=0)


@pytest.mark.parametrize(("strategy", "mean", "empty", "only"), EXPOSED, ids=lambda x: show(x)[:20])
def test_strategies_expose_what_the_table_states(strategy, mean, empty, only):
    # Quotients multiply to one; the third, printed as 0.43, follows from the other two.
    p = draw(strategy, b=with_r(1.06, 2.22, 1 / (1.06 * 2.22)))
    found_empty, found_only = empty_and_only(p, TOKENS)
    np.testing.assert_allclose(p.mean(axis=0), mean, atol=0.004)
    assert found_empty == pytest.approx(empty, abs=0.0004)
    np.testing.assert_allclose(found_only, only, atol=0.0008)


def test_single_tokens_would_often_all_be_hidden_without_the_merge():
    # With two tokens per modality nothing is merged; the power of one shows the unmerged law.
    empty, _ = empty_and_only(draw(BetaCube(), sizes=(2,) * 5), (1,) * 5)
    assert empty == pytest.approx(0.1618, abs=0.003)


def test_single_tokens_are_rarely_all_hidden_with_the_merge():
    empty, _ = empty_and_only(draw(BetaCube(), sizes=(1,) * 5), (1,) * 5)
    assert empty == pytest.approx(0.006, abs=0.001)


# --- the corners ------------------------------------------------------------------------------

SHARP = MIAM(kappa=1e9, lam=0)  # so sharp that p rounds to its corner


@pytest.mark.parametrize("m", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [1, 4])
def test_each_corner_has_its_published_weight(m, size):
    corners = np.round(draw(SHARP, sizes=[size] * m))
    codes = (corners @ 2 ** np.arange(m)).astype(int)
    weights = np.full(2**m, 0.5 / max(1, 2**m - 2))
    weights[[0, -1]] = 0.5 if m == 1 else 0.25
    if size == 1:
        weights[0], weights[-1] = weights[0] + weights[-1], 0
    shares = np.bincount(codes, minlength=2**m) / N
    assert (np.abs(shares - weights) <= 4 * np.sqrt(weights * (1 - weights) / N)).all()


@pytest.mark.parametrize(("size", "expected"), [(1, (0.25, 0.5, 0.0)), (4, (0.5, 0.25, 0.25))])
def test_two_hundred_modalities_keep_the_weights_of_the_extreme_corners(size, expected):
    n = 20_000
    corners = np.round(draw(SHARP, n, sizes=[size] * 200)).astype(bool)
    shares = corners.mean(), (~corners).all(axis=1).mean(), corners.all(axis=1).mean()
    np.testing.assert_allclose(shares, expected, atol=4 * 0.5 / np.sqrt(n))


def test_a_modality_of_many_tokens_keeps_the_all_hidden_corner():
    assert np.round(draw(SHARP, 1000, sizes=(1, 1, 2))).all(axis=1).mean() > 0.2


@pytest.mark.parametrize("r", [0.4, 1.0, 2.2])
@pytest.mark.parametrize("lam", [0, 1, 3])
def test_each_factor_follows_its_beta_distribution(r, lam):
    p = draw(MIAM(10, lam), 20_000, sizes=[5], b=with_r(r))[:, 0]

    def mixture(x):
        near_zero = stats.beta(1, 10 * r**-lam).cdf(x)
        return 0.5 * near_zero + 0.5 * stats.beta(10 * r**lam, 1).cdf(x)

    assert stats.kstest(p, mixture).pvalue > 1e-3


def test_the_two_factors_are_beta_each_by_itself():
    # One token and one modality leaves only the corner 0: a pure Beta(1, kappa / r^lam).
    p = draw(MIAM(10, 2), 20_000, sizes=[1], b=with_r(1.5))[:, 0]
    assert stats.kstest(p, stats.beta(1, 10 / 1.5**2).cdf).pvalue > 1e-3
    # Mirrored, 1 - p at r is p at 1 / r: the corner 1 is the corner 0 seen from the other side.
    first = draw(MIAM(10, 2), 20_000, sizes=[5], b=with_r(1.5))[:, 0]
    second = draw(MIAM(10, 2), 20_000, sizes=[5], b=with_r(1 / 1.5), seed=1)[:, 0]
    assert stats.ks_2samp(1 - first, second).pvalue > 1e-3


def test_kappa_one_without_imbalance_is_the_uniform_cube():
    p = draw(MIAM(1, 0), 20_000, b=with_r(3, 1, 0.2))
    assert all(stats.kstest(column, "uniform").pvalue > 1e-3 for column in p.T)
    assert np.abs(np.corrcoef(p.T) - np.eye(3)).max() < 0.03


def test_the_beta_cube_is_miam_without_imbalance():
    b = with_r(3, 1, 0.2)
    assert np.array_equal(draw(BetaCube(7), 100, b=b), draw(MIAM(7, 0), 100, b=b))


# --- the other strategies ---------------------------------------------------------------------


def test_uniform_shares_one_probability_between_modalities():
    p = draw(Uniform(), 20_000)
    assert (p == p[:, :1]).all()
    assert stats.kstest(p[:, 0], "uniform").pvalue > 1e-3


def test_dirichlet_sums_to_one_on_the_side_it_names():
    np.testing.assert_allclose(draw(Dirichlet(), 100).sum(axis=1), 1)
    np.testing.assert_allclose((1 - draw(Dirichlet(simplex="visible"), 100)).sum(axis=1), 1)


def test_dropout_and_opm_hide_modalities_only_as_a_whole():
    for strategy in (ModalityDropout(0.4), OPM()):
        assert set(np.unique(draw(strategy, 1000, b=with_r(1, 1, 1)))) == {0.0, 1.0}


def test_opm_with_two_modalities_is_the_formula_of_its_authors():
    b = Balance(s=[0.9, 0.6], d=[0.1, 0.1], r=[1, 1])
    q = 0.5 * (1 + 0.5 * np.tanh(0.9 / 0.6 - 1))
    np.testing.assert_allclose(OPM().expected(sizes=(4, 4), balance=b), [q, 0])


def test_opm_averages_the_ratio_to_every_other_modality():
    b = Balance(s=S, d=D, r=np.ones(3))
    lead = [np.mean([S[m] / S[j] for j in range(3) if j != m]) for m in range(3)]
    q = [0.5 * (1 + 0.5 * np.tanh(c - 1)) if c > 1 else 0 for c in lead]
    np.testing.assert_allclose(OPM().expected(sizes=TOKENS, balance=b), q)


def test_opm_hides_nothing_while_scores_are_unknown():
    for s in ([np.nan] * 3, [0.9, np.nan, np.nan]):
        b = Balance(s=s, d=[np.nan] * 3, r=[1, 1, 1])
        assert not draw(OPM(), 100, b=b).any()
    b = Balance(s=[0.9, np.nan, 0.6], d=[np.nan] * 3, r=[1, 1, 1])
    assert (OPM().expected(sizes=TOKENS, balance=b) > 0).tolist() == [True, False, False]


def test_opm_of_the_authors_hides_every_token_with_q_before_the_first_scores():
    strict, before = OPM(strict_paper=True), Balance.neutral(3)
    p = draw(strict, 1000, b=before)
    assert (p == 0.5).all() and p.shape == (1000, 3)  # tokens one by one, not whole modalities
    np.testing.assert_array_equal(strict.expected(sizes=TOKENS, balance=before), 0.5)
    assert (draw(OPM(0.2, strict_paper=True), 10, b=before) == 0.2).all()
    assert not draw(OPM(), 1000, b=before).any()
    without_scores = strict.balance(np.full((2, 3), np.nan))
    assert (draw(strict, 10, b=without_scores) == 0.5).all()
    one_score = Balance(s=[0.9, np.nan, np.nan], d=[np.nan] * 3, r=[1, 1, 1])
    assert not draw(strict, 100, b=one_score).any()
    later = Balance(s=S, d=D, r=np.ones(3))
    same = [s.expected(sizes=TOKENS, balance=later) for s in (strict, OPM())]
    np.testing.assert_array_equal(*same)


def test_opm_clips_its_probability_at_one():
    b = Balance(s=[0.9, 0.01], d=[0.1, 0.1], r=[1, 1])
    assert OPM(0.9, 3).expected(sizes=(2, 2), balance=b).tolist() == [1, 0]


# --- hide -------------------------------------------------------------------------------------


def test_tokens_are_hidden_as_often_as_their_modality_states():
    p, sizes, n = np.array([[0.0, 0.2, 0.7, 1.0]]), (2, 3, 4, 1), 20_000
    hidden = hide(p, n=n, sizes=sizes, rng=np.random.default_rng(0))
    expected = np.repeat(p[0], sizes)
    assert hidden.shape == (n, 10) and hidden.dtype == bool
    error = np.abs(hidden.mean(axis=0) - expected)
    assert (error <= 4 * np.sqrt(expected * (1 - expected) / n)).all()
    assert np.abs(np.corrcoef(hidden[:, 2:9].T) - np.eye(7)).max() < 0.04


def test_each_sample_follows_its_own_probabilities():
    p = np.array([[0.0, 1.0], [1.0, 0.0]])
    hidden = hide(p, n=2, sizes=(1, 2), rng=np.random.default_rng(0))
    assert hidden.tolist() == [[False, True, True], [True, False, False]]


def test_hide_repeats_with_the_same_rng():
    a, b = (
        hide([[0.5, 0.5]], n=9, sizes=(3, 4), rng=np.random.default_rng(seed)) for seed in (1, 1)
    )
    assert np.array_equal(a, b)


# --- balance ----------------------------------------------------------------------------------

positive = st.floats(0.01, 1)
rows = st.integers(2, 6).flatmap(
    lambda m: st.tuples(arrays(float, m, elements=positive), arrays(float, m, elements=positive))
)


def strict(s, d):
    return balance(two_epochs(s, d), strict_paper=True, eps=1e-12).r


@given(rows, st.floats(1.05, 4), st.sampled_from([0.5, 1, 3]))
@settings(max_examples=150, deadline=None)
def test_a_bigger_score_and_a_slower_change_hide_a_modality_more(sd, factor, lam):
    s, d = sd
    first = np.eye(len(s))[0].astype(bool)
    sizes, strategy = [4] * len(s), MIAM(10, lam)

    def mean(s, d):
        unknown = np.full(len(s), np.nan)
        b = Balance(s=unknown, d=unknown, r=strict(s, d))
        return strategy.expected(sizes=sizes, balance=b)

    base = mean(s, d)
    for raised_mean in (
        mean(np.where(first, s * factor, s), d),
        mean(s, np.where(first, d / factor, d)),
    ):
        assert raised_mean[0] > base[0] - 1e-9
        assert (raised_mean[1:] < base[1:] + 1e-9).all()


@given(rows, st.floats(0.1, 10), st.floats(0.1, 10))
@settings(max_examples=150, deadline=None)
def test_quotients_ignore_a_common_scale_and_multiply_to_one(sd, a, b):
    s, d = sd
    np.testing.assert_allclose(strict(a * s, b * d), strict(s, d), rtol=1e-6)
    assert np.prod(strict(s, d)) == pytest.approx(1)


@given(arrays(float, st.tuples(st.integers(0, 8), st.integers(1, 5)), elements=st.floats(0, 1)))
@settings(max_examples=150, deadline=None)
def test_any_score_table_gives_finite_quotients_within_the_bound(table):
    for strategy in (MIAM(), MIAM(10, 3), MIAM(10, 0.01), MIAM(strict_paper=True)):
        b = strategy.balance(table)
        assert np.isfinite(b.r).all() and (b.r > 0).all()
        if not strategy.strict_paper:
            pull = b.r**strategy.lam
            assert ((pull <= 5 * (1 + 1e-9)) & (pull >= 0.2 * (1 - 1e-9))).all()


def test_nothing_is_preferred_until_two_scores_exist():
    assert (balance(np.empty((0, 3))).r == 1).all()
    one_epoch = balance([S])
    assert (one_epoch.r == 1).all() and np.isnan(one_epoch.d).all()
    np.testing.assert_array_equal(one_epoch.s, S)
    assert (balance(two_epochs(S, D)).r != 1).all()


@pytest.mark.parametrize("strict_paper", [False, True])
def test_a_modality_that_stands_still_leaves_everything_finite(strict_paper):
    strategy = MIAM(10, 3, strict_paper=strict_paper)
    b = strategy.balance(two_epochs(S, [0.0, 0.004, 0.010]))
    assert np.isfinite(b.r).all() and b.r[0] == b.r.max()
    assert np.isfinite(strategy.expected(sizes=TOKENS, balance=b)).all()
    assert np.isfinite(draw(strategy, 100, b=b)).all()


def test_all_modalities_standing_still_leaves_only_their_scores():
    b = balance(two_epochs(S, np.zeros(3)), strict_paper=True)
    np.testing.assert_allclose(b.r, S / stats.gmean(S))


@pytest.mark.parametrize("without_scores", [[0], [1], [-1], [0, 1, 2]])
def test_a_modality_without_scores_is_frozen_and_changes_no_other(without_scores):
    table = np.stack([S - 2 * D, S - D, S])
    with_gap = np.insert(table, 1, 0.7, axis=1)
    with_gap[without_scores, 1] = np.nan
    frozen = without_scores != [0]  # a gap that lies two epochs back has healed
    b = balance(with_gap)
    assert (b.r[1] == 1) == frozen
    if frozen:
        np.testing.assert_allclose(b.r[[0, 2, 3]], balance(table).r)


def test_modalities_without_any_score_stay_neutral():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        b = balance(np.full((4, 3), np.nan))
    assert (b.r == 1).all() and np.isnan(b.s).all() and np.isnan(b.d).all()


def test_the_speed_is_the_last_step_of_the_moving_average():
    table = np.random.default_rng(0).uniform(0.5, 0.9, (6, 3))
    average = table[0]
    for row in table[1:]:
        before, average = average, 0.8 * average + 0.2 * row
    b = balance(table, smoothing=0.8, eps=1e-4)
    np.testing.assert_allclose(b.d, np.abs(average - before) + 1e-4)
    np.testing.assert_array_equal(b.s, table[-1])


def test_the_strict_speed_is_the_raw_difference():
    table = np.random.default_rng(0).uniform(0.5, 0.9, (6, 3))
    b = balance(table, strict_paper=True, smoothing=0.8, r_max=1.0)
    np.testing.assert_allclose(b.d, np.abs(table[-1] - table[-2]))
    assert np.prod(b.r) == pytest.approx(1) and b.r.max() > 1


def test_chance_is_taken_off_the_score_and_floored():
    table = two_epochs([0.9, 0.6, 0.4], D)
    np.testing.assert_allclose(balance(table, chance=0.5).s, [0.4, 0.1, 1e-3])


@pytest.mark.parametrize("lam", [0.5, 1, 3])
def test_clipping_bounds_the_mean_masking_whatever_lambda(lam):
    strategy = MIAM(10, lam)
    b = strategy.balance(two_epochs([0.95, 0.9, 0.5], [0.0, 0.1, 0.3]))
    mean = strategy.expected(sizes=TOKENS, balance=b)
    edge = 0.5 / (1 + 10 / 5) + 0.5 * 50 / 51
    assert mean.max() <= edge + 1e-9 and mean.min() >= 1 - edge - 1e-9
    assert mean[0] == pytest.approx(edge, abs=0.02)


def test_clipping_leaves_small_imbalances_alone():
    table = two_epochs([0.9, 0.88, 0.86], [0.010, 0.011, 0.012])
    b = balance(table, smoothing=0)
    np.testing.assert_allclose(b.r, (b.s / b.d) / stats.gmean(b.s / b.d))
    assert np.prod(b.r) == pytest.approx(1)


def test_the_balance_depends_on_the_table_alone():
    table = np.random.default_rng(1).uniform(0.5, 0.9, (9, 4))
    strategy = MIAM()
    in_one_life = [strategy.balance(table[: e + 1]).r for e in range(9)][-1]
    np.testing.assert_array_equal(MIAM().balance(table.tolist()).r, in_one_life)


# --- refusals ---------------------------------------------------------------------------------

REFUSED = [
    (lambda: MIAM(kappa=0.5), r"kappa must be >= 1, found 0.5"),
    (lambda: MIAM(lam=-1), r"lam must be >= 0, found -1"),
    (lambda: MIAM(lam=float("nan")), r"lam must be >= 0, found nan"),
    (lambda: MIAM(smoothing=1.0), r"smoothing must lie in \[0, 1\), found 1.0"),
    (lambda: MIAM(eps=0), r"eps must be > 0, found 0"),
    (lambda: MIAM(r_max=0.5), r"r_max must be >= 1, found 0.5"),
    (lambda: MIAM(chance=1), r"chance must lie in \[0, 1\), found 1"),
    (lambda: BetaCube(0), r"kappa must be >= 1, found 0"),
    (lambda: Constant(1.5), r"share must lie in \[0, 1\], found 1.5"),
    (lambda: ModalityDropout(-0.1), r"q must lie in \[0, 1\], found -0.1"),
    (lambda: OPM(q_base=2), r"q_base must lie in \[0, 1\], found 2"),
    (lambda: OPM(lam=-2), r"lam must be >= 0, found -2"),
    (lambda: Dirichlet(0), r"alpha must be > 0, found 0"),
    (lambda: Dirichlet(simplex="both"), r"\"masked\" or \"visible\", found 'both'"),
    (lambda: draw(Dirichlet(), 2, sizes=[4]), r"one modality hides every token.*Uniform\(\)"),
    (lambda: draw(MIAM(), 2, b=with_r(1, 1)), r"sizes name 3 modalities and the balance 2"),
    (lambda: draw(MIAM(), 2, sizes=[3, 0]), r"whole numbers >= 1, one per modality, found \[3, 0"),
    (lambda: draw(MIAM(), 2, sizes=[3.5, 1]), r"whole numbers >= 1, one per modality"),
    (lambda: draw(MIAM(), 2, sizes=[]), r"whole numbers >= 1, one per modality"),
    (lambda: balance([0.1, 0.2]), r"table \(epochs, modalities\), found shape \(2,\)"),
    (lambda: balance([[np.inf, 1]]), r"infinity; use NaN"),
    (lambda: Balance(s=[1, 1], d=[1, 1], r=[1]), r"share one shape \(M,\), found"),
    (lambda: Balance(s=[1, 1], d=[1, 1], r=[1, 0]), r"r must be finite and > 0"),
    (lambda: Balance(s=[1, 0], d=[1, 1], r=[1, 1]), r"s must be > 0 or NaN"),
    (lambda: Balance(s=[1, 1], d=[1, -1], r=[1, 1]), r"d must be > 0 or NaN"),
    (lambda: named("mian"), r"no masking strategy 'mian'; choose from: " + ", ".join(NAMES)),
    (lambda: to_dict(object()), r"object has no name in geomiam; name it with"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED, ids=[m[:30] for _, m in REFUSED])
def test_a_wrong_value_is_refused_with_what_was_found(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("p", "message"),
    [
        (np.zeros((3, 2)), r"shape \(4, 2\) or \(1, 2\), found \(3, 2\)"),
        (np.zeros(2), r"shape \(4, 2\) or \(1, 2\), found \(2,\)"),
        ([[0.5, 1.5]], r"\[0, 1\], found 0.5 to 1.5"),
        ([[0.5, np.nan]], r"\[0, 1\], found nan"),
    ],
)
def test_hide_refuses_what_is_not_a_table_of_probabilities(p, message):
    with pytest.raises(ValueError, match=message):
        hide(p, n=4, sizes=(2, 3), rng=np.random.default_rng(0))


def test_a_balance_does_not_follow_later_changes_of_its_inputs():
    s = np.array([0.5, 0.6])
    b = Balance(s=s, d=s, r=s)
    s[:] = 9
    assert list(itertools.chain(b.s, b.d, b.r)) == [0.5, 0.6] * 3
