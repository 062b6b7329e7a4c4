"""Composites: medians over the dates of each period."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from geomiam.errors import SourceError

CLEAR, LOOKS, FAILED = "clear_fraction", "looks", "failed"
OF_DATES = ("item_id", "cloud_cover", "baseline", "offset")
"""Coordinates of single dates, which composites do not have."""


def composite(ds: xr.Dataset, period: str, *, start: str, end: str) -> xr.Dataset:
    """Return the medians of periods.

    Parameters
    ----------
    ds
        Bands, ``clear_fraction`` and ``failed`` along time.
    period
        ``"median"``: one step, at the first date; or a frequency of pandas, such as ``"1MS"``.
    start, end
        Requested times. Every period in between is a step, NaN without data, so that other places and
        scenes have the same steps.

    Raises
    ------
    SourceError
        If ``period`` is not a frequency, or shorter than a day.
    """
    dated_cube = ds.drop_vars([c for c in OF_DATES if c in ds.coords]).chunk(time=-1)
    if period == "median":
        return _median(dated_cube).expand_dims(time=ds.time.values[:1])
    labels, _ = _periods(period, start, end)
    step = steps(ds.time.values, period, start=start, end=end)
    parts = [_median(dated_cube.isel(time=np.flatnonzero(step == i))) for i in range(len(labels))]
    return xr.concat(
        [p.expand_dims(time=[at]) for p, at in zip(parts, labels, strict=True)], "time"
    )


def steps(times: np.ndarray, period: str | None, *, start: str, end: str) -> np.ndarray:
    """Return the step of the result by date.

    Parameters
    ----------
    times
        Dates ``(time,)``.
    period, start, end
        As for :func:`composite`; None: a step for each date.
    """
    if period is None:
        return np.arange(len(times))
    if period == "median":
        return np.zeros(len(times), int)
    _, starts = _periods(period, start, end)
    return starts.searchsorted(pd.DatetimeIndex(times), side="right") - 1


def _periods(period: str, start: str, end: str) -> tuple[pd.DatetimeIndex, pd.DatetimeIndex]:
    """Return the labels and first days of all periods."""
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
    return pd.DatetimeIndex(starts.index), pd.DatetimeIndex(starts)


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
        nothing = np.float32(np.nan)
        return xr.full_like(array.isel(time=[]).sum("time"), nothing).assign_attrs(array.attrs)
    data: Any = array.data
    medians = data.map_blocks(_nanmedian, drop_axis=0, dtype=data.dtype)
    return xr.DataArray(medians, dims=array.dims[1:], attrs=array.attrs)


def _nanmedian(block: np.ndarray) -> np.ndarray:
    """Return the median of finite values over the first axis; NaN, without a warning, without any."""
    sorted_values = np.sort(block, axis=0)  # NaN is last
    count = np.isfinite(block).sum(axis=0, keepdims=True)
    places = (np.maximum(count - 1, 0) // 2, count // 2)
    low, high = (np.take_along_axis(sorted_values, p, axis=0)[0] for p in places)
    return (low + high) / block.dtype.type(2)
