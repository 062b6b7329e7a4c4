"""Which sites validate a training: those given, or spatial blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr

from geomiam.errors import LabelError, SettingError
from geomiam.splits import Blocks, hold_out, site_blocks
from geomiam.training.config import TrainingConfig


@dataclass(frozen=True, eq=False)
class HoldOut:
    """How sites are held out; drawn once for each member."""

    given: np.ndarray
    """Boolean ``(n,)``: the sites that validate where there are no blocks."""
    blocks: Blocks | None
    """Spatial blocks that are drawn from."""
    share: float
    """Of the sites, in the blocks that validate."""

    @classmethod
    def of(
        cls,
        sites: xr.Dataset,
        validation: np.ndarray | Literal[False] | None,
        config: TrainingConfig,
    ) -> HoldOut:
        """Return the sites given, or spatial blocks; no sites for ``holdout=0`` or False.

        Raises
        ------
        LabelError
            If ``validation`` is not one boolean per site, some of each.
        SettingError
            If ``validation`` is False and the training keeps its best epoch.
        GridError
            If the sites have no coordinates, or cannot be dealt into spatial blocks.
        """
        n = sites.sizes["site"]
        if validation is False:
            _check_last(config)
            return cls(np.zeros(n, bool), None, 0.0)
        if validation is not None:
            return cls(_checked(validation, n), None, 0.0)
        blocks = site_blocks(sites, config.block) if config.holdout else None
        return cls(np.zeros(n, bool), blocks, config.holdout)

    def draw(self, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return which sites validate ``(n,)``; blocks are drawn to share the labels ``(n, S)`` evenly."""
        if self.blocks is None:
            return self.given
        return hold_out(labels, self.blocks.number, share=self.share, rng=rng)

    def about(self) -> dict[str, dict]:
        """Return size, number, reason and CRS of the blocks, for ``about``; nothing without blocks."""
        return {} if self.blocks is None else {"blocks": self.blocks.about()}


def _check_last(config: TrainingConfig) -> None:
    if config.keep == "best":
        raise SettingError(
            f"validation=False leaves no site to choose the best epoch by (found holdout="
            f"{config.holdout:g}, keep='best'); pass TrainingConfig(holdout=0, keep='last'), or a mapping "
            "of single settings without holdout"
        )


def _checked(validation: np.ndarray, n: int) -> np.ndarray:
    held = np.asarray(validation, bool)
    if held.shape != (n,) or held.all() or not held.any():
        raise LabelError(
            f"validation= must be one boolean per site ({n}), some of each; found shape "
            f"{held.shape} with {int(held.sum())} True"
        )
    return held
