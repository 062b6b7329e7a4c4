"""Pooling of a set of tokens: attention among the visible ones, then their mean.

In training all rows of a batch are computed side by side. In evaluation each part of a set that
coalitions show is computed once, and once for all rows that are equal in it.

Shapes: n rows, k tokens of a set, G sets, v pooled vectors, c coalitions, d width.
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

AnyBlock = TypeVar("AnyBlock", bound=TransformerBlock)


def visible_mean(blocks: Modules[AnyBlock], tokens: Tensor, visible: Tensor) -> Tensor:
    """Return the mean ``(n, d)`` of the visible tokens ``(n, k, d)`` after the blocks; 0 without any."""
    means = tokens.new_zeros(len(tokens), tokens.shape[-1])
    for rows, index in rows_of_equal_length(visible):
        if index.shape[1]:
            means[rows] = mean_of_all(blocks, gather(tokens, rows, index))
    return means


def bucketed_mean(
    blocks: Modules[AnyBlock], vectors: Tensor, visible: Tensor, place: Tensor
) -> Tensor:
    """Return the mean of the visible tokens of s sets after the blocks, in training.

    Parameters
    ----------
    blocks : Modules
    vectors : Tensor
        All computed tokens ``(f, d)``.
    visible : Tensor
        Boolean ``(s, k)``.
    place : Tensor
        Position of each token in ``vectors``, ``(s, k)``.

    Returns
    -------
    Tensor
        ``(s, d)``.
    """
    buckets = length_buckets(visible, device=vectors.device)
    tokens = bucket_tokens(vectors, place, buckets)
    means = [_bucket_mean(blocks, x, b) for x, b in zip(tokens, buckets)]
    return to_rows(means, buckets, rows=len(place))


def bucket_bias(x: Tensor, bucket: Bucket) -> Tensor | None:
    """Return an attention bias that removes the hidden slots of a bucket ``(b, l, d)``."""
    return None if bucket.visible is None else key_bias(bucket.visible.to(x.device), x.dtype)


def mean_of_all(blocks: Modules[AnyBlock], x: Tensor) -> Tensor:
    """Return the mean ``(n, d)`` of tokens ``(n, k, d)`` after the blocks, all of them visible."""
    if not len(blocks):
        return x.mean(1)
    *before, last = blocks
    for block in before:
        x = block(x)
    x = last.attend(x, *last.project(x))
    return last.feed_forward_mean(x, x.new_full((x.shape[1],), 1 / x.shape[1]))


def _bucket_mean(blocks: Modules[AnyBlock], x: Tensor, bucket: Bucket) -> Tensor:
    """Return the mean ``(b, d)`` of the visible tokens of a bucket ``(b, l, d)`` after the blocks."""
    bias = bucket_bias(x, bucket)
    for block in blocks:
        x = block(x, bias)
    if bucket.visible is None:
        return x.mean(1)
    weight = bucket.visible.to(x.device, x.dtype).unsqueeze(-1)
    return (x * weight).sum(1) / weight.sum(1).clamp(min=1)


@dataclass(frozen=True)
class PooledSets:
    """Pooled vectors of n rows, each computed once, and the vectors that each coalition shows.

    A set of tokens has a pooled vector for each distinct part of it that coalitions show. There is one
    where the groups of the coalitions are the sets. Rows that are equal in a part share its vector. A
    part that no row has is left out, so a set without data costs nothing and changes no bit of the
    prediction.
    """

    table: Tensor
    """``(n, v, d)``."""
    present: Tensor
    """Whether a row has any token of a vector's part ``(n, v)``."""
    index: Tensor
    """The vector of each set in each coalition ``(c, G)``; −1: nothing of the set is shown."""

    @classmethod
    def of(
        cls,
        sets: Sequence[Sequence[int]],
        rows: Rows,
        coalitions: Tensor,
        *,
        width: int,
        pool: Callable[[int, Tensor, Tensor], Tensor],
    ) -> PooledSets:
        """Compute the pooled vectors that ``coalitions (c, t)`` need.

        ``pool(g, tokens, visible)`` returns vectors ``(u, d)`` of tokens ``(u, k, d)`` of set g.
        """
        vectors: list[Tensor] = []
        present: list[Tensor] = []
        index: list[Tensor] = []
        for g, members in enumerate(sets):
            visible = coalitions[:, members] & rows.visible[:, members].any(0)
            parts, part_of = visible.unique(dim=0, return_inverse=True)
            nonempty = parts.any(1)
            number = torch.where(nonempty, nonempty.cumsum(0) - 1 + len(vectors), -1)
            index.append(number[part_of])
            for part in parts[nonempty]:
                tokens = [t for t, is_visible in zip(members, part.tolist()) if is_visible]
                vectors.append(_pool_part(g, rows, tokens, pool))
                present.append(rows.visible[:, tokens].any(1))
        n = len(rows.visible)
        empty = torch.zeros(n, 0, width, dtype=rows.dtype, device=coalitions.device)
        table = torch.stack(vectors, 1) if vectors else empty
        has = torch.stack(present, 1) if present else rows.visible[:, :0]
        return cls(table, has, torch.stack(index, 1))

    def select(self, rows: Tensor, selection: Tensor) -> tuple[Tensor, Tensor]:
        """Return the vector of each set ``(c, G)``, and whether rows have it ``(r, c, G)``."""
        index = self.index[selection]
        if not self.present.shape[1]:
            return index, (index >= 0).expand(len(rows), -1, -1)
        return index, self.present[rows][:, index.clamp(min=0)] & (index >= 0)


def _pool_part(group: int, rows: Rows, tokens: list[int], pool: Callable) -> Tensor:
    """Return pooled vectors ``(n, d)`` of one part of a set; equal rows are computed once."""
    first, equal_to = rows.distinct(tokens)
    vectors = [
        pool(group, rows.tokens(part, tokens), rows.visible[part][:, tokens])
        for part in first.split(max(1, TOKENS_AT_ONCE // len(tokens)))
    ]
    return torch.cat(vectors)[equal_to]
