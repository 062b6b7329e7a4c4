"""A small network that tells the Shapley values of a frozen one in its single pass.

After FastSHAP (Jethani et al. 2022, ICLR): it learns from coalitions, and what its values lack to add
up is shared out equally among the groups that are present.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Explainer(nn.Module):
    """Values of G groups for s species, from what the frozen network has made of each group.

    Parameters
    ----------
    groups : int
    width : int
        Of the features that the head reads.
    species : int
    hidden : int
        Of its own two layers.
    """

    def __init__(self, groups: int, *, width: int, species: int, hidden: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.own, self.whole = nn.Linear(width, hidden), nn.Linear(width, hidden)
        self.identity = nn.Parameter(torch.randn(groups, hidden) * 0.02)
        self.inner, self.out = nn.Linear(hidden, hidden), nn.Linear(hidden, species)

    def forward(self, states: Tensor, features: Tensor, present: Tensor, gain: Tensor) -> Tensor:
        """Tell the values.

        Parameters
        ----------
        states : Tensor
            ``(n, G, d)``: the frozen network's last tokens, averaged by group.
        features : Tensor
            ``(n, d)``: what its head reads.
        present : Tensor
            Boolean ``(n, G)``.
        gain : Tensor
            v(all) − v(∅), ``(n, s)``: what the values add up to.

        Returns
        -------
        Tensor
            ``(n, G, s)``; exactly 0 for groups that are absent.
        """
        both = self.own(self.norm(states)) + self.whole(features).unsqueeze(1) + self.identity
        raw = self.out(torch.relu(self.inner(torch.relu(both))))
        there = present.unsqueeze(-1).to(raw.dtype)
        raw = raw * there
        lacking = (gain - raw.sum(1)) / there.sum(1).clamp(min=1)
        return raw + lacking.unsqueeze(1) * there
