"""Predictions of one block of rows, from all visible tokens or from several coalitions: arrays only.

Rows are computed a slab at a time. Intermediate results that coalitions share are computed once per slab
(:meth:`geomiam.networks.network.Network.view`). Within a slab, micro-batches of rows and coalitions fit the
cache of the processor.

Shapes: n rows, t tokens, G groups, c coalitions, s species, d width, m members.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geomiam.inference.own_observations import own_hidden
from geomiam.inference.slabs import (
    Scale,
    apply_head,
    check_finite,
    coalition_batches,
    evaluation_mode,
    row_batches,
    slabs,
)
from geomiam.model.model import Model
from geomiam.tokens.encode import TokenArrays


def predict_block(
    model: Model,
    block: TokenArrays,
    *,
    visible: np.ndarray,
    species: np.ndarray,
    scale: Scale = "probability",
    hide_own: bool = True,
) -> np.ndarray:
    """Predict rows ``(n, s)`` from the tokens that are observed and ``visible (t,)``; NaN where none is.

    Observations of a species are hidden for its own prediction, unless the caller computes these species apart.
    """

    def predict(features: Tensor, species: np.ndarray) -> Tensor:
        return apply_head(model, features, species, scale)

    if hide_own:
        return head_block(model, block, predict, visible=visible, species=species)
    return _of_visible(model, block, predict, visible=visible, species=species, layers=())


def head_block(
    model: Model,
    block: TokenArrays,
    head: Callable[[Tensor, np.ndarray], Tensor],
    *,
    visible: np.ndarray,
    species: np.ndarray,
    layers: tuple[int, ...] = (),
) -> np.ndarray:
    """Return a function ``(r, *layers, s)`` of features ``(r, m·f)`` and species for each row; NaN where no token is visible.

    Observations of a species are hidden for its own prediction.
    """
    out = _of_visible(model, block, head, visible=visible, species=species, layers=layers)
    for column, rows, other_tokens in own_hidden(model, block, visible=visible, species=species):
        options: Any = {"visible": other_tokens, "species": species[[column]], "layers": layers}
        out[rows, ..., column] = _of_visible(model, block.take(rows), head, **options)[..., 0]
    return out


def _of_visible(
    model: Model,
    block: TokenArrays,
    head: Callable[[Tensor, np.ndarray], Tensor],
    *,
    visible: np.ndarray,
    species: np.ndarray,
    layers: tuple[int, ...],
) -> np.ndarray:
    """Return :func:`head_block` from all tokens that are observed and visible."""
    out = np.full((len(block), *layers, len(species)), np.nan, np.float32)
    # A row with nothing visible stays NaN: the base value is no statement about a place.
    predictable = np.flatnonzero((block.observed & visible).any(1))
    first_coalition = torch.zeros(1, dtype=torch.long, device=model.device)
    with evaluation_mode(model):
        for rows, view in slabs(model, block, predictable, visible[None]):
            # rows that are equal in all visible tokens are predicted once
            distinct, position = view.twins(torch.as_tensor(visible)).unique(return_inverse=True)
            parts = [
                check_finite(head(view.features(batch, first_coalition)[:, 0], species))
                for batch in row_batches(distinct, view.cost(1), model)
            ]
            out[rows] = torch.cat(parts)[position].cpu().numpy()
    return out


def base_value(model: Model, *, species: np.ndarray, scale: Scale = "probability") -> np.ndarray:
    """Return the prediction without any visible token, v(∅), ``(s,)``."""
    with evaluation_mode(model):
        return apply_head(model, hidden_features(model), species, scale)[0].cpu().numpy()


def hidden_features(model: Model) -> Tensor:
    """Return the features ``(1, m·f)`` without any visible token."""
    hidden = np.zeros((1, model.layout.size), bool)
    values = tuple(np.full((1, p.size, p.width), np.nan, np.float32) for p in model.layout.parts)
    index = torch.zeros(1, dtype=torch.long, device=model.device)
    (_, view), *_ = slabs(model, TokenArrays(values, hidden), np.zeros(1, int), hidden)
    return view.features(index, index)[0]


def coalition_block(
    model: Model,
    block: TokenArrays,
    *,
    visible: np.ndarray,
    species: np.ndarray,
    scale: Scale = "probability",
) -> np.ndarray:
    """Predict rows ``(c, n, s)`` from the visible tokens of each coalition ``(c, t)``.

    Rows without an observed token in a coalition have the base value. It is equal to the bit in all of
    them, so metrics of ranks treat them as ties. Observations of a species are hidden for its own prediction.
    """
    out = _coalitions(model, block, visible=visible, species=species, scale=scale)
    for column, rows, other_tokens in own_hidden(model, block, visible=visible, species=species):
        out[:, rows, column] = _coalitions(
            model, block.take(rows), visible=other_tokens, species=species[[column]], scale=scale
        )[..., 0]
    return out


def _coalitions(
    model: Model, block: TokenArrays, *, visible: np.ndarray, species: np.ndarray, scale: Scale
) -> np.ndarray:
    """Predict rows ``(c, n, s)`` from all visible tokens of each coalition ``(c, t)``."""
    out = np.empty((len(visible), len(block), len(species)), np.float32)
    # v(S) of a row where S shows nothing is v(∅), which makes φ_g exactly 0 for absent groups.
    out[:] = base_value(model, species=species, scale=scale)
    predictable = np.flatnonzero((block.observed & visible.any(0)).any(1))
    with evaluation_mode(model):
        for rows, view in slabs(model, block, predictable, visible):
            has_token = (block.observed[rows, None] & visible).any(-1)  # (r, c)
            positions = torch.arange(len(rows), device=model.device)
            for coalitions in coalition_batches(torch.arange(len(visible), device=model.device)):
                for batch in row_batches(positions, view.cost(len(coalitions)), model):
                    values = apply_head(model, view.features(batch, coalitions), species, scale)
                    r, c = batch.cpu().numpy(), coalitions.cpu().numpy()
                    i, j = np.nonzero(has_token[np.ix_(r, c)])
                    out[c[j], rows[r[i]]] = check_finite(values).cpu().numpy()[i, j]
            for number, tokens in enumerate(torch.as_tensor(visible)):
                # equal rows get equal values, whatever their micro-batch
                out[number, rows] = out[number, rows[view.twins(tokens).cpu().numpy()]]
    return out
