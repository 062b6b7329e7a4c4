"""Checks of single settings: type and range of numbers."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

from geomiam.errors import SettingError


def check_number(name: str, value: Any, *, requirement: str, accepts: Any, hint: str) -> None:
    """Refuse a setting that is not a number, or for which ``accepts(value)`` is False.

    ``requirement`` is the range in words, such as ``"must be >= 1"``; ``hint`` is advice on valid values.
    """
    if not isinstance(value, Real) or not accepts(value):
        raise SettingError(f"{name} {requirement}, found {value!r}; {hint}")


def check_count(name: str, value: Any, *, minimum: int, hint: str) -> None:
    """Refuse a setting that is not an integer, or is smaller than ``minimum``."""
    if not isinstance(value, Integral) or value < minimum:
        raise SettingError(f"{name} must be at least {minimum}, found {value!r}; {hint}")
