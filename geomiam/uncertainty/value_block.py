"""The function of a block that computes the value of groups that rows lack: arrays only.

Shapes: n rows, r rows of a batch, c donors, t tokens, G groups, s species, v values: one per species, or one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from geomiam.inference.change_block import mixed
from geomiam.inference.engine import predict_block
from geomiam.inference.slabs import Scale
from geomiam.model.model import Model
from geomiam.tokens.encode import TokenArrays
from geomiam.uncertainty.block import values_of
from geomiam.uncertainty.donors import Donors

MOST_ROWS = 2**13
"""Rows with the tokens of a donor that are predicted at a time."""
MOST_NUMBERS = 2**22
"""Predictions that are in memory at a time; with many species there are fewer rows."""


@dataclass(frozen=True, eq=False)
class ValueBlock:
    """Function of a block: values and standard errors ``(n, G, v)`` of groups, and the number of missing ones ``(n,)``."""

    model: Model
    visible: np.ndarray
    """Tokens that predictions use ``(t,)``."""
    groups: np.ndarray
    """Tokens of each group ``(G, t)``."""
    species: np.ndarray
    weights: np.ndarray | None
    """Weights ``(s,)`` of the species, which add up to 1; None: a value for each species."""
    scale: Scale
    donors: Donors

    def __call__(self, block: TokenArrays) -> tuple[np.ndarray, ...]:
        shape = (len(block), len(self.groups), 1 if self.weights is not None else len(self.species))
        value, error = np.full((2, *shape), np.nan, np.float32)
        lacks = np.stack([~(block.observed & g).any(1) for g in self.groups], 1)
        is_predicted = (block.observed & self.visible).any(1)
        missing = np.where(is_predicted, lacks.sum(1), np.nan).astype(np.float32)
        lacks &= is_predicted[:, None] & self.donors.has_group.any(0)
        rows = np.flatnonzero(lacks.any(1))
        for part, squares in self._squares(block, rows):
            for group in map(int, np.flatnonzero(lacks[part].any(0))):
                lacking = np.flatnonzero(lacks[part, group])
                nearest = self.donors.nearest(squares[lacking], group)
                for batch in self._batches(len(lacking)):
                    at = part[lacking[batch]]
                    of_batch = self._values(block.take(at), group, *(a[batch] for a in nearest))
                    value[at, group], error[at, group] = of_batch
        if self.weights is not None:
            value, error = value[..., 0], error[..., 0]
        return value, error, missing

    def _squares(
        self, block: TokenArrays, rows: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield some of the rows at a time, and their squared distances to all donors ``(r, m)``."""
        if len(rows):
            features = values_of(block.take(rows), self.model, self.visible)
            for part, squares in self.donors.squares(features):
                yield rows[part], squares

    def _batches(self, rows: int) -> Iterator[slice]:
        """Yield slices of rows whose predictions with all donors fit into memory."""
        fit = min(MOST_ROWS, MOST_NUMBERS // len(self.species)) // self.donors.count
        step = max(1, fit)
        return (slice(i, i + step) for i in range(0, rows, step))

    def _values(
        self, block: TokenArrays, group: int, donors: np.ndarray, weight: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return values and standard errors ``(r, v)`` of rows with the tokens of their donors ``(r, c)``."""
        settings: Any = {"visible": self.visible, "species": self.species, "scale": self.scale}
        prediction = predict_block(self.model, block, **settings)
        pairs = np.arange(donors.size)
        rows = block.take(np.repeat(np.arange(len(block)), donors.shape[1]))
        donor_tokens = self.donors.tokens.take(donors.ravel())
        rows = mixed(rows, donor_tokens, pairs, self.groups[group])
        with_group = predict_block(self.model, rows, **settings).reshape(*donors.shape, -1)
        change = np.abs(with_group - prediction[:, None])
        return weighted_mean(self._of_species(change), weight)

    def _of_species(self, change: np.ndarray) -> np.ndarray:
        """Return changes ``(r, c, s)`` as those of the requested values ``(r, c, v)``."""
        if self.weights is None:
            return change
        # A species that is predicted from its own observations only has no value.
        mean: np.ndarray = np.nansum(change * self.weights, -1, keepdims=True)
        return np.where(np.isfinite(change).any(-1, keepdims=True), mean, np.nan)


def weighted_mean(values: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean ``(r, v)`` of values ``(r, c, v)`` with weights ``(r, c)``, and its standard error.

    The error is that of independent draws with unequal weights, NaN for one draw: with equal weights the
    standard deviation by the square root of their number.
    """
    w = weight[..., None]
    mean = (w * values).sum(1, dtype=np.float64)
    variance = (w * np.square(values - mean[:, None])).sum(1, dtype=np.float64)
    share = np.square(weight).sum(1)[:, None]  # 1 by the effective number of draws
    with np.errstate(divide="ignore", invalid="ignore"):
        return mean, np.sqrt(variance * share / (1 - share))
