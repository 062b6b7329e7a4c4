"""The period of a search, from text, dates and times of Python, numpy, pandas and xarray, in UTC."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

import numpy as np
import pandas as pd

from geomiam.errors import SourceError

FIRST = pd.Timestamp("2015-06-23")
"""Launch of Sentinel-2A."""
OPEN = (None, "", "..")
ZONE = re.compile(r"(?<=[\d:.])\s*(Z|[+-]\d{2}:?\d{2})$", re.IGNORECASE)
PERIODS = ("Y", "M", "D")
"""Units of numpy's datetime64 that are periods."""


def period(time: Any, *, first: pd.Timestamp = FIRST) -> tuple[str, str]:
    """Return the first and last second of ``time=``, in UTC.

    Text, dates, and times at midnight stand for whole periods or days, other times for one second.
    None or ``".."`` is an open end: ``first``, or now.
    """
    try:
        low, high = _pair(time)
        start = first if _is_open(low) else _edges(low)[0]
        end = pd.Timestamp.now("UTC").tz_localize(None) if _is_open(high) else _edges(high)[1]
        backwards = end < start
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise SourceError(
            f"time={time!r} is not a period ({error}); pass a pair such as ('2018-03', '2018-08')"
        ) from None
    if backwards:
        raise SourceError(f"time={time!r} ends before it starts")
    return f"{start.floor('s').isoformat()}Z", f"{end.floor('s').isoformat()}Z"


def _is_open(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value.strip() in OPEN)


def _pair(time: Any) -> tuple[Any, Any]:
    if isinstance(time, str):
        parts: list[Any] = time.split("/")
    elif isinstance(time, slice):
        if time.step is not None:
            raise ValueError("a slice with a step")
        parts = [time.start, time.stop]
    else:
        single = np.ndim(time) == 0 and not hasattr(time, "__next__")
        parts = [time] if single else list(time)
    if len(parts) not in (1, 2):
        raise ValueError(f"{len(parts)} times; expected the first and the last")
    if all(_is_open(p) for p in parts):
        raise ValueError("neither a start nor an end")
    return parts[0], parts[-1]


def _edges(value: Any) -> tuple[pd.Timestamp, pd.Timestamp]:
    """Return the first and last time of one value."""
    value = getattr(value, "values", value)  # of a coordinate of xarray
    if isinstance(value, np.ndarray):
        value = value[()]
    if isinstance(value, pd.Interval):
        raise TypeError("an Interval; pass (interval.left, interval.right)")
    if isinstance(value, pd.Period):
        return value.start_time, value.end_time
    if isinstance(value, str):
        return _of_text(value.strip())
    year = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if year and not 1900 <= value <= 2200:
        raise ValueError(f"{int(value)} is not a year")
    unit = np.datetime_data(value.dtype)[0] if isinstance(value, np.datetime64) else ""
    if year or unit in PERIODS:  # finer units of numpy are moments
        period = pd.Period(str(value), freq="Y" if year else unit)
        return period.start_time, period.end_time
    if isinstance(value, (dt.date, np.datetime64)):
        return _of_moment(pd.Timestamp(value))
    raise TypeError(f"a {type(value).__name__}")


def _of_text(text: str) -> tuple[pd.Timestamp, pd.Timestamp]:
    zone = ZONE.search(text) if ":" in text else None
    period = pd.Period(text[: zone.start()] if zone else text)
    if period.start_time is pd.NaT:
        raise ValueError("NaT")
    if not zone:
        return period.start_time, period.end_time
    east = pd.Timestamp(f"2000-01-01T00:00:00{zone[1].upper()}").utcoffset()
    return period.start_time - east, period.end_time - east


def _of_moment(moment: pd.Timestamp) -> tuple[pd.Timestamp, pd.Timestamp]:
    """Return a day for midnight in the time zone of the value, otherwise one second."""
    if moment is pd.NaT:
        raise ValueError("NaT")
    step = pd.Timedelta(1, "D" if moment == moment.normalize() else "s")
    start = moment.floor("s")
    end = start + step - pd.Timedelta(1, "ns")
    if moment.tzinfo:
        start, end = (t.tz_convert("UTC").tz_localize(None) for t in (start, end))
    return start, end
