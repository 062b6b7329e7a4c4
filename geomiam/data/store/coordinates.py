"""Conversion of names to text, and of coordinates to types that a store supports."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from geomiam.data.values.dim_labels import labels_of
from geomiam.errors import GridError, warn


def text_names(ds: xr.Dataset) -> xr.Dataset:
    """Return the Dataset with names of variables, coordinates and dims as text: 1 becomes "1".

    Raises
    ------
    GridError
        If two names are equal as text, such as 1 and "1".
    """
    names = [*ds.variables, *(d for d in ds.dims if d not in ds.variables)]
    renames = {n: str(n) for n in names if not isinstance(n, str)}
    if not renames:
        return ds
    if twice := sorted({t for t in renames.values() if [str(n) for n in names].count(t) > 1}):
        raise GridError(
            f"names {twice} occur twice in the data, as text and as another type; rename one, e.g. "
            f"ds.rename({{{next(n for n in renames if str(n) == twice[0])!r}: 'band_{twice[0]}'}})"
        )
    return ds.rename(renames)


def plain_coordinates(ds: xr.Dataset) -> xr.Dataset:
    """Return the Dataset with coordinates of types that a store supports.

    Labels that are Python objects (periods, intervals, dates with a time zone) become text. The
    levels of a MultiIndex become coordinates. Other coordinates of Python objects, such as None or a
    dict, are dropped with a warning that lists their names.
    """
    import pandas as pd

    multi = [d for d, i in ds.indexes.items() if isinstance(i, pd.MultiIndex) and d in ds.dims]
    ds = ds.reset_index(multi) if multi else ds
    odd = [k for k, c in ds.coords.items() if not _is_plain(c)]
    labels = {d: list(map(str, labels_of(ds[d], str(d)))) for d in odd if d in ds.dims}
    if left_out := [str(k) for k in odd if k not in ds.dims]:
        warn(
            f"coordinates {left_out} are Python objects, which no store supports; they are left out. "
            f"Remove them before writing with ds.drop_vars({left_out})"
        )
    ds = ds.drop_vars(left_out).assign_coords(labels)
    extension_names = [k for k, c in ds.coords.items() if not isinstance(c.dtype, np.dtype)]
    return ds.assign_coords(
        {k: ds[k].copy(data=np.asarray(ds[k].values, dtype=object)) for k in extension_names}
    )


def _is_plain(coordinate: xr.DataArray) -> bool:
    """Return whether a coordinate has numbers, text or dates that CF can encode."""
    if isinstance(coordinate.dtype, np.dtype) and coordinate.dtype.kind != "O":
        return True
    values: list[Any] = np.asarray(coordinate.values, dtype=object).ravel().tolist()
    return all(isinstance(v, str) for v in values) or all(hasattr(v, "calendar") for v in values)
