"""Labels of records by site and species: a table, or a dask array of which each chunk is made when it is read."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

LARGE = 2**30
"""Bytes of a table of labels beyond which it is a dask array."""
CHUNK = 2**26
"""Bytes of a chunk of it."""


def label_table(at: Any, values: np.ndarray, *, shape: tuple[int, int]) -> np.ndarray:
    """Return labels float32 ``(n, S)``: at each index the greatest of its values, NaN without any."""
    table = np.full(shape, np.nan, dtype="float32")
    np.fmax.at(table, at, values)
    return table


def lazy_table(
    site: np.ndarray, species: np.ndarray, values: np.ndarray, *, shape: tuple[int, int]
) -> Any:
    """Return the labels of :func:`label_table` as a dask array with chunks of sites."""
    import dask
    import dask.array as da

    order = np.argsort(site, kind="stable")
    site, species, values = site[order], species[order], values[order]
    step = max(1, CHUNK // (4 * shape[1]))
    parts = []
    for first in range(0, shape[0], step):
        size = (min(step, shape[0] - first), shape[1])
        start, stop = np.searchsorted(site, (first, first + step))
        at = (site[start:stop] - first, species[start:stop])
        chunk = dask.delayed(label_table)(at, values[start:stop], shape=size)
        parts.append(da.from_delayed(chunk, size, dtype="float32"))
    return da.concatenate(parts)


def filled_like(array: xr.DataArray, shape: tuple[int, ...], value: float) -> Any:
    """Return float32 of one value: a dask array with chunks of sites if ``array`` is a dask array."""
    if array.chunks is None:
        return np.full(shape, value, "float32")
    import dask.array as da

    return da.full(
        shape,
        np.float32(value),
        chunks={0: max(array.chunks[0]), **dict.fromkeys(range(1, len(shape)), -1)},
    )
