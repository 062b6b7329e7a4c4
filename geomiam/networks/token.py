"""Token fusion: the papers' transformer (MaskSDM, MIAM), with hidden tokens collapsed to one."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from geomiam.networks.blocks import TransformerBlock, buckets, gather


class TokenFusion(nn.Module):
    """All tokens attend to all; hidden ones are one learned vector; the mean is read out.

    In evaluation the k hidden tokens of a row are computed as one. They are equal on entry and carry
    no position, so they stay equal through every block: one token with ``log k`` added to its
    attention logit and weight k in the mean gives the same result.
    """

    def __init__(self, *, width: int, heads: int, depth: int, dropout: float):
        super().__init__()
        self.mask = nn.Parameter(torch.empty(width).uniform_(-(width**-0.5), width**-0.5))
        self.blocks = nn.ModuleList(TransformerBlock(width, heads, dropout) for _ in range(depth))

    def forward(self, tokens: Tensor, visible: Tensor) -> Tensor:
        """Return features ``(n, d)`` from tokens ``(n, t, d)`` and visible ``(n, t)``."""
        return self.plain(tokens, visible) if self.training else self.collapsed(tokens, visible)

    def plain(self, tokens: Tensor, visible: Tensor) -> Tensor:
        """Every token computed; hidden ones replaced by the mask vector."""
        x = torch.where(visible.unsqueeze(-1), tokens, self.mask)
        for block in self.blocks:
            x = block(x)
        return x.mean(1)

    def collapsed(self, tokens: Tensor, visible: Tensor) -> Tensor:
        """Visible tokens and one for all hidden; rows that show equally many go together."""
        features = tokens.new_empty(len(tokens), tokens.shape[-1])
        for rows, index in buckets(visible):
            features[rows] = self._collapse(gather(tokens, rows, index), tokens.shape[1])
        return features

    def coalitions(self, tokens: Tensor, observed: Tensor, shown: Tensor) -> Iterator[Tensor]:
        """Yield the features ``(n, d)`` of each coalition, given shown tokens ``(c, t)``."""
        for coalition in shown:
            yield self(tokens, observed & coalition)

    def _collapse(self, x: Tensor, t: int) -> Tensor:
        hidden = t - x.shape[1]
        weight = x.new_ones(x.shape[1] + bool(hidden))  # of each token in softmax and mean
        if hidden:
            x = torch.cat([x, self.mask.expand(len(x), 1, -1)], 1)
            weight[-1] = hidden
        for block in self.blocks:
            x = block(
                x, bias=weight.log()[None, None, None] if hidden > 1 else None
            )  # (1, 1, 1, k + 1)
        return (x * weight.unsqueeze(-1)).sum(1) / t
