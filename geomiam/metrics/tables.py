"""Labels and scores as tables, walked through in blocks of species so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geomiam.errors import LabelError, SettingError

Array = NDArray[np.float64]

# Entries at a time. Some twenty arrays of this many numbers are alive at once: 20 MB, which stays near
# the processor; larger blocks are slower.
BLOCK = 2**17


@dataclass(frozen=True)
class Curve:
    """Sites of each species from the highest score down, ``(s, n)``, and what lies above each.

    ``hits`` and ``false`` count presences and absences that score at least as high; within a run of
    equal scores they repeat the counts before the run, up to its last site, where ``last`` is true.
    Sites that are not known come last and count nothing.
    """

    score: NDArray[Any]
    hits: NDArray[Any]
    false: NDArray[Any]
    last: NDArray[np.bool_]


@dataclass(frozen=True)
class Block:
    """Some species, one per row ``(s, n)``: sorting then runs along contiguous memory."""

    present: NDArray[np.bool_]
    absent: NDArray[np.bool_]
    value: NDArray[Any]
    weights: Array | None = None
    """Weight of each site ``(n,)``; None: all count the same."""

    @classmethod
    def of(cls, labels: NDArray[Any], scores: NDArray[Any], weights: Array | None = None) -> Block:
        """Read a slice of the tables ``(n, s)``; NaN as label or score is neither present nor absent."""
        truth = np.array(labels.T, order="C")
        value = np.array(scores.T, dtype=np.result_type(scores.dtype, np.float32), order="C")
        present, absent, is_finite = truth == 1, truth == 0, ~np.isnan(value)
        _check_labels(truth[~(present | absent)])
        present &= is_finite
        absent &= is_finite
        value[~(present | absent)] = np.nan
        return cls(present, absent, value, weights)

    @cached_property
    def ones(self) -> NDArray[Any]:
        """Presences per species ``(s,)``, or the sum of their weights."""
        return self._weighted(self.present).sum(1)

    @cached_property
    def zeros(self) -> NDArray[Any]:
        """Absences per species ``(s,)``, or the sum of their weights."""
        return self._weighted(self.absent).sum(1)

    def _weighted(self, values: NDArray[Any]) -> NDArray[Any]:
        return values if self.weights is None else values * self.weights

    @cached_property
    def known(self) -> NDArray[np.bool_]:
        """Whether a site counts ``(s, n)``."""
        return self.present | self.absent

    def mean(self, values: NDArray[Any]) -> Array:
        """Mean over the sites that count ``(s,)``; ``values`` must be finite everywhere."""
        total = self._weighted(np.where(self.known, values, 0)).sum(1)
        return total / nonzero(self.ones + self.zeros)

    @cached_property
    def curve(self) -> Curve:
        """The one sort that all ranking metrics share."""
        order = np.argsort(-self.value, axis=1)
        score = np.take_along_axis(self.value, order, 1)
        last = np.ones(score.shape, bool)
        np.not_equal(score[:, 1:], score[:, :-1], out=last[:, :-1])
        counts = []
        for side in (self.present, self.absent):
            site_counts = np.take_along_axis(self._weighted(side), order, 1)
            above = np.cumsum(
                site_counts, axis=1, dtype=np.int32 if site_counts.dtype == bool else float
            )
            counts.append(above if last.all() else np.maximum.accumulate(above * last, axis=1))
        return Curve(score, counts[0], counts[1], last)


Kernel = Callable[[Block], Array]


def nonzero(total: NDArray[Any]) -> NDArray[Any]:
    """Return numbers to divide by: 1 in place of 0."""
    return np.where(total == 0, 1, total)


def per_species(
    kernel: Kernel,
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    rows: int = 1,
    weights: ArrayLike | None = None,
) -> Array:
    """Apply a kernel to all species, block by block: ``(rows, S)``; NaN for a species with one class."""
    labels, scores = as_tables(labels, scores)
    site_weights = None if weights is None else checked_weights(weights, len(labels))
    result = np.full((rows, labels.shape[1]), np.nan)
    for columns, block in _blocks(labels, scores, site_weights):
        has_both_classes = (block.ones > 0) & (block.zeros > 0)
        result[:, columns] = np.where(has_both_classes, kernel(block), np.nan)
    return result


def as_tables(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return both as arrays ``(n, S)``; scores are broadcast, not copied."""
    labels, scores = _numbers(labels), _numbers(scores)
    if labels.ndim != 2:
        raise LabelError(
            f"labels must be a table (sites, species), found shape {labels.shape}; "
            "for one species pass labels[:, None]"
        )
    try:
        return labels, np.broadcast_to(scores, labels.shape)
    except ValueError:
        raise SettingError(
            f"scores of shape {scores.shape} do not fit labels of shape {labels.shape}; "
            "both must be (sites, species)"
        ) from None


def probabilities(block: Block) -> NDArray[Any]:
    """Return the scores of a block, if they are probabilities; NaN where a site does not count."""
    wrong = block.value[(block.value < 0) | (block.value > 1)]
    if wrong.size:
        raise SettingError(
            f"scores must be probabilities from 0 to 1, found {wrong[0]}; turn logits into "
            "probabilities first: scipy.special.expit(scores)"
        )
    return block.value


def clipped(block: Block) -> Array:
    """Return probabilities a rounding error away from 0 and 1, as scikit-learn's log loss does."""
    p = probabilities(block)
    eps = np.finfo(p.dtype).eps
    return np.where(block.known, np.clip(p, eps, 1 - eps), 0.5).astype(np.float64)


def checked_weights(weights: ArrayLike, n: int) -> Array:
    """Return weights ``(n,)`` whose largest is 1, if they are finite and not negative."""
    values = np.asarray(weights, float)
    if values.shape != (n,) or not np.isfinite(values).all() or (values < 0).any():
        raise SettingError(
            f"weights must be one finite number per site ({n}) and not negative, found shape {values.shape} with "
            f"{values.min(initial=np.inf)} as the least; pass those of gm.splits.prediction_weights"
        )
    return values / nonzero(values.max(initial=0))


def _blocks(
    labels: NDArray[Any], scores: NDArray[Any], weights: Array | None
) -> Iterator[tuple[slice, Block]]:
    n, species = labels.shape
    step = max(1, BLOCK // max(1, n))
    for start in range(0, species if n else 0, step):
        columns = slice(start, start + step)
        yield columns, Block.of(labels[:, columns], scores[:, columns], weights)


def _numbers(table: ArrayLike) -> NDArray[Any]:
    table = np.asarray(table)
    return table.astype(np.float64) if table.dtype == object else table


def _check_labels(other_labels: NDArray[Any]) -> None:
    wrong = other_labels[~np.isnan(other_labels)]
    if wrong.size:
        raise LabelError(
            f"labels must be 0, 1 or NaN, found {float(wrong[0])}; turn counts into presence first: "
            "xr.where(counts.isnull(), counts, counts > 0)"
        )
