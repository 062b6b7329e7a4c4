"""Composites: medians over the dates of each period."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from geomiam.errors import SourceError

CLEAR, LOOKS, FAILED = "clear_fraction", "looks", "failed"


def in_steps(
    ds: xr.Dataset, period: str | None, *, start: str, end: str
) -> tuple[xr.Dataset, np.ndarray]:
    """Return dates, or medians of periods, and the step of the result by date.

    Every period between the requested times is a step, NaN without data, so that other places and
    scenes have the same steps.
    """
    times = ds["time"].values
    if period is None:
        return ds, np.arange(len(times))
    of_dates = [n for n, c in ds.coords.items() if "time" in c.dims and n != "time"]
    dated_cube = ds.drop_vars(of_dates).chunk(time=-1)
    if period == "median":
        return _median(dated_cube).expand_dims(time=times[:1]), np.zeros(len(times), int)
    first, last = (pd.Timestamp(t.removesuffix("Z")) for t in (start, end))
    days = pd.date_range(first.floor("D"), last, freq="D").astype("datetime64[ns]")
    try:
        starts = pd.Series(days, days).resample(period, origin="start").first()
    except ValueError as error:
        raise SourceError(
            f"composite={period!r} is not a frequency of pandas ({error}); use 'median', '1MS', '10D' ..."
        ) from None
    if starts.isna().any():
        raise SourceError(f"composite={period!r} is shorter than a day; use '1D' or more, or None")
    # a period is labelled by pandas, and starts at the first of its requested days
    steps = pd.DatetimeIndex(starts).searchsorted(pd.DatetimeIndex(times), side="right") - 1
    parts = [
        _median(dated_cube.isel(time=np.flatnonzero(steps == i))).expand_dims(time=[label])
        for i, label in enumerate(pd.DatetimeIndex(starts.index))
    ]
    return xr.concat(parts, "time"), steps


def _median(ds: xr.Dataset) -> xr.Dataset:
    """Return the medians over time, with the number of dates with data."""
    bands = {str(n): _along_time(a) for n, a in ds.data_vars.items() if n not in (CLEAR, FAILED)}
    looks = (ds[CLEAR] > 0).sum("time").astype("float32")
    looks_attrs = {**ds[CLEAR].attrs, "long_name": "number of dates with data"}
    clear = ds[CLEAR].mean("time", keep_attrs=True) if ds.sizes["time"] else looks
    out = xr.Dataset(bands).assign({LOOKS: looks.assign_attrs(looks_attrs), CLEAR: clear})
    out[CLEAR].attrs = ds[CLEAR].attrs
    return out.assign({FAILED: ds[FAILED].sum("time")})


def _along_time(array: xr.DataArray) -> xr.DataArray:
    if not array.sizes["time"]:
        missing = np.float32(np.nan)
        return xr.full_like(array.isel(time=[]).sum("time"), missing).assign_attrs(array.attrs)
    data: Any = array.data
    medians = data.map_blocks(_nanmedian, drop_axis=0, dtype=data.dtype)
    return xr.DataArray(medians, dims=array.dims[1:], attrs=array.attrs)


def _nanmedian(block: np.ndarray) -> np.ndarray:
    """Return the median of finite values over the first axis; NaN, without a warning, without any."""
    sorted_values = np.sort(block, axis=0)  # NaN is last
    count = np.isfinite(block).sum(axis=0, keepdims=True)
    places = (np.maximum(count - 1, 0) // 2, count // 2)
    low, high = (np.take_along_axis(sorted_values, p, axis=0)[0] for p in places)
    middle: np.ndarray = (low + high) / block.dtype.type(2)
    return middle


def dates_of_steps(days: list[str], period: str | None) -> list[int]:
    """Return the number of dates in each step in time, of the days with scenes."""
    if period is None:
        return [1] * len(days)
    if period == "median":
        return [len(days)]
    try:
        counts = pd.Series(1, pd.DatetimeIndex(days)).resample(period, origin="start").sum()
    except ValueError:  # refused with a message when the composite is computed
        return [len(days)]
    return [int(n) for n in counts]
