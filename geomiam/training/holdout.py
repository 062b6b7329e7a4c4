"""Validation sites of a training: those of the caller, or spatial blocks."""

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
    """A way to hold out sites, drawn once for each member."""

    given: np.ndarray
    """Boolean ``(n,)``: the validation sites if there are no blocks."""
    blocks: Blocks | None
    """Spatial blocks to draw from."""
    share: float
    """Share of the sites in the validation blocks."""

    @classmethod
    def of(
        cls,
        sites: xr.Dataset,
        validation: np.ndarray | Literal[False] | None,
        config: TrainingConfig,
    ) -> HoldOut:
        """Return the caller's sites or spatial blocks; no sites for ``holdout=0`` or False.

        Raises
        ------
        LabelError
            If ``validation`` is not one boolean per site, with True and False.
        SettingError
            If ``validation`` is False and the training keeps its best epoch.
        GridError
            If the sites have no coordinates, or lie in too few spatial blocks.
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
        """Return the validation sites ``(n,)``; blocks are drawn so that labels ``(n, S)`` are balanced."""
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
    mask = np.asarray(validation, bool)
    if mask.shape != (n,) or mask.all() or not mask.any():
        raise LabelError(
            f"validation= must be one boolean per site ({n}), with True and False; found shape "
            f"{mask.shape} with {int(mask.sum())} True"
        )
    return mask
