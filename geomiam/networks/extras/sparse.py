"""Sparse attention: few queries attend, all others take the mean; and a learned budget for it.

The attention of Informer (Zhou et al. 2021, arXiv:2012.07436) as MAESTRO (Mohapatra et al. 2025,
arXiv:2509.25278) uses it. Informer's distilling convolution, which MAESTRO puts after it, is left out:
it merges neighbours, so a token would no longer be one variable, window or patch.

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
    """Let only the queries attend that tell keys apart; the others get the mean of the values.

    Of a row with L keys, u·⌈ln L⌉ are sampled, two at least. A query scores the largest of its logits on them less
    their mean; the u·⌈ln L⌉ best queries of each head attend to all keys. A row samples the same
    keys for all of its queries, as the paper writes it (Informer's code draws anew for each query).

    Parameters
    ----------
    mix : callable
        Attention of the queries that are chosen.
    q, k, v : Tensor
        ``(n, h, t, e)``.
    bias : Tensor, optional
        ``(n or 1, 1, 1, t)``, added to the logits of the keys. A key whose weight exp(bias) is 0 takes
        part in nothing, so L is the row's own; one that stands for several counts as several in means.
    budget : float or Tensor
        u; per row ``(n,)`` from a gate: then ⌈u⌉ counts, and its gradient goes through
        σ(u − (i + ½)/⌈ln L⌉), a soft weight on the i-th best query, which counts as 1.
    random : bool
        Sample from torch's random state; else positions follow from L alone, so a row's answer
        depends on no other row.

    Returns
    -------
    Tensor
        ``(n, h, t, e)``.
    """
    weight = q.new_ones(1, q.shape[2]) if bias is None else bias[:, 0, 0].float().exp()
    weight = weight.expand(len(q), -1)
    length = (weight > 0).sum(1)
    steps = length.clamp(min=1).log().ceil().clamp(min=1)
    gated = isinstance(budget, Tensor)
    most = ((budget.ceil() if isinstance(budget, Tensor) else budget) * steps).ceil().long()
    most = torch.minimum(most, length)
    if not gated and bool((most == length).all()):
        return mix(q, k, v, bias)
    with torch.no_grad():
        order = _best(_scores(q, k, weight, most, random=random), weight, int(most.max()))
    index = order.unsqueeze(-1).expand(-1, -1, -1, q.shape[-1])
    found = mix(q.gather(2, index), k, v, bias)
    mean = _mean(v, weight)
    rank = torch.arange(order.shape[2], device=q.device)
    if isinstance(budget, Tensor):
        soft = torch.sigmoid(budget.float()[:, None] - (rank + 0.5) / steps[:, None])
        found = mean + (1 + soft - soft.detach()).to(found.dtype)[:, None, :, None] * (found - mean)
    chosen = (rank < most[:, None])[:, None, :, None]
    found = torch.where(chosen, found, mean).to(mean.dtype)
    return mean.expand(*q.shape[:3], -1).scatter(2, index, found)


class BudgetGate(nn.Module):
    """Budget of each modality's attention, from which modalities a row has: u = β·σ(G(m)).

    G is Linear, ReLU, Linear on the availability vector, as MAESTRO (Mohapatra et al. 2025) says. There
    the budget is rounded, and in the released code it becomes a plain integer, so no gradient ever
    reaches G; here the gradient goes straight through (see :func:`sparse`), which is our addition.
    """

    def __init__(self, modalities: int, budget: float):
        super().__init__()
        self.budget = budget
        self.layers = nn.Sequential(
            nn.Linear(modalities, modalities), nn.ReLU(), nn.Linear(modalities, modalities)
        )

    def forward(self, available: Tensor) -> Tensor:
        """Budgets ``(n, M)`` of rows whose modalities are available ``(n, M)``; 0 where absent."""
        there = available.to(next(self.parameters()).dtype)
        return there * self.budget * torch.sigmoid(self.layers(there))


def _scores(q: Tensor, k: Tensor, weight: Tensor, most: Tensor, *, random: bool) -> Tensor:
    """Largest less mean logit of each query on sampled keys ``(n, h, t)``."""
    there = weight > 0
    most = torch.maximum(most, there.sum(1).clamp(max=2))  # on one key all queries would score 0
    size = int(most.max().clamp(min=1))
    drawn = _drawn(there, size) if random else _fixed(there, size)
    taken = (torch.arange(size, device=q.device) < most[:, None])[:, None, None, :]
    index = drawn[:, None, :, None].expand(-1, k.shape[1], -1, k.shape[-1])
    logits = (q @ k.gather(2, index).transpose(-1, -2)).float() * k.shape[-1] ** -0.5
    share = weight.gather(1, drawn)[:, None, None, :] * taken
    mean = (logits * share).sum(-1) / share.sum(-1).clamp(min=1)
    return logits.masked_fill(~taken, -torch.inf).amax(-1) - mean


def _best(scores: Tensor, weight: Tensor, count: int) -> Tensor:
    """Positions ``(n, h, count)`` of the best queries, best first; hidden ones last."""
    hidden = (weight <= 0)[:, None, :]
    order = scores.masked_fill(hidden, -torch.inf).argsort(dim=-1, descending=True, stable=True)
    return order[..., : max(count, 1)]


def _mean(v: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean of the values ``(n, h, 1, e)``; 0 in a row without keys."""
    share = weight / weight.sum(1, keepdim=True).clamp(min=1)
    return share.to(v.dtype)[:, None, None, :] @ v


def _drawn(there: Tensor, size: int) -> Tensor:
    """Positions ``(n, size)`` of keys, drawn without putting back; those that are there first."""
    return torch.rand(there.shape, device=there.device).masked_fill(~there, -1).topk(size).indices


def _fixed(there: Tensor, size: int) -> Tensor:
    """Positions ``(n, size)`` of keys as the number of keys says."""
    lengths, which = there.sum(1).unique(return_inverse=True)
    table = np.zeros((len(lengths), size), int)
    for row, length in zip(table, lengths.tolist()):
        row[: min(size, length)] = _shuffled(length)[:size]
    place = torch.as_tensor(table, device=there.device)[which]
    order = there.to(torch.uint8).argsort(dim=1, descending=True, stable=True)
    return order.gather(1, place)


@lru_cache(maxsize=4096)
def _shuffled(length: int) -> np.ndarray:
    """Numbers below ``length`` in an order that is always the same."""
    return np.random.default_rng(length).permutation(length)
