"""Predictions of the members of an ensemble, and their spread: arrays only."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from geomiam.errors import SettingError
from geomiam.inference.engine import head_block, hidden_features
from geomiam.inference.slabs import (
    Scale,
    apply_head,
    evaluation_mode,
    row_batches,
    slabs,
    species_step,
)
from geomiam.model.model import Model
from geomiam.networks.member_heads import member_biases, member_weights
from geomiam.tokens.encode import TokenArrays


def check_members(model: Model) -> None:
    """Refuse a model of one member, which has no spread."""
    if model.config.members < 2:
        raise SettingError(
            "spread=True needs an ensemble, and this model has one member: train several with "
            "gm.fit(sites, network={'members': 4}), or leave spread= out"
        )


def spread_block(
    model: Model,
    block: TokenArrays,
    *,
    visible: np.ndarray,
    species: np.ndarray,
    scale: Scale = "probability",
) -> tuple[np.ndarray, np.ndarray]:
    """Return the prediction ``(n, s)`` and the standard deviation over members ``(n, s)`` of rows."""

    def both(features: Tensor, species: np.ndarray) -> Tensor:
        prediction = apply_head(model, features, species, scale)
        return torch.stack([prediction, member_spread(model, features, species, scale)], 1)

    values = head_block(model, block, both, visible=visible, species=species, layers=(2,))
    return values[:, 0], values[:, 1]


def base_spread(model: Model, *, species: np.ndarray, scale: Scale) -> np.ndarray:
    """Return the standard deviation over members ``(s,)`` of the prediction without any visible token."""
    with evaluation_mode(model):
        features = hidden_features(model)
        return member_spread(model, features, species, scale)[0].cpu().numpy()


def member_spread(model: Model, features: Tensor, species: np.ndarray, scale: Scale) -> Tensor:
    """Return the standard deviation ``(r, s)`` over members from features ``(r, m·f)``."""
    step = species_step(model, len(features) * model.config.members)
    parts = [species[i : i + step] for i in range(0, len(species), step)]
    stds = [member_values(model, features, p, scale).std(0, correction=0) for p in parts]
    return torch.cat(stds, -1)


def member_values(model: Model, features: Tensor, species: np.ndarray, scale: Scale) -> Tensor:
    """Return the predictions ``(m, r, s)`` of each member from features ``(r, m·f)``.

    On the logit scale, their mean is the prediction of the model.
    """
    # Shares of the softmax compare all species.
    all_species = model.link == "softmax" and scale == "probability"
    rows = slice(None) if all_species else torch.as_tensor(species)
    weights = member_weights(model.network)
    biases = member_biases(model.network, model.layout)
    parts = features.split([w.shape[1] for w in weights], -1)
    values = []
    for part, weight, bias in zip(parts, weights, biases):
        logits = torch.nn.functional.linear(part, weight[rows], bias[rows])
        value = logits if scale == "logit" else model.probability(logits)
        values.append(value[..., species] if all_species else value)
    return torch.stack(values)


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


def member_curves(
    model: Model,
    features: np.ndarray,
    shape: tuple[int, int],
    *,
    species: np.ndarray,
    scale: Scale,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return predictions ``(n, p, s)``, their mean and spread ``(p, s)`` from features ``(n·p, m·f)``."""
    parts: list[tuple[np.ndarray, ...]] = []
    inputs = torch.as_tensor(features, device=model.device)
    for part in np.array_split(species, -(-len(species) // 64)):
        with evaluation_mode(model):
            values = apply_head(model, inputs, part, scale).cpu().numpy()
            of_members = member_values(model, inputs, part, scale).cpu().numpy()
        values = values.reshape(*shape, len(part))
        curves = of_members.reshape(-1, *shape, len(part)).mean(1, dtype=np.float64)
        parts.append((values, values.mean(0, dtype=np.float64), curves.std(0)))
    values, response_mean, spread = (np.concatenate(p, -1) for p in zip(*parts))
    return values, response_mean, spread
