"""Dissimilarity in the space of the network: distances between the features that its head reads."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch

from geomiam.inference.slabs import evaluation_mode, row_batches, slabs
from geomiam.model.model import Model
from geomiam.tokens.encode import TokenArrays
from geomiam.uncertainty.cache import PATTERNS
from geomiam.uncertainty.design import by_pattern
from geomiam.uncertainty.dissimilarity import Scale, compare, scale_of

MOST_SITES = 2000
"""Reference sites in the space of the network, whose vectors are long."""


@dataclass(frozen=True, eq=False)
class TokenDissimilarity:
    """Function of a block: dissimilarity index, inside (1 or 0), and point density, ``(n,)`` each.

    Variables that a cell lacks are hidden in the reference sites, so both pass through the network with the
    same predictors.
    """

    model: Model
    sites: TokenArrays
    """Tokens of the reference sites."""
    fold: np.ndarray
    """Fold of each of them ``(m,)``."""
    visible: np.ndarray
    """Tokens that are compared ``(t,)``."""

    @cached_property
    def key(self) -> str:
        """Digest of model, sites and tokens."""
        arrays = (*self.sites.values, self.fold, self.visible)
        content = b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)
        return f"{self.model.id}-{hashlib.sha256(content).hexdigest()}"

    def __dask_tokenize__(self) -> str:
        return self.key

    def __call__(self, block: TokenArrays) -> tuple[np.ndarray, ...]:
        result = np.full((3, len(block)), np.nan, np.float32)
        starts = [s.start for s in self.model.layout.spans]
        observed = np.logical_or.reduceat(block.observed & self.visible, starts, axis=1)
        for pattern, rows in by_pattern(observed):
            visible = self.visible & np.repeat(pattern, [s.size for s in self.model.layout.spans])
            scale = self.scale(visible)
            if np.isfinite(scale.threshold):
                result[:, rows] = compare(features(self.model, block, visible, rows), scale)
        return tuple(result)

    def scale(self, visible: np.ndarray) -> Scale:
        """Return the scale of a pattern of visible tokens ``(t,)``, computed at its first use."""
        key = ("tokens", self.key, visible.tobytes())
        return PATTERNS.get(key, partial(self._scale, visible), lambda s: s.nbytes)

    def _scale(self, visible: np.ndarray) -> Scale:
        rows = np.flatnonzero((self.sites.observed & visible).any(1))
        sites = features(self.model, self.sites, visible, rows)
        return scale_of(sites, self.fold[rows], np.ones(sites.shape[1], bool))


def features(model: Model, block: TokenArrays, visible: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return what the head reads of rows ``(r,)`` from their visible tokens ``(t,)``, float64 ``(r, m·d)``."""
    coalition = torch.zeros(1, dtype=torch.long, device=model.device)
    parts = [np.zeros((0, model.network.head.in_features))]
    with evaluation_mode(model):
        for part, view in slabs(model, block, rows, visible[None]):
            positions = torch.arange(len(part), device=model.device)
            parts += [
                view.features(batch, coalition)[:, 0].double().cpu().numpy()
                for batch in row_batches(positions, view.cost(1), model)
            ]
    return np.concatenate(parts)
