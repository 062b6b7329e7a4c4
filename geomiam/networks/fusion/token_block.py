"""The transformer block over tokens of a configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from geomiam.networks.blocks import TransformerBlock
from geomiam.networks.extras.block import BlockWithExtras

if TYPE_CHECKING:
    from geomiam.networks.config import NetworkConfig


def token_block(config: NetworkConfig) -> TransformerBlock:
    """Return a new block over tokens: plain, unless sparse attention or experts are configured."""
    if config.attention == "sparse" or config.experts:
        return BlockWithExtras.of(config)
    return TransformerBlock(config.width, config.heads, config.dropout)
