"""Many small meetings of the same few vectors: a transformer over every coalition of summaries.

The vectors of a row are the same in all its coalitions when they come in. So norm, projections and
attention logits of the first block are made once for each pair of them, and the values are mixed as
they leave the block: mixing is linear, and there are fewer vectors than meetings. From then on every
member of every coalition is a vector of its own; only the first, the query, is read out.

Shapes: b rows, v vectors with the query first, c coalitions, p members of all coalitions, d width,
h heads, e = d / h.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from geomiam.networks.blocks import HIDDEN, TransformerBlock


@dataclass(frozen=True)
class Meetings:
    """Who meets whom; coalitions are sorted by size, so that those of one size stand together."""

    member: Tensor
    """Which vector each member is ``(p,)``; a coalition's query stands first."""
    bias: Tensor
    """0 where a vector is in the member's coalition, else hidden: ``(v, p)``."""
    query: Tensor
    """Where each coalition's query stands ``(c,)``."""
    sizes: tuple[tuple[int, int], ...]
    """Members of a coalition, and how many coalitions have so many."""
    order: Tensor
    """From sorted coalitions to the order they were asked in ``(c,)``."""

    @classmethod
    def of(
        cls, coalitions: Sequence[Sequence[int]], *, among: int, device: torch.device
    ) -> Meetings:
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


def meet(blocks: Iterable[nn.Module], x: Tensor, meetings: Meetings) -> Tensor:
    """Let the vectors ``(b, v, d)`` meet in every coalition and read the query: ``(b, c, d)``."""
    *before, last = blocks
    if before:
        x = _first(before[0], x, meetings)  # type: ignore[arg-type]
        for block in before[1:]:
            x = torch.cat([_whole(block, part) for part in _by_size(x, meetings)], 1)
    else:
        x = x.index_select(1, meetings.member)
    return _last(last, x, meetings)[:, meetings.order]  # type: ignore[arg-type]


def _first(block: TransformerBlock, x: Tensor, meetings: Meetings) -> Tensor:
    """All members after the first block ``(b, p, d)``, from vectors ``(b, v, d)``."""
    q, k, v = (block.split(part) for part in block.project(x))  # (b, h, v, e)
    logits = k @ (q * k.shape[-1] ** -0.5).transpose(
        -1, -2
    )  # of vectors, by who asks: (b, h, v, v)
    chosen = logits.index_select(-1, meetings.member).add_(meetings.bias.to(x.dtype))
    weight = chosen.softmax(-2).flatten(1, 2).transpose(1, 2)  # (b, p, h · v)
    leaving = v @ block.out.weight.unflatten(1, (block.heads, -1)).permute(1, 2, 0)  # (b, h, v, d)
    mixed = torch.baddbmm(x.index_select(1, meetings.member), weight, leaving.flatten(1, 2))
    return block.widen(mixed.add_(block.out.bias))


def _whole(block: nn.Module, part: Tensor) -> Tensor:
    """A block over coalitions of one size ``(b, c, m, d)``, as members ``(b, c · m, d)``."""
    return block(part.flatten(0, 1)).unflatten(0, part.shape[:2]).flatten(1, 2)


def _last(block: TransformerBlock, x: Tensor, meetings: Meetings) -> Tensor:
    """The queries after a block ``(b, c, d)``."""
    y = block.norm_attention(x)
    q = block.query(y[:, meetings.query])
    k, v = block.key_value(y).chunk(2, -1)
    mixed, start = [], 0
    for key, value in zip(_by_size(k, meetings), _by_size(v, meetings)):
        asked = q[:, start : start + key.shape[1]]
        mixed.append(_asked(block, asked, key, value))
        start += key.shape[1]
    x = x[:, meetings.query] + block.out(torch.cat(mixed, 1))
    return block.widen(x)


def _asked(block: TransformerBlock, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """What one query of each coalition ``(b, c, d)`` finds among its members ``(b, c, m, d)``."""
    h = block.heads
    q, k, v = q.unflatten(-1, (h, -1)), k.unflatten(-1, (h, -1)), v.unflatten(-1, (h, -1))
    weight = ((q.unsqueeze(2) * k).sum(-1) * k.shape[-1] ** -0.5).softmax(2)  # (b, c, m, h)
    return (weight.unsqueeze(-1) * v).sum(2).flatten(2)


def _by_size(x: Tensor, meetings: Meetings) -> list[Tensor]:
    """Members ``(b, p, d)`` as coalitions ``(b, c, m, d)``, one tensor for each size m."""
    parts = x.split([m * c for m, c in meetings.sizes], 1)
    return [part.unflatten(1, (c, m)) for part, (m, c) in zip(parts, meetings.sizes)]
