"""Settings of a training run."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from geomiam.lengths import Length, kilometres
from geomiam.schema import Fact


class TrainingConfig(Fact):
    """How to train. Optimizer, rate, decay, batch and epochs are MIAM's; the rest is ours."""

    epochs: int = Field(100, ge=1)
    batch: int = Field(128, ge=1)
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    warmup: int = Field(100, ge=0, description="steps over which the learning rate rises")
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
    holdout: float = Field(
        0.15, ge=0, lt=1, description="share of sites that validate; 0: all train (keep='last')"
    )
    block: Length | None = Field(
        None,
        description="side of the validation blocks: km, or text such as '100 km' (None: from the data)",
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
            kilometres(block, "block")
        return block

    @model_validator(mode="after")
    def _something_chooses_the_epoch(self) -> TrainingConfig:
        if self.holdout == 0 and self.keep == "best":
            raise ValueError(
                "holdout=0 leaves no site to choose the best epoch by; pass keep='last', or "
                "holdout=0.15"
            )
        return self
