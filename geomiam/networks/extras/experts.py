"""Mixture of experts: a router selects some of several feed-forward layers for each token.

As in MAESTRO (Mohapatra et al. 2025, arXiv:2509.25278) no auxiliary loss balances the load. The bias
that can balance it (Wang et al. 2024, arXiv:2408.15664) is our addition and off by default.

Shapes: n rows, t tokens, d width, E experts, k of them selected, T tokens of all rows.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Experts(nn.Module):
    """E feed-forward layers; each token passes through the k with the highest router score::

        s   = softmax(W x)
        out = Σ_{e ∈ top k of (s + b)} s_e · FFN_e(x)

    The released code of MAESTRO (Mohapatra et al. 2025) scales by the raw logit instead. With a softmax
    one expert is a plain feed-forward layer, and the router has a gradient for k = 1 too. ``experts`` is E,
    ``top`` is k. ``balance`` is the step γ of b, a buffer without a gradient, which changes the selection
    of experts and never their weight.
    """

    bias: Tensor

    def __init__(self, width: int, hidden: int, *, experts: int, top: int = 1, balance: float = 0):
        super().__init__()
        self.top, self.balance = top, balance
        self.router = nn.Linear(width, experts, bias=False)
        inner, outer = width**-0.5, hidden**-0.5
        # The bounds of torch.nn.Linear, for each expert.
        self.inner = _uniform(experts, hidden, width, bound=inner)
        self.inner_bias = _uniform(experts, hidden, bound=inner)
        self.outer = _uniform(experts, width, hidden, bound=outer)
        self.outer_bias = _uniform(experts, width, bound=outer)
        self.register_buffer("bias", torch.zeros(experts))
        self.load: Tensor | None = None
        """Tokens of each expert ``(E,)`` while they are counted; no part of a saved model."""

    def forward(
        self,
        x: Tensor,
        *,
        drop: Callable[[Tensor], Tensor],
        route_mask: Tensor | None = None,
        load_mask: Tensor | None = None,
    ) -> Tensor:
        """Return the weighted outputs of the experts ``(..., d)`` for tokens of the same shape.

        ``drop`` is the dropout of the hidden layer ``(..., k, hidden)``. Tokens outside ``route_mask`` are
        padding and their output is 0. Routed tokens in ``load_mask`` count as load. Both masks broadcast
        to ``(...,)``.
        """
        flat = x.reshape(-1, x.shape[-1])
        score = (
            self.router(flat).float().softmax(-1)
        )  # s = softmax(W x); MAESTRO's code: the raw logit
        # The bias takes part in the choice alone. In the weight it would change predictions with the load.
        picks = (score.detach() + self.bias.float()).topk(self.top, dim=-1).indices  # (T, k)
        weight = score.gather(1, picks).to(x.dtype)
        if route_mask is not None:
            mask = route_mask.expand(x.shape[:-1]).reshape(-1, 1)
            picks = torch.where(mask, picks, len(self.bias))
        self._count(picks, None if load_mask is None else load_mask.expand(x.shape[:-1]).flatten())
        # Positions in picks sorted by expert, and tokens per expert; padding comes last.
        sizes = torch.bincount(picks.flatten(), minlength=len(self.bias) + 1)[:-1].tolist()
        order = picks.flatten().argsort(stable=True)[: sum(sizes)]
        inner = self._each(flat[order // self.top], sizes, self.inner, self.inner_bias)
        hidden = drop(_back(F.relu(inner), order, picks).view(*x.shape[:-1], self.top, -1))
        outer = self._each(hidden.flatten(0, -2)[order], sizes, self.outer, self.outer_bias)
        outputs = _back(outer, order, picks).view(-1, self.top, x.shape[-1])
        return (outputs * weight.unsqueeze(-1)).sum(1).view(x.shape)

    def update_bias(self) -> None:
        """End a training batch: raise the bias of experts with less load than the mean."""
        if self.load is not None:
            load = self.load.double()  # b_e += γ · sign(mean load − load_e), Wang et al. (2024)
            self.bias.add_(self.balance * torch.sign(load.mean() - load))
            self.load = None

    def start_counting(self) -> Tensor:
        """Start to count tokens; return the counts ``(E,)``, to which forward passes add."""
        self.load = torch.zeros(len(self.bias), dtype=torch.long, device=self.bias.device)
        return self.load

    def _count(self, picks: Tensor, load_mask: Tensor | None) -> None:
        if self.training and self.balance and self.load is None:
            self.start_counting()
        if self.load is not None:
            load_picks = picks if load_mask is None else picks[load_mask]
            self.load += torch.bincount(load_picks.flatten(), minlength=len(self.bias) + 1)[:-1]

    def _each(self, x: Tensor, sizes: list[int], weight: Tensor, bias: Tensor) -> Tensor:
        """Return a linear layer of each expert over its tokens, which are contiguous."""
        parts = zip(x.split(sizes), weight, bias)
        return torch.cat([F.linear(part, w, b) for part, w, b in parts])


def experts_of(network: nn.Module) -> list[Experts]:
    """Return all mixtures of experts of a network; a training batch ends with their :meth:`Experts.update_bias`."""
    return [module for module in network.modules() if isinstance(module, Experts)]


def _back(x: Tensor, order: Tensor, picks: Tensor) -> Tensor:
    """Return vectors in the order of ``picks``: ``(T · k, width)``; 0 for padding."""
    return x.new_zeros(picks.numel(), x.shape[-1]).index_copy(0, order, x)


def _uniform(*shape: int, bound: float) -> nn.Parameter:
    return nn.Parameter(torch.empty(*shape).uniform_(-bound, bound))
