"""Strategies that hide or show whole modalities."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike

from geomiam.masking.scores import Array, Balance, check_settings
from geomiam.masking.scores import balance as balance_of
from geomiam.masking.strategy import check_sizes


@dataclass(frozen=True)
class ModalityDropout:
    """Hide each modality as a whole with probability q: p is a corner, 0 or 1 per modality.

    A modality is never hidden in part. All of them may be hidden at once (probability q^M).

    Parameters
    ----------
    q : float
        Probability to hide a modality, in [0, 1].
    keep_one : bool
        Draw anew where all would be hidden: the distribution given that one at least is kept. A
        modality is then hidden with probability (q − q^M) / (1 − q^M); q = 1 keeps exactly one.
    per_sample : bool
        Draw p per sample rather than per batch.

    Examples
    --------
    >>> strategy = gm.masking.ModalityDropout(0.4)
    >>> strategy.expected(sizes=[3, 1], balance=gm.masking.Balance.neutral(2))
    array([0.4, 0.4])
    """

    q: float = 0.1
    _: KW_ONLY
    keep_one: bool = False
    per_sample: bool = False

    def __post_init__(self) -> None:
        check_settings(q=self.q)

    balance = staticmethod(balance_of)

    def sample(self, n: int, *, sizes: ArrayLike, balance: Balance, rng: Generator) -> Array:
        m = len(check_sizes(sizes, balance))
        hidden = rng.random((n, m)) < self.q
        if self.keep_one:
            # The first modality that is kept, given that one is: P(j) = q^j / Σ q^j.
            weight = self.q ** np.arange(m)
            first = rng.choice(m, size=(n, 1), p=weight / weight.sum())
            hidden = (np.arange(m) < first) | (hidden & (np.arange(m) > first))
        return hidden.astype(np.float64)

    def expected(self, *, sizes: ArrayLike, balance: Balance) -> Array:
        m = len(check_sizes(sizes, balance))
        # (q − q^M) / (1 − q^M), in a form that is also right for q = 1.
        p = 1 - 1 / (self.q ** np.arange(m)).sum() if self.keep_one else self.q
        return np.full(m, float(p))


@dataclass(frozen=True)
class RandomSubset:
    """Show a random subset of the modalities; all subsets except the empty one are equally likely.

    The missing-modality augmentation of late fusion "UME-MMA-style" (Li et al. 2023,
    arXiv:2310.06383, whose probabilities are not published), and the training on all
    combinations of views of Mena et al. 2025 (arXiv:2501.01132). A modality is hidden with
    probability (2^(M−1) − 1) / (2^M − 1). It never hides all modalities, but all observed
    modalities of a sample may be hidden.

    Parameters
    ----------
    per_sample : bool
        Draw p per sample rather than per batch.

    Examples
    --------
    >>> strategy = gm.masking.RandomSubset()
    >>> strategy.expected(sizes=[3, 1], balance=gm.masking.Balance.neutral(2)).round(3)
    array([0.333, 0.333])
    """

    _: KW_ONLY
    per_sample: bool = True

    balance = staticmethod(balance_of)

    def sample(self, n: int, *, sizes: ArrayLike, balance: Balance, rng: Generator) -> Array:
        coins = ModalityDropout(0.5, keep_one=True)
        return coins.sample(n, sizes=sizes, balance=balance, rng=rng)

    def expected(self, *, sizes: ArrayLike, balance: Balance) -> Array:
        return ModalityDropout(0.5, keep_one=True).expected(sizes=sizes, balance=balance)


@dataclass(frozen=True)
class OPM:
    """Hide dominant modalities as a whole, never the others (OPM, for M modalities).

    On-the-fly prediction modulation, generalised from two modalities as the MIAM authors do: one
    dominates when the mean ratio of its score to each other score exceeds 1. An unknown score takes
    no part.

    Before the first score is known no modality dominates. By default nothing is hidden then. With
    ``strict_paper=True`` every token of every modality is hidden with probability ``q_base``, as in
    the sampler of the MIAM authors. Where only one score is known, nothing is hidden in both cases.

    Parameters
    ----------
    q_base : float
        Probability to hide a modality that barely dominates, in [0, 1].
    lam : float
        How much that probability grows with dominance, >= 0.
    per_sample : bool
        Draw p per sample rather than per batch.
    strict_paper : bool
        Hide every token with probability ``q_base`` before the first score.

    Raises
    ------
    ValueError
        When a field is out of range.

    Examples
    --------
    >>> scores = [[0.9, 0.6], [0.9, 0.6]]  # two epochs; the first modality dominates
    >>> strategy = gm.masking.OPM()
    >>> p = strategy.expected(sizes=[3, 1], balance=strategy.balance(scores))
    >>> bool(p[0] > 0.5), float(p[1])
    (True, 0.0)
    """

    q_base: float = 0.5
    lam: float = 0.5
    _: KW_ONLY
    per_sample: bool = False
    strict_paper: bool = False

    def __post_init__(self) -> None:
        check_settings(q_base=self.q_base, lam=self.lam)

    balance = staticmethod(balance_of)

    def sample(self, n: int, *, sizes: ArrayLike, balance: Balance, rng: Generator) -> Array:
        q = self.expected(sizes=sizes, balance=balance)
        if self._unscored(balance):
            return np.tile(q, (n, 1))
        return (rng.random((n, len(q))) < q).astype(np.float64)

    def _unscored(self, balance: Balance) -> bool:
        return self.strict_paper and not np.isfinite(balance.s).any()

    def expected(self, *, sizes: ArrayLike, balance: Balance) -> Array:
        m = len(check_sizes(sizes, balance))
        if self._unscored(balance):
            return np.full(m, self.q_base)
        lead, is_scored = np.zeros(m), np.isfinite(balance.s)
        if is_scored.sum() > 1:  # the mean of s_m / s_j over the other known modalities j
            scores = balance.s[is_scored]
            # The sum over all j contains the own ratio s_m / s_m = 1.
            lead[is_scored] = (scores * (1 / scores).sum() - 1) / (len(scores) - 1)
        # OPM: q_m = q_base (1 + λ tanh(c_m − 1)) where c_m > 1, else 0; c_m is the lead.
        q = self.q_base * (1 + self.lam * np.tanh(lead - 1))
        return np.where(lead > 1, np.clip(q, 0, 1), 0.0)
