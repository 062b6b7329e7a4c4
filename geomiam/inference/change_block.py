"""Shapley values of the change between two blocks of the same rows: arrays only.

The game switches groups from their earlier to their later values: v(S) is the prediction from the later tokens
of the groups in S and the earlier tokens of the others.
"""

from __future__ import annotations

from math import comb
from typing import Any

import numpy as np

from geomiam.inference.engine import base_value, predict_block
from geomiam.inference.own_observations import own_hidden
from geomiam.inference.slabs import Scale
from geomiam.inference.terms import members
from geomiam.model.model import Model
from geomiam.tokens.encode import TokenArrays


def change_block(
    model: Model,
    earlier: TokenArrays,
    later: TokenArrays,
    *,
    groups: np.ndarray,
    species: np.ndarray,
    scale: Scale = "probability",
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return values ``(n, G, s)`` of the change, both predictions ``(n, s)``, and which groups differ ``(n, G)``.

    φ_g = Σ_{S∌g} |S|! (p − |S| − 1)! / p! · [v(S ∪ g) − v(S)] over the p groups that differ in a row. A group that
    is equal in both blocks has the value 0, and coalitions with it are not computed. Rows where one of the
    blocks has nothing visible are NaN. Observations of a species are hidden in its own change.
    """
    settings: Any = {"scale": scale}
    values, before, after, differs = _change(
        model, earlier, later, groups=groups, species=species, **settings
    )
    either = TokenArrays(earlier.values, earlier.observed | later.observed)
    for column, rows, other_groups in own_hidden(model, either, visible=groups, species=species):
        settings |= {"groups": other_groups, "species": species[[column]]}
        of_species = _change(model, earlier.take(rows), later.take(rows), **settings)
        values[rows, :, column] = of_species[0][..., 0]
        before[rows, column], after[rows, column] = of_species[1][:, 0], of_species[2][:, 0]
    return values, before, after, differs


def _change(
    model: Model,
    earlier: TokenArrays,
    later: TokenArrays,
    *,
    groups: np.ndarray,
    species: np.ndarray,
    scale: Scale,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the results of :func:`change_block` from all tokens of the groups."""
    visible = np.any(groups, axis=0)
    differs_in_token = differing_tokens(earlier, later)
    differs = np.stack([(differs_in_token & tokens).any(1) for tokens in groups], 1)
    count = differs.sum(1)
    empty = ~((earlier.observed & visible).any(1) & (later.observed & visible).any(1))
    base = base_value(model, species=species, scale=scale)
    values = np.zeros((len(earlier), len(groups), len(species)), np.float32)
    earlier_prediction, later_prediction = np.full((2, *values[:, 0].shape), np.nan, np.float32)
    for coalition in members(len(groups)):
        rows = np.flatnonzero(~(coalition & ~differs).any(1) & ~empty)
        later_tokens = (groups & coalition[:, None]).any(0)
        prediction = predict_block(
            model,
            mixed(earlier, later, rows, later_tokens),
            visible=visible,
            species=species,
            scale=scale,
            hide_own=False,
        )
        prediction = np.where(np.isnan(prediction), base, prediction)
        weight = _weights(coalition, count[rows]) * differs[rows]
        for group in np.flatnonzero(weight.any(0)):
            values[rows, group] += weight[:, [group]] * prediction
        is_last = count[rows] == coalition.sum()
        later_prediction[rows[is_last]] = prediction[is_last]
        if not coalition.any():
            earlier_prediction[rows] = prediction
    values[empty] = np.nan
    return values, earlier_prediction, later_prediction, differs


def _weights(coalition: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Return the coefficients ``(r, G)`` of v(S) in the values of rows where ``count (r,)`` groups differ."""
    size = int(coalition.sum())
    p = np.maximum(count, 1)
    # (s − 1)! (p − s)! / p! = 1 / (s C(p, s)) for a group in S, and s! (p − s − 1)! / p! = 1 / ((p − s) C(p, s)).
    subsets = np.array([comb(int(n), size) for n in p], float)[:, None]
    inside = 1 / (max(size, 1) * np.maximum(subsets, 1))
    outside = -1 / (np.maximum(p - size, 1)[:, None] * np.maximum(subsets, 1))
    return np.where(coalition, inside, outside)


def differing_tokens(first: TokenArrays, second: TokenArrays) -> np.ndarray:
    """Return the tokens ``(n, t)`` that the network would read differently."""
    is_equal = [
        ((a == b) | (np.isnan(a) & np.isnan(b))).all(-1)
        for a, b in zip(first.values, second.values)
    ]
    is_both = first.observed & second.observed
    # values of a token that is not observed have no effect
    differs: np.ndarray = np.where(is_both, ~np.concatenate(is_equal, 1), first.observed | second.observed)  # fmt: skip
    return differs


def mixed(
    earlier: TokenArrays, later: TokenArrays, rows: np.ndarray, later_tokens: np.ndarray
) -> TokenArrays:
    """Return rows of the earlier block with the ``later_tokens (t,)`` tokens of the later one."""
    ends = np.cumsum([part.shape[1] for part in earlier.values])[:-1]
    values = tuple(
        np.where(tokens[:, None], b[rows], a[rows])
        for tokens, a, b in zip(np.split(later_tokens, ends), earlier.values, later.values)
    )
    return TokenArrays(values, np.where(later_tokens, later.observed[rows], earlier.observed[rows]))


def in_both(first: TokenArrays, second: TokenArrays) -> tuple[TokenArrays, TokenArrays]:
    """Return both blocks with the tokens that both observe."""
    observed = first.observed & second.observed
    return TokenArrays(first.values, observed), TokenArrays(second.values, observed)
