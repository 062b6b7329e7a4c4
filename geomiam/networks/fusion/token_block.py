"""The blocks over tokens that a configuration asks for; blocks over summaries are always plain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from geomiam.networks.blocks import TransformerBlock
from geomiam.networks.extras.block import BlockWithExtras

if TYPE_CHECKING:
    from geomiam.networks.config import NetworkConfig


def token_block(config: NetworkConfig) -> TransformerBlock:
    """Make a block over tokens: the plain one, unless sparse attention or experts are asked for."""
    if config.attention == "sparse" or config.experts:
        return BlockWithExtras.of(config)
    return TransformerBlock(config.width, config.heads, config.dropout)


def summary_block(config: NetworkConfig) -> TransformerBlock:
    """Make a block over summaries of groups."""
    return TransformerBlock(config.width, config.heads, config.dropout)
