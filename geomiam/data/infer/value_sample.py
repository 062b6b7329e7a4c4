"""A bounded sample of an array's values, to distinguish codes from measurements."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np
import xarray as xr

from geomiam.data.values.missing import as_float

ENOUGH = 4096
"""Number of observed values after which no further window is read."""
MAX_CHUNK = 128 * 2**20
"""Largest dask chunk that is read, in bytes."""


@dataclass(frozen=True)
class ValueSample:
    """Observed values of a few windows."""

    values: np.ndarray
    """Finite values, float64 ``(n,)``."""
    read_count: int
    """Number of values that were read, observed or missing."""
    size: int
    """Number of values of the array."""

    @property
    def levels(self) -> np.ndarray:
        """Distinct values in ascending order."""
        return np.unique(self.values)

    @property
    def is_integer(self) -> bool:
        """Whether there are values and all are integers."""
        return bool(self.values.size) and bool((self.values % 1 == 0).all())

    def __str__(self) -> str:
        return f"{self.read_count:,} of {self.size:,} values read"


def sample_values(array: xr.DataArray) -> ValueSample:
    """Read up to nine small windows of an array, each within one dask chunk.

    The windows are spread over the array. Reading stops when 4,096 values are observed.
    """
    parts, read_count = [np.zeros(0)], 0
    if _largest_chunk(array) <= MAX_CHUNK:
        for window in _windows(array):
            part = as_float(array.isel(window)).compute(scheduler="synchronous").values.ravel()
            parts.append(part[np.isfinite(part)].astype(np.float64))
            read_count += part.size
            if sum(p.size for p in parts) >= ENOUGH:
                break
    return ValueSample(np.concatenate(parts), read_count, array.size)


def _largest_chunk(array: xr.DataArray) -> int:
    if array.chunks is None:
        return 0
    return prod(max(c) for c in array.chunks) * array.dtype.itemsize


def _windows(array: xr.DataArray) -> list[dict[Any, slice]]:
    """Return windows at the start, middle and end along the last two dims, the middle first."""
    side = ENOUGH if array.ndim == 1 else int(ENOUGH**0.5)
    places = [_places(array, d, side) for d in array.dims]
    spans = [p if i >= array.ndim - 2 else p[:1] for i, p in enumerate(places)]
    return [dict(zip(array.dims, window)) for window in product(*spans)]


def _places(array: xr.DataArray, dim: Any, side: int) -> list[slice]:
    chunks = array.chunksizes.get(dim) or _thirds(array.sizes[dim], side)
    ends = np.cumsum(chunks)
    chunk_numbers = dict.fromkeys([len(chunks) // 2, 0, len(chunks) - 1])
    return [
        slice(ends[i] - chunks[i], min(ends[i], ends[i] - chunks[i] + side)) for i in chunk_numbers
    ]


def _thirds(size: int, side: int) -> tuple[int, ...]:
    """Return the sizes of parts of an array without chunks; a small array is one part."""
    step = max(side, size // 3)
    return tuple(min(step, size - i) for i in range(0, size, step))
