"""Strategies that hide whole modalities and never all, and the ramp around any strategy."""

from __future__ import annotations

import itertools
import json
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from geomiam.masking import (
    MIAM,
    OPM,
    Balance,
    Constant,
    ModalityDropout,
    Ramp,
    RandomSubset,
    Uniform,
    UniformCube,
    balance,
    hide,
    named,
    to_dict,
)

N = 40_000


def at(epoch: int, m: int = 3) -> Balance:
    """The balance of a run in which so many epochs were scored, all alike."""
    return balance(np.full((epoch, m), 0.7))


def draw(strategy, n=N, *, m=3, b=None, seed=0):
    b = Balance.neutral(m) if b is None else b
    return strategy.sample(n, sizes=[4] * m, balance=b, rng=np.random.default_rng(seed))


def corners(m: int) -> list[tuple[int, ...]]:
    return list(itertools.product((0, 1), repeat=m))


def chances(q: float, m: int) -> np.ndarray:
    """Probability of each corner but the last, by listing them all."""
    weights = np.array([np.prod([q if c else 1 - q for c in corner]) for corner in corners(m)])
    return weights[:-1] / weights[:-1].sum()


def counts(p: np.ndarray) -> np.ndarray:
    counter = Counter(tuple(row) for row in p.astype(int).tolist())
    assert set(counter) <= set(corners(p.shape[1]))
    return np.array([counter[c] for c in corners(p.shape[1])])


@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_every_subset_but_the_empty_is_equally_likely(m):
    counter = counts(draw(RandomSubset(), m=m))
    assert counter[-1] == 0
    if m > 1:
        assert stats.chisquare(counter[:-1]).pvalue > 1e-4
    mean = RandomSubset().expected(sizes=[4] * m, balance=Balance.neutral(m))
    np.testing.assert_allclose(mean, (2 ** (m - 1) - 1) / (2**m - 1))


def test_a_random_subset_is_drawn_for_each_sample_unless_another_is_set():
    assert RandomSubset().per_sample and not RandomSubset(per_sample=False).per_sample
    assert named("subset") == RandomSubset()
    p = draw(RandomSubset(), 200)
    hidden = hide(p, n=200, sizes=[4] * 3, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(hidden, np.repeat(p == 1, 4, 1))
    assert not hidden.all(1).any()


@pytest.mark.parametrize("q", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("m", [2, 3, 4])
def test_keeping_one_is_dropout_given_that_one_is_kept(q, m):
    strategy = ModalityDropout(q, keep_one=True)
    counter = counts(draw(strategy, m=m))
    assert counter[-1] == 0
    assert stats.chisquare(counter[:-1], N * chances(q, m)).pvalue > 1e-4
    by_list = chances(q, m) @ np.array(corners(m)[:-1])
    mean = strategy.expected(sizes=[4] * m, balance=Balance.neutral(m))
    np.testing.assert_allclose(mean, by_list)
    np.testing.assert_allclose(mean, (q - q**m) / (1 - q**m))


def test_keeping_one_of_what_is_always_or_never_hidden():
    always = draw(ModalityDropout(1.0, keep_one=True), m=4)
    assert ((always == 0).sum(1) == 1).all()
    assert stats.chisquare((always == 0).sum(0)).pvalue > 1e-4
    mean = ModalityDropout(1.0, keep_one=True).expected(sizes=[1] * 4, balance=Balance.neutral(4))
    np.testing.assert_allclose(mean, 0.75)
    assert not draw(ModalityDropout(0.0, keep_one=True)).any()


def test_a_balance_has_its_epoch():
    assert [at(e).epoch for e in (0, 1, 7)] == [0, 1, 7]
    assert MIAM().balance(np.full((5, 2), 0.6)).epoch == 5
    assert OPM().balance(np.full((5, 2), 0.6)).epoch == 5


@pytest.mark.parametrize("epoch", [0, 10, 11, 20, 30, 50, 90])
@pytest.mark.parametrize("inside", [Uniform(), UniformCube(), MIAM(), ModalityDropout(0.4)])
def test_the_ramp_is_zero_then_linear_then_the_strategy(epoch, inside):
    ramp = Ramp(inside, warmup=10, over=40)
    share = 0 if epoch <= 10 else min(1, (epoch - 10) / 40)
    b, sizes = at(epoch), [4] * 3
    np.testing.assert_allclose(
        ramp.expected(sizes=sizes, balance=b), share * inside.expected(sizes=sizes, balance=b)
    )
    p = draw(ramp, b=b)
    error = np.abs(p.mean(0) - ramp.expected(sizes=sizes, balance=b))
    assert (error <= 4 * p.std(0) / np.sqrt(N) + 1e-9).all()


def test_the_ramp_scales_a_probability_and_thins_out_what_is_hidden_as_a_whole():
    b = at(30)
    np.testing.assert_array_equal(
        draw(Ramp(Uniform()), 50, b=b), 0.5 * draw(Uniform(), 50, b=b, seed=0)
    )
    modalities = draw(Ramp(ModalityDropout(0.4)), b=b)
    expected = np.array([np.prod([0.2 if c else 0.8 for c in corner]) for corner in corners(3)])
    assert stats.chisquare(counts(modalities), N * expected).pvalue > 1e-4


def test_a_ramp_never_hides_all_where_its_strategy_does_not():
    for epoch in (5, 20, 100):
        assert not draw(Ramp(RandomSubset()), b=at(epoch)).all(1).any()


def test_a_ramp_draws_as_its_strategy():
    assert Ramp(RandomSubset()).per_sample and not Ramp(Uniform()).per_sample


@pytest.mark.parametrize(
    "ramp", [Ramp(), Ramp(MIAM(3, 2), warmup=0, over=7), Ramp(Ramp(RandomSubset(per_sample=False)))]
)
def test_a_ramp_survives_the_way_through_json(ramp):
    assert named(**json.loads(json.dumps(to_dict(ramp)))) == ramp


def test_a_name_on_the_command_line_states_what_ramps():
    assert named("ramp") == Ramp(ModalityDropout(0.4))
    assert named("ramp-miam") == Ramp(MIAM())
    assert named("ramp-dropout", q=0.3, over=5) == Ramp(ModalityDropout(0.3), over=5)
    with pytest.raises(ValueError, match="no masking strategy 'mian'"):
        named("ramp-mian")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strategy": "miam"}, "must be a masking strategy, found 'miam'"),
        ({"warmup": -1}, "warmup must be at least 0, found -1"),
        ({"over": 0}, "over must be at least 1, found 0"),
    ],
)
def test_a_wrong_ramp_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Ramp(**settings)


def test_a_constant_ramp_reaches_the_constant():
    assert draw(Ramp(Constant(0.6), warmup=0, over=1), 3, b=at(1)).tolist() == [[0.6] * 3] * 3
