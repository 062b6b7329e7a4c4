"""The calibration curve: observed frequency of presence in bins of the predicted probability."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from geomiam.checks.settings import check_count
from geomiam.errors import SettingError
from geomiam.metrics.labelled import matched
from geomiam.metrics.tables import Array, Block, as_tables, probabilities

Strategy = Literal["uniform", "quantile"]


class CalibrationCurve(NamedTuple):
    """Bins of the predicted probability, ``(bins, S)`` each; NaN and 0 where a bin is empty.

    Examples
    --------
    >>> curve = gm.metrics.calibration_curve([0, 1, 1], [0.2, 0.7, 0.9], bins=2)
    >>> curve.sites.tolist()
    [1, 2]
    """

    predicted: Array
    """Mean of the predicted probabilities."""
    observed: Array
    """Share of presences."""
    sites: NDArray[np.int64]
    """Number of sites."""


def calibration_curve(
    labels: ArrayLike | xr.DataArray,
    scores: ArrayLike | xr.DataArray,
    *,
    bins: int = 10,
    strategy: Strategy = "uniform",
) -> CalibrationCurve:
    """Observed frequency of presence against predicted probability, in bins, for each species.

    A calibrated model has ``observed`` equal to ``predicted``. With background sites in the place of
    absences the observed frequency is that among records and background, not the prevalence.

    Parameters
    ----------
    labels : (n, S) or (n,) array_like, or DataArray
        1 = present, 0 = absent, NaN = not surveyed.
    scores : as the labels
        Probabilities in [0, 1]; NaN = no prediction. DataArrays are matched by species and site.
    bins : int
        Number of bins. A probability on a border belongs to the bin below it, as in scikit-learn.
    strategy : {"uniform", "quantile"}
        Bins of equal width, or of an equal number of sites of each species.

    Returns
    -------
    CalibrationCurve
        ``predicted``, ``observed`` and ``sites``: ``(bins, S)``, or ``(bins,)`` for one species ``(n,)``.

    Raises
    ------
    ValueError
        When the shapes do not fit, a label is something else than 0, 1 or NaN, a score is no probability,
        or the bins are none.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> chance = rng.random(5000)
    >>> curve = gm.metrics.calibration_curve(rng.random(5000) < chance, chance, bins=4)
    >>> bool(np.abs(curve.observed - curve.predicted).max() < 0.05), int(curve.sites.sum())
    (True, 5000)
    """
    check_count("bins", bins, minimum=1, hint="10 are usual")
    if strategy not in get_args(Strategy):
        raise SettingError(f"strategy={strategy!r}; use one of {', '.join(get_args(Strategy))}")
    if isinstance(labels, xr.DataArray) and isinstance(scores, xr.DataArray):
        dims = [d for d in ("site", "species") if d in labels.dims]
        labels, scores = (
            a.transpose(*dims).values for a in matched(labels.compute(), scores.compute())
        )
    is_one_species = np.ndim(labels) == 1
    if is_one_species:
        labels, scores = np.asarray(labels)[:, None], np.asarray(scores)[:, None]
    block = Block.of(*as_tables(labels, scores))
    p = probabilities(block).astype(float)
    curves = [_curve(y[k], z[k], bins, strategy) for y, z, k in zip(block.present, p, block.known)]
    table = np.array(curves).reshape(len(curves), 3, bins)
    mean, observed, count = (table[:, i].T for i in range(3))
    if is_one_species:
        mean, observed, count = mean[:, 0], observed[:, 0], count[:, 0]
    return CalibrationCurve(mean, observed, count.astype(np.int64))


def _curve(present: NDArray[Any], p: Array, bins: int, strategy: Strategy) -> Array:
    """Return mean probability, share of presences and count of each bin of one species ``(3, bins)``."""
    borders = np.linspace(0, 1, bins + 1)
    if strategy == "quantile" and len(p):
        borders = np.quantile(p, borders)
    place = np.searchsorted(borders[1:-1], p)
    count, total, ones = (np.bincount(place, w, bins) for w in (None, p, present))
    empty = np.full((2, bins), np.nan)
    means = np.divide(np.stack([total, ones]), count, out=empty, where=count > 0)
    return np.vstack([means, count])
