"""Pooling of a set of tokens: attention among the visible ones, then their mean.

In training for all rows of a batch side by side; in evaluation once for each part of a set that
coalitions show, and for rows that are equal in that part once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from geomiam.networks.blocks import TransformerBlock, gather, key_bias, rows_of_equal_length
from geomiam.networks.length_buckets import Bucket, bucket_tokens, length_buckets, to_rows
from geomiam.networks.modules import Modules
from geomiam.tokens.rows import Rows

TOKENS_AT_ONCE = 4096
"""Tokens encoded at a time: small enough for the cache, large enough for the matrix products."""

Block = TypeVar("Block", bound=TransformerBlock)


def visible_mean(blocks: Modules[Block], tokens: Tensor, visible: Tensor) -> Tensor:
    """Mean ``(n, d)`` of the visible tokens ``(n, k, d)`` after the blocks; 0 where none is."""
    means = tokens.new_zeros(len(tokens), tokens.shape[-1])
    for rows, index in rows_of_equal_length(visible):
        if index.shape[1]:
            means[rows] = mean_of_all(blocks, gather(tokens, rows, index))
    return means


def bucketed_mean(blocks: Modules[Block], made: Tensor, visible: Tensor, place: Tensor) -> Tensor:
    """Mean ``(s, d)`` of the visible tokens of s sets ``(s, k)`` after the blocks, in training.

    ``place (s, k)`` is where among the tokens that are made ``(f, d)`` each one stands.
    """
    buckets = length_buckets(visible, device=made.device)
    tokens = bucket_tokens(made, place, buckets)
    means = [_bucket_mean(blocks, x, b) for x, b in zip(tokens, buckets)]
    return to_rows(means, buckets, rows=len(place))


def bucket_bias(x: Tensor, bucket: Bucket) -> Tensor | None:
    """Attention bias that takes the hidden slots of a bucket ``(b, l, d)`` out."""
    return None if bucket.seen is None else key_bias(bucket.seen.to(x.device), x.dtype)


def mean_of_all(blocks: Modules[Block], x: Tensor) -> Tensor:
    """Mean ``(n, d)`` of tokens ``(n, k, d)`` after the blocks, all of them visible."""
    if not len(blocks):
        return x.mean(1)
    *before, last = blocks
    for block in before:
        x = block(x)
    x = last.attend(x, *last.project(x))
    return last.feed_forward_mean(x, x.new_full((x.shape[1],), 1 / x.shape[1]))


def _bucket_mean(blocks: Modules[Block], x: Tensor, bucket: Bucket) -> Tensor:
    bias = bucket_bias(x, bucket)
    for block in blocks:
        x = block(x, bias)
    if bucket.seen is None:
        return x.mean(1)
    weight = bucket.seen.to(x.device, x.dtype).unsqueeze(-1)
    return (x * weight).sum(1) / weight.sum(1).clamp(min=1)


@dataclass(frozen=True)
class PooledSets:
    """Pooled vectors of n rows, each computed once, and which of them each coalition shows.

    A set of tokens has a pooled vector for each distinct part of it that coalitions show: one where
    the groups of the coalitions are the sets. Rows that are equal in that part share it. A part that no
    row has is left out, so a set without data costs nothing and changes no bit of the prediction.
    """

    table: Tensor
    """``(n, v, d)``."""
    present: Tensor
    """Whether a row has any token of a vector's part ``(n, v)``."""
    which: Tensor
    """The vector of each set in each coalition ``(c, G)``; −1: nothing of the set is shown."""

    @classmethod
    def of(
        cls,
        sets: Sequence[Sequence[int]],
        rows: Rows,
        shown: Tensor,
        *,
        width: int,
        pool: Callable[[int, Tensor, Tensor], Tensor],
    ) -> PooledSets:
        """Compute all that coalitions ``shown (c, t)`` need.

        ``pool(g, tokens, visible)`` returns vectors ``(u, d)`` of tokens ``(u, k, d)`` of set g.
        """
        vectors: list[Tensor] = []
        present: list[Tensor] = []
        which: list[Tensor] = []
        for g, own in enumerate(sets):
            there = shown[:, own] & rows.visible[:, own].any(0)
            parts, index = there.unique(dim=0, return_inverse=True)
            some = parts.any(1)
            which.append(torch.where(some, some.cumsum(0) - 1 + len(vectors), -1)[index])
            for part in parts[some]:
                tokens = [t for t, is_shown in zip(own, part.tolist()) if is_shown]
                vectors.append(_of_part(g, rows, tokens, pool))
                present.append(rows.visible[:, tokens].any(1))
        n = len(rows.visible)
        empty = torch.zeros(n, 0, width, dtype=rows.dtype, device=shown.device)
        table = torch.stack(vectors, 1) if vectors else empty
        has = torch.stack(present, 1) if present else rows.visible[:, :0]
        return cls(table, has, torch.stack(which, 1))

    def there(self, rows: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        """Return the vector of each set ``(c, G)``, and whether rows have it ``(r, c, G)``."""
        chosen = self.which[which]
        if not self.present.shape[1]:
            return chosen, (chosen >= 0).expand(len(rows), -1, -1)
        return chosen, self.present[rows][:, chosen.clamp(min=0)] & (chosen >= 0)


def _of_part(group: int, rows: Rows, tokens: list[int], pool: Callable) -> Tensor:
    """Pooled vectors ``(n, d)`` of some tokens of a set."""
    first, same = rows.distinct(tokens)
    vectors = [
        pool(group, rows.tokens(part, tokens), rows.visible[part][:, tokens])
        for part in first.split(max(1, TOKENS_AT_ONCE // len(tokens)))
    ]
    return torch.cat(vectors)[same]
