"""Metrics by name, and several of them at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from geomiam.errors import SelectionError, SettingError
from geomiam.metrics import confusion, probabilities, ranking
from geomiam.metrics.boyce import boyce
from geomiam.metrics.labelled import Metric
from geomiam.metrics.tables import Array, per_species
from geomiam.metrics.within_folds import auc_within_folds, comparable_folds

OfOneSpecies = Callable[[Array, Array], float]
"""A user's metric: labels ``(n,)`` of 0 and 1 and probabilities ``(n,)`` → value."""
Metrics = str | OfOneSpecies | Sequence[str | OfOneSpecies]

METRICS: dict[str, Metric] = {
    "auc": ranking.auc,
    "auc_prg": ranking.auc_prg,
    "average_precision": ranking.average_precision,
    "tss": confusion.tss,
    "boyce": boyce,
    "cor": probabilities.cor,
    "brier": probabilities.brier,
    "log_loss": probabilities.log_loss,
    "calibration_slope": probabilities.calibration_slope,
    "sensitivity": confusion.sensitivity,
    "specificity": confusion.specificity,
    "omission": confusion.omission,
    "kappa": confusion.kappa,
    "f1": confusion.f1,
    "sorensen": confusion.sorensen,
    "jaccard": confusion.jaccard,
}
"""Metrics by name: functions of labels and scores that return one value per species. A new metric is a
function and a line here."""

ON_PROBABILITIES = ("boyce", "cor", "brier", "log_loss", "calibration_slope")
"""Metrics of the predicted number; the others compare sites and get logits, which do not saturate."""
LONG_NAMES = {
    "auc": "area under the ROC curve",
    "auc_prg": "area under the precision-recall-gain curve",
    "tss": "true skill statistic",
    "boyce": "continuous Boyce index",
    "cor": "correlation with presence",
    "brier": "Brier score",
    "omission": "omission rate",
    "kappa": "Cohen's kappa",
    "f1": "F1 score",
    "sorensen": "Sørensen index",
    "jaccard": "Jaccard index",
}


class Summary(NamedTuple):
    """A metric over species, and the number of species that have a value.

    Examples
    --------
    >>> gm.metrics.summary([0.5, 0.6, 1.0]).median
    0.6
    """

    mean: float
    median: float
    scored: int
    unscored: int


def long_name(metric: str) -> str:
    """Return the name of a metric in words."""
    return LONG_NAMES.get(metric, metric.replace("_", " "))


def as_metrics(metrics: Metrics) -> dict[str, OfOneSpecies | None]:
    """Return metrics by name: a user's function, or None for a metric of :data:`METRICS`."""
    metric_list = [metrics] if isinstance(metrics, str) or callable(metrics) else list(metrics)
    unknown = [m for m in metric_list if not callable(m) and m not in METRICS]
    if unknown:
        raise SelectionError(f"no metric {unknown}; choose from {', '.join(METRICS)}")
    names = (getattr(m, "__name__", type(m).__name__) if callable(m) else m for m in metric_list)
    return {n: m if callable(m) and n not in METRICS else None for n, m in zip(names, metric_list)}


def measure_one_by_one(metric: OfOneSpecies, labels: Array, scores: Array) -> Array:
    """Apply a user's metric to each species of ``(n, S)``; NaN for a species of one class ``(S,)``."""
    values = np.full(labels.shape[1], np.nan)
    for i, (y, z) in enumerate(zip(labels.T, scores.T)):
        is_scored = np.isfinite(y) & np.isfinite(z)
        if len(np.unique(y[is_scored])) > 1:
            values[i] = float(metric(y[is_scored], z[is_scored]))
    return values


