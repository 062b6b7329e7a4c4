"""Strategies that know nothing of corners and scores: uniform, constant, on a simplex."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike

from geomiam.checks.settings import check_number
from geomiam.errors import SettingError
from geomiam.masking.scores import Array, Balance
from geomiam.masking.scores import balance as balance_of
from geomiam.masking.strategy import check_share, check_sizes

__all__ = ["Constant", "Dirichlet", "Uniform", "UniformCube"]


@dataclass(frozen=True)
class UniformCube:
    """Each p_m uniform on [0, 1] by itself (ablation of the MIAM poster, ICLR 2026).

    Examples
    --------
    >>> strategy = gm.masking.UniformCube()
    >>> strategy.expected(sizes=[3, 1], balance=gm.masking.Balance.neutral(2))
    array([0.5, 0.5])
    """

    _: KW_ONLY
    per_sample: bool = False

    balance = staticmethod(balance_of)

    def sample(self, n: int, *, sizes: ArrayLike, balance: Balance, rng: Generator) -> Array:
        return rng.random((n, len(check_sizes(sizes, balance))))

    def expected(self, *, sizes: ArrayLike, balance: Balance) -> Array:
        return np.full(len(check_sizes(sizes, balance)), 0.5)


@dataclass(frozen=True)
class Uniform:
    """One p, uniform on [0, 1], shared by all modalities (Zbinden et al. 2025, MaskSDM).

    Examples
    --------
    >>> strategy, neutral = gm.masking.Uniform(), gm.masking.Balance.neutral(2)
    >>> p = strategy.sample(4, sizes=[3, 1], balance=neutral, rng=np.random.default_rng(0))
    >>> p.shape, bool((p[:, 0] == p[:, 1]).all())
    ((4, 2), True)
    """

    _: KW_ONLY
    per_sample: bool = False

    balance = staticmethod(balance_of)

    def sample(self, n: int, *, sizes: ArrayLike, balance: Balance, rng: Generator) -> Array:
        m = len(check_sizes(sizes, balance))
        return np.repeat(rng.random((n, 1)), m, axis=1)

    def expected(self, *, sizes: ArrayLike, balance: Balance) -> Array:
        return np.full(len(check_sizes(sizes, balance)), 0.5)


@dataclass(frozen=True)
class Constant:
    """The same p always, for all modalities (masked auto-encoders).

    Parameters
    ----------
    share : float
        Share of tokens hidden, in [0, 1].
    per_sample : bool
        Without effect on p; all strategies have this field.

    Examples
    --------
    >>> strategy = gm.masking.Constant(0.25)
    >>> strategy.expected(sizes=[3, 1], balance=gm.masking.Balance.neutral(2))
    array([0.25, 0.25])
    """

    share: float = 0.75
    _: KW_ONLY
    per_sample: bool = False

    def __post_init__(self) -> None:
        check_share("share", self.share)

    balance = staticmethod(balance_of)

    def sample(self, n: int, *, sizes: ArrayLike, balance: Balance, rng: Generator) -> Array:
        return np.full((n, len(check_sizes(sizes, balance))), float(self.share))

    def expected(self, *, sizes: ArrayLike, balance: Balance) -> Array:
        return np.full(len(check_sizes(sizes, balance)), float(self.share))


@dataclass(frozen=True)
class Dirichlet:
    """p, or the visible share 1 - p, on the simplex (MultiMAE, 4M).

    Parameters
    ----------
    alpha : float
        Concentration, > 0; 1 is uniform on the simplex.
    simplex : {"masked", "visible"}
        Which of the two sums to one over modalities. "masked" is what the MIAM authors draw
        (mean 1/M); "visible" splits a budget of visible tokens as 4M does (mean 1 - 1/M).
    per_sample : bool
        Draw p per sample rather than per batch.

    Raises
    ------
    ValueError
        When a field is out of range; on use, for "masked" with one modality, where the simplex
        is the point p = 1 and every token would be hidden.

    Examples
    --------
    >>> strategy, neutral = gm.masking.Dirichlet(), gm.masking.Balance.neutral(2)
    >>> p = strategy.sample(4, sizes=[3, 1], balance=neutral, rng=np.random.default_rng(0))
    >>> p.sum(axis=1)
    array([1., 1., 1., 1.])
    """

    alpha: float = 1.0
    simplex: Literal["masked", "visible"] = "masked"
    _: KW_ONLY
    per_sample: bool = False

    def __post_init__(self) -> None:
        check_number(
            "alpha",
            self.alpha,
            requirement="must be > 0",
            accepts=lambda x: 0 < x < np.inf,
            hint="1 is uniform",
        )
        if self.simplex not in ("masked", "visible"):
            raise SettingError(f'simplex must be "masked" or "visible", found {self.simplex!r}')

    balance = staticmethod(balance_of)

    def sample(self, n: int, *, sizes: ArrayLike, balance: Balance, rng: Generator) -> Array:
        m = self._count(sizes, balance)
        shares = rng.dirichlet(np.full(m, float(self.alpha)), size=n)
        return shares if self.simplex == "masked" else 1 - shares

    def expected(self, *, sizes: ArrayLike, balance: Balance) -> Array:
        m = self._count(sizes, balance)
        return np.full(m, 1 / m if self.simplex == "masked" else 1 - 1 / m)

    def _count(self, sizes: ArrayLike, balance: Balance) -> int:
        m = len(check_sizes(sizes, balance))
        if m == 1 and self.simplex == "masked":
            raise SettingError(
                'Dirichlet(simplex="masked") with one modality hides every token, always; '
                "use Uniform()"
            )
        return m
