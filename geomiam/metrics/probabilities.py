"""Metrics of the predicted number: correlation, errors of probabilities, calibration."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logit

from geomiam.metrics.labelled import by_name, metric, weighted_metric
from geomiam.metrics.tables import Array, Block, clipped, per_species, probabilities

STEPS = 100
CLOSE = 1e-9


class Calibration(NamedTuple):
    """The line ``logit P(present) = intercept + slope × logit(score)``, one per species ``(S,)``.

    Examples
    --------
    >>> gm.metrics.Calibration(intercept=np.zeros(1), slope=np.ones(1)).slope
    array([1.])
    """

    intercept: Array
    slope: Array


@metric
def cor(block: Block) -> Array:
    """Pearson correlation of the scores with 0/1, one per species (COR, Elith et al. 2006).

    Parameters
    ----------
    labels, scores
        As for :func:`geomiam.metrics.auc`.

    Returns
    -------
    (S,) array
        NaN for a species with one class, with one score everywhere or with an infinite score.

    Raises
    ------
    ValueError
        As for :func:`geomiam.metrics.auc`.

    Examples
    --------
    >>> labels, scores = np.array([[1], [1], [0], [0]]), np.array([[0.8], [0.6], [0.4], [0.2]])
    >>> gm.metrics.cor(labels, scores).round(3)
    array([0.894])
    """
    x = _spread(block, block.value.astype(np.float64))
    y = np.where(block.known, block.present - block.mean(block.present)[:, None], 0)
    size = np.sqrt((x**2).sum(1) * (y**2).sum(1))
    return np.divide((x * y).sum(1), size, out=np.full(len(x), np.nan), where=size > 0)


@weighted_metric
def brier(block: Block) -> Array:
    """Brier score, one per species: mean of (probability − label)²; lower is better.

    Parameters
    ----------
    labels : (n, S) array_like
        As for :func:`geomiam.metrics.auc`.
    scores : (n, S) array_like
        Probabilities in [0, 1]; NaN = no prediction.
    weights : (n,) array_like, optional
        As for :func:`geomiam.metrics.auc`.

    Returns
    -------
    (S,) array
        NaN for a species with one class, so that all metrics have the same species.

    Raises
    ------
    ValueError
        As for :func:`geomiam.metrics.auc`, or if a score lies outside [0, 1].

    Examples
    --------
    >>> labels, scores = np.array([[1], [0]]), np.array([[0.8], [0.4]])
    >>> gm.metrics.brier(labels, scores).round(3)
    array([0.1])
    """
    p = np.where(block.known, probabilities(block), 0).astype(np.float64)
    return block.mean((p - block.present) ** 2)


@weighted_metric
def log_loss(block: Block) -> Array:
    """Mean negative log-likelihood in nats, one per species; lower is better.

    Probabilities are first clipped to [ε, 1 − ε] with ε the rounding error of their type (1.2e-7 for
    float32, 2.2e-16 for float64), as scikit-learn does.

    Parameters
    ----------
    labels, scores, weights
        As for :func:`brier`.

    Returns
    -------
    (S,) array
        NaN for a species with one class.

    Raises
    ------
    ValueError
        As for :func:`brier`.

    Examples
    --------
    >>> labels, scores = np.array([[1], [0]]), np.array([[0.5], [0.5]])
    >>> gm.metrics.log_loss(labels, scores).round(3)  # log(2)
    array([0.693])
    """
    p = clipped(block)
    return -block.mean(np.log(np.where(block.present, p, 1 - p)))


def calibration(labels: ArrayLike, scores: ArrayLike) -> Calibration:
    """Logistic regression of the labels on logit(score), one per species (Cox 1958).

    Intercept 0 and slope 1 mean calibrated; a slope below 1 means overconfident. Both are fitted
    together by maximum likelihood. Probabilities of 0 and 1 are clipped as in :func:`log_loss`.

    Parameters
    ----------
    labels, scores
        As for :func:`brier`.

    Returns
    -------
    Calibration
        ``intercept`` and ``slope``, ``(S,)`` each; NaN for a species with one class, with one score
        everywhere, or whose classes a threshold separates, where no finite slope fits best.

    Raises
    ------
    ValueError
        As for :func:`brier`.

    See Also
    --------
    geomiam.plot.calibration : plot predicted against observed shares.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> chance = rng.random((5000, 1))
    >>> labels = rng.random((5000, 1)) < chance
    >>> line = gm.metrics.calibration(labels, chance)
    >>> bool(abs(line.slope[0] - 1) < 0.1 and abs(line.intercept[0]) < 0.1)
    True
    """
    return Calibration(_intercept(labels, scores), calibration_slope(labels, scores))


@by_name
def _intercept(labels: ArrayLike, scores: ArrayLike) -> Array:
    return per_species(_calibration_kernel, labels, scores, rows=2)[0]


@metric
def calibration_slope(block: Block) -> Array:
    """Slope of :func:`calibration`, one per species.

    Parameters
    ----------
    labels, scores
        As for :func:`brier`.

    Returns
    -------
    (S,) array
        NaN as for :func:`calibration`.

    Raises
    ------
    ValueError
        As for :func:`brier`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> chance = rng.random((5000, 1))
    >>> labels = rng.random((5000, 1)) < chance
    >>> too_certain = np.where(chance > 0.5, 0.95, 0.05)
    >>> bool(gm.metrics.calibration_slope(labels, too_certain)[0] < 1)
    True
    """
    return _calibration_kernel(block)[1]


def _spread(block: Block, x: Array) -> Array:
    """Centre each row and scale it to range 1; 0 where a site does not count or where a row has one value."""
    low, high = _ends(x, block.known)
    span = high - low
    usable = ((span > 0) & (span < np.inf))[:, None]
    x = np.where(block.known & usable, x - low[:, None], 0) / np.where(usable, span[:, None], 1)
    return np.where(block.known, x - block.mean(x)[:, None], 0)


def _ends(x: Array, of: NDArray[Any]) -> tuple[Array, Array]:
    """Least and greatest of some entries of each row."""
    return np.where(of, x, np.inf).min(1), np.where(of, x, -np.inf).max(1)


def _calibration_kernel(block: Block) -> Array:
    """Intercept and slope ``(2, s)``; logits are centred and scaled while they are fitted."""
    x = logit(clipped(block))
    low, high = _ends(x, block.known)
    (absent_low, absent_high), (present_low, present_high) = (
        _ends(x, side) for side in (block.absent, block.present)
    )
    # Where the classes do not overlap, the likelihood has no maximum and the slope no value.
    overlap = (absent_high > present_low) & (present_high > absent_low)
    line = np.full((2, len(x)), np.nan)
    if overlap.any():
        u = _spread(block, x)[overlap]
        lines = _newton(u, block.present[overlap], block.known[overlap])
        slope = lines[1] / (high - low)[overlap]
        line[:, overlap] = lines[0] - slope * block.mean(x)[overlap], slope
    return line


def _newton(u: Array, present: NDArray[Any], is_scored: NDArray[Any]) -> Array:
    """Fit ``logit P = a + b u`` by rows ``(2, s)``; NaN where the iteration does not converge.

    A Newton step that would change some logit by d is shortened to log(1 + d). The logistic likelihood
    is generalised self-concordant, so such steps always increase it, and near the maximum they are full steps
    (Sun and Tran-Dinh 2019, theorem 2).
    """
    share = present.sum(1) / is_scored.sum(1)
    line, result = np.stack([logit(share), np.zeros(len(u))]), np.full((2, len(u)), np.nan)
    remaining = np.arange(len(u))
    for _ in range(STEPS):
        step = _step(line, u, present, is_scored)
        size = np.maximum(np.abs(step).sum(0), 1e-300)
        line = line + step * np.log1p(size) / size
        is_converged = size < CLOSE
        result[:, remaining[is_converged]] = line[:, is_converged]
        if is_converged.all():
            break
        if is_converged.any():
            line, u, present, is_scored, remaining = (
                line[:, ~is_converged],
                *(t[~is_converged] for t in (u, present, is_scored, remaining)),
            )
    return result


def _step(line: Array, u: Array, present: NDArray[Any], is_scored: NDArray[Any]) -> Array:
    """Newton's step for intercept and slope ``(2, s)``."""
    with np.errstate(over="ignore"):  # exp overflows to a probability of 0, as it should
        p = 1 / (1 + np.exp(-(line[0][:, None] + line[1][:, None] * u)))
    error, weight = (present - p) * is_scored, p * (1 - p) * is_scored
    # Around the weighted mean of u the Hessian is diagonal: two divisions in place of a 2 × 2 system.
    gain, total = error.sum(1), weight.sum(1)
    centre = np.einsum("ij,ij->i", weight, u) / total
    off = u - centre[:, None]
    weight *= off  # from here on times the distance from the centre
    slope = np.einsum("ij,ij->i", error, off) / np.einsum("ij,ij->i", weight, off)
    return np.stack([gain / total - centre * slope, slope])
