"""Parsing of variable attributes; attributes of an unexpected type are ignored."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

NUMBER = re.compile(r"[+-]?\d+(?:\.0*)?(?=[bBsSlLuU]*$)")
"""A whole number as CDL writes it, with a letter for its type."""


def text_of(attrs: Mapping, key: str) -> str | None:
    """Return an attribute as text, or None if it is absent, empty or NaN.

    The number 1 becomes "1", bytes are decoded as UTF-8, and the items of a list are joined by blanks.
    """
    items = _items(attrs.get(key))
    return " ".join(items) or None


def flags_of(attrs: Mapping) -> dict[int, str]:
    """Return class codes and their meanings from ``flag_values`` and ``flag_meanings``.

    Values may be an array, a list or text; meanings may be text or a list. If their numbers differ,
    each code is its own meaning. If a value is not an integer, the result is empty.
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
    """Return the words of an attribute, separated by commas, semicolons or blanks."""
    items = _items(value)
    return [w for i in items for w in re.split(r"[\s,;]+", i.strip("[]() ")) if w]


def _meanings(value: Any, count: int) -> list[str]:
    """Return the meanings, split in the way that gives as many as there are codes; otherwise none."""
    items = _items(value)
    readings = [items, _split(value), [w.strip() for i in items for w in i.split(",")]]
    return next((r for r in readings if len(r) == count), [])


def _code(word: str) -> int | None:
    match = NUMBER.match(word)
    return int(float(match.group())) if match else None
