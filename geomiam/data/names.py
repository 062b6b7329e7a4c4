"""Names of variables and dims as text, and labels along dims: a canonical form, and matching across dtypes.

One label may have several forms, which depend on the store, the calendar class and the dtype: 0.1 as
float32, 2000-02-01 as a cftime date, 4 as text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from geomiam.errors import GridError
from geomiam.schema.variable import Label

DATE = re.compile(r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d)?)(?:\.\d+)?)?(?:Z|[+-]00:?00)?")
ROUNDING = 4 * float(np.finfo(np.float32).eps)
"""Largest relative difference of two float labels that can be one label stored as float32."""
EXACT = 2**24  # integers below this are exact in float32
OF_A_STEP = 1e-6
"""Largest error of a label due to float arithmetic, as a part of the smallest step between labels."""


def text_names(ds: xr.Dataset) -> xr.Dataset:
    """Return the Dataset with names of variables, coordinates and dims as text: 1 becomes "1".

    Raises GridError if two names are equal as text, such as 1 and "1".
    """
    names = [*ds.variables, *(d for d in ds.dims if d not in ds.variables)]
    renames = {n: str(n) for n in names if not isinstance(n, str)}
    if not renames:
        return ds
    if twice := sorted({t for t in renames.values() if [str(n) for n in names].count(t) > 1}):
        raise GridError(
            f"names {twice} occur twice in the data, as text and as another type; rename one, e.g. "
            f"ds.rename({{{next(n for n in renames if str(n) == twice[0])!r}: 'band_{twice[0]}'}})"
        )
    return ds.rename(renames)


def labels_of(array: xr.DataArray, dim: str) -> tuple[Label, ...]:
    """Return the labels along a dim as plain types in their canonical form.

    Dates of any class (datetime64, cftime, ``datetime``) become ISO text, in UTC if they have a time
    zone, and without the time of day at midnight. Floats become the shortest decimal of their dtype, so
    that float32(0.1) is 0.1. Durations are in nanoseconds. A dim without coordinate has positions.
    """
    if dim not in array.coords:
        return tuple(range(array.sizes[dim]))
    values = _values(array, dim)
    if values.dtype.kind == "M":
        return tuple(_date(t) for t in np.datetime_as_string(values, unit="s"))
    if values.dtype.kind == "m":
        return tuple(values.astype("timedelta64[ns]").astype(np.int64).tolist())
    if values.dtype.kind == "f":
        return tuple(float(str(v)) for v in values)
    return tuple(_plain(v) for v in values.tolist())


def has_dates(array: xr.DataArray, dim: str) -> bool:
    """Return whether the labels along a dim are dates of any class."""
    if dim not in array.coords or not array.sizes[dim]:
        return False
    values = _values(array, dim)
    return values.dtype.kind == "M" or hasattr(values.flat[0], "isoformat")


def _values(array: xr.DataArray, dim: str) -> np.ndarray:
    index: Any = array.indexes.get(dim)
    if getattr(index, "tz", None) is not None:
        return np.asarray(index.tz_convert(None))
    return np.asarray(array[dim].values)


def positions(labels: Sequence[Label], candidates: Sequence[Label]) -> np.ndarray:
    """Return the position of each label among the candidates ``(len(labels),)``; -1 without a match.

    Two labels match if they are equal in one of these forms, tried in this order: unchanged; in their
    canonical form; as floats that differ by at most float32 rounding. A match must be unique.

    Raises ValueError if a label occurs twice among the candidates.
    """
    twice = [label for label, n in Counter(candidates).items() if n > 1 and label in set(labels)]
    if twice:
        raise ValueError(f"the label {twice[0]!r} occurs {candidates.count(twice[0])} times")
    exact = {label: i for i, label in enumerate(candidates)}
    index = np.array([exact.get(label, -1) for label in labels])
    if not (index < 0).any():
        return index
    keys, candidate_keys = [_key(w) for w in labels], [_key(f) for f in candidates]
    alone = {f: i for i, f in enumerate(candidate_keys) if candidate_keys.count(f) == 1}
    index = np.array([i if i >= 0 else alone.get(k, -1) for i, k in zip(index, keys)])
    if all(isinstance(label, int) for label in (*labels, *candidates)):
        return index  # integers are never rounded
    tolerance = OF_A_STEP * min(_least_step(keys), _least_step(candidate_keys))
    for i in np.flatnonzero(index < 0):
        near = [j for j, f in enumerate(candidate_keys) if _near(keys[i], f, tolerance)]
        claimants = [k for k in keys if near and _near(k, candidate_keys[near[0]], tolerance)]
        if len(near) == len(claimants) == 1:
            index[i] = near[0]
    return index


def _near(a: Label, b: Label, tolerance: float) -> bool:
    if isinstance(a, str) or isinstance(b, str):
        return False
    size = max(abs(a), abs(b))
    if a % 1 == b % 1 == 0 and size < EXACT:
        return a == b
    return abs(a - b) <= max(ROUNDING * size, tolerance)


def _least_step(labels: list[Label]) -> float:
    steps = np.diff(np.unique([v for v in labels if not isinstance(v, str)]))
    return float(steps.min()) if steps.size else 0.0


def _key(label: Label) -> Label:
    """Return the canonical form of a label: a float, a date as text, or text."""
    text = label.strip() if isinstance(label, str) else label
    if isinstance(text, str) and DATE.fullmatch(text):
        return _date(text)
    try:
        return float(text)
    except ValueError:
        return text


def _date(text: Any) -> str:
    """Return an ISO date without a time zone, and without the time of day at midnight."""
    match = DATE.fullmatch(str(text))
    if match is None:  # a year beyond four digits
        return str(text).removesuffix("T00:00:00")
    day, clock = match.groups()
    clock = f"{clock}:00" if clock and len(clock) == 5 else clock
    return day if clock in (None, "00:00:00") else f"{day}T{clock}"


def _plain(value: Any) -> Label:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    value = getattr(value, "start_time", value)  # of a pandas Period
    if getattr(value, "tzinfo", None) is not None:
        value = pd.Timestamp(value).tz_convert("UTC").tz_localize(None)
    if hasattr(value, "isoformat"):
        return _date(value.isoformat())
    if isinstance(value, float):
        return float(str(value))
    return value if isinstance(value, int) else str(value)
