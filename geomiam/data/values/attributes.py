"""Attributes of variables as hints: of whatever type they are, they are read or left out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

NUMBER = re.compile(r"[+-]?\d+(?:\.0*)?(?=[bBsSlLuU]*$)")
"""A whole number as CDL writes it, with a letter for its type."""


def text_of(attrs: Mapping, key: str) -> str | None:
    """Return an attribute as text; None where it is absent, empty or NaN.

    The number 1 is read as "1", bytes as UTF-8, and a list as its items joined by blanks.
    """
    items = _items(attrs.get(key))
    return " ".join(items) or None


def flags_of(attrs: Mapping) -> dict[int, str]:
    """Return class codes and their meanings from ``flag_values`` and ``flag_meanings``.

    Values may be an array, a list or text; meanings text or a list. Codes stand for themselves where
    the meanings are of another number. Nothing is returned where a value is no whole number.
    """
    codes = [_code(v) for v in _split(attrs.get("flag_values"))]
    integers = [c for c in codes if c is not None]
    if len(integers) < len(codes):
        return {}
    meanings = _meanings(attrs.get("flag_meanings"), len(codes))
    return dict(zip(integers, meanings or map(str, integers)))


def _items(value: Any) -> list[str]:
    flat = value.ravel().tolist() if isinstance(value, np.ndarray) else value
    items = flat if isinstance(flat, (list, tuple)) else [flat]
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
    """Split text at commas, semicolons and blanks; other values are lists already."""
    items = _items(value)
    return [w for i in items for w in re.split(r"[\s,;]+", i.strip("[]() ")) if w]


def _meanings(value: Any, count: int) -> list[str]:
    """Return the one reading of the meanings that has as many as there are codes, or nothing."""
    items = _items(value)
    readings = [items, _split(value), [w.strip() for i in items for w in i.split(",")]]
    return next((r for r in readings if len(r) == count), [])


def _code(word: str) -> int | None:
    match = NUMBER.match(word)
    return int(float(match.group())) if match else None
