"""The network of a model: tokenizers, a fusion and a head."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from geomiam.networks.group import GroupFusion
from geomiam.networks.token import TokenFusion
from geomiam.schema import Fact
from geomiam.tokens.layout import Layout
from geomiam.tokens.select import players
from geomiam.tokens.tokenizers import Tokenizers


class NetworkConfig(Fact):
    """Sizes of the network; the bounds also guard the loading of saved models."""

    fusion: Literal["group", "token"] = "group"
    width: int = Field(192, ge=4, le=4096)
    heads: int = Field(8, ge=1, le=64)
    depth: int = Field(
        3, ge=1, le=64, description="blocks over tokens (token) or summaries (group)"
    )
    inner: int = Field(1, ge=0, le=64, description="blocks inside each group (group fusion only)")
    dropout: float = Field(0.1, ge=0, lt=1)
    frequencies: int = Field(48, ge=1, le=1024, description="of the periodic tokenizer")
    sigma: float = Field(0.01, gt=0, description="deviation of the initial frequencies")

    @model_validator(mode="after")
    def _heads_divide_width(self) -> NetworkConfig:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


class Network(nn.Module):
    """Tokens → fusion → LayerNorm, ReLU, linear: one logit per species."""

    def __init__(
        self, config: NetworkConfig, *, layout: Layout, classes: dict[str, int], species: int
    ):
        super().__init__()
        d = config.width
        self.tokenizers = Tokenizers(
            layout, classes, width=d, frequencies=config.frequencies, sigma=config.sigma
        )
        self.fusion: TokenFusion | GroupFusion = _fusion(config, layout)
        self.norm = nn.LayerNorm(d)
        self.head = nn.Linear(d, species)

    def forward(self, values: list[Tensor], visible: Tensor) -> Tensor:
        """Return logits ``(n, species)`` of values per part and visible ``(n, t)``."""
        return self.head(self.activate(self.fusion(self.tokenizers(values, visible), visible)))

    def activate(self, features: Tensor) -> Tensor:
        """Features ``(n, d)`` as the last linear layer takes them."""
        return torch.relu(self.norm(features))


def _fusion(config: NetworkConfig, layout: Layout) -> TokenFusion | GroupFusion:
    width, heads, depth, dropout = config.width, config.heads, config.depth, config.dropout
    if config.fusion == "token":
        return TokenFusion(width=width, heads=heads, depth=depth, dropout=dropout)
    groups = [tokens.nonzero()[0].tolist() for tokens in players(layout).values()]
    return GroupFusion(
        groups, width=width, heads=heads, inner=config.inner, depth=depth, dropout=dropout
    )
