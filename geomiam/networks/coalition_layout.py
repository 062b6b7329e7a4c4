"""A transformer over every coalition of the same few vectors, such as summaries of groups.

The vectors of a row are the same in all its coalitions when they come in. So norm, projections and
attention logits of the first block are made once for each pair of them, and the values are mixed as
they leave the block: mixing is linear, and there are fewer vectors than coalitions. From then on every
member of every coalition is a vector of its own; only the first, the query, is read out.

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
    """The members of every coalition; coalitions of one size stand together, small ones first."""

    member: Tensor
    """Which vector each member is ``(p,)``; a coalition's query stands first."""
    bias: Tensor
    """0 where a vector is in the member's coalition, else hidden: ``(v, p)``."""
    query: Tensor
    """Where each coalition's query stands ``(c,)``."""
    sizes: tuple[tuple[int, int], ...]
    """Members of a coalition, and how many coalitions have so many."""
    order: Tensor
    """From sorted coalitions to the order they were given in ``(c,)``."""

    @classmethod
    def of(
        cls, coalitions: Sequence[Sequence[int]], *, among: int, device: torch.device
    ) -> CoalitionLayout:
        """Lay out coalitions, given as numbers of vectors from 1 on, ``among`` v of them."""
        ranks = sorted(range(len(coalitions)), key=lambda c: len(coalitions[c]))
        members = [[0, *coalitions[c]] for c in ranks]
        bias = torch.full((sum(map(len, members)), among), HIDDEN)
        start = 0
        for own in members:
            bias[start : start + len(own), own] = 0
            start += len(own)
        lengths = [len(own) for own in members]
        place = torch.empty(len(ranks), dtype=torch.long)
        place[torch.tensor(ranks, dtype=torch.long)] = torch.arange(len(ranks))
        return cls(
            torch.tensor([m for own in members for m in own], device=device),
            bias.T.contiguous().to(device),
            torch.tensor([0, *lengths[:-1]], device=device).cumsum(0),
            tuple((size, lengths.count(size)) for size in dict.fromkeys(lengths)),
            place.to(device),
        )

    def by_size(self, x: Tensor) -> list[Tensor]:
        """Members ``(b, p, d)`` as coalitions ``(b, c, m, d)``, one tensor for each size m."""
        parts = x.split([m * c for m, c in self.sizes], 1)
        return [part.unflatten(1, (c, m)) for part, (m, c) in zip(parts, self.sizes)]


def read_coalitions(
    blocks: Modules[TransformerBlock], x: Tensor, layout: CoalitionLayout
) -> Tensor:
    """Run the blocks over every coalition of vectors ``(b, v, d)``; return its query ``(b, c, d)``."""
    *before, last = blocks
    if before:
        x = _first(before[0], x, layout)
        for block in before[1:]:
            x = torch.cat([_whole(block, part) for part in layout.by_size(x)], 1)
    else:
        x = x.index_select(1, layout.member)
    return _last(last, x, layout)[:, layout.order]


def _first(block: TransformerBlock, x: Tensor, layout: CoalitionLayout) -> Tensor:
    """All members after the first block ``(b, p, d)``, from vectors ``(b, v, d)``."""
    q, k, v = (block.split(part) for part in block.project(x))  # (b, h, v, e)
    scaled = (q * k.shape[-1] ** -0.5).transpose(-1, -2)
    logits = k @ scaled  # of vectors, by who asks: (b, h, v, v)
    chosen = logits.index_select(-1, layout.member).add_(layout.bias.to(x.dtype))
    weight = chosen.softmax(-2).flatten(1, 2).transpose(1, 2)  # (b, p, h · v)
    leaving = v @ block.out.weight.unflatten(1, (block.heads, -1)).permute(1, 2, 0)  # (b, h, v, d)
    mixed = torch.baddbmm(x.index_select(1, layout.member), weight, leaving.flatten(1, 2))
    return block.feed_forward(mixed.add_(block.out.bias))


def _whole(block: TransformerBlock, part: Tensor) -> Tensor:
    """A block over coalitions of one size ``(b, c, m, d)``, as members ``(b, c · m, d)``."""
    return block(part.flatten(0, 1)).unflatten(0, part.shape[:2]).flatten(1, 2)


def _last(block: TransformerBlock, x: Tensor, layout: CoalitionLayout) -> Tensor:
    """The queries after a block ``(b, c, d)``."""
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
    """Mixed values of one query of each coalition ``(b, c, d)`` over its members ``(b, c, m, d)``."""
    h = block.heads
    q, k, v = q.unflatten(-1, (h, -1)), k.unflatten(-1, (h, -1)), v.unflatten(-1, (h, -1))
    weight = ((q.unsqueeze(2) * k).sum(-1) * k.shape[-1] ** -0.5).softmax(2)  # (b, c, m, h)
    return (weight.unsqueeze(-1) * v).sum(2).flatten(2)
