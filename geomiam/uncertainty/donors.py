"""Donors: training sites that are similar to a cell in the features that the cell has, arrays only.

Shapes: n rows, m donors, t tokens, f features, k columns of the design, c chosen donors, G groups.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from geomiam.tokens.encode import TokenArrays
from geomiam.tokens.features import Features, features_of
from geomiam.tokens.layout import Layout
from geomiam.uncertainty.design import Design
from geomiam.uncertainty.nearest import TILE

STEP = 1e-6
"""Squared distances are compared in these steps, so that rounding breaks no tie between donors."""
FARTHEST = 1e3
"""Columns beyond so many deviations are at this limit, where all donors are equally far."""
LARGEST = 1e9
"""Larger squared distances count as this one."""


@dataclass(frozen=True, eq=False)
class Donors:
    """Sites from which the tokens of groups are drawn, in an order that their values do not determine."""

    design: Design
    tokens: TokenArrays
    """Tokens ``(m, t)``."""
    has_group: np.ndarray
    """Whether a donor has an observed token of each group ``(m, G)``."""
    count: int
    """Donors that are chosen for a row and group, at most."""

    @classmethod
    def of(
        cls,
        values: np.ndarray,
        tokens: TokenArrays,
        *,
        groups: np.ndarray,
        features: tuple[Features, ...],
        classes: Mapping[str, int],
        count: int,
    ) -> Donors:
        """Return sites with the features ``values (m, f)`` and the tokens of ``groups (G, t)``."""
        # The first of equally distant donors are chosen, and stored sites are sorted by value.
        order = np.random.default_rng(0).permutation(len(values))
        values, tokens = values[order], tokens.take(order)
        fold = np.zeros(len(values), np.int32)
        design = Design.of(features, values, fold, classes=classes, weights={})
        has_group = np.stack([(tokens.observed & g).any(1) for g in groups], 1)
        return cls(design, tokens, has_group, count)

    def __len__(self) -> int:
        return len(self.tokens)

    def __dask_tokenize__(self) -> str:
        arrays = (*self.tokens.values, self.tokens.observed, self.has_group)
        content = b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)
        return f"{self.design.key}-{self.count}-{hashlib.sha256(content).hexdigest()}"

    @cached_property
    def _table(self) -> torch.Tensor:
        """Factors of the donors in squared distances ``(m, 3k)``."""
        sites = self.design.sites
        finite = np.isfinite(sites)
        y = np.where(finite, sites, 0.0)
        count = np.maximum(finite.sum(0), 1)
        variance = np.square(y).sum(0) / count - np.square(y.sum(0) / count)
        # A feature that a donor lacks counts as the mean squared difference of two sites, twice the variance.
        squares = np.where(finite, y * y, 2 * np.maximum(variance, 0))
        return torch.from_numpy(np.concatenate([finite, y, squares], 1, dtype=np.float64))

    def squares(self, values: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield tiles of rows with features ``(n, f)`` and their squared distances to all donors ``(tile, m)``.

        Features that a row lacks are not compared.
        """
        x = self.design.columns(values)
        is_compared = np.isfinite(x)
        x = np.clip(np.where(is_compared, x, 0.0), -FARTHEST, FARTHEST)
        # |x - y|² = x² - 2xy + y² over the compared columns is one matrix product.
        rows = torch.from_numpy(np.concatenate([x * x, -2 * x, is_compared], 1, dtype=np.float64))
        step = max(1, TILE // max(len(self), 1))
        for start in range(0, len(values), step):
            part = slice(start, min(start + step, len(values)))
            yield part, (rows[part] @ self._table.T).numpy()

    def nearest(self, squares: np.ndarray, group: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the donors ``(n, c)`` of a group that are nearest to rows, and their weights, which add up to 1."""
        eligible = np.flatnonzero(self.has_group[:, group])
        count = min(self.count, len(eligible))
        steps = np.rint(np.clip(squares[:, eligible], 0, LARGEST) / STEP).astype(np.int64)
        # One number for distance and position: of equally distant donors the first are nearest.
        keys = steps * len(eligible) + np.arange(len(eligible))
        smallest = np.sort(np.partition(keys, count - 1, axis=1)[:, :count], axis=1)
        steps, position = np.divmod(smallest, len(eligible))
        return eligible[position], kernel(steps)


def kernel(squares: np.ndarray) -> np.ndarray:
    """Return weights ``(n, c)`` of donors by their squared distances, which add up to 1.

    The kernel of Epanechnikov (1969, doi:10.1137/1114019), 1 − d² by the squared bandwidth, which is a little beyond the
    farthest donor: so all of them have a weight, and equally distant ones the same.
    """
    bandwidth = squares.max(1, keepdims=True) * (1 + 1 / squares.shape[1])
    weights = 1 - squares / np.where(bandwidth > 0, bandwidth, 1)
    weights /= weights.sum(1, keepdims=True)
    return np.asarray(weights)


def undrawable(layout: Layout, groups: np.ndarray) -> list[str]:
    """Return the variables of ``groups (G, t)`` whose tokens do not follow from their features."""
    in_groups = np.any(groups, axis=0)
    sizes = {f.variable: f.size for f in features_of(layout)}
    return [
        s.variable.name
        for s in layout.spans
        if in_groups[s.start : s.start + s.size].any()
        and s.size * s.values != sizes.get(s.variable.name, s.size * s.values)
    ]


def tokens_of_features(values: np.ndarray, layout: Layout) -> TokenArrays:
    """Return the tokens of sites from their features ``(m, f)``; NaN where the features are means of several values."""
    columns = {f.variable: f for f in features_of(layout)}
    parts = []
    for part in layout.parts:
        size = sum(s.size for s in part.spans)
        tokens = np.full((len(values), size, part.width), np.nan, np.float32)
        for span in part.spans:
            entry = columns.get(span.variable.name)
            if entry is not None and entry.size == span.size * span.values:
                at = slice(span.start - part.start, span.start - part.start + span.size)
                tokens[:, at] = values[:, entry.columns].reshape(-1, span.size, span.values)
        parts.append(tokens)
    observed = np.concatenate([np.isfinite(p).any(-1) for p in parts], 1)
    return TokenArrays(tuple(parts), observed)
