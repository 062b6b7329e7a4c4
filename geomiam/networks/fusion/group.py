"""Group fusion: attention among the tokens of each group first, then among the groups' summaries.

A summary depends on its own group only, so all 2^G coalitions of groups share the same G summaries;
what is left per coalition is a small transformer over at most G + 1 vectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomiam.networks.blocks import key_bias
from geomiam.networks.coalition_layout import CoalitionLayout, read_coalitions
from geomiam.networks.fusion.protocol import BlockCounts, CoalitionView, Fusion
from geomiam.networks.fusion.token_block import summary_block, token_block
from geomiam.networks.length_buckets import VisibleTokens, gather_vectors, length_buckets, to_rows
from geomiam.networks.modules import Modules
from geomiam.networks.pooling import PooledSets, bucket_bias, bucketed_mean, visible_mean
from geomiam.tokens.layout import Layout
from geomiam.tokens.rows import Rows
from geomiam.tokens.select import group_masks

if TYPE_CHECKING:
    from geomiam.networks.config import NetworkConfig


class GroupFusion(Fusion):
    """One encoder shared by all groups, a summary for each, fused over those that are visible.

    The summary is the mean of a group's visible tokens plus a learned vector of the group. A learned
    query token reads the visible summaries; with none visible it gives the base value.
    """

    extendable = True

    def __init__(self, config: NetworkConfig, layout: Layout):
        super().__init__(config, layout)
        self.groups = [tokens.nonzero()[0].tolist() for tokens in group_masks(layout).values()]
        self.inner = Modules(token_block(config) for _ in range(config.inner))
        self.blocks = Modules(summary_block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width)
        drawn = torch.randn(len(self.groups), config.width) * 0.02
        self.identity = nn.ParameterList(drawn.clone().unbind())  # apart: a new group learns alone
        self.query = nn.Parameter(torch.randn(config.width) * 0.02)

    def forward(self, tokens: Tensor, visible: Tensor) -> Tensor:
        """Return features ``(n, d)`` from tokens ``(n, t, d)`` and visible ``(n, t)``."""
        own = [(tokens[:, g], visible[:, g]) for g in self.groups]
        summaries = [self.pool(g, x, seen) for g, (x, seen) in enumerate(own)]
        return self.fuse(torch.stack(summaries, 1), torch.stack([s.any(1) for _, s in own], 1))

    @classmethod
    def count_blocks(cls, config: NetworkConfig, *, modalities: int) -> BlockCounts:
        """Return the blocks inside groups, shared by all, and those over summaries."""
        return BlockCounts(config.inner, config.depth)

    @property
    def hidden_tokens_are_cheap(self) -> bool:
        """Without blocks inside groups a token costs one addition."""
        return not len(self.inner)

    def extend(self, old: GroupFusion) -> list[nn.Parameter]:
        """Copy the weights of a fusion of fewer groups; the identities of new groups are new."""
        before = {tuple(g): i for g, i in zip(old.groups, old.identity)}
        new = [i for g, i in zip(self.groups, self.identity) if tuple(g) not in before]
        with torch.no_grad():
            for group, identity in zip(self.groups, self.identity):
                identity.copy_(before.get(tuple(group), identity))
            self.query.copy_(old.query)
        for part in ("inner", "blocks", "norm"):
            getattr(self, part).load_state_dict(getattr(old, part).state_dict())
        return new

    def view(self, rows: Rows, shown: Tensor) -> GroupView:
        """Return the features of rows in coalitions of tokens ``shown (c, t)``."""
        return GroupView(self, rows, shown)

    def pool(self, group: int, tokens: Tensor, visible: Tensor) -> Tensor:
        """Summaries ``(n, d)`` of a group's tokens ``(n, k, d)``; arbitrary where none is visible."""
        return self.norm(visible_mean(self.inner, tokens, visible)) + self.identity[group]

    def training_features(self, tokens: VisibleTokens) -> Tensor:
        """Features ``(n, d)``; only visible tokens and summaries of visible groups are computed."""
        n, groups = len(tokens.visible), len(self.groups)
        own = [tokens.visible[:, g] for g in self.groups]
        place = [tokens.place[:, g] for g in self.groups]
        means = bucketed_mean(self.inner, tokens.made, _stacked(own), _stacked(place))
        summaries = self.norm(means.view(n, groups, -1)) + torch.stack(list(self.identity))
        whole = torch.cat([self.query[None].to(summaries.dtype), summaries.flatten(0, 1)])
        stands = F.pad(1 + torch.arange(n * groups).view(n, groups), (1, 0))
        present = torch.stack([v.any(1) for v in own], 1)
        with_query = torch.cat([present.new_ones(n, 1), present], 1)
        buckets = length_buckets(with_query, device=whole.device)
        vectors = gather_vectors(whole, [stands[b.rows[:, None], b.index] for b in buckets])
        features = [self._read(x, bucket_bias(x, b)) for x, b in zip(vectors, buckets)]
        return to_rows(features, buckets, rows=n)

    def _read(self, x: Tensor, bias: Tensor | None) -> Tensor:
        for block in self.blocks[:-1]:
            x = block(x, bias)
        return self.blocks[-1](x, bias, read=1).squeeze(1)

    def fuse(self, summaries: Tensor, present: Tensor) -> Tensor:
        """Features ``(n, d)`` from summaries ``(n, G, d)`` of the groups that are present ``(n, G)``."""
        query = torch.ones_like(present[:, :1])
        bias = key_bias(torch.cat([query, present], 1), summaries.dtype)
        return self._read(self.with_query(summaries), bias)

    def with_query(self, summaries: Tensor) -> Tensor:
        """Put the query before the summaries: ``(n, 1 + G, d)``."""
        query = self.query.to(summaries.dtype).expand(len(summaries), 1, -1)
        return torch.cat([query, summaries], 1)


