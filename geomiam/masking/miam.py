"""Modality imbalance-aware masking (MIAM), with and without imbalance."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

from geomiam.masking.scores import Array, Balance, check_settings
from geomiam.masking.scores import balance as balance_of
from geomiam.masking.strategy import check_sizes


@dataclass(frozen=True)
class MIAM:
    """Modality imbalance-aware masking (MIAM poster, ICLR 2026).

    A mixture over the corners c of the cube {0, 1}^M, with a Beta factor per modality: near
    c_m = 1 modality m is mostly hidden, near c_m = 0 mostly visible. The all-visible and the
    all-hidden corner weigh 1/4 each, the other corners share the remaining half. A modality that
    scores high and has stopped learning (r > 1) is hidden more.

    Parameters
    ----------
    kappa : float
        Sharpness, >= 1: how close to the corners p lies (1 with lam = 0 is the uniform cube).
    lam : float
        Strength of the imbalance, >= 0. The authors took 1 and 3.
    per_sample : bool
        Draw p per sample rather than per batch.
    chance, smoothing, eps, r_max, strict_paper
        How scores become r, see :func:`geomiam.masking.scores.balance`.

    Raises
    ------
    ValueError
        When a field is out of range.

    Notes
    -----
    When every modality is one token, the all-hidden corner would always show an empty input; its
    weight goes to the all-visible corner, and P(c_m = 1) falls from 1/2 to 1/4.
    With one modality the two corners weigh 1/2 each (1 and 0 if it is also one token).

    Examples
    --------
    >>> strategy = gm.masking.MIAM(kappa=10, lam=1)
    >>> neutral = gm.masking.Balance.neutral(2)
    >>> p = strategy.sample(1000, sizes=[3, 4], balance=neutral, rng=np.random.default_rng(0))
    >>> p.shape, bool(abs(p.mean() - 0.5) < 0.05)
    ((1000, 2), True)
    """

    kappa: float = 10.0
    lam: float = 1.0
    _: KW_ONLY
    per_sample: bool = False
    chance: float = 0.0
    smoothing: float = 0.5
    eps: float = 1e-3
    r_max: float = 5.0
    strict_paper: bool = False

    def __post_init__(self) -> None:
        check_settings(kappa=self.kappa, **self._of_scores())

    def balance(self, scores: ArrayLike) -> Balance:
        return balance_of(scores, **self._of_scores(), strict_paper=self.strict_paper)

    def _of_scores(self) -> dict[str, float]:
        """Return the numbers that :func:`balance` takes."""
        return {k: getattr(self, k) for k in ("lam", "chance", "smoothing", "eps", "r_max")}

    def sample(self, n: int, *, sizes: ArrayLike, balance: Balance, rng: Generator) -> Array:
        corners = _draw_corners(n, sizes=check_sizes(sizes, balance), rng=rng)
        visible, hidden = self._exponents(balance)
        u = rng.random(corners.shape)
        # Inverse distribution functions of Beta(1, visible) and Beta(hidden, 1).
        # Beta(1, b) has F(p) = 1 − (1 − p)^b and Beta(a, 1) has F(p) = p^a.
        return np.where(corners, u ** (1 / hidden), 1 - u ** (1 / visible))

    def expected(self, *, sizes: ArrayLike, balance: Balance) -> Array:
        sizes = check_sizes(sizes, balance)
        at_one = 0.5  # P(c_m = 1), the same for every modality
        if (sizes == 1).all():
            # All-ones moved to all-zeros: half of the other corners (together 1/2; none if M = 1) is left.
            at_one = 0.25 if len(sizes) > 1 else 0.0
        visible, hidden = self._exponents(balance)
        # E[Beta(1, b)] = 1 / (1 + b) and E[Beta(a, 1)] = a / (1 + a).
        return (1 - at_one) / (1 + visible) + at_one * (1 - 1 / (1 + hidden))

    def _exponents(self, balance: Balance) -> tuple[Array, Array]:
        # Opposite signs of λ, as on the poster. With the same sign in both factors, as in the demo of the
        # authors, the mean of p would stay 1/2 whatever r is.
        visible = self.kappa * balance.r ** (-self.lam)  # c_m = 0: p_m ~ Beta(1, kappa r^-lam)
        hidden = self.kappa * balance.r ** (+self.lam)  # c_m = 1: p_m ~ Beta(kappa r^+lam, 1)
        return visible, hidden


@dataclass(frozen=True)
class BetaCube:
    """MIAM without imbalance, lam = 0 (ablation of the MIAM poster, ICLR 2026).

    Parameters
    ----------
    kappa : float
        Sharpness, >= 1.
    per_sample : bool
        Draw p per sample rather than per batch.

    Examples
    --------
    >>> strategy = gm.masking.BetaCube()
    >>> strategy.expected(sizes=[3, 4], balance=gm.masking.Balance.neutral(2))
    array([0.5, 0.5])
    """

    kappa: float = 10.0
    _: KW_ONLY
    per_sample: bool = False

    def __post_init__(self) -> None:
        check_settings(kappa=self.kappa)

    balance = staticmethod(balance_of)

    def sample(self, n: int, *, sizes: ArrayLike, balance: Balance, rng: Generator) -> Array:
        even = MIAM(kappa=self.kappa, lam=0.0)
        return even.sample(n, sizes=sizes, balance=balance, rng=rng)

    def expected(self, *, sizes: ArrayLike, balance: Balance) -> Array:
        return MIAM(kappa=self.kappa, lam=0.0).expected(sizes=sizes, balance=balance)


def _draw_corners(n: int, *, sizes: NDArray[np.intp], rng: Generator) -> NDArray[np.bool_]:
    """Corners c, (n, M): 1/4 all zeros, 1/4 all ones, the rest shared equally by the others."""
    # The 2^M corners are never listed. A uniform binary vector already gives every corner 2^-M;
    # taking one with probability `free`, and all-equal entries otherwise, tops up the two extremes
    # to exactly 1/4.
    m = len(sizes)
    # P(all ones) = free · 2^-M + (1 − free) / 2 = 1/4 gives free = 1 / (2 − 2^(2 − M)).
    free = 1.0 if m <= 2 else 1 / (2 - 2.0 ** (2 - m))
    corners = rng.random((n, m)) < 0.5
    all_equal = rng.random(n) >= free
    # The first entry is a fair coin, so both extremes get the same share.
    corners[all_equal] = corners[all_equal, :1]
    if (sizes == 1).all():
        corners[corners.all(axis=1)] = False
    return corners