def measure(
    labels: ArrayLike,
    scores: ArrayLike,
    metrics: Sequence[str] = ("auc",),
    *,
    weights: ArrayLike | None = None,
    fold: ArrayLike | None = None,
) -> dict[str, Array]:
    """Compute several metrics with a single sort of the scores.

    Parameters
    ----------
    labels, scores
        As for :func:`auc`; probabilities if one of ``brier``, ``log_loss`` and ``calibration_slope``
        is among the metrics.
    metrics : sequence of str
        Of ``METRICS``.
    weights : (n,) array_like, optional
        As for :func:`auc`, if all of the metrics take weights.
    fold : (n,) array_like, optional
        Fold of each site, whose predictions are of different models: ``auc`` is then
        :func:`auc_within_folds`. All pairs count if no fold has both presences and absences of any species.

    Returns
    -------
    dict of (S,) arrays
        By name, each as its function returns it.

    Raises
    ------
    ValueError
        When a metric is unknown or takes no weights, and as the metrics do.

    See Also
    --------
    geomiam.evaluate : predict and measure.
    geomiam.metrics.summary : mean over species.

    Examples
    --------
    >>> labels, scores = np.array([[1], [0], [1], [0]]), np.array([[0.9], [0.8], [0.7], [0.1]])
    >>> values = gm.metrics.measure(labels, scores, ["auc", "tss"])
    >>> values["auc"], values["tss"]
    (array([0.75]), array([0.5]))
    """
    if unknown := [m for m in metrics if m not in METRICS]:
        raise SettingError(f"no metric {unknown}; choose from {', '.join(METRICS)}")
    if weights is not None:
        check_weighted(metrics)
    within_folds = {"auc"} & set(metrics) if fold is not None else set()
    on_all = [m for m in metrics if m not in within_folds]
    # a metric of a user has no kernel
    kernels = {m: k for m in on_all if (k := getattr(METRICS[m], "kernel", None)) is not None}
    values = {m: METRICS[m](labels, scores) for m in on_all if m not in kernels}
    if kernels:
        table = per_species(
            lambda block: np.stack([kernel(block) for kernel in kernels.values()]),
            labels,
            scores,
            rows=len(kernels),
            weights=weights,
        )
        values |= dict(zip(kernels, table))
    if within_folds:
        comparable = comparable_folds(np.asarray(labels, float), fold)
        values["auc"] = auc_within_folds(labels, scores, comparable, weights=weights)
    return {m: values[m] for m in metrics}


def check_weighted(metrics: Sequence[str]) -> None:
    """Refuse metrics without the parameter ``weights``."""
    with_weights = [m for m, metric in METRICS.items() if getattr(metric, "takes_weights", False)]
    if without_weights := [m for m in metrics if m not in with_weights]:
        raise SettingError(
            f"no weights for {', '.join(map(str, without_weights))}: leave weights= out, or choose from {', '.join(with_weights)}"
        )


def summary(values: ArrayLike) -> Summary:
    """Summarise a metric over the species that have a value.

    Parameters
    ----------
    values : (S,) array_like
        Values of a metric.

    Returns
    -------
    Summary
        ``mean`` and ``median`` over the ``scored`` species, NaN if there are none; ``unscored`` species
        have NaN.

    See Also
    --------
    geomiam.metrics.measure : metrics by species.

    Examples
    --------
    >>> gm.metrics.summary([0.7, 0.9, np.nan])
    Summary(mean=0.8, median=0.8, scored=2, unscored=1)
    """
    values = np.asarray(values, float).ravel()
    finite = values[~np.isnan(values)]
    mean, median = (finite.mean(), np.median(finite)) if finite.size else (np.nan, np.nan)
    return Summary(float(mean), float(median), finite.size, values.size - finite.size)


def mean_auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the mean of :func:`auc` over the species that have a value; NaN if none has.

    Parameters
    ----------
    labels, scores
        As for :func:`auc`.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        As for :func:`auc`.

    Examples
    --------
    >>> labels = np.array([[1, 0], [1, 1], [0, 1], [0, 0]])
    >>> scores = np.array([[0.9, 0.2], [0.4, 0.7], [0.5, 0.6], [0.1, 0.3]])
    >>> gm.metrics.mean_auc(labels, scores)
    0.875
    """
    return summary(ranking.auc(labels, scores)).mean
