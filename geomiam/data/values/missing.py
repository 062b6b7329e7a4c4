"""Conversion to float32: fill values and values outside the valid range become NaN."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from geomiam.data.values.attributes import text_of
from geomiam.data.values.packing import (
    ATTRIBUTES,
    SENTINELS,
    Limits,
    Packing,
    check_codes,
    numbers_of,
    stored_as,
)
from geomiam.errors import GridError


def as_float(array: xr.DataArray) -> xr.DataArray:
    """Return float32 with NaN where the attributes declare missing data; lazy arrays stay lazy.

    Parameters
    ----------
    array
        Numbers of any dtype, any dims. ``_FillValue``, ``missing_value``, ``nodata``,
        ``scale_factor``, ``add_offset``, ``valid_range`` (or ``valid_min``, ``valid_max``) and
        ``_Unsigned`` are read from ``attrs``. xarray has already applied those in ``encoding``,
        except the fill values of integers.

    Returns
    -------
    xr.DataArray
        The decoded array without these attributes, or the same array if nothing changes.

    Raises
    ------
    GridError
        When the array is not numeric, or has codes of classes that are not distinct in float32.
    """
    if array.dtype.kind not in "fiub":
        raise GridError(
            f"variable '{array.name}' has the dtype {array.dtype}, which is not numeric; "
            f"encode it or leave it out: ds.drop_vars('{array.name}')"
        )
    bands = _by_band(array)
    packing, used_attributes = packing_of(array), {*ATTRIBUTES, *bands} & set(array.attrs)
    check_codes(array.attrs.get("flag_values", []))
    if array.dtype == np.float32 and packing.trivial and not used_attributes:
        return array
    plain = array.dtype == np.float32 and packing.trivial
    out = array.copy(deep=False, data=array.data if plain else _decoded(array.data, packing))
    out = out * bands["scales"] + bands["offsets"] if bands else out
    out.attrs = {k: v for k, v in array.attrs.items() if k not in used_attributes}
    out.encoding = {}
    return out


def _by_band(array: xr.DataArray) -> dict[str, Any]:
    """Return ``scales`` and ``offsets`` along ``band``, which rioxarray sets where bands differ in them."""
    attributes = {k: array.attrs.get(k) for k in ("scales", "offsets")}
    lists = {
        k: v for k, v in attributes.items() if isinstance(v, (tuple, list, np.ndarray)) and len(v)
    }
    if not lists:
        return {}
    count, band = max(map(len, lists.values())), array.coords.get("band")
    if band is None or band.dtype.kind not in "iu" or not ((band >= 1) & (band <= count)).all():
        raise GridError(
            f"'{array.name}' has scales and offsets of {count} bands, but no coordinate 'band' that assigns "
            "them; open it with rioxarray.open_rasterio(path, mask_and_scale=True)"
        )
    default = {"scales": np.ones(count), "offsets": np.zeros(count)}
    arrays = {k: np.asarray(lists.get(k, v), "float32") for k, v in default.items()}
    return {
        k: band.copy(data=v[np.asarray(band) - 1]).drop_vars(band.coords) for k, v in arrays.items()
    }


def _decoded(data: Any, packing: Packing) -> Any:
    if not hasattr(data, "map_blocks"):
        return packing.decode(np.asarray(data))
    meta = np.empty((0,) * data.ndim, "float32")
    return data.map_blocks(packing.decode, dtype="float32", meta=meta)


def packing_of(array: xr.DataArray) -> Packing:
    """Return how the numbers of an array are packed, from its attributes."""
    flag = array.attrs.get("_Unsigned")
    is_unsigned = None if flag is None else str(flag).lower() == "true"
    dtype = stored_as(array.dtype, is_unsigned)
    (scale,) = numbers_of(array.attrs, "scale_factor")[:1] or [1.0]
    (offset,) = numbers_of(array.attrs, "add_offset")[:1] or [0.0]
    return Packing(
        tuple(_resigned(f, array.dtype, dtype) for f in _fills(array)),
        float(scale),
        float(offset),
        _limits(array, dtype),
        is_unsigned if array.dtype.kind in "iu" else None,
        is_categorical(array),
    )


def _fills(array: xr.DataArray) -> list[float]:
    encoding = array.encoding if array.dtype.kind in "iu" else {}
    return [f for m in (array.attrs, encoding) for k in SENTINELS for f in numbers_of(m, k)]


def _resigned(number: float, stored_dtype: np.dtype, dtype: np.dtype) -> float:
    """Convert a number from the stored dtype to the dtype it is read as: int8 -1 becomes uint8 255."""
    if stored_dtype == dtype or number != np.rint(number):
        return number
    number, bits = int(number), 8 * dtype.itemsize
    if dtype.kind == "i" and number >= 2 ** (bits - 1):
        return number - 2**bits
    return number % 2**bits if dtype.kind == "u" else number


def _limits(array: xr.DataArray, dtype: np.dtype) -> Limits:
    """Return the valid range, which is packed if its type is that of packed numbers (CF 1.11, 2.5.1).

    An integer range of float data refers to the packed numbers. It is unpacked with scale and offset,
    or ignored where these are unknown.
    """
    attrs = array.attrs
    pair = numbers_of(attrs, "valid_range")
    low = numbers_of(attrs, "valid_min") or pair[:1]
    high = numbers_of(attrs, "valid_max") or pair[1:2]
    is_integer = all(isinstance(v, int) for v in (*low, *high))
    if not (low or high):
        return Limits()
    if dtype.kind in "iu":
        ends = [_resigned(v[0], array.dtype, dtype) if v else None for v in (low, high)]
        return Limits(ends[0], ends[1], packed=is_integer)
    if not is_integer or "scale_factor" in attrs:
        return Limits(low[0] if low else None, high[0] if high else None, "scale_factor" in attrs)
    return _unpacked(low, high, array.encoding)


def _unpacked(low: list[float], high: list[float], encoding: Any) -> Limits:
    (scale,) = numbers_of(encoding, "scale_factor")[:1] or [0.0]
    (offset,) = numbers_of(encoding, "add_offset")[:1] or [0.0]
    if not scale:
        return Limits()
    ends = [v[0] * scale + offset if v else None for v in (low, high)]
    low_end, high_end = ends if scale > 0 else ends[::-1]
    return Limits(low_end, high_end)


def is_categorical(array: xr.DataArray) -> bool:
    """Return whether attributes declare codes of classes."""
    types = {text_of(array.attrs, "type"), text_of(array.attrs, "kind")}
    return "flag_values" in array.attrs or "categorical" in types