class GroupView(CoalitionView):
    """Coalitions of n rows from the summaries of their groups, each made once."""

    fusion: GroupFusion

    def __init__(self, fusion: GroupFusion, rows: Rows, shown: Tensor):
        super().__init__(fusion, rows, shown)
        self.pooled = PooledSets.of(
            fusion.groups, rows, shown, width=len(fusion.query), pool=fusion.pool
        )
        self.layouts: dict[tuple[bytes, int], CoalitionLayout] = {}

    def cost(self, coalitions: int) -> int:
        """Vectors per row that are in memory."""
        return coalitions * (1 + int((self.pooled.which >= 0).any(0).sum()) // 2)

    def features(self, rows: Tensor, which: Tensor) -> Tensor:
        """Features ``(r, c, d)`` of rows in coalitions."""
        table = self.pooled.table
        out = table.new_empty(len(rows), len(which), table.shape[-1])
        for present, mine in _patterns(self.pooled.present[rows]):
            x = self.fusion.with_query(table[rows[mine]])
            out[mine] = read_coalitions(self.fusion.blocks, x, self._layout(present, which))
        return out

    def _layout(self, present: Tensor, which: Tensor) -> CoalitionLayout:
        """Layout of coalitions of rows in which these summaries are present ``(v,)``."""
        key = bytes(present.tolist()) + bytes(which.cpu().numpy().tobytes()), len(which)
        if key not in self.layouts:
            chosen = self.pooled.which[which]
            there = (chosen >= 0) & present[chosen.clamp(min=0)] if len(present) else chosen >= 0
            self.layouts[key] = CoalitionLayout.of(
                [
                    [int(v) + 1 for v, t in zip(*pair) if t]
                    for pair in zip(chosen.tolist(), there.tolist())
                ],
                among=self.pooled.table.shape[1] + 1,
                device=self.pooled.table.device,
            )
        return self.layouts[key]


def _patterns(present: Tensor) -> Iterator[tuple[Tensor, Tensor | slice]]:
    """Distinct rows of ``present (n, v)``, and which rows have each."""
    if not present.shape[1]:
        yield present[0], slice(None)
        return
    patterns, which = present.unique(dim=0, return_inverse=True)
    for p, pattern in enumerate(patterns):
        yield pattern, torch.nonzero(which == p).squeeze(1) if len(patterns) > 1 else slice(None)


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    """Parts ``(n, k_g)`` of G groups as ``(n · G, k)``, filled up with zeros."""
    most = max(p.shape[1] for p in parts)
    filled = [F.pad(p, (0, most - p.shape[1])) for p in parts]
    return torch.stack(filled, 1).flatten(0, 1)
