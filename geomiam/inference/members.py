"""Predictions of the members of an ensemble, which share the bias of the head: arrays only."""

from __future__ import annotations

import numpy as np
import torch

from geomiam.inference.slabs import Scale, evaluation_mode, row_batches, slabs
from geomiam.model.model import Model
from geomiam.tokens.encode import TokenArrays


def features_block(model: Model, block: TokenArrays, *, visible: np.ndarray) -> np.ndarray:
    """Return the features ``(n, m·f)`` of rows that have an observed token in ``visible (t,)``."""
    out = np.empty((len(block), model.network.head.in_features), np.float32)
    first_coalition = torch.zeros(1, dtype=torch.long, device=model.device)
    with evaluation_mode(model):
        for rows, view in slabs(model, block, np.arange(len(block)), visible[None]):
            distinct, position = view.twins(torch.as_tensor(visible)).unique(return_inverse=True)
            batches = row_batches(distinct, view.cost(1), model)
            features = torch.cat([view.features(batch, first_coalition)[:, 0] for batch in batches])
            out[rows] = features[position].float().cpu().numpy()
    return out


def member_logits(model: Model, features: np.ndarray, *, species: np.ndarray) -> np.ndarray:
    """Return the logits ``(m, n, s)`` of each member from features ``(n, m·f)``; their mean is the model's.

    Joined members have the mean of their biases, so logits of different members differ by a constant
    that is not stored.
    """
    weight = model.network.head.weight.detach().cpu().numpy()[species]
    bias = model.network.head.bias.detach().cpu().numpy()[species]
    widths = [member.fusion.feature_width for member in model.network.members]
    ends = np.cumsum(widths)
    parts = [slice(end - width, end) for end, width in zip(ends, widths)]
    # The joined head has W_i / m.
    return np.stack([len(widths) * (features[:, p] @ weight[:, p].T) + bias for p in parts])


def member_curves(
    model: Model,
    features: np.ndarray,
    shape: tuple[int, int],
    *,
    species: np.ndarray,
    scale: Scale,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return predictions ``(n, p, s)``, their mean and spread ``(p, s)`` from features ``(n·p, m·f)``."""
    shares = model.link == "softmax" and scale == "probability"  # compares all species
    blocks = [species] if shares else np.array_split(species, -(-len(species) // 64))
    parts: list[tuple[np.ndarray, ...]] = []
    for block in blocks:
        logits = member_logits(
            model, features, species=np.arange(len(model.species)) if shares else block
        )
        mean = logits.mean(0)
        # The level of a member is not stored (see member_logits): each is moved to the common mean.
        shifted_logits = logits - logits.mean(1, keepdims=True) + mean.mean(0)
        all_values = np.concatenate([mean[None], shifted_logits])
        if scale == "probability":
            all_values = model.probability(torch.as_tensor(all_values)).numpy()
        if shares:
            all_values = all_values[..., block]
        curves = all_values.reshape(len(all_values), *shape, len(block)).mean(1, dtype=np.float64)
        parts.append((all_values[0].reshape(*shape, len(block)), curves[0], curves[1:].std(0)))
    values, response_mean, spread = (np.concatenate(p, -1) for p in zip(*parts))
    return values, response_mean, spread
