"""What a set of tokens comes to: they meet, and the mean of those that are visible is read out.

In training for all rows of a batch side by side; in evaluation once for each part of a set that
coalitions show, and for rows that are equal in that part once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from geomiam.networks.blocks import buckets, gather, key_bias
from geomiam.networks.packs import Pack, packs, spread, unpack
from geomiam.tokens.rows import Rows

TOKENS_AT_ONCE = 4096
"""Tokens encoded at a time: small enough for the cache, large enough for the matrix products."""


def visible_mean(blocks: nn.ModuleList, tokens: Tensor, visible: Tensor) -> Tensor:
    """Mean ``(n, d)`` of the visible tokens ``(n, k, d)`` after they met; 0 where none is."""
    means = tokens.new_zeros(len(tokens), tokens.shape[-1])
    for rows, index in buckets(visible):
        if index.shape[1]:
            means[rows] = _mean(blocks, gather(tokens, rows, index))
    return means


def packed_mean(blocks: nn.ModuleList, made: Tensor, visible: Tensor, place: Tensor) -> Tensor:
    """Mean ``(s, d)`` of the visible tokens of s sets ``(s, k)`` after they met, in training.

    ``place (s, k)`` says where among the tokens that are made ``(f, d)`` each one stands.
    """
    found = packs(visible, device=made.device)
    tokens = spread(made, [place[p.rows[:, None], p.index].clamp(min=0) for p in found])
    means = [_pack_mean(blocks, x, p) for x, p in zip(tokens, found)]
    return unpack(means, found, rows=len(place))


def pack_bias(x: Tensor, pack: Pack) -> Tensor | None:
    """Attention bias that takes the hidden slots of a pack ``(b, l, d)`` out."""
    return None if pack.seen is None else key_bias(pack.seen.to(x.device), x.dtype)


def _pack_mean(blocks: nn.ModuleList, x: Tensor, pack: Pack) -> Tensor:
    bias = pack_bias(x, pack)
    for block in blocks:
        x = block(x, bias)
    if pack.seen is None:
        return x.mean(1)
    weight = pack.seen.to(x.device, x.dtype).unsqueeze(-1)
    return (x * weight).sum(1) / weight.sum(1).clamp(min=1)


def _mean(blocks: nn.ModuleList, x: Tensor) -> Tensor:
    if not len(blocks):
        return x.mean(1)
    *before, last = blocks
    for block in before:
        x = block(x)
    x = last.attend(x, *last.project(x))  # type: ignore[operator]
    return last.widen_mean(x, x.new_full((x.shape[1],), 1 / x.shape[1]))  # type: ignore[operator]


@dataclass(frozen=True)
class Summaries:
    """Summaries of n rows, made once, and which of them each coalition shows.

    A set of tokens has a summary for each distinct part of it that coalitions show, one where the
    players are the sets; rows that are equal in that part share it. A part that no row has is left out,
    so that a set without data costs nothing and changes no bit of the answer.
    """

    table: Tensor
    """``(n, v, d)``."""
    present: Tensor
    """Whether a row has any token of a summary's part ``(n, v)``."""
    which: Tensor
    """The summary of each set in each coalition ``(c, G)``; −1: nothing of the set is shown."""

    @classmethod
    def of(
        cls,
        sets: Sequence[Sequence[int]],
        rows: Rows,
        shown: Tensor,
        *,
        width: int,
        summarise: Callable[[int, Tensor, Tensor], Tensor],
    ) -> Summaries:
        """Make all that coalitions ``shown (c, t)`` need.

        ``summarise(g, tokens, visible)`` makes summaries ``(u, d)`` of tokens ``(u, k, d)`` of set g.
        """
        made: list[Tensor] = []
        present: list[Tensor] = []
        which: list[Tensor] = []
        for g, own in enumerate(sets):
            there = shown[:, own] & rows.visible[:, own].any(0)
            parts, index = there.unique(dim=0, return_inverse=True)
            some = parts.any(1)
            which.append(torch.where(some, some.cumsum(0) - 1 + len(made), -1)[index])
            for part in parts[some]:
                tokens = [t for t, is_shown in zip(own, part.tolist()) if is_shown]
                made.append(_of_part(g, rows, tokens, summarise))
                present.append(rows.visible[:, tokens].any(1))
        n = len(rows.visible)
        empty = torch.zeros(n, 0, width, dtype=rows.dtype, device=shown.device)
        table = torch.stack(made, 1) if made else empty
        has = torch.stack(present, 1) if present else rows.visible[:, :0]
        return cls(table, has, torch.stack(which, 1))

    def there(self, rows: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        """Of rows in coalitions: the summary of each set ``(c, G)``, and if it is there ``(r, c, G)``."""
        chosen = self.which[which]
        if not self.present.shape[1]:
            return chosen, (chosen >= 0).expand(len(rows), -1, -1)
        return chosen, self.present[rows][:, chosen.clamp(min=0)] & (chosen >= 0)


def _of_part(group: int, rows: Rows, tokens: list[int], summarise: Callable) -> Tensor:
    """Summaries ``(n, d)`` of some tokens of a set."""
    first, same = rows.distinct(tokens)
    made = [
        summarise(group, rows.tokens(some, tokens), rows.visible[some][:, tokens])
        for some in first.split(max(1, TOKENS_AT_ONCE // len(tokens)))
    ]
    return torch.cat(made)[same]
