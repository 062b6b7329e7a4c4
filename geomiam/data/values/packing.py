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
"""Attributes that describe packed numbers and are removed after unpacking."""
ROUNDING = 1e-6
"""Relative difference up to which a float equals a fill value: ten times the rounding of float32."""
HUGE = 1e30
"""Larger numbers are not measurements: they are compared with fill values by magnitude."""
LARGEST_CODE = 2**24
"""Largest integer up to which float32 represents every integer."""


@dataclass(frozen=True)
class Limits:
    """The smallest and largest valid number, packed or unpacked; None where there is no limit."""

    low: float | None = None
    high: float | None = None
    packed: bool = False


@dataclass(frozen=True)
class Packing:
    """How to turn the numbers of a file into float32 with NaN for missing.

    Attributes
    ----------
    fills
        Packed numbers that represent missing data.
    scale, offset
        Unpacked = packed × scale + offset.
    limits
        Numbers outside these limits are missing.
    unsigned
        The attribute ``_Unsigned`` of NetCDF: True reads signed integers as unsigned, False reads
        unsigned integers as signed.
    codes
        Whether the numbers are codes of classes, which float32 must represent exactly.
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
        """Whether float32 numbers remain unchanged."""
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
            For codes of classes that float32 cannot represent.
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
    """Return the dtype of integers of a file after ``_Unsigned`` is applied."""
    if is_unsigned is None or dtype.kind not in "iu":
        return dtype
    return np.dtype(f"{'u' if is_unsigned else 'i'}{dtype.itemsize}")


def is_fill(values: np.ndarray, fills: Iterable[float]) -> np.ndarray:
    """Return where numbers equal a fill value.

    Integers are compared exactly. Floats are compared up to the rounding of float32, because data have
    float32(-99.99) where a catalog has -99.99. If the fill value is beyond 1e30, floats of at least
    99 % of its magnitude are missing, so that -3.4e38 also matches -3.4028235e38.

    Parameters
    ----------
    values
        Any shape and any numeric dtype.
    fills
        Fill values; NaN is ignored, because NaN is always missing.
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
        With the first such code.
    """
    values = np.atleast_1d(np.asarray(values))
    if values.dtype.kind not in "iuf":
        return
    large = values[np.isfinite(values) & (np.abs(values.astype("float64")) > LARGEST_CODE)]
    if large.size:
        raise GridError(
            f"class code {large[0]:.0f} is above {LARGEST_CODE:,}, and float32 cannot distinguish larger codes; "
            "renumber the classes, e.g. codes, index = numpy.unique(values, return_inverse=True)"
        )


def numbers_of(attrs: Mapping[str, Any], key: str) -> list[float]:
    """Return an attribute as a list of numbers; it may be a number, several, or text.

    Raises
    ------
    GridError
        When it is not numeric.
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
