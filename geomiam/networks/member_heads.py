"""The linear head of each member of an ensemble, from the head that joins them.

:func:`geomiam.networks.network.join` stores the mean of the members' biases in the head, and the differences from it
in ``offsets``. Where they are unknown (models saved before they were stored, rows of the head that were trained
over all members), members are assumed to agree where nothing is visible: each was trained to predict the
prevalence of a species there.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from geomiam.networks.network import Network
from geomiam.tokens.layout import Layout


def member_weights(network: Network) -> list[Tensor]:
    """Return the weights ``(S, f)`` of the head of each member."""
    widths = [member.fusion.feature_width for member in network.members]
    # The joined head has W_i / m.
    return [weight * len(widths) for weight in network.head.weight.split(widths, 1)]


def member_biases(network: Network, layout: Layout) -> Tensor:
    """Return the biases ``(m, S)`` of the heads of the members."""
    offsets = network.offsets
    return network.head.bias + (agreement(network, layout) if offsets is None else offsets)


@torch.no_grad()
def agreement(network: Network, layout: Layout) -> Tensor:
    """Return the offsets ``(m, S)`` with which all members predict the same where nothing is visible."""
    weights = member_weights(network)
    device = network.head.weight.device
    hidden = torch.zeros(1, layout.size, dtype=torch.bool, device=device)
    values = [torch.full((1, p.size, p.width), np.nan, device=device) for p in layout.parts]
    index = torch.zeros(1, dtype=torch.long, device=device)
    features = network.view(values, hidden, hidden).features(index, index)[0, 0]
    parts = features.split([w.shape[1] for w in weights])
    logits = torch.stack([w @ f for w, f in zip(weights, parts)])
    return logits.mean(0) - logits
