"""A small network that predicts the Shapley values of a frozen network in one pass.

After FastSHAP (Jethani et al. 2022, ICLR). It learns from coalitions. The difference between the sum of
its values and the gain of the frozen network is divided equally among the groups that are present.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Explainer(nn.Module):
    """Predict values of G groups for s species from the last states of the frozen network.

    Parameters
    ----------
    groups : int
        G.
    width : int
        Width d of the features that the head reads.
    species : int
        s.
    hidden : int
        Width of the two hidden layers of the explainer.
    """

    def __init__(self, groups: int, *, width: int, species: int, hidden: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        # These names are in saved models: ``own`` reads a group's state, ``whole`` the row's features.
        self.own, self.whole = nn.Linear(width, hidden), nn.Linear(width, hidden)
        self.identity = nn.Parameter(torch.randn(groups, hidden) * 0.02)
        self.inner, self.out = nn.Linear(hidden, hidden), nn.Linear(hidden, species)

    def forward(self, states: Tensor, features: Tensor, present: Tensor, gain: Tensor) -> Tensor:
        """Predict the values.

        Parameters
        ----------
        states : Tensor
            ``(n, G, d)``: the frozen network's last tokens, averaged by group.
        features : Tensor
            ``(n, d)``: features that its head reads.
        present : Tensor
            Boolean ``(n, G)``.
        gain : Tensor
            v(all) − v(∅), ``(n, s)``: the sum of the values.

        Returns
        -------
        Tensor
            ``(n, G, s)``; exactly 0 for groups that are absent.
        """
        x = self.own(self.norm(states)) + self.whole(features).unsqueeze(1) + self.identity
        values = self.out(torch.relu(self.inner(torch.relu(x))))
        mask = present.unsqueeze(-1).to(values.dtype)
        values = values * mask
        remainder = (gain - values.sum(1)) / mask.sum(1).clamp(min=1)
        return values + remainder.unsqueeze(1) * mask
