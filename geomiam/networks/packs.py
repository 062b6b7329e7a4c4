"""Training without hidden tokens: those that are visible are made, and lie side by side in packs.

Shapes: n rows, t tokens, f tokens that are made, b rows and l slots of a pack, d width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from geomiam.tokens.tokenizers import Tokenizers

LENGTHS = 16
"""Packs are cut at so many lengths; a row is padded up to the next."""

TOKENS_AT_ONCE = {"cpu": 2048}
"""Tokens in a pack by device: a CPU wants them in its cache, others want them all."""


@dataclass(frozen=True)
class Pack:
    """Rows that show about equally many tokens."""

    rows: Tensor
    """``(b,)``."""
    index: Tensor
    """``(b, l)`` which tokens: the visible ones in order, then hidden ones up to the length."""
    seen: Tensor | None
    """Boolean ``(b, l)``, False in slots of hidden tokens; None if there are none."""


@dataclass(frozen=True)
class Seen:
    """Tokens of n rows, of which only those that are visible are made."""

    made: Tensor
    """``(f, d)``."""
    place: Tensor
    """``(n, t)`` where in ``made`` each visible token stands."""
    visible: Tensor
    """Boolean ``(n, t)``, in the memory of the host, as is ``place``."""

    @classmethod
    def of(cls, tokenizers: Tokenizers, values: list[Tensor], visible: Tensor) -> Seen:
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


def packs(visible: Tensor, *, device: torch.device) -> list[Pack]:
    """Sort rows into packs by how many tokens they show, at least one pack; empty rows are in none.

    Parameters
    ----------
    visible : Tensor
        Boolean ``(n, t)``, in the memory of the host.
    device : torch.device
        Where the packs are computed, which says how large they are.
    """
    counts, t = visible.sum(1), visible.shape[1]
    step = -(-t // LENGTHS)
    lengths = (-(-counts // step) * step).clamp(max=t)
    if not lengths.any():
        lengths[0] = 1  # one slot that nobody sees, so that no weight is left out
    order = torch.argsort(visible.to(torch.uint8), dim=1, descending=True, stable=True)
    found = []
    for length in lengths.unique().tolist():
        rows = torch.nonzero(lengths == length).squeeze(1)
        at_once = TOKENS_AT_ONCE.get(device.type, 1 << 20)
        for some in rows.split(max(1, at_once // length)) if length else ():
            seen = torch.arange(length) < counts[some, None]
            found.append(Pack(some, order[some, :length], None if bool(seen.all()) else seen))
    return found


def spread(made: Tensor, index: Sequence[Tensor]) -> list[Tensor]:
    """Vectors ``(b, l, d)`` of every pack, from all vectors ``(f, d)`` and where they stand ``(b, l)``.

    Gathered at once, so that going backward adds up one gradient.
    """
    whole = F.embedding(torch.cat([i.flatten() for i in index]).to(made.device), made)
    parts = whole.split([i.numel() for i in index])
    return [part.unflatten(0, i.shape) for part, i in zip(parts, index)]


def unpack(results: Sequence[Tensor], found: Sequence[Pack], *, rows: int) -> Tensor:
    """Put the results ``(b, d)`` of packs back in the order of n rows ``(n, d)``; 0 for the others."""
    whole = torch.cat([*results, results[0].new_zeros(1, results[0].shape[-1])])
    place = torch.full((rows,), len(whole) - 1)
    place[torch.cat([p.rows for p in found])] = torch.arange(len(whole) - 1)
    return F.embedding(place.to(whole.device), whole)


def _spans(sizes: Sequence[int]) -> list[slice]:
    ends = torch.tensor(sizes).cumsum(0).tolist()
    return [slice(end - size, end) for end, size in zip(ends, sizes)]
