"""Strategies that hide single tokens and follow no scores: uniform, constant, on a simplex, as a ramp."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from typing import Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike

from geomiam.checks.settings import check_count
from geomiam.errors import SettingError
from geomiam.masking.scores import Array, Balance, check_settings
from geomiam.masking.scores import balance as balance_of
from geomiam.masking.strategy import Strategy, check_sizes
from geomiam.masking.whole_modalities import ModalityDropout


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
        # MaskSDM draws one number and hides every token of every modality with it.
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
        check_settings(share=self.share)

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
        check_settings(alpha=self.alpha)
        if self.simplex not in ("masked", "visible"):
            raise SettingError(f'simplex must be "masked" or "visible", found {self.simplex!r}')

    balance = staticmethod(balance_of)

    def sample(self, n: int, *, sizes: ArrayLike, balance: Balance, rng: Generator) -> Array:
        m = self._modalities(sizes, balance)
        shares = rng.dirichlet(np.full(m, float(self.alpha)), size=n)
        return shares if self.simplex == "masked" else 1 - shares

    def expected(self, *, sizes: ArrayLike, balance: Balance) -> Array:
        m = self._modalities(sizes, balance)
        return np.full(m, 1 / m if self.simplex == "masked" else 1 - 1 / m)

    def _modalities(self, sizes: ArrayLike, balance: Balance) -> int:
        m = len(check_sizes(sizes, balance))
        if m == 1 and self.simplex == "masked":
            raise SettingError(
                'Dirichlet(simplex="masked") with one modality hides every token, always; '
                "use Uniform()"
            )
        return m


@dataclass(frozen=True)
class Ramp:
    """Hide nothing at first, then an increasing share of the tokens that another strategy hides.

    In epoch τ a token is hidden with the share f(τ) of the strategy's probability,
    f = 0 up to ``warmup``, then (τ − warmup) / over, then 1: the missing-rate ramp of MAESTRO
    (Mohapatra et al. 2025), whose strategy is modality dropout of 0.4. Where the strategy hides a
    modality as a whole (p = 1) the ramp does so with probability f, not a share f of its tokens.

    Parameters
    ----------
    strategy : Strategy
        Strategy at the end of the ramp. Its balance does not depend on the ramp.
    warmup : int
        Epochs without masking, >= 0.
    over : int
        Epochs from there to the strategy's masking, >= 1. MAESTRO's ramp ends with the training.

    Raises
    ------
    ValueError
        When a field is out of range.

    Examples
    --------
    >>> strategy = gm.masking.Ramp(gm.masking.Uniform(), warmup=10, over=40)
    >>> [strategy.share(epoch) for epoch in (0, 30, 60)]
    [0.0, 0.5, 1.0]
    """

    strategy: Strategy = field(default_factory=lambda: ModalityDropout(0.4))
    warmup: int = 10
    over: int = 40

    def __post_init__(self) -> None:
        if not isinstance(self.strategy, Strategy):
            raise SettingError(
                f"strategy must be a masking strategy, found {self.strategy!r}; "
                "use Ramp(ModalityDropout(0.4))"
            )
        check_count("warmup", self.warmup, minimum=0, hint="it counts epochs without a ramp")
        check_count("over", self.over, minimum=1, hint="it counts the epochs of the ramp")

    @property
    def per_sample(self) -> bool:
        """As for the strategy."""
        return self.strategy.per_sample

    def balance(self, scores: ArrayLike) -> Balance:
        return self.strategy.balance(scores)

    def sample(self, n: int, *, sizes: ArrayLike, balance: Balance, rng: Generator) -> Array:
        p = self.strategy.sample(n, sizes=sizes, balance=balance, rng=rng)
        # MAESTRO: f = (τ − τ_warm) / (τ_max − τ_warm), clipped to [0, 1].
        share = self.share(balance.epoch)
        return np.where(p == 1, rng.random(p.shape) < share, share * p)

    def expected(self, *, sizes: ArrayLike, balance: Balance) -> Array:
        return self.share(balance.epoch) * self.strategy.expected(sizes=sizes, balance=balance)

    def share(self, epoch: int) -> float:
        """Return f, the share of the strategy's masking in an epoch, in [0, 1]."""
        return float(np.clip((epoch - self.warmup) / self.over, 0, 1))
