"""Values as files have them: attributes as text and numbers, and unpacking to float32 with NaN for missing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from geomiam.errors import GridError

SENTINELS = ("_FillValue", "missing_value", "nodata")
LIMITS = ("valid_range", "valid_min", "valid_max")
PACKING = (*SENTINELS, *LIMITS, "scale_factor", "add_offset", "_Unsigned")
"""Attributes that describe packed numbers and are removed after unpacking."""
ROUNDING = 1e-6
"""Relative difference up to which a float equals a fill value: ten times the rounding of float32."""
HUGE = 1e30  # larger numbers are not measurements: they are compared with fill values by magnitude
LARGEST_CODE = 2**24  # largest integer up to which float32 represents every integer
NUMBER = re.compile(r"[+-]?\d+(?:\.0*)?(?=[bBsSlLuU]*$)")
"""A whole number as CDL writes it, with a letter for its type."""


def text_of(attrs: Mapping[str, Any], key: str) -> str | None:
    """Return an attribute as text, or None if it is absent, empty or NaN.

    The number 1 becomes "1", bytes are decoded as UTF-8, and the items of a list are joined by blanks.
    """
    return " ".join(_items(attrs.get(key))) or None


def flags_of(attrs: Mapping[str, Any]) -> dict[int, str]:
    """Return class codes and their meanings from ``flag_values`` and ``flag_meanings``.

    Values may be an array, a list or text; meanings may be text or a list. If their numbers differ,
    each code is its meaning. If a value is not an integer, the result is empty.
    """
    matches = [NUMBER.match(word) for word in _split(attrs.get("flag_values"))]
    codes = [int(float(m.group())) for m in matches if m]
    if len(codes) < len(matches):
        return {}
    value = attrs.get("flag_meanings")
    items = _items(value)
    # CF separates meanings by blanks; other writers use lists or commas, with blanks inside a meaning.
    readings = (items, _split(value), [word.strip() for i in items for word in i.split(",")])
    meanings = next((r for r in readings if r and len(r) == len(codes)), map(str, codes))
    return dict(zip(codes, meanings))


def _items(value: Any) -> list[str]:
    items = value.ravel().tolist() if isinstance(value, np.ndarray) else value
    items = items if isinstance(items, (list, tuple)) else [items]
    return [word for word in map(_word, items) if word]


def _word(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if value is None or value != value:
        return ""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        value = int(value)
    return str(value).strip()


def _split(value: Any) -> list[str]:
    """Return the words of an attribute, separated by commas, semicolons or blanks."""
    return [w for i in _items(value) for w in re.split(r"[\s,;]+", i.strip("[]() ")) if w]


def numbers_of(attrs: Mapping[str, Any], key: str) -> list[float]:
    """Return an attribute as a list of numbers; it may be a number, several, or text.

    Raises GridError when it is not numeric.
    """
    value = attrs.get(key)
    if value is None:
        return []
    try:
        array = np.atleast_1d(np.asarray(value))
        return list((array if array.dtype.kind in "iufb" else array.astype("float64")).tolist())
    except (TypeError, ValueError):
        raise GridError(
            f"attribute '{key}' is {value!r}, not a number; correct it, or remove it with "
            f"ds[...].attrs.pop('{key}')"
        ) from None


def is_categorical(array: xr.DataArray) -> bool:
    """Return whether attributes declare codes of classes."""
    types = {text_of(array.attrs, "type"), text_of(array.attrs, "kind")}
    return "flag_values" in array.attrs or "categorical" in types


def as_float(array: xr.DataArray) -> xr.DataArray:
    """Return float32 with NaN where the attributes declare missing data; lazy arrays stay lazy.

    The attributes of :data:`PACKING` are applied and removed. xarray has already applied those in
    ``encoding``, except the fill values of integers. An array that needs no change is returned as it is.

    Raises GridError when the array is not numeric, or has class codes that are not distinct in float32.
    """
    if array.dtype.kind not in "fiub":
        raise GridError(
            f"variable '{array.name}' has the dtype {array.dtype}, which is not numeric; "
            f"encode it or leave it out: ds.drop_vars('{array.name}')"
        )
    bands, packing = _scales_by_band(array), _packing_of(array)
    used_attributes = {*PACKING, *bands} & set(array.attrs)
    check_codes(array.attrs.get("flag_values", []))
    plain = array.dtype == np.float32 and packing.trivial
    if plain and not used_attributes:
        return array
    data = array.data  # reads a lazy array without dask
    if not plain and hasattr(data, "map_blocks"):
        meta = np.empty((0,) * data.ndim, "float32")
        data = data.map_blocks(packing.decode, dtype="float32", meta=meta)
    elif not plain:
        data = packing.decode(np.asarray(data))
    out = array.copy(deep=False, data=data)
    out = out * bands["scales"] + bands["offsets"] if bands else out
    out.attrs = {k: v for k, v in array.attrs.items() if k not in used_attributes}
    out.encoding = {}
    return out


def _scales_by_band(array: xr.DataArray) -> dict[str, Any]:
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


@dataclass(frozen=True)
class Packing:
    """How to turn the numbers of a file into float32 with NaN for missing."""

    fills: tuple[float, ...] = ()  # packed numbers that represent missing data
    scale: float = 1.0
    offset: float = 0.0  # unpacked = packed × scale + offset
    low: float | None = None
    high: float | None = None
    """Numbers outside these limits are missing; None where there is no limit."""
    packed_limits: bool = False  # whether the limits refer to packed numbers
    unsigned: bool | None = None
    """``_Unsigned`` of NetCDF: True reads signed integers as unsigned, False unsigned ones as signed."""
    codes: bool = False
    """Whether the numbers are codes of classes, which float32 must represent exactly."""

    @property
    def scaled(self) -> bool:
        """Whether scale or offset change a number."""
        return (self.scale, self.offset) != (1.0, 0.0)

    @property
    def trivial(self) -> bool:
        """Whether float32 numbers remain unchanged."""
        has_limits = (self.low, self.high) != (None, None)
        return not self.scaled and not has_limits and all(np.isnan(f) for f in self.fills)

    def decode(self, raw: np.ndarray) -> np.ndarray:
        """Return float32 of the same shape; GridError for class codes that float32 cannot represent."""
        raw = raw if self.unsigned is None else raw.astype(_reinterpreted(raw.dtype, self.unsigned))
        missing = is_fill(raw, self.fills)
        if self.packed_limits:
            missing |= self._outside(raw)
        values = raw.astype("float64") * self.scale + self.offset if self.scaled else raw
        if self.codes:
            check_codes(values[~missing])
        with np.errstate(over="ignore"):
            numbers = values.astype("float32")
        if not self.packed_limits:
            missing |= self._outside(numbers)
        return np.where(missing, np.float32(np.nan), numbers)

    def _outside(self, values: np.ndarray) -> np.ndarray:
        outside = np.zeros(values.shape, bool)
        as_dtype = values.dtype.type if values.dtype.kind == "f" else float
        if self.low is not None:
            outside |= values < as_dtype(self.low)
        if self.high is not None:
            outside |= values > as_dtype(self.high)
        return outside


def _packing_of(array: xr.DataArray) -> Packing:
    is_integer, flag = array.dtype.kind in "iu", array.attrs.get("_Unsigned")
    is_unsigned = str(flag).lower() == "true" if is_integer and flag is not None else None
    dtype = _reinterpreted(array.dtype, is_unsigned)
    mappings = (array.attrs, array.encoding if is_integer else {})
    fills = [f for m in mappings for k in SENTINELS for f in numbers_of(m, k)]
    return Packing(
        tuple(_as_read(f, array.dtype, dtype) for f in fills),
        float(_first(array.attrs, "scale_factor", 1.0)),
        float(_first(array.attrs, "add_offset", 0.0)),
        *_limits(array, dtype),
        is_unsigned,
        is_categorical(array),
    )


def _limits(array: xr.DataArray, dtype: np.dtype) -> tuple[float | None, float | None, bool]:
    """Return the smallest and largest valid number, and whether they refer to packed numbers."""
    attrs, pair = array.attrs, numbers_of(array.attrs, "valid_range")
    lows = numbers_of(attrs, "valid_min") or pair[:1]
    highs = numbers_of(attrs, "valid_max") or pair[1:2]
    if not (lows or highs):
        return None, None, False
    # A range is packed if its type is that of the packed numbers (CF 1.11, 2.5.1).
    has_integers = all(isinstance(v, int) for v in (*lows, *highs))
    low, high = (v[0] if v else None for v in (lows, highs))
    if dtype.kind in "iu":
        low, high = (v if v is None else _as_read(v, array.dtype, dtype) for v in (low, high))
        return low, high, has_integers
    if not has_integers or "scale_factor" in attrs:
        return low, high, "scale_factor" in attrs
    # An integer range of floats that xarray has unpacked refers to the packed numbers: it is unpacked,
    # or ignored where the scale is unknown.
    scale, offset = (_first(array.encoding, k, 0.0) for k in ("scale_factor", "add_offset"))
    if not scale:
        return None, None, False
    low, high = (v if v is None else v * scale + offset for v in (low, high))
    return (low, high, False) if scale > 0 else (high, low, False)


def _first(attrs: Mapping[str, Any], key: str, default: float) -> float:
    return (numbers_of(attrs, key) or [default])[0]


def _as_read(number: float, stored_dtype: np.dtype, dtype: np.dtype) -> float:
    """Convert a number from the stored dtype to the dtype it is read as: int8 -1 becomes uint8 255."""
    if stored_dtype == dtype or number != np.rint(number):
        return number
    number, bits = int(number), 8 * dtype.itemsize
    if dtype.kind == "i" and number >= 2 ** (bits - 1):
        return number - 2**bits
    return number % 2**bits if dtype.kind == "u" else number


def _reinterpreted(dtype: np.dtype, is_unsigned: bool | None) -> np.dtype:
    """Return the dtype of integers of a file after ``_Unsigned`` is applied."""
    if is_unsigned is None or dtype.kind not in "iu":
        return dtype
    return np.dtype(f"{'u' if is_unsigned else 'i'}{dtype.itemsize}")


def is_fill(values: np.ndarray, fills: Iterable[float]) -> np.ndarray:
    """Return where numbers equal a fill value; integers exactly, floats up to rounding. NaN is ignored."""
    missing = np.zeros(values.shape, bool)
    for fill in fills:
        if np.isnan(fill):
            continue
        if values.dtype.kind == "f":
            limit = float(np.finfo(values.dtype).max)
            fill = float(np.clip(fill, -limit, limit))
            with np.errstate(over="ignore", invalid="ignore"):
                if abs(fill) >= HUGE:  # -3.4e38 also matches -3.4028235e38
                    missing |= values * np.sign(fill) >= 0.99 * abs(fill)
                else:  # data have float32(-99.99) where a catalog has -99.99
                    missing |= np.abs(values - fill) <= ROUNDING * abs(fill)
        elif fits(fill, values.dtype):
            missing |= values == values.dtype.type(int(fill))
    return missing


def fits(fill: float, dtype: np.dtype) -> bool:
    """Return whether numbers of a dtype can equal a fill value."""
    if dtype.kind not in "iu":
        return dtype.kind == "f"
    span = np.iinfo(dtype)
    return bool(np.isfinite(fill) and span.min <= fill <= span.max and fill == int(fill))


def check_codes(values: Any) -> None:
    """Refuse codes of classes that are not distinct in float32."""
    values = np.atleast_1d(np.asarray(values))
    if values.dtype.kind not in "iuf":
        return
    large = values[np.isfinite(values) & (np.abs(values.astype("float64")) > LARGEST_CODE)]
    if large.size:
        raise GridError(
            f"class code {large[0]:.0f} is above {LARGEST_CODE:,}, and float32 cannot distinguish larger codes; "
            "renumber the classes, e.g. codes, index = numpy.unique(values, return_inverse=True)"
        )
