"""Folds from blocks, and rows from folds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from geomiam.checks.settings import check_count
from geomiam.splits.blocks import spatial_folds

Seed = int | np.random.Generator | None
Splits = Iterator[tuple[np.ndarray, np.ndarray]]


def check_folds(folds: int) -> None:
    """Refuse fewer than two folds."""
    check_count("folds", folds, minimum=2, hint="5 are usual")


def deal(labels: np.ndarray, blocks: np.ndarray, folds: int, rng: Seed) -> np.ndarray:
    """Return the fold of each row ``(n,)``; blocks stay whole."""
    return spatial_folds(labels, blocks, folds=folds, rng=np.random.default_rng(rng))


def each_fold(fold: np.ndarray) -> Splits:
    """Yield rows outside and inside each fold."""
    for number in range(fold.max() + 1):
        yield np.flatnonzero(fold != number), np.flatnonzero(fold == number)
