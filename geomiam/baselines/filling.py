"""Values that fill gaps: typical values of variables, and similar training sites."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import xarray as xr

from geomiam.data.sites.table import SiteTable
from geomiam.errors import SelectionError
from geomiam.schema.schema import Schema
from geomiam.schema.variable import Variable

Kind = Literal["mean", "median", "marginal", "conditional"]
KINDS: tuple[str, ...] = get_args(Kind)
MEMORY = 2**27
"""Bytes of the table of distances that is held at a time."""


def typical(sites: xr.Dataset, schema: Schema, *, kind: Kind = "mean") -> dict[str, xr.DataArray]:
    """Return the mean or median of each variable over the sites, ``(*own dims)``."""
    check_kind(kind)
    arrays = SiteTable.read(sites, schema, include_labels=False).checked().arrays
    return {
        n: xr.DataArray(_middle(arrays[n], v, kind), dims=v.dims)
        for n, v in schema.variables.items()
    }


def nearest(x: np.ndarray, donors: np.ndarray, *, count: int) -> np.ndarray:
    """Return the rows ``(n, count)`` of donors ``(N, p)`` next to each row of x ``(n, p)``.

    Mean squared distance over the columns that both have; donors without a shared column come last, and
    the first of equals is taken.
    """
    step = max(1, MEMORY // (8 * len(donors)))
    parts = [_nearest(x[i : i + step], donors, count) for i in range(0, len(x), step)]
    return np.concatenate(parts) if parts else np.empty((0, count), np.intp)


def _nearest(x: np.ndarray, donors: np.ndarray, count: int) -> np.ndarray:
    a, b = (np.isfinite(t).astype(np.float64) for t in (x, donors))
    u, v = np.nan_to_num(x.astype(np.float64)), np.nan_to_num(donors.astype(np.float64))
    square = (u * u) @ b.T - 2 * u @ v.T + a @ (v * v).T
    shared = a @ b.T
    distance = np.where(shared > 0, square / np.maximum(shared, 1), np.inf)
    return np.argsort(distance, axis=1, kind="stable")[:, :count]


def _middle(x: np.ndarray, variable: Variable, kind: Kind) -> np.ndarray:
    """Return the typical value of ``(n, *own dims)`` over n."""
    is_finite = np.isfinite(x)
    x, count = np.where(is_finite, x, 0.0).astype(np.float64), is_finite.sum(0)
    if variable.kind == "categorical":
        classes = np.unique(x[is_finite])
        votes = np.stack([((x == c) & is_finite).sum(0) for c in classes])
        return np.where(count > 0, classes[votes.argmax(0)], np.nan)
    if variable.kind == "circular":
        turn = 2 * np.pi / variable.period
        sine, cosine = (np.where(is_finite, f(x * turn), 0).sum(0) for f in (np.sin, np.cos))
        return np.where(count > 0, np.arctan2(sine, cosine) / turn % variable.period, np.nan)
    if kind == "median":
        return np.ma.filled(np.ma.median(np.ma.array(x, mask=~is_finite), axis=0), np.nan)
    return np.divide(x.sum(0), count, out=np.full(count.shape, np.nan), where=count > 0)


def check_kind(kind: str) -> None:
    """Raise SelectionError for an unknown kind of imputation."""
    if kind not in KINDS:
        raise SelectionError(f"no imputation {kind!r}; choose from {', '.join(KINDS)}")
