"""Training without hidden tokens: only visible tokens are made, and rows are sorted by their number.

Shapes: n rows, t tokens, f tokens that are made, b rows and l slots of a bucket, d width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from geomiam.tokens.tokenizers import Tokenizers

LENGTHS = 16
"""Buckets are cut at so many lengths; a row is padded up to the next."""

TOKENS_AT_ONCE = {"cpu": 2048}
"""Tokens in a bucket by device: a CPU wants them in its cache, others want them all."""


@dataclass(frozen=True)
class Bucket:
    """Rows that show about equally many tokens."""

    rows: Tensor
    """``(b,)``."""
    index: Tensor
    """``(b, l)`` which tokens: the visible ones in order, then hidden ones up to the length."""
    seen: Tensor | None
    """Boolean ``(b, l)``, False in slots of hidden tokens; None if there are none."""


@dataclass(frozen=True)
class VisibleTokens:
    """Tokens of n rows, of which only the visible ones are made."""

    made: Tensor
    """``(f, d)``."""
    place: Tensor
    """``(n, t)`` where in ``made`` each visible token stands; arbitrary where a token is hidden."""
    visible: Tensor
    """Boolean ``(n, t)``, in the memory of the host, as is ``place``."""

    @classmethod
    def of(cls, tokenizers: Tokenizers, values: list[Tensor], visible: Tensor) -> VisibleTokens:
        """Make the visible tokens; of those that all rows hide, one from zeros.

        The one keeps the tokenizer's weights in the graph: their gradient is 0, not absent, so the
        optimizer treats every weight the same in every step.
        """
        device, visible = visible.device, visible.cpu()
        first = torch.argsort(visible.to(torch.uint8), dim=0, descending=True, stable=True)
        rank, made, place, start = visible.cumsum(0) - 1, [], [], 0
        for part, (x, own) in enumerate(zip(values, _spans(tokenizers.sizes))):
            most = max(1, int(rank[-1, own].max()) + 1)
            rows = first[:most, own].to(device)  # (m, k): of each token, the rows that show it
            shown = visible.to(device)[:, own].gather(0, rows)
            picked = x.gather(0, rows.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
            made.append(tokenizers.one(part, picked, shown).flatten(0, 1))
            k = own.stop - own.start
            place.append(start + rank[:, own] * k + torch.arange(k))
            start += most * k
        return cls(torch.cat(made), torch.cat(place, 1), visible)

    def padded(self) -> Tensor:
        """Tokens of all rows ``(n, t, d)``; an arbitrary vector where a token is hidden."""
        return self.made[self.place.clamp(min=0).to(self.made.device)]


def length_buckets(visible: Tensor, *, device: torch.device) -> list[Bucket]:
    """Sort rows into buckets by how many tokens they show, at least one bucket; empty rows are in none.

    Parameters
    ----------
    visible : Tensor
        Boolean ``(n, t)``, in the memory of the host.
    device : torch.device
        Where the buckets are computed, which decides how large they are.
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
            seen = torch.arange(length) < counts[rows, None]
            buckets.append(Bucket(rows, order[rows, :length], None if bool(seen.all()) else seen))
    return buckets


def bucket_tokens(made: Tensor, place: Tensor, buckets: Sequence[Bucket]) -> list[Tensor]:
    """Vectors ``(b, l, d)`` of every bucket, from all ``(f, d)`` and where they stand ``(n, k)``."""
    return gather_vectors(made, [place[b.rows[:, None], b.index].clamp(min=0) for b in buckets])


def gather_vectors(made: Tensor, index: Sequence[Tensor]) -> list[Tensor]:
    """Vectors ``(b, l, d)`` for each index ``(b, l)``, from all vectors ``(f, d)``.

    Gathered at once, so that going backward adds up one gradient.
    """
    whole = F.embedding(torch.cat([i.flatten() for i in index]).to(made.device), made)
    parts = whole.split([i.numel() for i in index])
    return [part.unflatten(0, i.shape) for part, i in zip(parts, index)]


def to_rows(results: Sequence[Tensor], buckets: Sequence[Bucket], *, rows: int) -> Tensor:
    """Put the results ``(b, d)`` of buckets back in the order of n rows ``(n, d)``; 0 for the others."""
    whole = torch.cat([*results, results[0].new_zeros(1, results[0].shape[-1])])
    place = torch.full((rows,), len(whole) - 1)
    place[torch.cat([b.rows for b in buckets])] = torch.arange(len(whole) - 1)
    return F.embedding(place.to(whole.device), whole)


def _spans(sizes: Sequence[int]) -> list[slice]:
    ends = torch.tensor(sizes).cumsum(0).tolist()
    return [slice(end - size, end) for end, size in zip(ends, sizes)]
