"""Lengths in kilometres, from numbers or from text with a unit."""

from __future__ import annotations

import re
from math import inf
from typing import Any

from geomiam.errors import LengthError

Length = float | str
"""A number of kilometres above 1, or text with a unit such as ``"100 km"`` or ``"500 m"``."""

UNITS = {"km": 1.0, "m": 0.001}
MERIDIAN, EQUATOR = 20003.93, 40075.02  # lengths from pole to pole and around the equator in km


def kilometres(length: Length, name: str = "length", *, zero: bool = False) -> float:
    """Return a length in kilometres; ``name`` is that of the setting, for messages.

    Raises LengthError if the length is not finite and above 0 (with ``zero``: at least 0) or has another
    unit than km or m. Numbers of at most 1 without a unit are refused because they may be degrees, lengths
    of more than half of the earth's circumference because they may be metres.

    Examples
    --------
    >>> kilometres("500 m")
    0.5
    """
    number, unit = _parse(length)
    if number is None or not (0 < number < inf or (zero and number == 0)):
        raise LengthError(
            f"{name} must be a length {'of at least' if zero else 'above'} 0 in km, or text with the unit "
            f"km or m, found {length!r}: pass for example {name}=100, '100 km' or '500 m'"
        )
    if may_mean_degrees(length):
        raise LengthError(
            f"{name}={length} may mean degrees: lengths are km. Pass '{number:g} km' if that is meant; a "
            f"degree of latitude is '111 km'"
        )
    km = number * UNITS.get(unit, 1.0)
    if km > MERIDIAN:
        raise LengthError(
            f"{name}={length} is longer than half of the earth's circumference ({MERIDIAN:,.0f} km): "
            f"numbers are km. Pass '{number:.10g} m' if metres are meant"
        )
    return km


def block_side(size: Length, name: str = "size") -> float:
    """Return the side of a spatial block in kilometres, as :func:`kilometres`.

    Here a bare number of at most 1 is km too: blocks of so few km that they are nearly single places
    are replaced by larger ones, with a warning.
    """
    return kilometres(f"{size} km" if may_mean_degrees(size) else size, name)


def may_mean_degrees(length: Any) -> bool:
    """Return whether a length is a number of at most 1 without a unit, which may be degrees."""
    number, unit = _parse(length)
    return unit == "" and number is not None and 0 < number <= 1


def _parse(length: Any) -> tuple[float | None, str]:
    """Return the number and the unit of a length; the unit is ``""`` if there is none."""
    if isinstance(length, bool):
        return None, ""
    text = re.fullmatch(r"\s*(\S+?)\s*(km|m|)\s*", length) if isinstance(length, str) else None
    try:
        return (float(text[1]), text[2]) if text else (float(length), "")
    except (TypeError, ValueError):
        return None, ""


def as_text(km: float) -> str:
    """Return a length as text, such as ``"120 km"`` or ``"500 m"``."""
    return f"{km:.6g} km" if km >= 1 else f"{km * 1000:.6g} m"
