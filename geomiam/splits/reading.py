"""The input of a splitter as arrays: coordinates, places, labels, environments."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from geomiam.errors import GridError, LabelError
from geomiam.geo.crs import crs_of
from geomiam.geo.dims import spatial_pair
from geomiam.geo.places import Places, places
from geomiam.labels import Labels
from geomiam.splits.blocks import site_coordinates, site_labels
from geomiam.splits.variogram import SITES

Where = xr.Dataset | ArrayLike
COLUMNS = 64
"""Largest number of predictors whose spatial autocorrelation is measured."""


def coordinates(X: Where, groups: ArrayLike | None) -> np.ndarray:
    """Return ``(n, 2)``, finite, from sites, coordinates, or ``groups`` if given."""
    if groups is None and isinstance(X, xr.Dataset):
        return site_coordinates(X)
    xy = np.asarray(X if groups is None else groups)
    if xy.ndim != 2 or xy.shape[1] != 2:
        raise GridError(
            f"coordinates must be a table (sites, 2) of x and y, found shape {xy.shape}: pass sites or "
            "coordinates as X, or coordinates as groups= when X holds predictors"
        )
    xy = xy.astype(float)
    if missing_count := int((~np.isfinite(xy)).any(1).sum()):
        raise GridError(
            f"{missing_count} of {len(xy)} coordinates are not finite: leave those rows out"
        )
    return xy


def places_of(X: Where, groups: ArrayLike | None, crs: Any = None) -> Places:
    """Return the places of sites, or of coordinates; sites carry their CRS."""
    xy = coordinates(X, groups)
    if groups is not None or not isinstance(X, xr.Dataset):
        return places(xy, crs)
    y, x = spatial_pair(X.variables) or ("y", "x")
    return places(xy, site_crs(X, crs), names=(x, y))


def site_crs(sites: xr.Dataset, default: Any) -> Any:
    try:
        return crs_of(sites)
    except GridError:
        return default


def sampled_predictors(X: Where, groups: ArrayLike | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of at most ``SITES`` sites ``(m,)`` and their predictors ``(m, p)``, NaN = missing.

    Of sites each variable with numbers gives one column, its mean over dims other than ``site``;
    classes and labels give none. Coordinates alone have no predictors.
    """
    n = X.sizes["site"] if isinstance(X, xr.Dataset) else len(np.asarray(X))
    rows = np.sort(np.random.default_rng(0).permutation(n)[:SITES])
    if isinstance(X, xr.Dataset):
        names = [k for k, v in X.data_vars.items() if is_number(v) and k != "presence"]
        columns = [_site_means(X[k].isel(site=rows)) for k in names[:: 1 + len(names) // COLUMNS]]
    else:
        table = np.asarray(X)
        usable = groups is not None and table.dtype.kind in "fiu" and table.ndim == 2
        columns = list(table[rows][:, :COLUMNS].T.astype(float)) if usable else []
    return rows, np.stack(columns, 1) if columns else np.empty((len(rows), 0))


def is_number(variable: xr.DataArray) -> bool:
    """Return whether a variable of sites has numbers that can be averaged."""
    return (
        "site" in variable.dims
        and variable.dtype.kind in "fiu"
        and "flag_values" not in variable.attrs
    )


def _site_means(variable: xr.DataArray) -> np.ndarray:
    """Return the mean of the finite values of each site ``(m,)``."""
    values = np.asarray(variable.transpose("site", ...).values, float)
    values = np.where(np.isfinite(values), values, np.nan).reshape(len(values), -1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a site without any value stays NaN
        return np.nanmean(values, axis=1)


def rows_of_folds(pairs: Any, splits: Any, n: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return training and test rows of n sites for each fold; LabelError if they cannot be folds."""
    if isinstance(pairs, Iterator):
        pairs = list(pairs)  # the errors of a splitter have their text
    try:
        folds = [(_rows(train), _rows(test)) for train, test in pairs]
    except (TypeError, ValueError):
        raise LabelError(
            f"splits={splits!r} are no folds; pass a splitter such as gm.splits.SpatialBlocks(5), or pairs of training "
            "and test rows"
        ) from None
    if not folds or any(not len(rows) for fold in folds for rows in fold):
        raise LabelError(f"splits={splits!r} leaves a fold without training or test sites")
    if any(rows.min() < 0 or rows.max() >= n for fold in folds for rows in fold):
        raise LabelError(f"splits={splits!r} has rows outside 0 to {n - 1}, those of the {n} sites")
    if shared := sum(len(np.intersect1d(train, test)) for train, test in folds):
        raise LabelError(
            f"splits={splits!r} trains on {shared} of the sites that it tests, so the skill would be too good; "
            "leave the test sites of a fold out of its training sites"
        )
    tests = np.bincount(np.concatenate([test for _, test in folds]), minlength=n)
    if tests.max() > 1:
        raise LabelError(
            f"splits={splits!r} tests {int((tests > 1).sum())} sites more than once, so they have no "
            "single prediction; use a splitter such as gm.splits.SpatialBlocks"
        )
    return folds


def _rows(rows: ArrayLike) -> np.ndarray:
    """Return row numbers, also of a boolean per site."""
    values = np.asarray(rows)
    if values.dtype == bool:
        return np.flatnonzero(values)
    if len(values) and values.dtype.kind not in "iu":
        raise TypeError
    return values.astype(int)


def labels(X: Where, y: ArrayLike | None, n: int) -> Labels:
    """Return labels ``(n, S)``; one column of zeros if there are none."""
    if y is None:
        return site_labels(X) if isinstance(X, xr.Dataset) else np.zeros((n, 1))
    table = np.asarray(y)
    if len(table) != n:
        raise LabelError(f"y must have one row per site ({n}), found {len(table)}")
    return table.reshape(n, -1)
