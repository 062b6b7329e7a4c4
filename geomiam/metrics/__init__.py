"""Skill over many species at once, on arrays: labels ``(n, S)`` of 1, 0, NaN and scores ``(n, S)``.

Every metric returns one number per species and leaves out, species by species, the sites whose label
or score is NaN; a species without presences or without absences gets NaN. Memory follows the size of a
block of species, not that of the tables.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from geomiam.errors import SettingError
from geomiam.metrics import calibration as numbers
from geomiam.metrics import ranking
from geomiam.metrics.boyce import boyce, boyce_kernel
from geomiam.metrics.calibration import (
    Calibration,
    brier,
    calibration,
    calibration_slope,
    cor,
    log_loss,
)
from geomiam.metrics.ranking import auc, auc_prg, average_precision, best_threshold, tss
from geomiam.metrics.tables import Array, Kernel, per_species

__all__ = [
    "METRICS",
    "Calibration",
    "Summary",
    "auc",
    "auc_prg",
    "average_precision",
    "best_threshold",
    "boyce",
    "brier",
    "calibration",
    "calibration_slope",
    "cor",
    "log_loss",
    "mean_auc",
    "measure",
    "summary",
    "tss",
]

METRICS: dict[str, Callable[[ArrayLike, ArrayLike], Array]] = {
    "auc": auc,
    "auc_prg": auc_prg,
    "average_precision": average_precision,
    "tss": tss,
    "boyce": boyce,
    "cor": cor,
    "brier": brier,
    "log_loss": log_loss,
    "calibration_slope": calibration_slope,
}
"""By name: functions of labels and scores that return one value per species. A new metric is a function
and a line here."""

_KERNELS: dict[str, Kernel] = {
    "auc": ranking.auc_kernel,
    "auc_prg": ranking.auc_prg_kernel,
    "average_precision": ranking.average_precision_kernel,
    "tss": ranking.tss_kernel,
    "boyce": boyce_kernel,
    "cor": numbers.cor_kernel,
    "brier": numbers.brier_kernel,
    "log_loss": numbers.log_loss_kernel,
    "calibration_slope": numbers.calibration_slope_kernel,
}


class Summary(NamedTuple):
    """A metric over species: how good, and of how many species it speaks."""

    mean: float
    median: float
    scored: int
    unscored: int


def measure(
    labels: ArrayLike, scores: ArrayLike, metrics: Sequence[str] = ("auc",)
) -> dict[str, Array]:
    """Compute several metrics at the price of one sort.

    Parameters
    ----------
    labels, scores
        As for :func:`auc`; probabilities if one of ``brier``, ``log_loss`` and ``calibration_slope``
        is wanted.
    metrics : sequence of str
        Of ``METRICS``.

    Returns
    -------
    dict of (S,) arrays
        By name, each as its own function returns it.

    Raises
    ------
    ValueError
        When a metric is unknown, and as the metrics do.
    """
    if unknown := [m for m in metrics if m not in METRICS]:
        raise SettingError(f"no metric {unknown}; choose from {', '.join(METRICS)}")
    kernels = {m: _KERNELS[m] for m in metrics if m in _KERNELS}
    values = {m: METRICS[m](labels, scores) for m in metrics if m not in kernels}
    if kernels:
        table = per_species(
            lambda block: np.stack([kernel(block) for kernel in kernels.values()]),
            labels,
            scores,
            rows=len(kernels),
        )
        values |= dict(zip(kernels, table))
    return {m: values[m] for m in metrics}


def summary(values: ArrayLike) -> Summary:
    """Summarise a metric over the species that have a value.

    Parameters
    ----------
    values : (S,) array_like
        What a metric returns.

    Returns
    -------
    Summary
        ``mean`` and ``median`` over the ``scored`` species, NaN if there are none; ``unscored`` species
        have NaN.
    """
    values = np.asarray(values, float).ravel()
    known = values[~np.isnan(values)]
    mean, median = (known.mean(), np.median(known)) if known.size else (np.nan, np.nan)
    return Summary(float(mean), float(median), known.size, values.size - known.size)


def mean_auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Mean of :func:`auc` over the species that have one; NaN if none has.

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
    """
    return summary(auc(labels, scores)).mean
