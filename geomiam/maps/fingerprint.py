"""The fingerprint of the input of a map: grid, names, units, labels, and the values of a few blocks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import xarray as xr

from geomiam.geo.crs import crs_coordinate


def digest_of_grid(cube: xr.Dataset) -> hashlib._Hash:
    """Return a digest of everything but the values of a cube."""
    digest = hashlib.sha256()
    for name, v in sorted(cube.variables.items(), key=lambda item: str(item[0])):
        digest.update(f"{name} {v.dims} {v.shape} {v.attrs.get('units')}".encode())
    for dim in sorted(map(str, cube.sizes)):
        if dim in cube.coords:
            digest.update(_bytes(cube[dim].values))
    digest.update(str(cube.coords.get(crs_coordinate(cube) or "", "")).encode())
    return digest


def add_values(digest: hashlib._Hash, parts: Iterable[xr.Dataset]) -> Iterator[xr.Dataset]:
    """Yield parts of a cube, and add their values to a digest."""
    for part in parts:
        for name in sorted(map(str, part.data_vars)):
            digest.update(_bytes(part[name].values))
        yield part


def _bytes(values: np.ndarray) -> Any:
    """Return the bytes of an array; all NaN have the same bits."""
    if values.dtype.kind == "f":
        return np.ascontiguousarray(np.where(np.isnan(values), np.nan, values))
    return values.tobytes() if values.dtype.kind in "iubM" else str(values.tolist()).encode()
