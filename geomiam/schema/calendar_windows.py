"""Calendar periods: the dates of a series that fall into one month, one year, or 16 days.

A period is a pandas offset. Dates are assigned to periods by ``resample``, so that a window of
``1MS`` holds the same dates as a composite of ``1MS``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

WHOLE = {"YS-JAN": 4, "YE-DEC": 4, "YS": 7, "YE": 7, "QS": 7, "QE": 7, "MS": 7, "ME": 7}
"""Number of characters of an ISO date that identify a period, by the code of its offset."""
DAY = 10


def is_period(period: Any) -> bool:
    """Return whether a value is a period of a day or longer, such as ``"1MS"``, ``"QS"`` or ``"16D"``."""
    import pandas as pd

    if not isinstance(period, str):
        return False
    start = pd.Timestamp("2001-01-01")
    try:
        end = start + pd.tseries.frequencies.to_offset(period)
        return bool(end - start >= pd.Timedelta(days=1))
    except (ValueError, OverflowError):
        return False


def periods(dates: Sequence[Any], period: str) -> list[tuple[int, ...]]:
    """Sort ISO dates into periods of a pandas offset, such as ``"1MS"``.

    Returns the positions of the dates of each period, in order of time. Periods without a date are left
    out. Raises ValueError if an entry is not a date.

    Examples
    --------
    >>> periods(["2015-07-20", "2015-06-01", "2015-07-04"], "1MS")
    [(1,), (2, 0)]
    """
    import pandas as pd

    text = [d if isinstance(d, str) else None for d in dates]  # a number is a step, not a date
    times = pd.DatetimeIndex(pd.to_datetime(text, format="ISO8601", utc=True, errors="coerce"))
    if times.hasnans:
        raise ValueError(f"{dates[int(times.isna().argmax())]!r} is not a date")
    order = np.argsort(times, kind="stable")
    places = pd.Series(order, index=times[order]).resample(period)
    return [tuple(positions.tolist()) for _, positions in places if len(positions)]


def period_label(dates: Sequence[str], period: str) -> str:
    """Return the shortest text that identifies the period of some dates: ``2015-07`` for a month."""
    import pandas as pd

    code = pd.tseries.frequencies.to_offset(period).rule_code
    digits = WHOLE.get(code) or WHOLE.get(code.split("-")[0], DAY)
    first, last = min(dates)[:digits], max(dates)[:digits]
    return first if first == last else f"{first}..{last}"
