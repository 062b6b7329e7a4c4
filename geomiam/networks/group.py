"""Group fusion: tokens meet inside their group first, then the groups' summaries meet.

A summary depends on its own group only, so all 2^G coalitions of groups share the same G summaries;
what is left per coalition is a small transformer over at most G + 1 vectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from geomiam.networks.blocks import TransformerBlock, buckets, gather, key_bias


class GroupFusion(nn.Module):
    """One encoder shared by all groups, a summary for each, fused over those that are visible.

    The summary is the mean of a group's visible tokens plus a learned vector of the group. A learned
    query token reads the visible summaries; with none visible it gives the base value.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[int]],
        *,
        width: int,
        heads: int,
        inner: int,
        depth: int,
        dropout: float,
    ):
        super().__init__()
        self.groups = [list(g) for g in groups]
        self.inner = nn.ModuleList(TransformerBlock(width, heads, dropout) for _ in range(inner))
        self.blocks = nn.ModuleList(TransformerBlock(width, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.identity = nn.Parameter(torch.randn(len(groups), width) * 0.02)
        self.query = nn.Parameter(torch.randn(width) * 0.02)

    def forward(self, tokens: Tensor, visible: Tensor) -> Tensor:
        """Return features ``(n, d)`` from tokens ``(n, t, d)`` and visible ``(n, t)``."""
        summaries, present = zip(
            *(self._group(g, tokens, visible) for g in range(len(self.groups)))
        )
        return self.fuse(torch.stack(summaries, 1), torch.stack(present, 1))

    def coalitions(self, tokens: Tensor, observed: Tensor, shown: Tensor) -> Iterator[Tensor]:
        """Yield the features ``(n, d)`` of each coalition, given shown tokens ``(c, t)``.

        A group is encoded once per distinct part of it that the coalitions show: once in all where
        the players of the game are the groups.
        """
        variants = [self._variants(g, tokens, observed, shown) for g in range(len(self.groups))]
        for c in range(len(shown)):
            summaries, present = zip(*(summary[which[c]] for summary, which in variants))
            yield self.fuse(torch.stack(summaries, 1), torch.stack(present, 1))

    def summarise(self, group: int, tokens: Tensor, visible: Tensor) -> Tensor:
        """Summaries ``(n, d)`` of one group's tokens ``(n, k, d)``; garbage where none is visible."""
        encode = self._encode_all if self.training else self._encode_visible
        return self.norm(encode(tokens, visible)) + self.identity[group]

    def fuse(self, summaries: Tensor, present: Tensor) -> Tensor:
        """Features ``(n, d)`` from summaries ``(n, G, d)`` of the groups that are present ``(n, G)``."""
        if self.training:
            query = torch.ones_like(present[:, :1])
            bias = key_bias(torch.cat([query, present], 1), summaries.dtype)
            return self._read(summaries, bias)
        features = summaries.new_empty(len(summaries), summaries.shape[-1])
        for rows, index in buckets(present):
            features[rows] = self._read(gather(summaries, rows, index), None)
        return features

    def _group(self, group: int, tokens: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
        own = visible[:, self.groups[group]]
        return self.summarise(group, tokens[:, self.groups[group]], own), own.any(1)

    def _variants(self, group: int, tokens: Tensor, observed: Tensor, shown: Tensor):
        """Summaries of each distinct part of a group that is shown, and which coalition has which."""
        parts, which = shown[:, self.groups[group]].unique(dim=0, return_inverse=True)
        own, seen = tokens[:, self.groups[group]], observed[:, self.groups[group]]
        made = [(self.summarise(group, own, seen & part), (seen & part).any(1)) for part in parts]
        return made, which.tolist()

    def _encode_all(self, x: Tensor, visible: Tensor) -> Tensor:
        bias = key_bias(visible, x.dtype)
        for block in self.inner:
            x = block(x, bias)
        weight = visible.unsqueeze(-1).to(x.dtype)
        return (x * weight).sum(1) / weight.sum(1).clamp(min=1)

    def _encode_visible(self, tokens: Tensor, visible: Tensor) -> Tensor:
        means = tokens.new_zeros(len(tokens), tokens.shape[-1])
        for rows, index in buckets(visible):
            if not index.shape[1]:
                continue
            x = gather(tokens, rows, index)
            for block in self.inner:
                x = block(x)
            means[rows] = x.mean(1)
        return means

    def _read(self, summaries: Tensor, bias: Tensor | None) -> Tensor:
        x = torch.cat([self.query.expand(len(summaries), 1, -1), summaries], 1)
        for block in self.blocks[:-1]:
            x = block(x, bias)
        return self.blocks[-1](x, bias, read=1).squeeze(1)
