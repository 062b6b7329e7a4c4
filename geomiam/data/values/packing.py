"""How numbers are packed in a file: fill values, scale, offset, valid range, unsigned integers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from geomiam.errors import GridError

SENTINELS = ("_FillValue", "missing_value", "nodata")
LIMITS = ("valid_range", "valid_min", "valid_max")
ATTRIBUTES = (*SENTINELS, *LIMITS, "scale_factor", "add_offset", "_Unsigned")
"""Attributes that describe packed numbers, and are untrue of unpacked ones."""
ROUNDING = 1e-6
"""Relative difference up to which a float is a fill value: ten times the rounding of float32."""
HUGE = 1e30
"""From here on no number is a measurement: fill values are compared by magnitude."""
LARGEST_CODE = 2**24
"""Up to here float32 holds every whole number."""


@dataclass(frozen=True)
class Limits:
    """The least and the greatest valid number, packed or unpacked; None where there is none."""

    low: float | None = None
    high: float | None = None
    packed: bool = False


@dataclass(frozen=True)
class Packing:
    """How to turn the numbers of a file into float32 with NaN for missing.

    Attributes
    ----------
    fills
        Packed numbers that stand for missing data.
    scale, offset
        Unpacked = packed × scale + offset.
    limits
        Numbers outside are missing.
    unsigned
        The attribute ``_Unsigned`` of NetCDF: read signed integers as unsigned ones (True) or
        the reverse (False).
    codes
        The numbers are codes of classes, which float32 must hold exactly.
    """

    fills: tuple[float, ...] = ()
    scale: float = 1.0
    offset: float = 0.0
    limits: Limits = Limits()
    unsigned: bool | None = None
    codes: bool = False

    @property
    def scaled(self) -> bool:
        """Whether scale or offset change a number."""
        return (self.scale, self.offset) != (1.0, 0.0)

    @property
    def trivial(self) -> bool:
        """Whether float32 numbers are left as they are."""
        return (
            not self.scaled
            and all(np.isnan(f) for f in self.fills)
            and (self.limits.low, self.limits.high) == (None, None)
        )

    def decode(self, raw: np.ndarray) -> np.ndarray:
        """Return float32 of the same shape.

        Raises
        ------
        GridError
            For codes of classes that float32 cannot hold.
        """
        raw = self._signed(raw)
        missing = is_fill(raw, self.fills)
        if self.limits.packed:
            missing |= _outside(raw, self.limits)
        values = raw.astype("float64") * self.scale + self.offset if self.scaled else raw
        if self.codes:
            check_codes(values[~missing])
        with np.errstate(over="ignore"):
            numbers = values.astype("float32")
        if not self.limits.packed:
            missing |= _outside(numbers, self.limits)
        return np.where(missing, np.float32(np.nan), numbers)

    def _signed(self, raw: np.ndarray) -> np.ndarray:
        return raw if self.unsigned is None else raw.astype(stored_as(raw.dtype, self.unsigned))


def stored_as(dtype: np.dtype, is_unsigned: bool | None) -> np.dtype:
    """Return the dtype that ``_Unsigned`` gives to integers of a file."""
    if is_unsigned is None or dtype.kind not in "iu":
        return dtype
    return np.dtype(f"{'u' if is_unsigned else 'i'}{dtype.itemsize}")


def is_fill(values: np.ndarray, fills: Iterable[float]) -> np.ndarray:
    """Return where numbers equal a fill value, whatever its spelling.

    Integers are compared exactly. Floats are compared up to the rounding of float32: data hold
    float32(-99.99), a catalog has -99.99. Beyond 1e30 a float is missing from 99 % of the fill
    value's magnitude on: -3.4e38 also stands for -3.4028235e38.

    Parameters
    ----------
    values
        Any shape and any numeric dtype.
    fills
        Fill values; NaN is ignored, as NaN is missing anyway.
    """
    missing = np.zeros(values.shape, bool)
    for fill in fills:
        if np.isnan(fill):
            continue
        if values.dtype.kind == "f":
            missing |= _near(values, fill)
        elif fits(fill, values.dtype):
            missing |= values == values.dtype.type(int(fill))
    return missing


def _near(values: np.ndarray, fill: float) -> np.ndarray:
    limit = float(np.finfo(values.dtype).max)
    fill = float(np.clip(fill, -limit, limit))
    with np.errstate(over="ignore", invalid="ignore"):
        if abs(fill) >= HUGE:
            return values * np.sign(fill) >= 0.99 * abs(fill)
        return np.abs(values - fill) <= ROUNDING * abs(fill)


def fits(fill: float, dtype: np.dtype) -> bool:
    """Return whether numbers of a dtype can equal a fill value."""
    if dtype.kind not in "iu":
        return dtype.kind == "f"
    span = np.iinfo(dtype)
    return bool(np.isfinite(fill) and span.min <= fill <= span.max and fill == int(fill))


def _outside(values: np.ndarray, limits: Limits) -> np.ndarray:
    outside = np.zeros(values.shape, bool)
    as_dtype = values.dtype.type if values.dtype.kind == "f" else float
    if limits.low is not None:
        outside |= values < as_dtype(limits.low)
    if limits.high is not None:
        outside |= values > as_dtype(limits.high)
    return outside


def check_codes(values: Any) -> None:
    """Refuse codes of classes that are not distinct in float32.

    Raises
    ------
    GridError
        With such a code.
    """
    values = np.atleast_1d(np.asarray(values))
    if values.dtype.kind not in "iuf":
        return
    large = values[np.isfinite(values) & (np.abs(values.astype("float64")) > LARGEST_CODE)]
    if large.size:
        raise GridError(
            f"class code {large[0]:.0f} is above {LARGEST_CODE:,}: in float32, codes beyond are no longer "
            "different; renumber the classes, e.g. codes, index = numpy.unique(values, return_inverse=True)"
        )


def numbers_of(attrs: Mapping[str, Any], key: str) -> list[float]:
    """Return an attribute as numbers: one, several, or as text.

    Raises
    ------
    GridError
        When it is no number.
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
