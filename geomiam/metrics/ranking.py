"""Metrics of the order of sites, which any increasing transformation of the scores leaves unchanged.

``@metric`` turns a function of a block into a function of labels and scores.
"""

from __future__ import annotations

import numpy as np

from geomiam.metrics.labelled import metric, weighted_metric
from geomiam.metrics.tables import Array, Block, nonzero


@weighted_metric
def auc(block: Block) -> Array:
    """Area under the ROC curve, one per species.

    Equals the Mann-Whitney statistic: the probability that a presence scores above an absence,
    ties counting one half.

    Parameters
    ----------
    labels : (n, S) array_like
        1 = present, 0 = absent, NaN = not surveyed.
    scores : (n, S) array_like, or any shape that broadcasts to it
        Higher = more likely present; NaN = no prediction. Entries whose label or score is NaN
        are left out, species by species.
    weights : (n,) array_like, optional
        Weight of each site, not negative; default: all count the same. Those of
        :func:`geomiam.splits.prediction_weights` stand for a prediction area.

    Returns
    -------
    (S,) array
        NaN for a species that is left without presences or without absences.

    Raises
    ------
    ValueError
        When the shapes do not fit or a label is something else than 0, 1 or NaN.

    Examples
    --------
    >>> labels = np.array([[1, 0], [1, 1], [0, np.nan], [0, 0]])
    >>> scores = np.array([[0.9, 0.2], [0.4, 0.7], [0.5, 0.1], [0.1, 0.3]])
    >>> gm.metrics.auc(labels, scores)
    array([0.75, 1.  ])
    """
    # ∫ hits d false counts the pairs of a presence and an absence in the right order, ties half.
    # The first point lies on an axis: it is one site, or counts nothing yet.
    hits, false = block.curve.hits, block.curve.false.astype(np.float64)
    return np.trapezoid(hits, false, axis=1) / nonzero(block.ones * block.zeros)


@metric
def auc_prg(block: Block) -> Array:
    """Area under the precision-recall-gain curve, one per species (Flach and Kull 2015).

    With π the share of presences, precision gain is (p − π) / ((1 − π) p) and recall gain
    (r − π) / ((1 − π) r). The curve has one point per distinct score: sites with equal scores enter
    together. It is followed from recall gain 0 to 1. Between two points it is straight in counts of
    presences and absences, hence straight in gains too. Where it crosses recall gain 0, at
    π × presences, a point is put on that line; before the first presence the line starts at
    the number of absences so far, or at the origin, which holds precision gain level. Parts
    with precision gain below 0 count as negative area. This is the area of the authors' R package
    ``prg``. 0 is a random guess, 1 is perfect. A poor species can be far below 0, so compare medians.

    Parameters
    ----------
    labels, scores
        As for :func:`auc`.

    Returns
    -------
    (S,) array
        NaN for a species with one class.

    Raises
    ------
    ValueError
        As for :func:`auc`.

    Examples
    --------
    >>> labels, scores = np.array([[1], [1], [0], [0]]), np.array([[0.9], [0.8], [0.2], [0.1]])
    >>> gm.metrics.auc_prg(labels, scores)
    array([1.])
    """
    ones, odds = block.ones[:, None], (block.ones / np.maximum(block.zeros, 1))[:, None]
    start, false = _at_no_recall_gain(block)
    inside = block.curve.hits >= start
    # Left of the crossing every point is the crossing: no width, no area.
    hits = np.hstack([start, np.where(inside, block.curve.hits, start)])
    false = np.hstack([false, np.where(inside, block.curve.false, false)])
    # (r − π) / ((1 − π) r) with r = hits / ones and π / (1 − π) = odds; precision likewise.
    recall, precision = 1 - odds * (ones - hits) / hits, 1 - odds * false / hits
    return np.trapezoid(precision, recall, axis=1)


@weighted_metric
def average_precision(block: Block) -> Array:
    """Average precision, one per species: precision at each score, weighted by the recall it adds.

    The area under the precision-recall curve as steps; sites with equal scores enter together. A guess
    gets the share of presences.

    Parameters
    ----------
    labels, scores, weights
        As for :func:`auc`.

    Returns
    -------
    (S,) array
        NaN for a species with one class.

    Raises
    ------
    ValueError
        As for :func:`auc`.

    Examples
    --------
    >>> labels, scores = np.array([[1], [0], [1], [0]]), np.array([[0.9], [0.8], [0.7], [0.1]])
    >>> gm.metrics.average_precision(labels, scores).round(3)
    array([0.833])
    """
    hits, positives = block.curve.hits, block.curve.hits + block.curve.false
    added_hits = np.diff(hits, axis=1, prepend=0)
    return (added_hits * (hits / nonzero(positives))).sum(1) / nonzero(block.ones)


@metric
def best_threshold(block: Block) -> Array:
    """Threshold of the greatest true skill statistic, one per species.

    Present where ``score >= threshold``. It is one of the scores; if several are as good, the highest.

    Parameters
    ----------
    labels, scores
        As for :func:`auc`.

    Returns
    -------
    (S,) array
        NaN for a species with one class.

    Raises
    ------
    ValueError
        As for :func:`auc`.

    Examples
    --------
    >>> labels, scores = np.array([[1], [1], [0], [0]]), np.array([[0.9], [0.7], [0.4], [0.1]])
    >>> gm.metrics.best_threshold(labels, scores)
    array([0.7])
    """
    tss_counts = (
        block.curve.hits * block.zeros[:, None] - block.curve.false * block.ones[:, None]
    )  # whole numbers: equal is equal
    tss_counts[~block.curve.last] = -1
    place = tss_counts.argmax(1)[:, None]
    return np.take_along_axis(block.curve.score, place, 1)[:, 0]


def _at_no_recall_gain(block: Block) -> tuple[Array, Array]:
    """Presences and absences found where the curve crosses recall gain 0, ``(s, 1)`` each."""
    ones, zeros = block.ones[:, None], block.zeros[:, None]
    start = np.maximum(ones, 1) ** 2 / np.maximum(ones + zeros, 1)
    after = (block.curve.hits >= start).argmax(1)[:, None]
    hits, false = (
        [np.where(i < 0, 0, np.take_along_axis(x, np.maximum(i, 0), 1)) for i in (after - 1, after)]
        for x in (block.curve.hits, block.curve.false)
    )
    share = (start - hits[0]) / np.maximum(hits[1] - hits[0], 1)
    return start, false[0] + share * (false[1] - false[0])
