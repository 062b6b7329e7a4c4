"""Sparse attention: few queries attend, the others return the mean; and a learned budget for it.

This is the attention of Informer (Zhou et al. 2021, arXiv:2012.07436) as in MAESTRO (Mohapatra et al.
2025, arXiv:2509.25278). Informer's distilling convolution, which MAESTRO puts after it, is left out. It
merges neighbours, so a token would no longer be one variable, window or patch.

Shapes: n rows, h heads, t tokens, e width of a head, u budgeted queries.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

Mix = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""Dense attention: queries ``(n, h, u, e)``, keys, values ``(n, h, t, e)`` and bias → ``(n, h, u, e)``."""


def sparse(
    mix: Mix,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    bias: Tensor | None,
    budget: float | Tensor,
    random: bool,
) -> Tensor:
    """Attend only from the queries with the most selective logits; the others return the mean value.

    Of the L keys of a row, u·⌈ln L⌉ are sampled, but at least two. The score of a query is the largest
    of its logits on these keys minus their mean. The u·⌈ln L⌉ queries of each head with the highest
    scores attend to all keys. A row samples the same keys for all of its queries, as in the paper;
    Informer's code samples anew for each query.

    ``mix`` is dense attention, for the selected queries. ``q``, ``k``, ``v`` and the result are
    ``(n, h, t, e)``. ``bias (n or 1, 1, 1, t)`` is added to the logits of the keys. ``budget`` is u, or one
    u per row ``(n,)`` from a gate. With ``random`` keys are sampled from torch's random state, otherwise
    their positions depend on L alone, so that no row depends on another.
    """
    # A key with weight exp(bias) = 0 is excluded, so L may differ between rows; a key that stands for k
    # tokens counts k times in means.
    weight = q.new_ones(1, q.shape[2]) if bias is None else bias[:, 0, 0].float().exp()
    weight = weight.expand(len(q), -1)
    length = (weight > 0).sum(1)
    # Natural logarithm, rounded up, as in MAESTRO's code; at least 1 for a single key.
    steps = length.clamp(min=1).log().ceil().clamp(min=1)  # ⌈ln L⌉
    counts = ((budget.ceil() if isinstance(budget, Tensor) else budget) * steps).ceil().long()
    counts = torch.minimum(counts, length)
    if not isinstance(budget, Tensor) and bool((counts == length).all()):
        return mix(q, k, v, bias)
    # The selection has no gradient, as in Informer: only selected queries are trained through attention.
    with torch.no_grad():
        order = _best(_scores(q, k, weight, counts, random=random), weight, int(counts.max()))
    index = order.unsqueeze(-1).expand(-1, -1, -1, q.shape[-1])
    attention = mix(q.gather(2, index), k, v, bias)
    mean = _mean(v, weight)
    rank = torch.arange(order.shape[2], device=q.device)
    if isinstance(budget, Tensor):
        # The gradient of a gate passes through σ(u − (i + ½) / ⌈ln L⌉), a soft weight on the i-th best
        # query whose value is set to 1.
        soft = torch.sigmoid(budget.float()[:, None] - (rank + 0.5) / steps[:, None])
        share = (1 + soft - soft.detach()).to(attention.dtype)[:, None, :, None]
        attention = mean + share * (attention - mean)
    is_best = (rank < counts[:, None])[:, None, :, None]
    attention = torch.where(is_best, attention, mean).to(mean.dtype)
    return mean.expand(*q.shape[:3], -1).scatter(2, index, attention)


class BudgetGate(nn.Module):
    """Budget of each modality's attention, from the modalities m that a row has: u = β·σ(G(m)).

    G is Linear, ReLU, Linear on the availability vector, as in MAESTRO (Mohapatra et al. 2025). There the
    budget is rounded, and in the released code it becomes a plain integer, so no gradient reaches G. Our
    addition is a straight-through gradient; see :func:`sparse`.
    """

    def __init__(self, modalities: int, budget: float):
        super().__init__()
        self.budget = budget
        self.layers = nn.Sequential(
            nn.Linear(modalities, modalities), nn.ReLU(), nn.Linear(modalities, modalities)
        )

    def forward(self, available: Tensor) -> Tensor:
        """Return budgets ``(n, M)`` of rows with modalities ``available (n, M)``; 0 where absent."""
        presence = available.to(next(self.parameters()).dtype)
        return presence * self.budget * torch.sigmoid(self.layers(presence))


def _scores(q: Tensor, k: Tensor, weight: Tensor, counts: Tensor, *, random: bool) -> Tensor:
    """Return the largest minus the mean logit of each query on sampled keys ``(n, h, t)``."""
    is_key = weight > 0
    two = is_key.sum(1).clamp(max=2)  # on one key all queries would score 0
    counts = torch.maximum(counts, two)
    size = int(counts.max().clamp(min=1))
    if random:  # without replacement, those of visible keys first
        priority = torch.rand(is_key.shape, device=is_key.device).masked_fill(~is_key, -1)
        keys = priority.topk(size).indices
    else:
        keys = _fixed_keys(is_key, size)
    is_sampled = (torch.arange(size, device=q.device) < counts[:, None])[:, None, None, :]
    index = keys[:, None, :, None].expand(-1, k.shape[1], -1, k.shape[-1])
    logits = (q @ k.gather(2, index).transpose(-1, -2)).float() * k.shape[-1] ** -0.5
    share = weight.gather(1, keys)[:, None, None, :] * is_sampled
    mean = (logits * share).sum(-1) / share.sum(-1).clamp(min=1)
    return logits.masked_fill(~is_sampled, -torch.inf).amax(-1) - mean


def _best(scores: Tensor, weight: Tensor, count: int) -> Tensor:
    """Return positions ``(n, h, count)`` of the best queries, best first; hidden ones last."""
    hidden = (weight <= 0)[:, None, :]
    order = scores.masked_fill(hidden, -torch.inf).argsort(dim=-1, descending=True, stable=True)
    return order[..., : max(count, 1)]


def _mean(v: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted mean of the values ``(n, h, 1, e)``; 0 in a row without keys."""
    share = weight / weight.sum(1, keepdim=True).clamp(min=1)
    return share.to(v.dtype)[:, None, None, :] @ v


def _fixed_keys(is_key: Tensor, size: int) -> Tensor:
    """Return positions ``(n, size)`` of keys that depend on the number of keys alone."""
    lengths, length_of = is_key.sum(1).unique(return_inverse=True)
    table = np.zeros((len(lengths), size), int)
    for row, length in zip(table, lengths.tolist()):
        row[: min(size, length)] = _permutation(length)[:size]
    place = torch.as_tensor(table, device=is_key.device)[length_of]
    order = is_key.to(torch.uint8).argsort(dim=1, descending=True, stable=True)
    return order.gather(1, place)


@lru_cache(maxsize=4096)
def _permutation(length: int) -> np.ndarray:
    """Return the numbers below ``length`` in a random order that is always the same."""
    return np.random.default_rng(length).permutation(length)
