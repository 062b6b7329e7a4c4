"""Fusion and sizes of a network, as a saved model tells them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from geomiam.schema import Fact


class NetworkConfig(Fact):
    """Sizes of the network; the bounds also guard the loading of saved models."""

    fusion: Literal["group", "token", "sum", "group+sum"] = Field(
        "group", description="how tokens meet; group+sum: members take turns"
    )
    width: int = Field(192, ge=4, le=4096)
    heads: int = Field(8, ge=1, le=64)
    depth: int = Field(
        3, ge=1, le=64, description="blocks over tokens (token) or summaries (group)"
    )
    inner: int = Field(1, ge=0, le=64, description="blocks inside each group (group fusion only)")
    dropout: float = Field(0.1, ge=0, lt=1)
    frequencies: int = Field(48, ge=1, le=1024, description="of the periodic tokenizer")
    sigma: float = Field(0.01, gt=0, description="deviation of the initial frequencies")
    symbols: Literal["embedding", "scalar"] = Field(
        "embedding", description="symbolic series: a vector per symbol, or its number"
    )
    members: int = Field(1, ge=1, le=64, description="networks whose logits are averaged")
    explainer: int = Field(
        0, ge=0, le=4096, description="width of a learned explainer (fit_explainer); 0: none"
    )

    @model_validator(mode="after")
    def _heads_divide_width(self) -> NetworkConfig:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if self.members < len(self.fusion.split("+")):
            raise ValueError(f"fusion '{self.fusion}' takes turns; pass members=2 or more")
        return self

    def member(self, number: int) -> NetworkConfig:
        """Return the configuration of one member alone."""
        kinds = self.fusion.split("+")
        return self.model_copy(update={"members": 1, "fusion": kinds[number % len(kinds)]})
