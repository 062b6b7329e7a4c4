"""Extrapolation detection (ExDet): values outside the range, and new combinations of values inside it.

Mesgaran, Cousens & Webber 2014 (Divers Distrib 20:1147).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from geomiam.uncertainty.cache import PATTERNS
from geomiam.uncertainty.design import Design, by_pattern
from geomiam.uncertainty.nearest import ROUNDING
from geomiam.uncertainty.similarity import is_new_class

RIDGE = 1e-9
"""Added to the variances of standardised columns, so that the inverse of collinear ones exists."""


@dataclass(frozen=True, eq=False)
class Spread:
    """Mean and inverse covariance of the reference sites in one set of features."""

    columns: np.ndarray
    """Columns of the design that are compared, boolean ``(k,)``."""
    centre: np.ndarray
    inverse: np.ndarray
    largest: float
    """Largest squared Mahalanobis distance of a reference site."""
    blocks: tuple[tuple[int, np.ndarray], ...]
    """Per variable: its number, and its positions among the compared columns."""

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return self.columns.nbytes + self.inverse.nbytes


@dataclass(frozen=True, eq=False)
class Extrapolation:
    """Function of features ``(n, f)``: ExDet, and the most influential variable (-1: not new), ``(n,)`` each.

    Below 0: values outside the range (type 1). From 0 to 1: no novelty. Above 1: combinations that are new
    (type 2), as the squared Mahalanobis distance relative to the largest of a reference site.
    """

    design: Design
    values: np.ndarray
    """Reference sites ``(m, f)``."""
    unseen: dict[str, int]
    """Rank that stands for classes that training has not seen, by variable."""

    def __call__(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        observed = np.isfinite(values)
        beyond = self._beyond(values)
        total = beyond.sum(1)
        distance, influential = self._combined(values, observed)
        is_beyond = total < 0
        result = np.where(is_beyond, total, distance)
        variable = np.where(is_beyond, beyond.argmin(1) if beyond.shape[1] else -1, influential)
        variable = np.where(is_beyond | (distance > 1 + ROUNDING), variable, -1)
        return np.where(observed.any(1), result, np.nan).astype(np.float32), variable.astype(
            np.int16
        )

    def _beyond(self, values: np.ndarray) -> np.ndarray:
        """Return the distance of each variable to its range, in widths of the range, 0 or less ``(n, V)``."""
        result = np.zeros((len(values), len(self.design.features)))
        for number, entry in enumerate(self.design.features):
            x, reference = values[:, entry.columns], self.values[:, entry.columns]
            if entry.kind == "class":
                is_new = is_new_class(x[:, 0], reference, self.unseen[entry.variable])
                result[:, number] = np.where(is_new, -1.0, 0.0)
            elif entry.kind == "number":
                result[:, number] = np.nansum(_outside(x, reference), 1)
        return result

    def _combined(self, values: np.ndarray, observed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the relative squared Mahalanobis distance ``(n,)``, and the most influential variable ``(n,)``."""
        distance, influential = np.zeros(len(values)), np.full(len(values), -1)
        kinds = np.concatenate([[f.kind] * f.size for f in self.design.features] or [[]])
        columns = self.design.columns(values)
        for pattern, rows in by_pattern(observed & (kinds != "class")):
            x = columns[rows]
            for spread in self.spreads(pattern):
                z = x[:, spread.columns] - spread.centre
                squares = np.einsum("nk,kl,nl->n", z, spread.inverse, z, optimize=True)
                relative = squares / spread.largest
                larger = relative > distance[rows]
                influential[rows[larger]] = _most_influential(z[larger], spread)
                distance[rows] = np.maximum(distance[rows], relative)
        return distance, influential

    def spreads(self, pattern: np.ndarray) -> list[Spread]:
        """Return mean and covariance of each set of a pattern ``(f,)``, computed at its first use."""
        key = ("extrapolation", self.design.key, pattern.tobytes())
        return PATTERNS.get(
            key, partial(self._spreads, pattern), lambda s: sum(v.nbytes for v in s)
        )

    def _spreads(self, pattern: np.ndarray) -> list[Spread]:
        sets = self.design.sets(pattern)
        return [
            s for feature_set, rows in sets if (s := self._spread(feature_set, rows)) is not None
        ]

    def _spread(self, feature_set: np.ndarray, rows: np.ndarray) -> Spread | None:
        columns = feature_set[self.design.owner]
        sites = self.design.sites[np.ix_(rows, columns)]
        if len(sites) <= sites.shape[1] + 1:  # any covariance fits them
            return None
        centre = sites.mean(0)
        covariance = np.atleast_2d(np.cov(sites, rowvar=False)) + RIDGE * np.eye(sites.shape[1])
        inverse = np.linalg.inv(covariance)
        z = sites - centre
        largest = float(np.einsum("nk,kl,nl->n", z, inverse, z, optimize=True).max())
        owner = self.design.owner[columns]
        blocks = []
        for number, entry in enumerate(self.design.features):
            positions = np.flatnonzero((owner >= entry.start) & (owner < entry.start + entry.size))
            if positions.size:
                blocks.append((number, positions))
        return Spread(columns, centre, inverse, largest or 1.0, tuple(blocks))


def _outside(x: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return ``(n, f)``: distance of numbers to the range of reference values in widths of it, 0 or less."""
    finite = np.isfinite(reference)
    low = np.where(finite, reference, np.inf).min(0, initial=np.inf).astype(np.float64)
    high = np.where(finite, reference, -np.inf).max(0, initial=-np.inf).astype(np.float64)
    never = low > high
    width = np.where(never | (high == low), 1.0, high - low)
    distance = np.minimum(np.minimum(x - low, high - x), 0) / width
    return np.where(never, np.where(np.isfinite(x), -1.0, np.nan), distance)


def _most_influential(z: np.ndarray, spread: Spread) -> np.ndarray:
    """Return the variable without which the Mahalanobis distance of ``z (n, k)`` is smallest ``(n,)``."""
    # With P the inverse covariance, leaving out the columns B lowers the squared distance by
    # (Pz)_B' (P_BB)^-1 (Pz)_B, so no further inverse of the remaining columns is needed.
    product = z @ spread.inverse
    reductions = []
    for _, positions in spread.blocks:
        part = product[:, positions]
        inner = np.linalg.inv(spread.inverse[np.ix_(positions, positions)])
        reductions.append(np.einsum("nk,kl,nl->n", part, inner, part, optimize=True))
    numbers = np.array([number for number, _ in spread.blocks])
    result: np.ndarray = numbers[np.argmax(reductions, axis=0)]
    return result
