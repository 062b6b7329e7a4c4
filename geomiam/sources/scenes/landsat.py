"""Landsat Collection 2 Level-2 on a grid: surface reflectance and temperature with NaN for clouds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import xarray as xr

from geomiam.progress import with_progress
from geomiam.sources.scenes.options import SceneOptions
from geomiam.sources.scenes.plan import Plan
from geomiam.sources.scenes.profile import Band, CollectionProfile, MaskRule
from geomiam.sources.scenes.read import SeriesQuery, plan_series, read_series
from geomiam.sources.stac.stac_source import EARTH_SEARCH, PLANETARY, StacSource

BANDS = ("blue", "green", "red", "nir08", "swir16", "swir22")
USGS = "https://landsatlook.usgs.gov/stac-server"
REFLECTANCE = Band(scale=2.75e-5, offset=-0.2)
"""Conversion of Collection 2 Level-2 (USGS, Landsat 8-9 Collection 2 Level 2 Science Product Guide)."""
QA_PIXEL = MaskRule(
    asset="qa_pixel",
    title="a pixel quality band",
    aliases=("QA_PIXEL", "QA_PIXEL.TIF"),
    codes=range(8),
    bits=True,
    # 0 fill, 1 dilated cloud, 2 cirrus, 3 cloud, 4 cloud shadow, 5 snow, 6 clear, 7 water
    hidden=(1, 2, 3, 4),
    snow=(5,),
    nodata=(0,),
)
LANDSAT = CollectionProfile(
    title="Landsat",
    modality="landsat",
    bands={
        **dict.fromkeys(("coastal", "blue", "green", "red"), REFLECTANCE),
        "nir08": replace(REFLECTANCE, aliases=("nir",)),
        **dict.fromkeys(("swir16", "swir22"), REFLECTANCE),
        "lwir11": Band(
            scale=0.00341802,
            offset=149.0,
            units="K",
            long_name="surface temperature",
            aliases=("lwir", "ST_B10", "ST_B6", "ST_B10.TIF", "ST_B6.TIF"),
        ),
    },
    mask=QA_PIXEL,
    presets={
        "planetary-computer": StacSource(PLANETARY, "landsat-c2-l2"),
        "earth-search": StacSource(EARTH_SEARCH, "landsat-c2-l2"),
        "usgs": StacSource(USGS, "landsat-c2l2-sr"),
    },
    collections=("landsat-c2-l2", "landsat-c2l2-sr"),
    first=pd.Timestamp("1982-08-22"),  # first scene of Landsat 4 in the collection
    one_grid=True,
    coords=("cloud_cover", "platform"),
    labels={"platform": "platform"},
)


@with_progress
def landsat(
    like: Any,
    time: Any,
    *,
    bands: str | Sequence[str] = BANDS,
    source: Any = "planetary-computer",
    max_cloud: float | None = None,
    composite: str | None = None,
    options: SceneOptions | None = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """Read Landsat Collection 2 Level-2 onto a grid, NaN for clouds, shadows and gaps.

    As by :func:`geomiam.sentinel2`, each scene is masked on its pixels, here by QA_PIXEL. Then the scenes of
    one day are combined and resampled to the grid.

    Parameters
    ----------
    like, time, max_cloud, composite, options, progress
        As for :func:`geomiam.sentinel2`. Bits of QA_PIXEL that are hidden by default: 1 dilated cloud, 2
        cirrus, 3 cloud, 4 cloud shadow and 5 snow; bit 0 is no data.
    bands
        ``"coastal"``, ``"blue"``, ``"green"``, ``"red"``, ``"nir08"`` (or ``"nir"``), ``"swir16"``,
        ``"swir22"``; or ``"lwir11"``, surface temperature, which is ``"lwir"`` before Landsat 8. They
        become the names of the variables.
    source
        ``"planetary-computer"``, ``"earth-search"``, ``"usgs"``; or a STAC catalog or items as for
        :func:`geomiam.sentinel2`.

    Returns
    -------
    xr.Dataset
        As :func:`geomiam.sentinel2` returns it: each band ``(time, y, x)``, float32, reflectance (DN * 0.0000275
        - 0.2) or kelvin (DN * 0.00341802 + 149); and ``clear_fraction(time, y, x)``. Coordinates along
        time are ``item_id``, ``cloud_cover`` and ``platform``, such as "landsat-8".

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
    geomiam.sources.plan_landsat : scenes and sizes before the start.

    Notes
    -----
    A file whose item states another scale or offset than those of Collection 2 is not read. The files of
    Earth Search are in a bucket for which the requester pays: set the environment variable
    ``AWS_REQUEST_PAYER=requester``.

    Examples
    --------
    >>> import geomiam as gm
    >>> grid = gm.open_cube("cube.zarr")  # doctest: +SKIP
    >>> gm.sources.landsat(grid, "1990-05/1990-08", composite="median")  # doctest: +SKIP
    """
    query = SeriesQuery(bands=bands, source=source, max_cloud=max_cloud)
    settings = options or SceneOptions()
    return read_series(
        like, time, profile=LANDSAT, query=query, options=settings, composite=composite
    )


@with_progress
def plan_landsat(
    like: Any,
    time: Any,
    *,
    bands: str | Sequence[str] = BANDS,
    source: Any = "planetary-computer",
    max_cloud: float | None = None,
    options: SceneOptions | None = None,
    progress: bool | None = None,
) -> Plan:
    """Return a plan of the scenes that :func:`landsat` would read; no pixel is read.

    Parameters
    ----------
    like, time, bands, source, max_cloud, options, progress
        As for :func:`landsat`.

    Returns
    -------
    Plan
        As :func:`geomiam.plan_sentinel2` returns it.

    Raises
    ------
    NoScenes, SourceError, GridError
        As :func:`landsat`.

    See Also
    --------
    geomiam.sources.landsat : the cube of these scenes.

    Examples
    --------
    >>> import geomiam as gm
    >>> grid = gm.open_cube("cube.zarr")  # doctest: +SKIP
    >>> print(gm.sources.plan_landsat(grid, "1990-05/1990-08"))  # doctest: +SKIP
    """
    query = SeriesQuery(bands=bands, source=source, max_cloud=max_cloud)
    return plan_series(like, time, profile=LANDSAT, query=query, options=options or SceneOptions())
