"""A masking rate that rises with the epochs, around any strategy."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike

from geomiam.checks.settings import check_count
from geomiam.errors import SettingError
from geomiam.masking.scores import Array, Balance
from geomiam.masking.strategy import Strategy
from geomiam.masking.whole_modalities import ModalityDropout

__all__ = ["Ramp"]


@dataclass(frozen=True)
class Ramp:
    """Hide nothing at first, then an increasing share of the tokens that another strategy hides.

    In epoch τ a token is hidden with the share f(τ) of the strategy's own probability,
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
        Epochs from there to the strategy's own masking, >= 1. MAESTRO's ramp ends with the training.

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
        share = self.share(balance.epoch)
        return np.where(p == 1, rng.random(p.shape) < share, share * p)

    def expected(self, *, sizes: ArrayLike, balance: Balance) -> Array:
        return self.share(balance.epoch) * self.strategy.expected(sizes=sizes, balance=balance)

    def share(self, epoch: int) -> float:
        """Return f, the share of the strategy's masking in an epoch, in [0, 1]."""
        return float(np.clip((epoch - self.warmup) / self.over, 0, 1))
