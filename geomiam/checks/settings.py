"""Checks of single settings: numbers of the right kind, within their range."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

from geomiam.errors import SettingError


def check_number(name: str, value: Any, *, requirement: str, accepts: Any, hint: str) -> None:
    """Refuse a setting that is no number, or lies outside its range.

    Parameters
    ----------
    name : str
        Of the setting, as the caller passes it.
    value
        What was passed.
    requirement : str
        The range in words, such as ``"must be >= 1"``.
    accepts : callable
        Whether a number lies in the range.
    hint : str
        What to pass instead.

    Raises
    ------
    SettingError
        With the setting, the range and the value.
    """
    if not isinstance(value, Real) or not accepts(value):
        raise SettingError(f"{name} {requirement}, found {value!r}; {hint}")


def check_count(name: str, value: Any, *, minimum: int, hint: str) -> None:
    """Refuse a setting that is no whole number, or too small.

    Raises
    ------
    SettingError
        With the setting, the least number and the value.
    """
    if not isinstance(value, Integral) or value < minimum:
        raise SettingError(f"{name} must be at least {minimum}, found {value!r}; {hint}")
