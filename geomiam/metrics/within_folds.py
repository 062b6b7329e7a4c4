"""The AUC of out-of-fold predictions, from pairs of sites that the same model predicted."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from geomiam.errors import LabelError
from geomiam.metrics.ranking import auc
from geomiam.metrics.tables import Array, as_tables, checked_weights, nonzero


def auc_within_folds(
    labels: ArrayLike, scores: ArrayLike, fold: ArrayLike, *, weights: ArrayLike | None = None
) -> Array:
    """Area under the ROC curve within folds, one per species.

    Each fold is predicted by a different model, and a fold with many presences by one whose training
    sites had fewer: its predictions are lower. Pairs of sites of different folds therefore rank the
    wrong way, and the AUC of all predictions together is too low, .4 instead of .5 for a model without
    any skill. Only pairs within a fold compare sites by one model. The AUC of fold h has the
    weight n1 n0 / (n1 + n0 + 1), with n1 presences and n0 absences.

    Parameters
    ----------
    labels : (n, S) array_like
        1 = present, 0 = absent, NaN = not surveyed.
    scores : (n, S) array_like
        Higher = more likely present; NaN = no prediction.
    fold : (n,) array_like
        Number of the fold that tests each site; negative = none.
    weights : (n,) array_like, optional
        Weights of the sites, as for :func:`geomiam.metrics.auc`; n1 and n0 are then their sums, scaled to a
        mean of 1.

    Returns
    -------
    (S,) array
        NaN for a species that has presences and absences together in no fold.

    Raises
    ------
    LabelError
        If ``fold`` has not one number per site.
    ValueError
        As for :func:`geomiam.metrics.auc`.

    See Also
    --------
    geomiam.metrics.auc : all pairs of sites.
    geomiam.cross_validate : uses this for its folds.

    References
    ----------
    van Elteren (1960), Bulletin of the International Statistical Institute 37, 351-361, for the
    weights; Airola et al. (2011), doi:10.1016/j.csda.2010.11.018, for the bias of pooled predictions.

    Examples
    --------
    >>> labels = np.array([[1], [0], [1], [0]])
    >>> scores = np.array([[0.2], [0.1], [0.9], [0.8]])  # each presence is first in its fold
    >>> gm.metrics.auc_within_folds(labels, scores, [0, 0, 1, 1]), gm.metrics.auc(labels, scores)
    (array([1.]), array([0.75]))
    """
    labels, scores = as_tables(labels, scores)
    fold = _checked_fold(fold, len(labels))
    site_weights = (
        np.ones(len(labels)) if weights is None else checked_weights(weights, len(labels))
    )
    site_weights = site_weights / (site_weights.mean() or 1.0)
    total, sum_of_weights = np.zeros(labels.shape[1]), np.zeros(labels.shape[1])
    for number in np.unique(fold[fold >= 0]):
        y, z = labels[fold == number], scores[fold == number]
        w = site_weights[fold == number]
        of_fold, weight = auc(y, z, weights=w), fold_weight(y, z, w)
        total += weight * np.where(weight > 0, of_fold, 0.0)
        sum_of_weights += weight
    return np.where(sum_of_weights > 0, total / nonzero(sum_of_weights), np.nan)


def comparable_folds(labels: Array, fold: ArrayLike | None) -> Array:
    """Return the folds ``(n,)``, or one fold of all tested sites if no fold can be scored.

    With folds of single sites, such as those of buffered leave-one-out, only pairs of different folds
    are left. None is one fold.
    """
    if fold is None:
        return np.zeros(len(labels), int)
    fold = _checked_fold(fold, len(labels))
    can_be_scored = any(
        fold_weight(labels[fold == number], labels[fold == number]).any()
        for number in np.unique(fold[fold >= 0])
    )
    return fold if can_be_scored else np.where(fold >= 0, 0, -1)


def _checked_fold(fold: ArrayLike, n: int) -> Array:
    numbers = np.asarray(fold)
    if numbers.shape != (n,) or numbers.dtype.kind not in "biuf":
        raise LabelError(
            f"fold= needs one number for each of {n} sites, found shape {numbers.shape} of {numbers.dtype}"
        )
    return numbers


def fold_weight(labels: Array, scores: Array, weights: Array | None = None) -> Array:
    """Return the weight of one fold ``(S,)``; 0 where it has presences or absences alone."""
    site_weights = np.ones(len(labels)) if weights is None else weights
    is_scored = np.isfinite(labels) & np.isfinite(scores)
    ones, zeros = (site_weights @ (is_scored & (labels == value)) for value in (1, 0))
    return ones * zeros / (ones + zeros + 1)
