"""Skill over many species at once, on arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

__all__ = ["auc", "mean_auc"]

Array = NDArray[np.float64]

# Entries ranked at a time: about 200 MB of working memory, whatever the size of the table.
_BLOCK = 2**21


def auc(labels: ArrayLike, scores: ArrayLike) -> Array:
    """Area under the ROC curve, one per species.

    Equals the Mann-Whitney statistic: the chance that a presence scores above an absence,
    ties counting one half.

    Parameters
    ----------
    labels : (n, S) array_like
        1 = present, 0 = absent, NaN = not surveyed.
    scores : (n, S) array_like, or any shape that broadcasts to it
        Higher = more likely present; NaN = no prediction. Entries whose label or score is NaN
        are left out, species by species.

    Returns
    -------
    (S,) array
        NaN for a species that is left without presences or without absences.

    Raises
    ------
    ValueError
        When the shapes do not fit or a label is something else than 0, 1 or NaN.
    """
    labels, scores = _as_tables(labels, scores)
    n, species = labels.shape
    step = max(1, _BLOCK // max(1, n))
    result = np.full(species, np.nan)
    for start in range(0, species, step):
        block = slice(start, start + step)
        result[block] = _auc_block(labels[:, block], scores[:, block])
    return result


def mean_auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Mean of :func:`auc` over the species that have one; NaN if none has.

    Parameters
    ----------
    labels, scores
        As for :func:`auc`.

    Raises
    ------
    ValueError
        As for :func:`auc`.
    """
    values = auc(labels, scores)
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float("nan")


def _auc_block(labels: NDArray, scores: NDArray) -> Array:
    # Species by rows: sorting runs along contiguous memory.
    truth = np.array(labels.T, dtype=np.float64, order="C")
    value = np.array(scores.T, dtype=np.float64, order="C")
    _check_labels(truth)
    unknown = np.isnan(truth) | np.isnan(value)
    value[unknown] = np.nan
    present, absent = (truth == 1) & ~unknown, (truth == 0) & ~unknown
    ranks = rankdata(value, axis=1, nan_policy="omit")
    above = np.where(present, ranks, 0).sum(axis=1)
    return _mann_whitney(above, ones=present.sum(axis=1), zeros=absent.sum(axis=1))


def _mann_whitney(rank_sum: Array, *, ones: NDArray, zeros: NDArray) -> Array:
    pairs = ones.astype(np.float64) * zeros
    wins = rank_sum - ones * (ones + 1) / 2
    return np.divide(wins, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


def _as_tables(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray, NDArray]:
    labels, scores = np.asarray(labels), np.asarray(scores)
    if labels.ndim != 2:
        raise ValueError(
            f"labels must be a table (sites, species), found shape {labels.shape}; "
            "for one species pass labels[:, None]"
        )
    try:
        return labels, np.broadcast_to(scores, labels.shape)
    except ValueError:
        raise ValueError(
            f"scores of shape {scores.shape} do not fit labels of shape {labels.shape}; "
            "both must be (sites, species)"
        ) from None


def _check_labels(truth: Array) -> None:
    wrong = truth[~(np.isnan(truth) | (truth == 0) | (truth == 1))]
    if wrong.size:
        raise ValueError(
            f"labels must be 0, 1 or NaN, found {wrong[0]}; turn counts into presence first: "
            "xr.where(counts.isnull(), counts, counts > 0)"
        )


def cor(labels: ArrayLike, scores: ArrayLike) -> Array:
    """Pearson correlation of the scores with 0/1, one per species (COR, Elith et al. 2006).

    Parameters
    ----------
    labels, scores
        As for :func:`auc`.

    Returns
    -------
    (S,) array
        NaN for a species with one class, or with one score everywhere.
    """
    labels, scores = _as_tables(labels, scores)
    truth, value = np.array(labels, np.float64), np.array(scores, np.float64)
    _check_labels(truth)
    unknown = np.isnan(truth) | np.isnan(value)
    n = (~unknown).sum(0)
    y, z = _centred(truth, unknown, n), _centred(value, unknown, n)
    size = np.sqrt((y**2).sum(0) * (z**2).sum(0))
    return np.divide((y * z).sum(0), size, out=np.full(len(n), np.nan), where=size > 1e-12)


def auc_prg(labels: ArrayLike, scores: ArrayLike) -> Array:
    """Area under the precision-recall-gain curve, one per species (Flach and Kull 2015).

    With π = share of presences, precision gain is (p − π)/((1 − π) p) and recall gain
    (r − π)/((1 − π) r); the curve runs over recall gain from 0 to 1, straight between the distinct
    scores (points with recall gain below 0 are cut at their crossing). 0 is a guess; one bad species
    can be far below it, so compare medians.

    Parameters
    ----------
    labels, scores
        As for :func:`auc`.

    Returns
    -------
    (S,) array
        NaN for a species with one class.
    """
    labels, scores = _as_tables(labels, scores)
    values = [_area_prg(labels[:, s], scores[:, s]) for s in range(labels.shape[1])]
    return np.array(values, dtype=np.float64)


def _centred(x: Array, unknown: NDArray, n: NDArray) -> Array:
    x = np.where(unknown, 0, x)
    return np.where(unknown, 0, x - x.sum(0) / np.maximum(n, 1))


def _area_prg(labels: NDArray, scores: NDArray) -> float:
    known = ~(np.isnan(labels) | np.isnan(scores))
    y, z = labels[known].astype(np.float64), scores[known]
    _check_labels(y)
    ones, zeros = y.sum(), len(y) - y.sum()
    if ones == 0 or zeros == 0:
        return float("nan")
    order = np.argsort(-z, kind="stable")
    last = np.append(np.diff(z[order]) != 0, True)  # ties are one step
    hits, false = np.cumsum(y[order])[last], np.cumsum(1 - y[order])[last]
    found = hits > 0
    odds, hits, false = ones / zeros, hits[found], false[found]
    precision, recall = 1 - odds * false / hits, 1 - odds * (ones - hits) / hits
    return _area_from_zero(recall, precision)


def _area_from_zero(x: Array, y: Array) -> float:
    """Area under a curve over [0, 1], with the point where it crosses x = 0 put in."""
    right = x >= 0
    if not right[0]:
        i = int(np.argmax(right))
        share = -x[i - 1] / (x[i] - x[i - 1])
        x, y = np.append(0, x[right]), np.append(y[i - 1] + share * (y[i] - y[i - 1]), y[right])
    else:
        x, y = np.append(0, x[right]), np.append(y[right][0], y[right])
    return float(np.trapezoid(y, x))


METRICS = {"auc": auc, "auc_prg": auc_prg, "cor": cor}
"""By name: functions of labels and scores, one value per species."""
