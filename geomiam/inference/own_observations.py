"""Predictions of a species without its own observations: arrays only.

Where observations of species are predictors (:func:`geomiam.add_community`), the label of a species must not
reach its prediction. The tokens of a species are hidden for its own prediction, which is therefore computed
apart from those of the other species, for the rows where it is observed. By the law of hidden values this
equals data in which these observations are NaN, for predictions and for every coalition.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from geomiam.model.model import Model
from geomiam.tokens.encode import TokenArrays


def own_hidden(
    model: Model, block: TokenArrays, *, visible: np.ndarray, species: np.ndarray
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield the column of each species with visible observations of itself, their rows ``(r,)``, and ``visible``.

    ``visible (..., t)`` is returned without the tokens of the species.
    """
    if not model.own_tokens:
        return
    is_visible: np.ndarray = np.any(visible.reshape(-1, visible.shape[-1]), axis=0)
    for column, number in enumerate(species):
        tokens = model.own_tokens.get(int(number), [])
        rows = np.flatnonzero((block.observed[:, tokens] & is_visible[tokens]).any(1))
        if len(rows):
            yield column, rows, without(visible, tokens)


def by_visible(
    model: Model, *, visible: np.ndarray, species: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Split columns of species by the tokens ``(t,)`` that each may be predicted from."""
    own_tokens = {c: model.own_tokens.get(int(s), []) for c, s in enumerate(species)}
    alone = [c for c, tokens in own_tokens.items() if visible[tokens].any()]
    common = np.setdiff1d(np.arange(len(species)), alone)
    parts = [(common, visible)] if len(common) else []
    return [*parts, *((np.array([c]), without(visible, own_tokens[c])) for c in alone)]


def without(visible: np.ndarray, tokens: list[int]) -> np.ndarray:
    """Return ``visible (..., t)`` with some tokens hidden."""
    hidden = visible.copy()
    hidden[..., tokens] = False
    return hidden
