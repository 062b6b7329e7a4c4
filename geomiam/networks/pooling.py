"""Visible tokens: gathered, computed in rows of about equal number, and pooled to one vector.

In training all rows of a batch are computed side by side, in buckets by their number of visible tokens.
In evaluation each part of a set that coalitions show is computed once, and once for all rows that are
equal in it.

Shapes: n rows, t tokens, k tokens of a set, f tokens that are computed, b rows and l slots of a bucket,
G sets, v pooled vectors, c coalitions, d width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from geomiam.at_once import BUCKET_LENGTHS, POOLED_TOKENS, TRAINED_TOKENS
from geomiam.networks.blocks import Modules, TransformerBlock, key_bias
from geomiam.tokens.rows import Rows
from geomiam.tokens.tokenizers import Tokenizers

AnyBlock = TypeVar("AnyBlock", bound=TransformerBlock)


def rows_of_equal_length(visible: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Group rows by their number k of visible tokens ``(n, t)``, so that no hidden token is computed.

    Yield rows ``(b,)``, and the positions ``(b, k)`` of their visible tokens, in order.
    """
    counts = visible.sum(1)
    order = _visible_first(visible)
    # Without padding no mask is needed, and no row depends on the longest row of its batch.
    for k in counts.unique().tolist():
        rows = torch.nonzero(counts == k).squeeze(1)
        yield rows, order[rows, :k]


def gather(tokens: Tensor, rows: Tensor, index: Tensor) -> Tensor:
    """Return the tokens ``(b, k, d)`` of ``rows (b,)`` at positions ``index (b, k)``."""
    if index.shape == tokens.shape[:2]:  # all tokens of all rows, in order
        return tokens
    return tokens[rows.unsqueeze(1), index]


def _visible_first(visible: Tensor, dim: int = 1) -> Tensor:
    """Return positions along a dim with the visible ones first, in order."""
    return torch.argsort(visible.to(torch.uint8), dim=dim, descending=True, stable=True)


