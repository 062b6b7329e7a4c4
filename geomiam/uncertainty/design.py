"""Features of sites as columns of equal variance, and the patterns of features that rows have observed.

Shapes: n rows, f features, k columns.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from geomiam.tokens.features import Features

CONSTANT = 1e-6
"""Standard deviation up to which a column of standardised values is constant."""
FEWEST = 30
"""Sites that have all features of a set, at least; of fewer than 60 sites, half of them."""


@dataclass(frozen=True, eq=False)
class Design:
    """Reference sites as columns: classes and angles are several columns of one feature.

    Every variable has the variance 1 times its squared weight over the reference sites, whatever its
    number of columns, so none counts more for having more channels, classes or elements.
    """

    features: tuple[Features, ...]
    centre: np.ndarray
    """``(k,)``."""
    factor: np.ndarray
    """``(k,)``: weight by standard deviation."""
    owner: np.ndarray
    """Feature of each column ``(k,)``."""
    classes: tuple[int, ...]
    """Number of columns of each feature that is a class, 0 of others ``(f,)``."""
    sites: np.ndarray
    """Columns of the reference sites, float64 ``(m, k)``; NaN = not observed."""
    fold: np.ndarray
    """Fold of each of them ``(m,)``."""
    key: str
    """Digest of all of the above."""

    @classmethod
    def of(
        cls,
        features: Sequence[Features],
        values: np.ndarray,
        fold: np.ndarray,
        *,
        classes: Mapping[str, int],
        weights: Mapping[str, float],
    ) -> Design:
        """Return the columns of reference sites ``(m, f)``; ``weights`` by variable, others weigh 1."""
        # The last column of a class stands for classes that training has not seen.
        counts = [
            classes[v.variable] + 1 if v.kind == "class" else 0
            for v in features
            for _ in range(v.size)
        ]
        columns, owner = expand(values, features, counts)
        centre, std = _moments(columns)
        factor = np.empty(len(owner))
        for variable in features:
            index = (owner >= variable.start) & (owner < variable.start + variable.size)
            if variable.kind != "number":  # the columns of an angle or class share one deviation
                std[index] = np.sqrt(np.square(std[index]).sum()) or 1.0
            deviation = np.where(std[index] > CONSTANT, std[index], 1.0)
            factor[index] = weights.get(variable.variable, 1.0) / deviation / variable.size**0.5
        arrays = (centre, factor, values, fold)
        digest = hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays))
        sites = (columns - centre) * factor
        return cls(
            tuple(features), centre, factor, owner, tuple(counts), sites, fold, digest.hexdigest()
        )

    def __dask_tokenize__(self) -> str:
        return self.key

    def columns(self, values: np.ndarray) -> np.ndarray:
        """Return the columns ``(n, k)`` of features ``(n, f)``."""
        columns: np.ndarray = expand(values, self.features, self.classes)[0] - self.centre
        columns *= self.factor
        return columns

    def of_features(self, features: np.ndarray) -> np.ndarray:
        """Return the columns of the ``features (f,)`` that have a weight, boolean ``(k,)``."""
        columns: np.ndarray = features[self.owner] & (self.factor > 0)
        return columns

    def sets(self, features: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return sets of features ``(f,)`` that together are ``features (f,)``, with the sites ``(m,)`` that have each set.

        One set has all features if at least :data:`FEWEST` sites have them all. Otherwise each set has as many
        as so many sites have, the most frequent first, and every feature is in one of the sets.
        """
        observed = np.zeros((len(self.sites), len(features)), bool)
        observed[:, self.owner] = np.isfinite(self.sites)
        fewest = min(FEWEST, -(-len(self.sites) // 2))
        frequent = np.argsort(-observed.mean(0), kind="stable")
        remaining, sets = features & (observed.sum(0) > 1), []
        while remaining.any():
            feature_set, rows = np.zeros_like(features), np.ones(len(self.sites), bool)
            order = [*frequent[remaining[frequent]], *frequent[(features & ~remaining)[frequent]]]
            for feature in order:
                rows_with_feature = rows & observed[:, feature]
                if rows_with_feature.sum() >= fewest or not feature_set.any():
                    feature_set[feature], rows = True, rows_with_feature
            sets.append((feature_set, rows))
            remaining &= ~feature_set
        return sets


def expand(
    values: np.ndarray, features: Sequence[Features], counts: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the columns ``(n, k)`` of features ``(n, f)``, float64, and the feature of each column ``(k,)``."""
    parts: list[np.ndarray] = [np.zeros((len(values), 0))]
    owner: list[int] = []
    for variable in features:
        x = values[:, variable.columns].astype(np.float64)
        if variable.kind == "angle":
            x = np.concatenate([np.cos(x), np.sin(x)], 1)
        elif variable.kind == "class":
            ranks = np.arange(counts[variable.start])
            x = np.where(np.isnan(x), np.nan, x == ranks)
        parts.append(x)
        owner += (
            range(variable.start, variable.start + variable.size)
            if variable.kind == "number"
            else ([variable.start] * x.shape[1])
        )
    return np.concatenate(parts, 1), np.array(owner, int)


def by_pattern(observed: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield each distinct row ``(f,)`` of a boolean table ``(n, f)`` that has any True, and the rows like it."""
    bits = np.packbits(observed, axis=1)
    _, first, pattern = np.unique(bits, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(pattern.ravel(), kind="stable")
    ends = np.cumsum(np.bincount(pattern.ravel(), minlength=len(first)))
    for row, rows in zip(first, np.split(order, ends[:-1])):
        if observed[row].any():
            yield observed[row], rows


def _moments(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of the observed values of each column; 0 and 0 without any."""
    finite = np.isfinite(columns)
    count = np.maximum(finite.sum(0), 1)
    mean = np.where(finite, columns, 0).sum(0) / count
    deviation = np.sqrt(np.square(np.where(finite, columns - mean, 0)).sum(0) / count)
    return mean, deviation
