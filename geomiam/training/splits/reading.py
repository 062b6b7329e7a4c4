"""What a splitter is given, as arrays: coordinates, labels, environments."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from geomiam.errors import GridError, LabelError, MissingVariable
from geomiam.training.splits.blocks import site_coordinates, site_labels

Where = xr.Dataset | ArrayLike


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
    if lost := int((~np.isfinite(xy)).any(1).sum()):
        raise GridError(f"{lost} of {len(xy)} coordinates are not finite: leave those rows out")
    return xy


def labels(X: Where, y: ArrayLike | None, n: int) -> np.ndarray:
    """Return labels ``(n, S)``; one column of zeros if there are none."""
    if y is None:
        return site_labels(X) if isinstance(X, xr.Dataset) else np.zeros((n, 1))
    table = np.asarray(y)
    if len(table) != n:
        raise LabelError(f"y must have one row per site ({n}), found {len(table)}")
    return table.reshape(n, -1)


def environment(X: Where, variables: Sequence[str] | None) -> np.ndarray:
    """Return predictors ``(n, p)``, each with mean 0 and deviation 1; gaps are 0."""
    table = _stacked(X, variables) if isinstance(X, xr.Dataset) else np.asarray(X, float)
    table = np.where(np.isfinite(table), table, np.nan).reshape(len(table), -1)
    gap = np.isnan(table)
    n = np.maximum((~gap).sum(0), 1)
    table = np.where(gap, 0, table - np.where(gap, 0, table).sum(0) / n)
    deviation = np.sqrt((table**2).sum(0) / n)
    return table / np.where(deviation > 0, deviation, 1)


def _stacked(sites: xr.Dataset, variables: Sequence[str] | None) -> np.ndarray:
    names = _numbers(sites) if variables is None else list(variables)
    lost = [v for v in names if v not in sites or "site" not in sites[v].dims]
    if lost or not names:
        raise MissingVariable(
            f"sites have no variable {lost or 'with one number per site'} to cluster by "
            f"(found {list(sites.data_vars)}): name some of them with variables=[...]"
        )
    columns = [np.asarray(sites[v].transpose("site", ...).values, float) for v in names]
    return np.hstack([c.reshape(len(c), -1) for c in columns])


def _numbers(sites: xr.Dataset) -> list[str]:
    """Names of the variables with one number per site."""
    return [
        str(name)
        for name, variable in sites.data_vars.items()
        if variable.dims == ("site",)
        and variable.dtype.kind in "fiu"
        and "flag_values" not in variable.attrs
    ]