@dataclass(frozen=True)
class VisibleTokens:
    """Tokens of n rows, of which only the visible ones are computed."""

    vectors: Tensor
    """``(f, d)``."""
    place: Tensor
    """``(n, t)`` position of each visible token in ``vectors``; arbitrary where a token is hidden."""
    visible: Tensor
    """Boolean ``(n, t)``, in the memory of the host, as is ``place``."""

    @classmethod
    def of(cls, tokenizers: Tokenizers, values: list[Tensor], visible: Tensor) -> VisibleTokens:
        """Compute the visible tokens ``(n, t)`` of values ``(n, tokens, width)`` per part; NaN = unobserved."""
        device, visible = visible.device, visible.cpu()
        first = _visible_first(visible, dim=0)
        rank, vectors, place, start = visible.cumsum(0) - 1, [], [], 0
        spans = pairwise(accumulate(tokenizers.sizes, initial=0))
        for part, (x, (begin, end)) in enumerate(zip(values, spans)):
            # A token that all rows hide is computed once, from zeros: it keeps the weights of the
            # tokenizer in the graph. Their gradient is then 0 and not absent, so the optimizer treats
            # every weight the same in every step.
            count = max(1, int(rank[-1, begin:end].max()) + 1)
            rows = first[:count, begin:end].to(
                device
            )  # (m, k): of each token, the rows that show it
            is_visible = visible.to(device)[:, begin:end].gather(0, rows)
            row_values = x.gather(0, rows.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
            vectors.append(tokenizers.one(part, row_values, is_visible).flatten(0, 1))
            place.append(start + rank[:, begin:end] * (end - begin) + torch.arange(end - begin))
            start += count * (end - begin)
        return cls(torch.cat(vectors), torch.cat(place, 1), visible)

    def in_masks(self, visible: Tensor) -> VisibleTokens:
        """Return the same tokens in k masks of the rows ``(k·n, t)``, which show no other tokens."""
        masks = len(visible) // len(self.visible)
        return VisibleTokens(self.vectors, self.place.repeat(masks, 1), visible.cpu())

    def padded(self) -> Tensor:
        """Return the tokens of all rows ``(n, t, d)``; arbitrary where a token is hidden."""
        return self.vectors[self.place.clamp(min=0).to(self.vectors.device)]


@dataclass(frozen=True)
class Bucket:
    """Rows with about equally many visible tokens."""

    rows: Tensor
    """``(b,)``."""
    index: Tensor
    """``(b, l)`` positions of tokens: the visible ones in order, then hidden ones up to the length."""
    visible: Tensor | None
    """Boolean ``(b, l)``, False in slots of hidden tokens; None if there are none."""

    def bias(self, x: Tensor) -> Tensor | None:
        """Return an attention bias that removes the hidden slots, for tokens ``(b, l, d)``."""
        return None if self.visible is None else key_bias(self.visible.to(x.device), x.dtype)


def length_buckets(visible: Tensor, *, device: torch.device) -> list[Bucket]:
    """Sort rows into buckets by their number of visible tokens ``(n, t)``, on the host."""
    # There is at least one bucket. A row without a visible token is in none. The size of the buckets
    # depends on the device of the computation.
    counts, t = visible.sum(1), visible.shape[1]
    step = -(-t // BUCKET_LENGTHS)
    lengths = (-(-counts // step) * step).clamp(max=t)
    if not lengths.any():
        lengths[0] = 1  # one hidden slot, so that no weight is left out of the graph
    order = _visible_first(visible)
    buckets = []
    for length in lengths.unique().tolist():
        same_length = torch.nonzero(lengths == length).squeeze(1)
        at_once = TRAINED_TOKENS.get(device.type, 1 << 20)
        for rows in same_length.split(max(1, at_once // length)) if length else ():
            is_visible = torch.arange(length) < counts[rows, None]
            padding = None if bool(is_visible.all()) else is_visible
            buckets.append(Bucket(rows, order[rows, :length], padding))
    return buckets


def bucket_tokens(vectors: Tensor, place: Tensor, buckets: Sequence[Bucket]) -> list[Tensor]:
    """Return the tokens ``(b, l, d)`` of every bucket, from vectors ``(f, d)`` at ``place (n, k)``."""
    return gather_vectors(vectors, [place[b.rows[:, None], b.index].clamp(min=0) for b in buckets])


def gather_vectors(vectors: Tensor, index: Sequence[Tensor]) -> list[Tensor]:
    """Return vectors ``(b, l, d)`` for each index ``(b, l)``, from all vectors ``(f, d)``."""
    # One call for all of them, so that the backward pass adds up one gradient.
    positions = torch.cat([i.flatten() for i in index]).to(vectors.device)
    parts = F.embedding(positions, vectors).split([i.numel() for i in index])
    return [part.unflatten(0, i.shape) for part, i in zip(parts, index)]


def to_rows(results: Sequence[Tensor], buckets: Sequence[Bucket], *, rows: int) -> Tensor:
    """Return the results ``(b, d)`` of buckets in the order of n rows ``(n, d)``; 0 for other rows."""
    # Rows in no bucket read the last vector, which is 0.
    vectors = torch.cat([*results, results[0].new_zeros(1, results[0].shape[-1])])
    place = torch.full((rows,), len(vectors) - 1)
    place[torch.cat([b.rows for b in buckets])] = torch.arange(len(vectors) - 1)
    return F.embedding(place.to(vectors.device), vectors)


def bucketed_mean(
    blocks: Modules[AnyBlock], vectors: Tensor, visible: Tensor, place: Tensor
) -> Tensor:
    """Return the mean ``(s, d)`` of the visible tokens of s sets after the blocks, in training.

    ``visible (s, k)`` are the visible tokens of each set, ``place (s, k)`` their positions in all computed
    tokens ``vectors (f, d)``.
    """
    buckets, means = length_buckets(visible, device=vectors.device), []
    for x, bucket in zip(bucket_tokens(vectors, place, buckets), buckets):
        bias = bucket.bias(x)
        for block in blocks:
            x = block(x, bias)
        if bucket.visible is None:
            means.append(x.mean(1))
        else:
            weight = bucket.visible.to(x.device, x.dtype).unsqueeze(-1)
            # A row without a visible token has the mean 0 and not 0 / 0.
            means.append((x * weight).sum(1) / weight.sum(1).clamp(min=1))
    return to_rows(means, buckets, rows=len(place))


def visible_mean(blocks: Modules[AnyBlock], tokens: Tensor, visible: Tensor) -> Tensor:
    """Return the mean ``(n, d)`` of the visible tokens ``(n, k, d)`` after the blocks; 0 without any."""
    means, layers = tokens.new_zeros(len(tokens), tokens.shape[-1]), list(blocks)
    for rows, index in rows_of_equal_length(visible):
        if k := index.shape[1]:
            x = gather(tokens, rows, index)
            for block in layers[:-1]:
                x = block(x)
            if layers:
                x = layers[-1].attend(x, *layers[-1].project(x))
                # W_2 of the last feed-forward layer follows the mean: k products become one.
                means[rows] = layers[-1].feed_forward_mean(x, x.new_full((k,), 1 / k))
            else:
                means[rows] = x.mean(1)
    return means


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
            # Tokens that no row has do not make two parts differ.
            visible = coalitions[:, members] & rows.visible[:, members].any(0)
            parts, part_of = visible.unique(dim=0, return_inverse=True)
            nonempty = parts.any(1)
            number = torch.where(nonempty, nonempty.cumsum(0) - 1 + len(vectors), -1)
            index.append(number[part_of])
            for part in parts[nonempty]:
                tokens = [t for t, is_visible in zip(members, part.tolist()) if is_visible]
                # In a cube many cells share coarse predictors, so their vectors are computed once.
                first, equal_to = rows.distinct(tokens)
                means = [
                    pool(g, rows.tokens(batch, tokens), rows.visible[batch][:, tokens])
                    for batch in first.split(max(1, POOLED_TOKENS // len(tokens)))
                ]
                vectors.append(torch.cat(means)[equal_to])
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
