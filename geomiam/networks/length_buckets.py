"""Training without hidden tokens: only visible tokens are computed, and rows are sorted by their number.

Shapes: n rows, t tokens, f tokens that are computed, b rows and l slots of a bucket, d width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from geomiam.tokens.tokenizers import Tokenizers

LENGTHS = 16
"""Number of bucket lengths; a row is padded up to the next one."""

TOKENS_AT_ONCE = {"cpu": 2048}
"""Tokens in a bucket by device. On a CPU they fit into its cache; other devices take all at once."""


@dataclass(frozen=True)
class Bucket:
    """Rows with about equally many visible tokens."""

    rows: Tensor
    """``(b,)``."""
    index: Tensor
    """``(b, l)`` positions of tokens: the visible ones in order, then hidden ones up to the length."""
    visible: Tensor | None
    """Boolean ``(b, l)``, False in slots of hidden tokens; None if there are none."""


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
        """Compute the visible tokens; of a token that all rows hide, one vector from zeros.

        This vector keeps the weights of the tokenizer in the graph. Their gradient is then 0 and not
        absent, so the optimizer treats every weight the same in every step.

        Parameters
        ----------
        tokenizers : Tokenizers
        values : list of Tensor
            ``(n, tokens, width)`` per part; NaN = not observed.
        visible : Tensor
            Boolean ``(n, t)``.
        """
        device, visible = visible.device, visible.cpu()
        first = torch.argsort(visible.to(torch.uint8), dim=0, descending=True, stable=True)
        rank, vectors, place, start = visible.cumsum(0) - 1, [], [], 0
        for part, (x, span) in enumerate(zip(values, _spans(tokenizers.sizes))):
            count = max(1, int(rank[-1, span].max()) + 1)
            rows = first[:count, span].to(device)  # (m, k): of each token, the rows that show it
            is_visible = visible.to(device)[:, span].gather(0, rows)
            row_values = x.gather(0, rows.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
            vectors.append(tokenizers.one(part, row_values, is_visible).flatten(0, 1))
            k = span.stop - span.start
            place.append(start + rank[:, span] * k + torch.arange(k))
            start += count * k
        return cls(torch.cat(vectors), torch.cat(place, 1), visible)

    def padded(self) -> Tensor:
        """Return the tokens of all rows ``(n, t, d)``; arbitrary where a token is hidden."""
        return self.vectors[self.place.clamp(min=0).to(self.vectors.device)]


def length_buckets(visible: Tensor, *, device: torch.device) -> list[Bucket]:
    """Sort rows into buckets by their number of visible tokens.

    There is at least one bucket. A row without a visible token is in none.

    Parameters
    ----------
    visible : Tensor
        Boolean ``(n, t)``, in the memory of the host.
    device : torch.device
        Device of the computation; the size of the buckets depends on it.
    """
    counts, t = visible.sum(1), visible.shape[1]
    step = -(-t // LENGTHS)
    lengths = (-(-counts // step) * step).clamp(max=t)
    if not lengths.any():
        lengths[0] = 1  # one hidden slot, so that no weight is left out of the graph
    order = torch.argsort(visible.to(torch.uint8), dim=1, descending=True, stable=True)
    buckets = []
    for length in lengths.unique().tolist():
        same_length = torch.nonzero(lengths == length).squeeze(1)
        at_once = TOKENS_AT_ONCE.get(device.type, 1 << 20)
        for rows in same_length.split(max(1, at_once // length)) if length else ():
            is_visible = torch.arange(length) < counts[rows, None]
            padding = None if bool(is_visible.all()) else is_visible
            buckets.append(Bucket(rows, order[rows, :length], padding))
    return buckets


def bucket_tokens(vectors: Tensor, place: Tensor, buckets: Sequence[Bucket]) -> list[Tensor]:
    """Return the tokens ``(b, l, d)`` of every bucket, from vectors ``(f, d)`` at ``place (n, k)``."""
    return gather_vectors(vectors, [place[b.rows[:, None], b.index].clamp(min=0) for b in buckets])


def gather_vectors(vectors: Tensor, index: Sequence[Tensor]) -> list[Tensor]:
    """Return vectors ``(b, l, d)`` for each index ``(b, l)``, from all vectors ``(f, d)``.

    They are chosen_vectors in one call, so that the backward pass adds up one gradient.
    """
    chosen_vectors = F.embedding(
        torch.cat([i.flatten() for i in index]).to(vectors.device), vectors
    )
    parts = chosen_vectors.split([i.numel() for i in index])
    return [part.unflatten(0, i.shape) for part, i in zip(parts, index)]


def to_rows(results: Sequence[Tensor], buckets: Sequence[Bucket], *, rows: int) -> Tensor:
    """Return the results ``(b, d)`` of buckets in the order of n rows ``(n, d)``; 0 for other rows."""
    vectors = torch.cat([*results, results[0].new_zeros(1, results[0].shape[-1])])
    place = torch.full((rows,), len(vectors) - 1)
    place[torch.cat([b.rows for b in buckets])] = torch.arange(len(vectors) - 1)
    return F.embedding(place.to(vectors.device), vectors)


def _spans(sizes: Sequence[int]) -> list[slice]:
    """Return the positions of the tokens of each part."""
    ends = torch.tensor(sizes).cumsum(0).tolist()
    return [slice(end - size, end) for end, size in zip(ends, sizes)]
