"""Sum fusion: what the tokens say is added up and read by a plain network of two layers."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn


class SumFusion(nn.Module):
    """A hidden token says what it has learned to say when hidden, so the sum knows what is missing.

    Its scalar tokens are linear (no frequencies), so this is a network of two hidden layers over all predictors and their
    hidden-indicators, as in DeepMaxent (Ryckewaert et al. 2024, arXiv:2412.19217), which is hard to
    beat on small data. There is no normalisation in it: a large value stays large.
    """

    def __init__(self, tokens: int, *, width: int, dropout: float):
        super().__init__()
        self.hidden = nn.Parameter(torch.zeros(tokens, width))
        self.inner = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.scale = (2 * tokens) ** -0.5

    def forward(self, tokens: Tensor, visible: Tensor) -> Tensor:
        """Return features ``(n, d)`` from tokens ``(n, t, d)`` and visible ``(n, t)``."""
        return self._read(torch.where(visible.unsqueeze(-1), tokens, self.hidden).sum(1))

    def coalitions(self, tokens: Tensor, observed: Tensor, shown: Tensor) -> Iterator[Tensor]:
        """Yield the features ``(n, d)`` of each coalition, given shown tokens ``(c, t)``.

        Tokens that no coalition parts are added up once.
        """
        players, owner = shown.unique(dim=1, return_inverse=True)  # (c, P), (t,)
        gain = torch.where(observed.unsqueeze(-1), tokens - self.hidden, 0)
        sums = gain.new_zeros(len(gain), players.shape[1], gain.shape[-1])
        sums.index_add_(1, owner, gain)
        for member in players.to(gain.dtype):
            yield self._read(self.hidden.sum(0) + torch.einsum("npd,p->nd", sums, member))

    def _read(self, total: Tensor) -> Tensor:
        return self.inner(self.dropout(torch.relu(total * self.scale)))
