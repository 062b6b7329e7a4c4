"""A transformer over every coalition of the same few vectors, such as summaries of groups.

The vectors of a row are the same in all its coalitions on entry. So LayerNorm, projections and
attention logits of the first block are computed once for each pair of vectors. Attention mixes values
linearly and there are fewer vectors than coalitions, so the output projection is applied to the values
before they are mixed. After the first block every member of every coalition has its own vector.
Only the first one, the query, is read out.

Shapes: b rows, v vectors with the query first, c coalitions, p members of all coalitions, d width,
h heads, e = d / h.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from geomiam.networks.blocks import HIDDEN, TransformerBlock
from geomiam.networks.modules import Modules


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
        """Return members ``(b, p, d)`` as coalitions ``(b, c, m, d)``, one tensor per size m."""
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
            x = torch.cat([_middle_block(block, part) for part in layout.by_size(x)], 1)
    else:
        x = x.index_select(1, layout.member)
    return _last_block(last, x, layout)[:, layout.order]


def _first_block(block: TransformerBlock, x: Tensor, layout: CoalitionLayout) -> Tensor:
    """Return all members after the first block ``(b, p, d)``, from vectors ``(b, v, d)``."""
    q, k, v = (block.split(part) for part in block.project(x))  # (b, h, v, e)
    logits = k @ (q * k.shape[-1] ** -0.5).transpose(-1, -2)  # key by query: (b, h, v, v)
    logits = logits.index_select(-1, layout.member).add_(layout.bias.to(x.dtype))  # (b, h, v, p)
    weight = logits.softmax(-2).flatten(1, 2).transpose(1, 2)  # (b, p, h · v)
    output = block.out.weight.unflatten(1, (block.heads, -1)).permute(1, 2, 0)  # (h, e, d)
    projection = v @ output  # (b, h, v, d)
    mixed = torch.baddbmm(x.index_select(1, layout.member), weight, projection.flatten(1, 2))
    return block.feed_forward(mixed.add_(block.out.bias))


def _middle_block(block: TransformerBlock, part: Tensor) -> Tensor:
    """Apply a block to coalitions of one size ``(b, c, m, d)``; return their members ``(b, c · m, d)``."""
    return block(part.flatten(0, 1)).unflatten(0, part.shape[:2]).flatten(1, 2)


def _last_block(block: TransformerBlock, x: Tensor, layout: CoalitionLayout) -> Tensor:
    """Return the queries after a block ``(b, c, d)``, from members ``(b, p, d)``."""
    y = block.norm_attention(x)
    q = block.query(y[:, layout.query])
    k, v = block.key_value(y).chunk(2, -1)
    mixed, start = [], 0
    for key, value in zip(layout.by_size(k), layout.by_size(v)):
        queries = q[:, start : start + key.shape[1]]
        mixed.append(_attention(block, queries, key, value))
        start += key.shape[1]
    x = x[:, layout.query] + block.out(torch.cat(mixed, 1))
    return block.feed_forward(x)


def _attention(block: TransformerBlock, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return attention ``(b, c, d)`` of one query per coalition to its members ``(b, c, m, d)``."""
    h = block.heads
    q, k, v = q.unflatten(-1, (h, -1)), k.unflatten(-1, (h, -1)), v.unflatten(-1, (h, -1))
    weight = ((q.unsqueeze(2) * k).sum(-1) * k.shape[-1] ** -0.5).softmax(2)  # (b, c, m, h)
    return (weight.unsqueeze(-1) * v).sum(2).flatten(2)
