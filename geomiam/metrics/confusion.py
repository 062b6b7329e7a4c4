"""Metrics at a threshold: the site counts as present where ``score >= threshold``."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple, cast

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from geomiam.metrics.labelled import Metric, by_name
from geomiam.metrics.ranking import best_threshold
from geomiam.metrics.tables import Array, Block, per_species

Threshold = ArrayLike | xr.DataArray | None


class Counts(NamedTuple):
    """Sites of each species by label and class ``(s,)``."""

    hits: Array
    misses: Array
    false: Array
    correct_absences: Array


def at_threshold(ratio: Callable[[Counts], Array]) -> Metric:
    """Return a metric with the parameter ``threshold`` from a function of the counts."""

    def kernel(block: Block) -> Array:
        return ratio(_counts(block, best_threshold.kernel(block)))  # type: ignore[misc]  # @metric sets it

    def on_classes(block: Block) -> Array:
        return ratio(_counts(block, np.full(len(block.value), 0.5)))

    def of_best(labels: ArrayLike, scores: ArrayLike) -> Array:
        return per_species(kernel, labels, scores)[0]

    def of_classes(labels: ArrayLike, classes: ArrayLike) -> Array:
        return per_species(on_classes, labels, classes)[0]

    for function in (of_best, of_classes):
        for name in ("__module__", "__name__", "__qualname__", "__doc__"):
            setattr(function, name, getattr(ratio, name))
    best, fixed = by_name(of_best), by_name(of_classes)

    @wraps(of_best)
    def wrapped(labels: Any, scores: Any, *, threshold: Threshold = None) -> Any:
        if threshold is None:
            return best(labels, scores)
        return fixed(labels, classes(scores, threshold))

    del wrapped.__wrapped__  # its signature lacks the threshold
    result = cast(Metric, wrapped)
    result.kernel, result.takes_weights = kernel, False
    return result


def classes(scores: Any, threshold: Any) -> Any:
    """Return 1 where a score reaches the threshold, 0 elsewhere, NaN where either is NaN."""
    if isinstance(scores, xr.DataArray):
        is_defined = scores.notnull() & xr.DataArray(threshold).notnull()
        return (scores >= threshold).where(is_defined).transpose(*scores.dims, ...)
    scores, threshold = np.asarray(scores), np.asarray(threshold)
    is_defined = ~(np.isnan(scores) | np.isnan(threshold))
    return np.where(is_defined, scores >= threshold, np.nan)


def _counts(block: Block, threshold: Array) -> Counts:
    """Count the sites of each species by label and class."""
    is_positive = block.value >= threshold[:, None]
    hits, false = (
        (side & is_positive).sum(1).astype(float) for side in (block.present, block.absent)
    )
    return Counts(hits, block.ones - hits, false, block.zeros - false)


def _share(part: Array, total: Array) -> Array:
    """Divide counts; 0 of 0 is 0, as in scikit-learn."""
    return np.divide(part, total, out=np.zeros(len(part)), where=total > 0)


@at_threshold
def sensitivity(counts: Counts) -> Array:
    """Share of the presences with a score at or above the threshold, one per species; also called recall.

    Parameters
    ----------
    labels, scores
        As for :func:`geomiam.metrics.auc`.
    threshold : float, (S,) array_like or DataArray with the dim ``species``, optional
        Present where ``score >= threshold``, on the scale of the scores. Default: the threshold of the
        greatest true skill statistic on these very sites, :func:`geomiam.metrics.best_threshold`, as
        for :func:`geomiam.metrics.tss`. A threshold of other sites gives an unbiased value; see
        :func:`geomiam.evaluation.thresholds`.

    Returns
    -------
    (S,) array
        0 to 1. NaN for a species with one class, so that all metrics have the same species, or whose
        threshold is NaN.

    Raises
    ------
    ValueError
        As for :func:`geomiam.metrics.auc`.

    Examples
    --------
    >>> labels, scores = np.array([[1], [1], [0], [0]]), np.array([[0.9], [0.4], [0.6], [0.1]])
    >>> gm.metrics.sensitivity(labels, scores, threshold=0.5)
    array([0.5])
    """
    return _share(counts.hits, counts.hits + counts.misses)


@at_threshold
def specificity(counts: Counts) -> Array:
    """Share of the absences with a score below the threshold, one per species.

    Parameters
    ----------
    labels, scores, threshold
        As for :func:`sensitivity`.

    Returns
    -------
    (S,) array
        0 to 1; NaN as for :func:`sensitivity`.

    Raises
    ------
    ValueError
        As for :func:`geomiam.metrics.auc`.

    Examples
    --------
    >>> labels, scores = np.array([[1], [1], [0], [0]]), np.array([[0.9], [0.4], [0.6], [0.1]])
    >>> gm.metrics.specificity(labels, scores, threshold=0.7)
    array([1.])
    """
    return _share(counts.correct_absences, counts.false + counts.correct_absences)


@at_threshold
def omission(counts: Counts) -> Array:
    """Omission rate, one per species: the share of the presences with a score below the threshold.

    Parameters
    ----------
    labels, scores, threshold
        As for :func:`sensitivity`. With the threshold that leaves out 10 % of other presences, this is
        the 10 % omission rate of Muscarella et al. (2014): above 0.1, the model is overfitted.

    Returns
    -------
    (S,) array
        0 to 1; NaN as for :func:`sensitivity`.

    Raises
    ------
    ValueError
        As for :func:`geomiam.metrics.auc`.

    Examples
    --------
    >>> labels, scores = np.array([[1], [1], [0], [0]]), np.array([[0.9], [0.4], [0.6], [0.1]])
    >>> gm.metrics.omission(labels, scores, threshold=0.5)
    array([0.5])
    """
    return _share(counts.misses, counts.hits + counts.misses)


@at_threshold
def kappa(counts: Counts) -> Array:
    """Cohen's kappa, one per species: agreement of classes and labels beyond that of chance.

    It depends on the prevalence; the true skill statistic does not (Allouche et al. 2006).

    Parameters
    ----------
    labels, scores, threshold
        As for :func:`sensitivity`.

    Returns
    -------
    (S,) array
        −1 to 1; NaN as for :func:`sensitivity`.

    Raises
    ------
    ValueError
        As for :func:`geomiam.metrics.auc`.

    Examples
    --------
    >>> labels, scores = np.array([[1], [1], [0], [0]]), np.array([[0.9], [0.4], [0.3], [0.1]])
    >>> gm.metrics.kappa(labels, scores, threshold=0.5)
    array([0.5])
    """
    hits, misses, false, correct = counts
    product = hits * correct - misses * false
    return _share(
        2 * product, (hits + false) * (false + correct) + (hits + misses) * (misses + correct)
    )


@at_threshold
def f1(counts: Counts) -> Array:
    """F1 score, one per species: harmonic mean of precision and sensitivity.

    Parameters
    ----------
    labels, scores, threshold
        As for :func:`sensitivity`.

    Returns
    -------
    (S,) array
        0 to 1; NaN as for :func:`sensitivity`.

    Raises
    ------
    ValueError
        As for :func:`geomiam.metrics.auc`.

    Examples
    --------
    >>> labels, scores = np.array([[1], [1], [0], [0]]), np.array([[0.9], [0.4], [0.6], [0.1]])
    >>> gm.metrics.f1(labels, scores, threshold=0.5)
    array([0.5])
    """
    return _dice(counts)


@at_threshold
def sorensen(counts: Counts) -> Array:
    """Sørensen index, one per species: similarity of predicted and observed presences (Leroy et al. 2018).

    The same number as :func:`f1`, 2 TP / (2 TP + FP + FN). Correct absences do not count.

    Parameters
    ----------
    labels, scores, threshold
        As for :func:`sensitivity`.

    Returns
    -------
    (S,) array
        0 to 1; NaN as for :func:`sensitivity`.

    Raises
    ------
    ValueError
        As for :func:`geomiam.metrics.auc`.

    Examples
    --------
    >>> labels, scores = np.array([[1], [1], [0], [0]]), np.array([[0.9], [0.4], [0.3], [0.1]])
    >>> gm.metrics.sorensen(labels, scores, threshold=0.5).round(3)
    array([0.667])
    """
    return _dice(counts)


@at_threshold
def jaccard(counts: Counts) -> Array:
    """Jaccard index, one per species: predicted presences that are presences, among all of either.

    TP / (TP + FP + FN) (Leroy et al. 2018).

    Parameters
    ----------
    labels, scores, threshold
        As for :func:`sensitivity`.

    Returns
    -------
    (S,) array
        0 to 1; NaN as for :func:`sensitivity`.

    Raises
    ------
    ValueError
        As for :func:`geomiam.metrics.auc`.

    Examples
    --------
    >>> labels, scores = np.array([[1], [1], [0], [0]]), np.array([[0.9], [0.4], [0.3], [0.1]])
    >>> gm.metrics.jaccard(labels, scores, threshold=0.5)
    array([0.5])
    """
    return _share(counts.hits, counts.hits + counts.false + counts.misses)


@at_threshold
def tss(counts: Counts) -> Array:
    """True skill statistic, one per species: sensitivity + specificity − 1 (Allouche et al. 2006).

    Without a threshold it is the greatest on these very sites, which is never below 0, since the
    threshold may call every site present.

    Parameters
    ----------
    labels, scores, threshold
        As for :func:`sensitivity`.

    Returns
    -------
    (S,) array
        −1 to 1; NaN as for :func:`sensitivity`.

    Raises
    ------
    ValueError
        As for :func:`geomiam.metrics.auc`.

    Examples
    --------
    >>> labels, scores = np.array([[1], [0], [1], [0]]), np.array([[0.9], [0.8], [0.7], [0.1]])
    >>> gm.metrics.tss(labels, scores)
    array([0.5])
    >>> gm.metrics.tss(labels, scores, threshold=0.85)
    array([0.5])
    """
    hits, misses, false, correct = counts
    return _share(hits * correct - misses * false, (hits + misses) * (false + correct))


def _dice(counts: Counts) -> Array:
    return _share(2 * counts.hits, 2 * counts.hits + counts.false + counts.misses)
