"""What counts as missing: sentinels of files become NaN, once, at the edge."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr

from geomiam.errors import GridError

SENTINELS = ("_FillValue", "missing_value", "nodata")


def as_float(array: xr.DataArray) -> xr.DataArray:
    """Return float32 with NaN where the array says that data are missing; lazy stays lazy.

    Sentinels are read from ``_FillValue``, ``missing_value`` and ``nodata``, scale and offset from
    ``attrs``; what is in ``encoding`` has been applied by xarray, except for integers.
    """
    if array.dtype.kind not in "fiub":
        raise GridError(
            f"variable '{array.name}' holds {array.dtype}, not numbers; "
            f"encode it or leave it out: ds.drop_vars('{array.name}')"
        )
    attrs, fills = array.attrs, _sentinels(array)
    scale, offset = (float(attrs.get(k, d)) for k, d in (("scale_factor", 1), ("add_offset", 0)))
    packing = {*SENTINELS, "scale_factor", "add_offset"}
    if array.dtype == np.float32 and not fills and not packing & set(attrs):
        return array
    out = array.astype("float32")
    for fill in fills:
        out = out.where(array != fill)
    out = out if (scale, offset) == (1, 0) else out * np.float32(scale) + np.float32(offset)
    out.attrs = {k: v for k, v in attrs.items() if k not in packing}
    out.encoding = {}
    return out


def _sentinels(array: xr.DataArray) -> list[np.generic]:
    """Missing-data values in the array's own dtype; float32 data never equal a float64 fill."""
    undecoded = array.encoding if array.dtype.kind in "iu" else {}
    found = [m[k] for m in (array.attrs, undecoded) for k in SENTINELS if m.get(k) is not None]
    return [f for value in found for f in _in_dtype(value, array.dtype)]


def _in_dtype(value: Any, dtype: np.dtype) -> Iterator[np.generic]:
    for item in np.atleast_1d(np.asarray(value, dtype="float64")):
        if dtype.kind == "f" and np.isfinite(item):
            yield dtype.type(item)
        elif (
            dtype.kind in "iu"
            and np.iinfo(dtype).min <= item <= np.iinfo(dtype).max
            and item == int(item)
        ):
            yield dtype.type(int(item))
