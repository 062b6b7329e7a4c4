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
