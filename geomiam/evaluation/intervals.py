"""Confidence intervals of metrics by a bootstrap over spatial blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from geomiam.checks.settings import check_count, check_number
from geomiam.errors import SettingError
from geomiam.evaluation.out_of_fold import out_of_fold
from geomiam.geo.lengths import Length
from geomiam.metrics.registry import (
    Metrics,
    as_metrics,
    check_weighted,
    long_name,
    measure,
    measure_one_by_one,
)
from geomiam.metrics.within_folds import auc_within_folds, comparable_folds
from geomiam.splits import site_blocks


def confidence(
    table: xr.Dataset,
    *,
    metrics: Metrics = ("auc",),
    weights: ArrayLike | None = None,
    level: float = 0.95,
    samples: int = 1000,
    block: Length | None = None,
    rng: int | np.random.Generator | None = 0,
) -> xr.Dataset:
    """Confidence intervals of metrics, from resampled spatial blocks of out-of-fold predictions.

    Neighbouring sites are alike, so resampling single sites makes intervals too narrow. Whole blocks are
    drawn with replacement instead (Lahiri 2003), and the metric is computed on the sites of the drawn
    blocks; the interval has the quantiles of these values. It holds the uncertainty from the
    sites that test the model, not that of the training.

    Parameters
    ----------
    table : xarray.Dataset
        From :func:`geomiam.cross_validate`.
    metrics : str, callable or sequence of these
        As for :func:`geomiam.evaluate`; all are computed on probabilities.
    weights : (n,) array_like, optional
        Weight of each site of the table, such as those of :func:`geomiam.splits.prediction_weights` for the
        skill in a prediction area. For ``"auc"``, ``"average_precision"``, ``"brier"`` and ``"log_loss"``.
    level : float
        Share of the values in the interval, in (0, 1).
    samples : int
        Number of bootstrap samples.
    block : float or str, optional
        Side of a block: km, or text such as ``"100 km"``. Default: that of the folds, if they are spatial
        blocks; otherwise as :func:`geomiam.splits.site_blocks`.
    rng : int, numpy.random.Generator or None
        Draws the blocks.

    Returns
    -------
    xarray.Dataset
        Per metric, such as ``auc``: ``auc(subset, species)`` of all sites, ``auc_lower`` and
        ``auc_upper``, and ``mean_auc(subset)`` with ``mean_auc_lower`` and ``mean_auc_upper``. The AUC is that
        within folds, as in the table.
        Samples in which no fold has both classes of a species are left out for that species. The attributes
        ``level``, ``samples``, ``block_km`` and ``block_count`` state the bootstrap.

    Raises
    ------
    LabelError
        If the table has no out-of-fold predictions.
    GridError, BlockError
        If the sites have no coordinates, or lie at one place.
    SelectionError
        If a metric is unknown.
    SettingError
        If a metric takes no weights, or the weights are not one per site and not negative.

    See Also
    --------
    geomiam.evaluate : the scores themselves.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> presence = (rng.random((300, 1)) < 0.4).astype(float)
    >>> table = xr.Dataset(
    ...     {
    ...         "presence": (("site", "species"), presence),
    ...         "suitability": (
    ...             ("subset", "site", "species"),
    ...             (presence * 0.2 + rng.random((300, 1)) * 0.8)[None],
    ...         ),
    ...         "fold": ("site", np.arange(300) % 3),
    ...     },
    ...     coords={
    ...         "subset": ["all"],
    ...         "species": ["oak"],
    ...         "lon": ("site", rng.uniform(0, 9, 300)),
    ...         "lat": ("site", rng.uniform(40, 49, 300)),
    ...     },
    ... )
    >>> skill = gm.evaluation.confidence(table, metrics=["auc"], samples=100, block="100 km")
    >>> bool(skill["auc_lower"] < skill["auc"]), bool(skill["auc"] < skill["auc_upper"])
    (True, True)
    """
    check_number(
        "level",
        level,
        requirement="must be in (0, 1)",
        accepts=lambda x: 0 < x < 1,
        hint="0.95 is usual",
    )
    check_count("samples", samples, minimum=1, hint="1000 are usual")
    functions = as_metrics(metrics)
    labels, scores, fold = out_of_fold(table, None)
    fold = comparable_folds(labels, fold)  # once, so that all samples compare the same pairs
    is_tested = table["fold"].values >= 0
    site_weights = _site_weights(weights, functions, is_tested)
    size = table.attrs.get("block_km") if block is None else block
    blocks = site_blocks(table.isel(site=is_tested)[["presence"]], size)
    draws = _draws(blocks.number, samples, np.random.default_rng(rng))
    rows_of_samples: list[np.ndarray | slice] = [slice(None), *draws]
    values = np.stack(
        [_values(labels, scores, rows, functions, site_weights, fold) for rows in rows_of_samples]
    )
    names = {"subset": table["subset"].values, "species": table["species"].values}
    result = xr.Dataset(coords=names)
    for k, name in enumerate(functions):
        result = result.assign(_intervals(name, values[:, k], level))
    number_of_blocks = {"block_km": blocks.km, "block_count": blocks.count}
    return result.assign_attrs(level=level, samples=samples, **number_of_blocks)


def _site_weights(
    weights: ArrayLike | None, functions: dict[str, Any], is_tested: np.ndarray
) -> np.ndarray | None:
    """Return the weights of the tested sites, checked."""
    if weights is None:
        return None
    check_weighted(list(functions))
    site_weights = np.asarray(weights, float)
    if site_weights.shape != is_tested.shape:
        raise SettingError(
            f"weights= has shape {site_weights.shape}, expected one per site of the table {is_tested.shape}"
        )
    return site_weights[is_tested]


def _intervals(name: str, values: np.ndarray, level: float) -> dict[str, xr.Variable]:
    """Return a metric with its bounds, and the same of its mean over species.

    ``values (1 + samples, subset, species)`` starts with those of all sites.
    """
    ends = [(1 - level) / 2, (1 + level) / 2]
    columns: dict[str, xr.Variable] = {}
    for dims, prefix, per_sample in (
        (("subset", "species"), "", values),
        (("subset",), "mean_", _mean(values)),
    ):
        lower, upper = _quantiles(per_sample[1:], ends)
        text = ("mean over species of " if prefix else "") + long_name(name)
        for suffix, column in (("", per_sample[0]), ("_lower", lower), ("_upper", upper)):
            bound = f"{suffix[1:]} bound of " if suffix else ""
            attrs = {"long_name": bound + text}
            columns[f"{prefix}{name}{suffix}"] = xr.Variable(dims, column, attrs)
    return columns


def _draws(number: np.ndarray, samples: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Return the rows of blocks that are drawn with replacement, for each sample."""
    order = np.argsort(number, kind="stable")
    rows = np.split(order, np.flatnonzero(np.diff(number[order])) + 1)
    return [
        np.concatenate([rows[i] for i in rng.integers(0, len(rows), len(rows))])
        for _ in range(samples)
    ]


