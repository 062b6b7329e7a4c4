"""Sentinel-1 backscatter with radiometric terrain correction (RTC) on a grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from geomiam.errors import SourceError
from geomiam.progress import with_progress
from geomiam.sources.scenes.options import SceneOptions
from geomiam.sources.scenes.plan import Plan
from geomiam.sources.scenes.profile import Band, CollectionProfile, MaskRule
from geomiam.sources.scenes.read import SeriesQuery, plan_series, read_series
from geomiam.sources.stac.stac_source import PLANETARY, StacSource

BANDS = ("vv", "vh")
ORBIT = "sat:orbit_state"
Orbit = Literal["ascending", "descending"] | None
BACKSCATTER = Band(scale=1.0, offset=0.0, long_name="gamma nought backscatter")
LAYOVER = MaskRule(asset="mask", title="a mask of layover and shadow", codes=range(256))
"""Layover and shadow: providers code them differently, so that no code is hidden by default."""
SENTINEL1 = CollectionProfile(
    title="Sentinel-1 RTC",
    modality="sentinel1",
    bands=dict.fromkeys(("vv", "vh", "hh", "hv"), BACKSCATTER),
    mask=LAYOVER,
    presets={"planetary-computer": StacSource(PLANETARY, "sentinel-1-rtc")},
    collections=("sentinel-1-rtc", "s1_rtc"),
    first=pd.Timestamp("2014-04-03"),  # launch of Sentinel-1A
    bytes=4,
    one_grid=True,
    coords=("orbit",),
    labels={"orbit": ORBIT, "platform": "platform"},
    split="orbit",
)


@with_progress
def sentinel1(
    like: Any,
    time: Any,
    *,
    bands: str | Sequence[str] = BANDS,
    source: Any = "planetary-computer",
    orbit: Orbit = None,
    units: Literal["1", "dB"] = "1",
    composite: str | None = None,
    options: SceneOptions | None = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """Read Sentinel-1 backscatter with radiometric terrain correction (RTC) onto a grid.

    Scenes are combined and resampled as by :func:`geomiam.sentinel2`. Radar penetrates clouds, so pixels
    are hidden only by ``mask=`` of the options.

    Parameters
    ----------
    like, time, composite, options, progress
        As for :func:`geomiam.sentinel2`. ``SceneOptions(mask=[1, 2, 3])`` hides codes of an asset
        "mask", such as layover and shadow, if the collection has it; its documentation lists the codes.
    bands
        Polarizations: ``"vv"``, ``"vh"``, ``"hh"``, ``"hv"``.
    source
        ``"planetary-computer"``; or a STAC catalog or items as for :func:`geomiam.sentinel2`.
    orbit
        ``"ascending"`` or ``"descending"``: only the scenes of this direction; default: both. Scenes of one
        day with different directions are separate steps in time.
    units
        ``"1"``: linear power. ``"dB"``: decibels, 10 log10 of the power. Averages and medians are computed
        before, from power.

    Returns
    -------
    xr.Dataset
        As :func:`geomiam.sentinel2` returns it: each band ``(time, y, x)``, float32, gamma nought; and
        ``clear_fraction(time, y, x)``, the share of a cell with data. Power of 0 and below is no data.
        Coordinates along time are ``item_id`` and ``orbit``.

    Raises
    ------
    NoScenes, SourceError, AssetFailed, GridError
        As :func:`geomiam.sentinel2`.

    Warns
    -----
    AssetsFailed
        If files could not be read.

    See Also
    --------
    geomiam.sources.plan_sentinel1 : scenes and sizes before the start.

    Examples
    --------
    >>> import geomiam as gm
    >>> grid = gm.open_cube("cube.zarr")  # doctest: +SKIP
    >>> gm.sources.sentinel1(grid, "2021", orbit="ascending", composite="1MS")  # doctest: +SKIP
    """
    if units not in ("1", "dB"):
        raise SourceError(f"units={units!r} is not supported; use '1' or 'dB'")
    query = SeriesQuery(bands=bands, source=source, properties=_of_orbit(orbit))
    settings = options or SceneOptions()
    ds = read_series(
        like, time, profile=SENTINEL1, query=query, options=settings, composite=composite
    )
    if units == "dB":
        names = [bands] if isinstance(bands, str) else bands
        ds = ds.assign({name: _decibel(ds[name]) for name in names})
    return ds.assign_attrs(orbit=str(orbit))


@with_progress
def plan_sentinel1(
    like: Any,
    time: Any,
    *,
    bands: str | Sequence[str] = BANDS,
    source: Any = "planetary-computer",
    orbit: Orbit = None,
    options: SceneOptions | None = None,
    progress: bool | None = None,
) -> Plan:
    """Return a plan of the scenes that :func:`sentinel1` would read; no pixel is read.

    Parameters
    ----------
    like, time, bands, source, orbit, options, progress
        As for :func:`sentinel1`.

    Returns
    -------
    Plan
        As :func:`geomiam.plan_sentinel2` returns it.

    Raises
    ------
    NoScenes, SourceError, GridError
        As :func:`sentinel1`.

    See Also
    --------
    geomiam.sources.sentinel1 : the cube of these scenes.

    Examples
    --------
    >>> import geomiam as gm
    >>> grid = gm.open_cube("cube.zarr")  # doctest: +SKIP
    >>> print(gm.sources.plan_sentinel1(grid, "2021-05"))  # doctest: +SKIP
    """
    query = SeriesQuery(bands=bands, source=source, properties=_of_orbit(orbit))
    return plan_series(
        like, time, profile=SENTINEL1, query=query, options=options or SceneOptions()
    )


def _of_orbit(orbit: Orbit) -> dict[str, dict[str, Any]]:
    if orbit not in ("ascending", "descending", None):
        raise SourceError(f"orbit={orbit!r}: use 'ascending', 'descending' or None")
    return {} if orbit is None else {ORBIT: {"eq": orbit}}


def _decibel(power: xr.DataArray) -> xr.DataArray:
    """Return 10 log10 of power; NaN for 0 and below, which kernels with negative weights can return."""
    decibel: Any = 10 * xr.apply_ufunc(np.log10, power.where(power > 0), dask="allowed")
    array: xr.DataArray = decibel.astype("float32").assign_attrs({**power.attrs, "units": "dB"})
    return array
