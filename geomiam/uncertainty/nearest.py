"""Distances to the nearest of a set of sites, in tiles of bounded memory: arrays only.

Shapes: n rows, m sites, k columns.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

TILE = 2**20
"""Distances that are in memory at a time."""
ROUNDING = 1e-9
"""Relative difference up to which a distance and a threshold count as equal."""


def nearest(rows: np.ndarray, sites: np.ndarray, *, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the distance to the nearest site ``(n,)``, and the number of sites nearer than a radius ``(n,)``."""
    distance, count = np.empty(len(rows)), np.empty(len(rows))
    limit = (radius * (1 - ROUNDING)) ** 2
    for part, squares in squared_distances(rows, sites):
        distance[part] = exact(rows[part], sites[squares.argmin(1).numpy()])
        count[part] = (squares < limit).sum(1).numpy()
    return distance, count


def training_distances(sites: np.ndarray, fold: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the mean distance between sites, and the distance from each to the nearest one ``(m,)``.

    The nearest site is one of another ``fold (m,)``; sites of no fold (-1) have NaN, unless no site has a
    fold: then it is any other site.
    """
    total, distance = 0.0, np.full(len(sites), np.nan)
    folds = torch.from_numpy(fold)
    any_fold = bool((fold >= 0).any())
    for part, squares in squared_distances(sites, sites):
        rows = torch.arange(len(sites))[part]
        itself = torch.arange(len(rows)), rows
        squares[itself] = 0.0
        total += float(squares.sqrt().sum())
        if any_fold:
            squares[folds[rows, None] == folds[None]] = torch.inf
        squares[itself] = torch.inf
        nearest_squares, position = squares.min(1)
        values = exact(sites[part], sites[position.numpy()])
        eligible = np.isfinite(nearest_squares.numpy()) & ((fold[part] >= 0) | (not any_fold))
        distance[part] = np.where(eligible, values, np.nan)
    return total / max(len(sites) * (len(sites) - 1), 1), distance


def squared_distances(rows: np.ndarray, sites: np.ndarray) -> Iterator[tuple[slice, Tensor]]:
    """Yield tiles of rows and their squared distances to all sites, float64 ``(tile, m)``."""
    # |x - y|² = |x|² + |y|² - 2xy is one matrix product. In float64 its error is far below the distance
    # between two values that differ in float32. torch keeps to the threads of the block.
    y = torch.from_numpy(np.ascontiguousarray(sites))
    norms = y.square().sum(1)
    step = max(1, TILE // max(len(sites), 1))
    for start in range(0, len(rows), step):
        part = slice(start, min(start + step, len(rows)))
        x = torch.from_numpy(np.ascontiguousarray(rows[part]))
        squares = torch.addmm(norms, x, y.T, alpha=-2)
        yield part, squares.add_(x.square().sum(1, keepdim=True)).clamp_(min=0)


def exact(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the distance between the rows of two arrays ``(n, k)``, without cancellation."""
    result: np.ndarray = np.sqrt(np.square(a - b).sum(1))
    return result
