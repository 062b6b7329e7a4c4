"""Dissimilarity index, area of applicability and local point density, per pattern of observed features.

Meyer & Pebesma 2021 (Methods Ecol Evol 12:1620); Schumacher et al. 2025 (Geosci Model Dev 18:10185) for the
density. The settings are those of CAST 1.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from geomiam.uncertainty.cache import PATTERNS
from geomiam.uncertainty.design import Design, by_pattern
from geomiam.uncertainty.nearest import ROUNDING, nearest, training_distances


@dataclass(frozen=True, eq=False)
class Scale:
    """Reference sites in one set of features, and what their distances are compared with."""

    sites: np.ndarray
    """``(m, k)``: the sites that have all compared features."""
    columns: np.ndarray
    """Columns of the design that are compared, boolean."""
    mean_distance: float
    """Mean distance between two of the sites."""
    threshold: float
    """Largest dissimilarity index inside the area of applicability."""

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return self.sites.nbytes + self.columns.nbytes


def scale_of(sites: np.ndarray, fold: np.ndarray, columns: np.ndarray) -> Scale:
    """Return normalisation and threshold of sites ``(m, k)`` by their folds ``(m,)``."""
    if len(sites) < 2:
        return Scale(sites, columns, np.nan, np.nan)
    mean_distance, distance = training_distances(sites, fold)
    mean_distance = mean_distance or 1.0  # all sites are equal: any distance is new
    return Scale(sites, columns, mean_distance, upper_whisker(distance / mean_distance))


def upper_whisker(index: np.ndarray) -> float:
    """Return the third quartile plus 1.5 interquartile ranges, at most the maximum; NaN without values."""
    values = index[np.isfinite(index)]
    if not values.size:
        return float("nan")
    first, third = np.quantile(values, [0.25, 0.75])
    return float(min(third + 1.5 * (third - first), values.max()))


@dataclass(frozen=True, eq=False)
class Dissimilarity:
    """Function of features ``(n, f)``: dissimilarity index, inside (1 or 0), and point density, ``(n,)`` each."""

    design: Design

    def __call__(self, values: np.ndarray) -> tuple[np.ndarray, ...]:
        result = np.full((3, len(values)), np.nan, np.float32)
        columns = self.design.columns(values)
        for pattern, rows in by_pattern(np.isfinite(values)):
            x = columns[rows]
            layers = [compare(x[:, s.columns], s) for s in self.scales(pattern)]
            if layers:  # a cell is as new as in the set of predictors in which it is newest
                index, inside, density = zip(*layers)
                result[:, rows] = np.max(index, 0), np.min(inside, 0), np.min(density, 0)
        return tuple(result)

    def scales(self, pattern: np.ndarray) -> list[Scale]:
        """Return the scales of a pattern ``(f,)``, computed at its first use."""
        key = ("dissimilarity", self.design.key, pattern.tobytes())
        return PATTERNS.get(key, partial(self._scales, pattern), lambda s: sum(v.nbytes for v in s))

    def _scales(self, pattern: np.ndarray) -> list[Scale]:
        has_weight = np.zeros_like(pattern)
        has_weight[self.design.owner[self.design.of_features(pattern)]] = True
        scales = []
        for feature_set, rows in self.design.sets(has_weight):
            columns = self.design.of_features(feature_set)
            sites = self.design.sites[np.ix_(rows, columns)]
            scales.append(scale_of(sites, self.design.fold[rows], columns))
        return [s for s in scales if np.isfinite(s.threshold)]


def compare(x: np.ndarray, scale: Scale) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return dissimilarity index, inside (1 or 0), and point density of rows ``(n, k)``, ``(n,)`` each."""
    radius = scale.threshold * scale.mean_distance
    distance, density = nearest(x, scale.sites, radius=radius)
    return distance / scale.mean_distance, distance <= radius * (1 + ROUNDING), density
