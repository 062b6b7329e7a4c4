"""Checks of single settings: type and range of numbers."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

from geomiam.errors import SettingError


def check_number(name: str, value: Any, *, requirement: str, accepts: Any, hint: str) -> None:
    """Refuse a setting that is not a number, or lies outside its range.

    Parameters
    ----------
    name : str
        Name of the setting, as the user passes it.
    value
        Value of the setting.
    requirement : str
        The range in words, such as ``"must be >= 1"``.
    accepts : callable
        Function that returns whether a number lies in the range.
    hint : str
        Advice on valid values.

    Raises
    ------
    SettingError
        With the setting, the range and the value.
    """
    if not isinstance(value, Real) or not accepts(value):
        raise SettingError(f"{name} {requirement}, found {value!r}; {hint}")


def check_count(name: str, value: Any, *, minimum: int, hint: str) -> None:
    """Refuse a setting that is not an integer, or is smaller than ``minimum``.

    Raises
    ------
    SettingError
        With the setting, the minimum and the value.
    """
    if not isinstance(value, Integral) or value < minimum:
        raise SettingError(f"{name} must be at least {minimum}, found {value!r}; {hint}")