def _values(
    labels: np.ndarray,
    scores: np.ndarray,
    rows: np.ndarray | slice,
    functions: dict[str, Any],
    weights: np.ndarray | None,
    fold: np.ndarray,
) -> np.ndarray:
    """Return each metric of some rows ``(metrics, subsets, S)``."""
    y, w = labels[rows], None if weights is None else weights[rows]
    names = [name for name, function in functions.items() if function is None and name != "auc"]
    values = np.empty((len(functions), len(scores), labels.shape[1]))
    for i, of_subset in enumerate(scores):
        z = of_subset[rows]
        by_name = measure(y, z, names, weights=w)
        if "auc" in functions:
            by_name["auc"] = auc_within_folds(y, z, fold[rows], weights=w)
        for k, (name, function) in enumerate(functions.items()):
            values[k, i] = measure_one_by_one(function, y, z) if function else by_name[name]
    return values


def _mean(values: np.ndarray) -> np.ndarray:
    """Return the mean over the species that have a value."""
    is_scored = ~np.isnan(values)
    total = np.where(is_scored, values, 0).sum(-1)
    return np.where(is_scored.any(-1), total / np.maximum(is_scored.sum(-1), 1), np.nan)


def _quantiles(values: np.ndarray, ends: Sequence[float]) -> np.ndarray:
    """Return quantiles over samples, NaN left out; NaN where no sample has a value."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanquantile(values, ends, axis=0)
