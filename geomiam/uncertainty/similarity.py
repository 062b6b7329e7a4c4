"""Multivariate environmental similarity surface (MESS), from the features that are observed.

Elith, Kearney & Phillips 2010 (Methods Ecol Evol 1:330); the shares of sites count those at the value, as in
R's dismo.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geomiam.tokens.features import Features

LARGEST = 100.0
"""Similarity of a class that training has seen, and of an angle, which has no range."""


@dataclass(frozen=True, eq=False)
class Similarity:
    """Function of features ``(n, f)``: similarity, and the variable of the least one, ``(n,)`` each."""

    features: tuple[Features, ...]
    reference: tuple[np.ndarray, ...]
    """Per feature, the observed values of the reference sites in ascending order."""
    unseen: dict[str, int]
    """Rank that stands for classes that training has not seen, by variable."""

    @classmethod
    def of(
        cls, features: tuple[Features, ...], values: np.ndarray, unseen: dict[str, int]
    ) -> Similarity:
        """Return the function for reference sites ``(m, f)``."""
        return cls(features, tuple(np.sort(v[np.isfinite(v)]) for v in values.T), unseen)

    def __call__(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        lowest, variable = np.full(len(values), np.inf), np.full(len(values), -1, np.int16)
        for number, entry in enumerate(self.features):
            for column in range(entry.start, entry.start + entry.size):
                similarity = self._of_feature(values[:, column], entry, column)
                lower = similarity < lowest  # NaN is never lower
                lowest[lower], variable[lower] = similarity[lower], number
        observed = np.isfinite(lowest)
        return np.where(observed, lowest, np.nan).astype(np.float32), variable

    def _of_feature(self, x: np.ndarray, entry: Features, column: int) -> np.ndarray:
        reference = self.reference[column]
        if entry.kind == "angle":
            return np.where(np.isfinite(x), LARGEST, np.nan)
        if entry.kind == "class":
            is_new = is_new_class(x, reference, self.unseen[entry.variable])
            return np.where(np.isfinite(x), np.where(is_new, -LARGEST, LARGEST), np.nan)
        if not reference.size:  # no training site has this predictor: every value is new
            return np.where(np.isfinite(x), -LARGEST, np.nan)
        return similarity(x.astype(np.float64), reference.astype(np.float64))


def similarity(x: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return the similarity ``(n,)`` of values to reference values in ascending order, 100 or less; NaN stays NaN.

    Twice the share of reference values on the side with fewer, in per cent; outside their range the negative
    distance to it, in per cent of its width.
    """
    low, high = reference[0], reference[-1]
    width = (high - low) or 1.0
    share = 100 * np.searchsorted(reference, x, side="right") / len(reference)
    inside = np.where(share <= 50, 2 * share, 2 * (100 - share))
    result = np.where(
        x < low, 100 * (x - low) / width, np.where(x >= high, 100 * (high - x) / width, inside)
    )
    return np.where(np.isfinite(x), result, np.nan)


def is_new_class(x: np.ndarray, reference: np.ndarray, unseen: int) -> np.ndarray:
    """Return which ranks of classes ``(n,)`` no reference site has; ``unseen`` stands for other classes."""
    result: np.ndarray = np.isfinite(x) & ((x == unseen) | ~np.isin(x, reference))
    return result
