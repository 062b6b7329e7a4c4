"""Null models: the skill that random presences reach (Raes and ter Steege 2007)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from geomiam import splits as splitters
from geomiam.checks.settings import check_count
from geomiam.data.sites.table import read_labels
from geomiam.errors import SelectionError
from geomiam.evaluation.cross_validate import cross_validate, folds_of
from geomiam.metrics.registry import METRICS
from geomiam.networks.config import NetworkConfig
from geomiam.progress import progress_bar, with_progress
from geomiam.schema.schema import Schema
from geomiam.training.config import TrainingConfig

NOT_HIGHER = ("brier", "log_loss", "omission", "calibration_slope")
"""Metrics that are not higher for better models."""


@with_progress
def null_model(
    sites: xr.Dataset,
    schema: Schema | str | Path | None = None,
    *,
    repeats: int = 19,
    metric: str = "auc",
    splits: Any = None,
    network: NetworkConfig | Mapping[str, Any] | None = None,
    training: TrainingConfig | Mapping[str, Any] | None = None,
    fit_options: Mapping[str, Any] | None = None,
    rng: int = 0,
    progress: bool | None = None,
) -> xr.Dataset:
    """Compare the cross-validated skill with that of models of random presences.

    In each repeat, every species gets its number of presences at random among the sites where it is
    surveyed, presences and absences or background, and is cross-validated on the same folds with the same
    settings (Raes and ter Steege 2007). A species whose skill does not exceed most of these has no
    better model than chance. With target-group background the random presences share the bias of
    the records.

    Parameters
    ----------
    sites, schema, splits, network, training, fit_options
        As for :func:`geomiam.cross_validate`. The folds are drawn once, from the real presences.
    repeats : int
        Null models; the least p value is 1 / (repeats + 1), so 99 are needed for 0.01. Each costs
        as much as the cross-validation.
    metric : str
        Of ``geomiam.metrics.METRICS``, one that is higher for better models.
    rng : int
        Draws the presences, and is the seed of every training.
    progress : bool, optional
        Show progress bars; default: on a terminal or in a notebook.

    Returns
    -------
    xarray.Dataset
        ``auc(species)`` of the real presences, by the name of the metric; ``null_auc(repeat, species)``;
        ``null_auc_95(species)``, the 95 % quantile of these; ``p_value(species)``, one-sided: the
        share of models, the real one among them, that are at least as good as the real one. NaN
        for a species that cannot be scored.

    Raises
    ------
    SelectionError
        If the metric is unknown or lower for better models.
    LabelError, GridError
        As :func:`geomiam.cross_validate`.

    See Also
    --------
    geomiam.cross_validate : the scores to compare with.

    Examples
    --------
    >>> null = gm.evaluation.null_model(  # doctest: +SKIP
    ...     sites, schema, repeats=99
    ... )
    >>> quick = {"network": gm.NetworkConfig(width=8, heads=2, depth=1, inner=0, frequencies=4)}
    >>> quick["training"] = gm.TrainingConfig(steps=2)
    >>> quick["splits"] = gm.splits.SpatialBlocks(2)
    >>> null = gm.evaluation.null_model(sites, schema, repeats=2, **quick)
    >>> null["null_auc"].sizes["repeat"], bool((null["p_value"] >= 1 / 3).all())
    (2, True)
    """
    check_count("repeats", repeats, minimum=1, hint="99 allow p values down to 0.01")
    _check_metric(metric)
    labels, names = read_labels(sites)
    folds = folds_of(splitters.SpatialBlocks(rng=rng) if splits is None else splits, sites, labels)
    options: dict[str, Any] = {"metrics": metric, "subsets": "all", "network": network}
    options |= {"training": training, "fit_options": fit_options}
    table = cross_validate(sites, schema, splits=folds, rng=rng, **options)
    draws, rows = np.random.default_rng(rng), []
    for _ in progress_bar(range(repeats), desc="null models", unit="model"):
        at_random = sites.assign(presence=(("site", "species"), _permuted(labels, draws)))
        null_table = cross_validate(at_random, schema, splits=folds, rng=rng, **options)
        rows.append(null_table[metric].sel(subset="all").values)
    value, null = table[metric].sel(subset="all").values, np.stack(rows)
    at_least = (null >= value).sum(0) + 1.0
    is_scored = np.isfinite(value) & np.isfinite(null).all(0)
    text = table[metric].attrs["long_name"]
    return xr.Dataset(
        {
            metric: ("species", value, {"long_name": text}),
            f"null_{metric}": (
                ("repeat", "species"),
                null,
                {"long_name": f"{text} of random presences"},
            ),
            f"null_{metric}_95": ("species", np.quantile(null, 0.95, axis=0)),
            "p_value": ("species", np.where(is_scored, at_least / (repeats + 1), np.nan)),
        },
        coords={"species": list(names)},
        attrs={"repeats": repeats, "folds": len(folds)},
    )


def _check_metric(metric: str) -> None:
    """Refuse an unknown metric, and one that is not higher for better models."""
    if metric not in METRICS:
        raise SelectionError(f"no metric {metric!r}; choose from {', '.join(METRICS)}")
    if metric in NOT_HIGHER:
        raise SelectionError(
            f"metric={metric!r} is lower for better models, or has its best value inside a range; use another one, such as 'auc'"
        )


def _permuted(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shuffle the labels of each species among its surveyed sites ``(n, S)``."""
    shuffled_labels = labels.copy()
    for column in shuffled_labels.T:
        is_surveyed = np.isfinite(column)
        column[is_surveyed] = rng.permutation(column[is_surveyed])
    return shuffled_labels
