"""Group fusion: attention among the tokens of each group, then among the summaries of the groups.

A summary depends on its group only, so all 2^G coalitions of groups share the same G summaries.
Each coalition then costs a small transformer over at most G + 1 vectors.

The vectors of a row are the same in all its coalitions on entry. So LayerNorm, projections and
attention logits of the first block are computed once for each pair of vectors. Attention mixes values
linearly and there are fewer vectors than coalitions, so the output projection is applied to the values
before they are mixed. After the first block every member of every coalition has a separate vector.
Only the first one, the query, is read out.

Shapes: n rows, t tokens, k tokens of a group, G groups, b rows of one pattern, v vectors with the query
first, c coalitions, p members of all coalitions, d width, h heads, e = d / h.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomiam.networks import pooling
from geomiam.networks.blocks import HIDDEN, Modules, TransformerBlock, key_bias
from geomiam.networks.fusion.protocol import BlockCounts, CoalitionView, Fusion
from geomiam.networks.fusion.token_block import token_block
from geomiam.tokens.layout import Layout
from geomiam.tokens.rows import Rows
from geomiam.tokens.select import group_masks
from geomiam.tokens.tokenizers import Tokenizers

if TYPE_CHECKING:
    from geomiam.networks.config import NetworkConfig


class GroupFusion(Fusion):
    """One encoder that all groups share, and a transformer over the summaries of visible groups::

        s_g      = LN(mean of Encoder(visible tokens of g)) + identity_g
        features = first token of Transformer([query, s_g for visible g])

    A learned query token reads the visible summaries. Without a visible group the output is the base
    value.
    """

    extendable = True

    def __init__(self, config: NetworkConfig, layout: Layout):
        super().__init__(config, layout)
        self.groups = [tokens.nonzero()[0].tolist() for tokens in group_masks(layout).values()]
        self.inner = Modules(token_block(config) for _ in range(config.inner))
        self.hidden_tokens_are_cheap = not config.inner  # a token costs one addition
        sizes = config.width, config.heads, config.dropout
        self.blocks = Modules(TransformerBlock(*sizes) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width)
        identities = torch.randn(len(self.groups), config.width) * 0.02
        # One parameter per group, so that the identity of a new group can be trained alone.
        self.identity = nn.ParameterList(identities.clone().unbind())
        self.query = nn.Parameter(torch.randn(config.width) * 0.02)
        self.masks = np.stack(list(group_masks(layout).values()))
        """Tokens of each group ``(G, t)``."""
        self._masks_on_device: Tensor | None = None

    def forward(self, tokens: Tensor, visible: Tensor) -> Tensor:
        """Return features ``(n, d)`` from tokens ``(n, t, d)`` and boolean visible ``(n, t)``."""
        summaries = [self.pool(i, tokens[:, g], visible[:, g]) for i, g in enumerate(self.groups)]
        present = torch.stack([visible[:, g].any(1) for g in self.groups], 1)
        return self.fuse(torch.stack(summaries, 1), present)

    def pool(self, group: int, tokens: Tensor, visible: Tensor) -> Tensor:
        """Return summaries ``(n, d)`` of one group's tokens ``(n, k, d)``; arbitrary if none is visible."""
        # s_g = LN(mean of Encoder(visible tokens of g)) + identity_g
        return self.norm(pooling.visible_mean(self.inner, tokens, visible)) + self.identity[group]

    def fuse(self, summaries: Tensor, present: Tensor) -> Tensor:
        """Return features ``(n, d)`` from summaries ``(n, G, d)`` of the groups ``present (n, G)``."""
        query = torch.ones_like(present[:, :1])
        bias = key_bias(torch.cat([query, present], 1), summaries.dtype)
        return self._read(self.with_query(summaries), bias)

    def with_query(self, summaries: Tensor) -> Tensor:
        """Put the query before the summaries: ``(n, 1 + G, d)``."""
        query = self.query.to(summaries.dtype).expand(len(summaries), 1, -1)
        return torch.cat([query, summaries], 1)

    def _read(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return the query ``(n, d)`` after all blocks over query and summaries ``(n, 1 + G, d)``."""
        for block in self.blocks[:-1]:
            x = block(x, bias)
        # Only the query is read, so the last block computes no other token.
        return self.blocks[-1](x, bias, read=1).squeeze(1)

    def dense_training_features(
        self, tokenizers: Tokenizers, values: list[Tensor], visible: Tensor
    ) -> Tensor:
        """Return features ``(k·n, d)`` in training, of n rows in k masks, ``visible (k·n, t)``."""
        tokens = tokenizers.in_masks(values, visible)
        visible_of_group = visible.unsqueeze(1) & self._masks(visible.device)  # (k·n, G, t)
        count = visible_of_group.sum(-1, keepdim=True)
        # Without inner blocks the means of all groups are one product.
        with torch.autocast(visible.device.type, enabled=False):
            means = (visible_of_group / count.clamp(min=1)) @ tokens.float()
        summaries = self.norm(means) + torch.stack(list(self.identity))
        return self.fuse(summaries, count.squeeze(-1) > 0)

    def _masks(self, device: torch.device) -> Tensor:
        """Return ``masks`` on a device; they are copied there once."""
        # No buffer: a network that is loaded has no memory for buffers that its file lacks.
        if self._masks_on_device is None or self._masks_on_device.device != device:
            self._masks_on_device = torch.as_tensor(self.masks, device=device)
        return self._masks_on_device

    def training_features(self, tokens: pooling.VisibleTokens) -> Tensor:
        """Return features ``(n, d)`` in training, from visible tokens and summaries of visible groups."""
        n, groups = len(tokens.visible), len(self.groups)
        visible = [tokens.visible[:, g] for g in self.groups]
        place = [tokens.place[:, g] for g in self.groups]
        means = pooling.bucketed_mean(
            self.inner, tokens.vectors, _stacked(visible), _stacked(place)
        )
        summaries = self.norm(means.view(n, groups, -1)) + torch.stack(list(self.identity))
        # The query comes first, then the summaries row by row; `position` is their place in this order.
        vectors = torch.cat([self.query[None].to(summaries.dtype), summaries.flatten(0, 1)])
        position = F.pad(1 + torch.arange(n * groups).view(n, groups), (1, 0))
        present = torch.stack([v.any(1) for v in visible], 1)
        with_query = torch.cat([present.new_ones(n, 1), present], 1)
        buckets = pooling.length_buckets(with_query, device=vectors.device)
        inputs = pooling.gather_vectors(
            vectors, [position[b.rows[:, None], b.index] for b in buckets]
        )
        features = [self._read(x, b.bias(x)) for x, b in zip(inputs, buckets)]
        return pooling.to_rows(features, buckets, rows=n)

    @classmethod
    def count_blocks(cls, config: NetworkConfig, *, modalities: int) -> BlockCounts:
        return BlockCounts(config.inner, config.depth)

    def extend(self, old: GroupFusion) -> list[nn.Parameter]:
        before = {tuple(g): i for g, i in zip(old.groups, old.identity)}
        new = [i for g, i in zip(self.groups, self.identity) if tuple(g) not in before]
        with torch.no_grad():
            for group, identity in zip(self.groups, self.identity):
                identity.copy_(before.get(tuple(group), identity))
            self.query.copy_(old.query)
        for part in ("inner", "blocks", "norm"):
            getattr(self, part).load_state_dict(getattr(old, part).state_dict())
        return new

    def view(self, rows: Rows, coalitions: Tensor) -> GroupView:
        return GroupView(self, rows, coalitions)


class GroupView(CoalitionView):
    """Coalitions of n rows from the summaries of their groups, each computed once."""

    fusion: GroupFusion

    def __init__(self, fusion: GroupFusion, rows: Rows, coalitions: Tensor):
        super().__init__(fusion, rows, coalitions)
        self.pooled = pooling.PooledSets.of(
            fusion.groups, rows, coalitions, width=len(fusion.query), pool=fusion.pool
        )
        self.layouts: dict[tuple[bytes, int], CoalitionLayout] = {}

    def cost(self, count: int) -> int:
        return count * (1 + int((self.pooled.index >= 0).any(0).sum()) // 2)

    def features(self, rows: Tensor, selection: Tensor) -> Tensor:
        """Return features ``(r, c, d)`` of ``rows (r,)`` in the coalitions ``selection (c,)``."""
        table, present = self.pooled.table, self.pooled.present[rows]
        out = table.new_empty(len(rows), len(selection), table.shape[-1])
        if present.shape[1]:
            patterns, pattern_of = present.unique(dim=0, return_inverse=True)
        else:  # no coalition shows anything that a row has
            patterns, pattern_of = present[:1], torch.zeros(len(rows))
        for p, pattern in enumerate(patterns):
            same = torch.nonzero(pattern_of == p).squeeze(1) if len(patterns) > 1 else slice(None)
            x = self.fusion.with_query(table[rows[same]])
            out[same] = read_coalitions(self.fusion.blocks, x, self._layout(pattern, selection))
        return out

    def _layout(self, present: Tensor, selection: Tensor) -> CoalitionLayout:
        """Return the layout of coalitions for rows with the summaries ``present (v,)``; keep it."""
        key = bytes(present.tolist()) + bytes(selection.cpu().numpy().tobytes()), len(selection)
        if key not in self.layouts:
            index = self.pooled.index[selection]  # (c, G)
            member = (index >= 0) & present[index.clamp(min=0)] if len(present) else index >= 0
            self.layouts[key] = CoalitionLayout.of(
                [
                    [int(v) + 1 for v, is_member in zip(*pair) if is_member]
                    for pair in zip(index.tolist(), member.tolist())
                ],
                among=self.pooled.table.shape[1] + 1,
                device=self.pooled.table.device,
            )
        return self.layouts[key]


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    """Return parts ``(n, k_g)`` of G groups as ``(n · G, k)``, filled up with zeros."""
    longest = max(p.shape[1] for p in parts)
    return torch.stack([F.pad(p, (0, longest - p.shape[1])) for p in parts], 1).flatten(0, 1)


@dataclass(frozen=True)
class CoalitionLayout:
    """The members of every coalition; coalitions are sorted by size, small ones first."""

    member: Tensor
    """The vector of each member ``(p,)``; the query of a coalition is its first member."""
    bias: Tensor
    """0 where a vector is in the member's coalition, else hidden: ``(v, p)``."""
    query: Tensor
    """Position of each coalition's query ``(c,)``."""
    sizes: tuple[tuple[int, int], ...]
    """Numbers of members of a coalition, and of coalitions with so many."""
    order: Tensor
    """From sorted coalitions to the original order ``(c,)``."""

    @classmethod
    def of(
        cls, coalitions: Sequence[Sequence[int]], *, among: int, device: torch.device
    ) -> CoalitionLayout:
        """Lay out coalitions, given as numbers of vectors from 1 on, ``among`` v of them."""
        # Sorted by size, coalitions of equal size lie side by side and need no padding.
        ranks = sorted(range(len(coalitions)), key=lambda c: len(coalitions[c]))
        members = [[0, *coalitions[c]] for c in ranks]
        lengths = [len(m) for m in members]
        bias = torch.full((sum(lengths), among), HIDDEN)
        start = 0
        for vectors in members:
            bias[start : start + len(vectors), vectors] = 0
            start += len(vectors)
        place = torch.empty(len(ranks), dtype=torch.long)
        place[torch.tensor(ranks, dtype=torch.long)] = torch.arange(len(ranks))
        return cls(
            torch.tensor([m for vectors in members for m in vectors], device=device),
            bias.T.contiguous().to(device),
            torch.tensor([0, *lengths[:-1]], device=device).cumsum(0),
            tuple((size, lengths.count(size)) for size in dict.fromkeys(lengths)),
            place.to(device),
        )

    def by_size(self, x: Tensor) -> list[Tensor]:
        """Return members ``(b, p, …)`` as coalitions ``(b, c, m, …)``, one tensor per size m."""
        parts = x.split([m * c for m, c in self.sizes], 1)
        return [part.unflatten(1, (c, m)) for part, (m, c) in zip(parts, self.sizes)]


def read_coalitions(
    blocks: Modules[TransformerBlock], x: Tensor, layout: CoalitionLayout
) -> Tensor:
    """Apply the blocks to every coalition of vectors ``(b, v, d)``; return its query ``(b, c, d)``."""
    *before, last = blocks
    if before:
        x = _first_block(before[0], x, layout)
        for block in before[1:]:
            parts = []
            for part in layout.by_size(x):
                after = block(part.flatten(0, 1)).unflatten(0, part.shape[:2])
                parts.append(after.flatten(1, 2))
            x = torch.cat(parts, 1)
    else:
        x = x.index_select(1, layout.member)
    return _last_block(last, x, layout)[:, layout.order]


def _first_block(block: TransformerBlock, x: Tensor, layout: CoalitionLayout) -> Tensor:
    """Return all members after the first block ``(b, p, d)``, from vectors ``(b, v, d)``."""
    q, k, v = (block.split(part) for part in block.project(x))  # (b, h, v, e)
    logits = k @ (q * k.shape[-1] ** -0.5).transpose(-1, -2)  # key by query: (b, h, v, v)
    # Logits depend on the pair of vectors only; a coalition selects columns and hides the other keys.
    logits = logits.index_select(-1, layout.member).add_(layout.bias.to(x.dtype))  # (b, h, v, p)
    weight = logits.softmax(-2).flatten(1, 2).transpose(1, 2)  # (b, p, h · v)
    output = block.out.weight.unflatten(1, (block.heads, -1)).permute(1, 2, 0)  # (h, e, d)
    # W_o Σ_j a_j v_j = Σ_j a_j (W_o v_j): v products in place of one per member of a coalition.
    projection = v @ output  # (b, h, v, d)
    mixed = torch.baddbmm(x.index_select(1, layout.member), weight, projection.flatten(1, 2))
    return block.feed_forward(mixed.add_(block.out.bias))


def _last_block(block: TransformerBlock, x: Tensor, layout: CoalitionLayout) -> Tensor:
    """Return the queries after a block ``(b, c, d)``, from members ``(b, p, d)``."""
    y = block.norm_attention(x)
    q = block.query(y[:, layout.query])
    heads = (block.heads, -1)
    q, k, v = (part.unflatten(-1, heads) for part in (q, *block.key_value(y).chunk(2, -1)))
    mixed, start = [], 0
    for key, value in zip(layout.by_size(k), layout.by_size(v)):  # (b, c, m, h, e)
        query = q[:, start : start + key.shape[1], None]  # one per coalition
        weight = ((query * key).sum(-1) * key.shape[-1] ** -0.5).softmax(2)  # (b, c, m, h)
        mixed.append((weight.unsqueeze(-1) * value).sum(2).flatten(2))
        start += key.shape[1]
    x = x[:, layout.query] + block.out(torch.cat(mixed, 1))
    return block.feed_forward(x)
