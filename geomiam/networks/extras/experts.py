"""Mixture of experts: of several feed-forward layers, a router picks some for each token.

As in MAESTRO (Mohapatra et al. 2025, arXiv:2509.25278) no auxiliary loss spreads the tokens. The bias
that may spread them (Wang et al. 2024, arXiv:2408.15664) is our addition, and off by default.

Shapes: n rows, t tokens, d width, E experts, k of them picked.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Experts(nn.Module):
    """E feed-forward layers, of which each token goes through the k that its router likes best.

    out = Σ_{e ∈ top k of (s + b)} s_e · FFN_e(x), with s the softmax of a linear map of x over all
    experts. The released code of MAESTRO (Mohapatra et al. 2025) scales by the raw logit instead; with
    a softmax one expert is a plain feed-forward layer, and the router learns for k = 1 as well.

    Parameters
    ----------
    width, hidden : int
        Of the tokens, and of each expert's hidden layer.
    experts, top : int
        E and k.
    balance : float
        γ: after a batch :meth:`update_bias` adds γ·sign(mean load − load_e) to b_e. b is a buffer: it
        changes which experts are picked, never their weight, and has no gradient.
    """

    bias: Tensor

    def __init__(self, width: int, hidden: int, *, experts: int, top: int = 1, balance: float = 0):
        super().__init__()
        self.top, self.balance = top, balance
        self.router = nn.Linear(width, experts, bias=False)
        inner, outer = width**-0.5, hidden**-0.5
        self.inner = _uniform(experts, hidden, width, bound=inner)
        self.inner_bias = _uniform(experts, hidden, bound=inner)
        self.outer = _uniform(experts, width, hidden, bound=outer)
        self.outer_bias = _uniform(experts, width, bound=outer)
        self.register_buffer("bias", torch.zeros(experts))
        self.load: Tensor | None = None
        """Tokens that each expert got ``(E,)``, while they are counted: no part of a saved model."""

    def forward(
        self,
        x: Tensor,
        *,
        drop: Callable[[Tensor], Tensor],
        routed: Tensor | None = None,
        counted: Tensor | None = None,
    ) -> Tensor:
        """Weighted outputs of the experts for tokens ``(..., d)``.

        Parameters
        ----------
        x : Tensor
            ``(..., d)``.
        drop : callable
            Dropout of the hidden layer ``(..., k, hidden)``.
        routed : Tensor, optional
            Boolean, broadcasts to ``(...,)``; the other tokens are padding, and get 0.
        counted : Tensor, optional
            Boolean, broadcasts to ``(...,)``: of those routed, the ones that count as load.
        """
        flat = x.reshape(-1, x.shape[-1])
        score = self.router(flat).float().softmax(-1)
        chosen = (score.detach() + self.bias.float()).topk(self.top, dim=-1).indices  # (T, k)
        weight = score.gather(1, chosen).to(x.dtype)
        if routed is not None:
            there = routed.expand(x.shape[:-1]).reshape(-1, 1)
            chosen = torch.where(there, chosen, len(self.bias))
        self._count(chosen, None if counted is None else counted.expand(x.shape[:-1]).flatten())
        order, sizes = self._sorted(chosen)
        inner = self._each(flat[order // self.top], sizes, self.inner, self.inner_bias)
        hidden = drop(_back(F.relu(inner), order, chosen).view(*x.shape[:-1], self.top, -1))
        outer = self._each(hidden.flatten(0, -2)[order], sizes, self.outer, self.outer_bias)
        outputs = _back(outer, order, chosen).view(-1, self.top, x.shape[-1])
        return (outputs * weight.unsqueeze(-1)).sum(1).view(x.shape)

    def update_bias(self) -> None:
        """End a training batch: move the bias towards experts that got less than the mean."""
        if self.load is not None:
            load = self.load.double()
            self.bias.add_(self.balance * torch.sign(load.mean() - load))
            self.load = None

    def start_counting(self) -> Tensor:
        """Count tokens from now on; return the counts ``(E,)``, which forward passes add to."""
        self.load = torch.zeros(len(self.bias), dtype=torch.long, device=self.bias.device)
        return self.load

    def _count(self, chosen: Tensor, counted: Tensor | None) -> None:
        if self.training and self.balance and self.load is None:
            self.start_counting()
        if self.load is not None:
            mine = chosen if counted is None else chosen[counted]
            self.load += torch.bincount(mine.flatten(), minlength=len(self.bias) + 1)[:-1]

    def _sorted(self, chosen: Tensor) -> tuple[Tensor, list[int]]:
        """Places in ``chosen (T, k)`` expert after expert, and how many each has; no padding."""
        flat = chosen.flatten()
        sizes = torch.bincount(flat, minlength=len(self.bias) + 1)[:-1].tolist()
        return flat.argsort(stable=True)[: sum(sizes)], sizes

    def _each(self, x: Tensor, sizes: list[int], weight: Tensor, bias: Tensor) -> Tensor:
        """A linear layer of each expert over its own tokens, which stand together."""
        parts = zip(x.split(sizes), weight, bias)
        return torch.cat([F.linear(part, w, b) for part, w, b in parts])


def update_router_bias(network: nn.Module) -> None:
    """End a training batch for all experts of a network; see :meth:`Experts.update_bias`."""
    for module in network.modules():
        if isinstance(module, Experts):
            module.update_bias()


def _back(x: Tensor, order: Tensor, chosen: Tensor) -> Tensor:
    """Vectors in the order of ``chosen``: ``(T · k, width)``; 0 for padding."""
    return x.new_zeros(chosen.numel(), x.shape[-1]).index_copy(0, order, x)


def _uniform(*shape: int, bound: float) -> nn.Parameter:
    return nn.Parameter(torch.empty(*shape).uniform_(-bound, bound))
