"""Periods of the calendar: which dates of a series fall into one month, one year, or 16 days.

Periods are pandas offsets, and dates fall into them as ``resample`` puts them there, so a window of
``1MS`` holds the same dates as a composite of ``1MS``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

WHOLE = {"YS-JAN": 4, "YE-DEC": 4, "YS": 7, "YE": 7, "QS": 7, "QE": 7, "MS": 7, "ME": 7}
"""Characters of an ISO date that name a period, by the code of its offset."""
DAY = 10


def is_period(every: Any) -> bool:
    """Whether a value is a period of a day or longer, such as ``"1MS"``, ``"QS"`` or ``"16D"``."""
    import pandas as pd

    if not isinstance(every, str):
        return False
    start = pd.Timestamp("2001-01-01")
    try:
        return start + pd.tseries.frequencies.to_offset(every) - start >= pd.Timedelta(days=1)
    except (ValueError, OverflowError):
        return False


def periods(dates: Sequence[Any], every: str) -> list[tuple[int, ...]]:
    """Sort dates into periods.

    Parameters
    ----------
    dates : sequence of str
        ISO dates, in any order.
    every : str
        A period.

    Returns
    -------
    list of tuple of int
        Positions of the dates of each period, in order of time; periods without a date are left out.

    Raises
    ------
    ValueError
        If one is no date.
    """
    import pandas as pd

    text = [d if isinstance(d, str) else None for d in dates]  # a number is a step, not a date
    times = pd.DatetimeIndex(pd.to_datetime(text, format="ISO8601", utc=True, errors="coerce"))
    if times.hasnans:
        raise ValueError(f"{dates[int(times.isna().argmax())]!r} is no date")
    order = np.argsort(times, kind="stable")
    places = pd.Series(order, index=times[order]).resample(every)
    return [tuple(found.tolist()) for _, found in places if len(found)]


def spelled(dates: Sequence[str], every: str) -> str:
    """Name a period by the dates it holds, as far as it takes to tell it: ``2015-07`` for a month."""
    import pandas as pd

    code = pd.tseries.frequencies.to_offset(every).rule_code
    digits = WHOLE.get(code) or WHOLE.get(code.split("-")[0], DAY)
    first, last = min(dates)[:digits], max(dates)[:digits]
    return first if first == last else f"{first}..{last}"
