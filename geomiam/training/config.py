"""Settings of a training run."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, field_validator, model_validator

from geomiam.geo.lengths import Length, block_side
from geomiam.model.reference import MOST_SITES
from geomiam.schema.fields import FrozenFields

MOST_WARMUP = 100
"""Steps of the warm-up at most if it is a share of the run; the warm-up of MIAM."""


class TrainingConfig(FrozenFields):
    """Settings of a training.

    Optimizer, learning rate, weight decay, batch and epochs are those of MIAM, the others geomiam's.
    The defaults apply to a config that a user passes. Without ``training=``, the settings of
    :func:`geomiam.fit` follow from the data; see :mod:`geomiam.training.rule`.

    See Also
    --------
    geomiam.fit : ``training={"epochs": 20}`` changes single settings of the rule.

    Examples
    --------
    >>> gm.TrainingConfig(epochs=20, block="100 km").holdout
    0.15
    """

    epochs: int = Field(100, ge=1, description="upper limit")
    steps: int | None = Field(
        None,
        ge=1,
        description="optimiser steps after which to stop, in whole epochs, or within the first pass "
        "over the sites if that has more steps (None: epochs)",
    )
    epoch_steps: int = Field(
        25, ge=1, description="steps of an epoch at least: few sites are passed several times"
    )
    batch: int = Field(128, ge=1)
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    complete: float = Field(
        0.0, ge=0, le=1, description="share of the rows of a batch in which masking hides nothing"
    )
    masks_per_step: int = Field(
        1,
        ge=1,
        le=64,
        description="masks that are drawn for every batch; the loss is the mean over them",
    )
    warmup: float = Field(
        0.1,
        ge=0,
        description="rise of the learning rate: below 1 a share of all steps, but at most "
        f"{MOST_WARMUP} steps; from 1 on a number of steps",
    )
    patience: int = Field(15, ge=1, description="epochs without a better score before stopping")
    joint_epochs: int | None = Field(
        None, ge=0, description="of the second stage of warm_start=True (None: epochs; 0: none)"
    )
    joint_lr: float | None = Field(
        None, gt=0, description="learning rate of that stage (None: 0.1 lr)"
    )
    keep: Literal["best", "last"] = Field("best", description="which epoch's weights are kept")
    loss: Literal["auto", "bce", "weighted-bce", "maxent", "cross-entropy"] = Field(
        "auto",
        description="auto: bce for a complete survey, else weighted-bce; see the page on losses",
    )
    evenness: float = Field(
        0.0, ge=0, le=1, description="maxent: 0 = every record weighs the same, 1 = every species"
    )
    shrink: bool = Field(
        True,
        description="multiply the logits of a survey by the calibration slope of the folds' predictions, "
        "where spatial folds choose the members; no other fit is changed",
    )
    holdout: float = Field(
        0.15, ge=0, lt=1, description="share of sites that validate; 0: all train (keep='last')"
    )
    block: Length | None = Field(
        None,
        description="side of the validation blocks: km, or text such as '100 km' (None: from the data)",
    )
    reference_sites: int = Field(
        MOST_SITES,
        ge=0,
        le=MOST_SITES,
        description="training sites that the model stores for gm.novelty, standardised and without "
        "coordinates; 0: none",
    )
    devices: int = Field(
        1, ge=1, description="processes that share each batch; scripts need a __main__ guard"
    )
    accelerator: str = Field("auto", description="auto, cpu, cuda, mps (Lightning Fabric)")
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"

    @field_validator("block")
    @classmethod
    def _block_is_a_length(cls, block: Length | None) -> Length | None:
        if block is not None:
            block_side(block, "block")
        return block

    @model_validator(mode="after")
    def _something_chooses_the_epoch(self) -> TrainingConfig:
        if self.holdout == 0 and self.keep == "best":
            raise ValueError(
                "holdout=0 leaves no site to choose the best epoch by; pass keep='last', or "
                "holdout=0.15"
            )
        return self

    def passes(self, sites: int) -> int:
        """Return the number of passes over all training sites in one epoch."""
        return math.ceil(self.epoch_steps / math.ceil(sites / self.batch))

    def steps_per_epoch(self, sites: int) -> int:
        """Return the optimiser steps of one epoch over ``sites`` training sites."""
        one_pass = math.ceil(sites / self.batch)
        if self.steps is not None and one_pass > max(self.steps, self.epoch_steps):
            return self.steps  # many sites: a part of one pass
        return self.passes(sites) * one_pass

    def most_epochs(self, sites: int) -> int:
        """Return the largest number of epochs of a run over ``sites`` training sites."""
        if self.steps is None:
            return self.epochs
        return min(self.epochs, math.ceil(self.steps / self.steps_per_epoch(sites)))

    def warmup_steps(self, sites: int) -> int:
        """Return the number of steps over which the learning rate rises."""
        if self.warmup >= 1:
            return round(self.warmup)
        total = self.most_epochs(sites) * self.steps_per_epoch(sites)
        return min(MOST_WARMUP, round(self.warmup * total))
