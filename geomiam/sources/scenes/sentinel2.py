"""Sentinel-2 Level-2A on a grid: reflectance with NaN for clouds, and the clear share of each cell.

Composites are medians over the dates of each period.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import xarray as xr

from geomiam.progress import with_progress
from geomiam.sources.scenes.options import SceneOptions
from geomiam.sources.scenes.plan import Plan
from geomiam.sources.scenes.profile import Band, CollectionProfile, MaskRule
from geomiam.sources.scenes.read import SeriesQuery, plan_series, read_series
from geomiam.sources.scenes.reflectance import OFFSET, SCALE
from geomiam.sources.stac.stac_source import PREFERRED, PRESETS
from geomiam.sources.stac.times import FIRST

BANDS = ("blue", "green", "red", "nir", "swir16", "swir22")
NAMES = {
    "coastal": "B01",
    "blue": "B02",
    "green": "B03",
    "red": "B04",
    "rededge1": "B05",
    "rededge2": "B06",
    "rededge3": "B07",
    "nir": "B08",
    "nir08": "B8A",
    "nir09": "B09",
    "cirrus": "B10",
    "swir16": "B11",
    "swir22": "B12",
}
SCL = MaskRule(
    asset="scl",
    title="a scene classification",
    aliases=("SCL",),
    codes=range(12),
    # 0 no data, 1 saturated, 2 dark, 3 cloud shadow, 4 vegetation, 5 bare, 6 water, 7 unclassified,
    # 8 and 9 cloud, 10 thin cirrus, 11 snow or ice
    hidden=(1, 3, 8, 9, 10),
    snow=(11,),
    nodata=(0,),
    shares={
        1: "s2:saturated_defective_pixel_percentage",
        2: "s2:dark_features_percentage",
        3: "s2:cloud_shadow_percentage",
        4: "s2:vegetation_percentage",
        5: "s2:not_vegetated_percentage",
        6: "s2:water_percentage",
        7: "s2:unclassified_percentage",
        8: "s2:medium_proba_clouds_percentage",
        9: "s2:high_proba_clouds_percentage",
        10: "s2:thin_cirrus_percentage",
        11: "s2:snow_ice_percentage",
    },
)
"""Scene classification. In lowlands many pixels of class 11 are tops of clouds."""
SENTINEL2 = CollectionProfile(
    title="Sentinel-2",
    modality="sentinel2",
    bands={n: Band(scale=SCALE, offset=OFFSET, aliases=(b,)) for n, b in NAMES.items()},
    mask=SCL,
    presets=PRESETS,
    collections=PREFERRED,
    first=FIRST,
    by_baseline=True,
    coords=("cloud_cover", "baseline", "offset"),
)


@with_progress
def sentinel2(
    like: Any,
    time: Any,
    *,
    bands: str | Sequence[str] = BANDS,
    source: Any = "earth-search",
    max_cloud: float | None = None,
    composite: str | None = None,
    options: SceneOptions | None = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """Read Sentinel-2 reflectance onto a grid, NaN for clouds, shadows and gaps.

    The STAC catalog is searched at once; pixels are read when they are computed. Each scene is scaled by
    the metadata of its item and masked on its pixels. Then the scenes of one day are combined and
    resampled to the grid. A cell has data if any of its pixels is clear.

    Parameters
    ----------
    like
        The grid: an ``odc.geo`` GeoBox or any georeferenced Dataset or DataArray.
    time
        ``"2018-03"``, ``"2018-03/2018-08"``, a pair, a slice, or one date, time or period of Python,
        numpy, pandas or xarray; dates, and times at midnight, stand for whole days. In UTC.
    bands
        Names such as ``"red"`` or ``"B04"``, which become the names of the variables.
    source
        ``"earth-search"`` (Collection 1), ``"earth-search-l2a"``, ``"planetary-computer"``, the URL
        or path of an API or a static STAC catalog, a :class:`StacSource`, an item, a list or
        FeatureCollection of items, or a search of pystac-client.
    max_cloud
        Most cloud cover of a scene, in percent of the whole scene; default: any.
    composite
        None: one step in time for each solar day. ``"median"``: one step for all. A pandas frequency
        such as ``"1MS"``: the median of each period, NaN without data.
    options
        Clouds and snow to hide, resampling, and how files are read: :class:`geomiam.sources.SceneOptions`.
    progress
        Count the items while the STAC catalog is searched; default: on a terminal or in a notebook.

    Returns
    -------
    xr.Dataset
        Each band ``(time, y, x)``, float32 reflectance, dask; ``clear_fraction(time, y, x)``, the clear
        share of a cell. Coordinates ``item_id``, ``cloud_cover``, ``baseline`` and ``offset`` along
        time, NaN if the scenes of a day differ; and ``failed(time, asset)``, the number of files that
        could not be read, dask. Composites have ``looks(time, y, x)``, the number of dates with data,
        in place of the coordinates of dates. ``attrs``: ``failed_assets``, ``scenes`` (JSON), and the
        arguments.

    Raises
    ------
    NoScenes
        If there are no scenes.
    SourceError
        If the STAC catalog cannot be searched, or a setting is not valid.
    AssetFailed
        With ``on_error="raise"``: for errors in metadata at once, for files when they are computed.
    GridError
        If ``like`` has no grid, or GDAL has no such resampling.

    Warns
    -----
    AssetsFailed
        If files could not be read.

    See Also
    --------
    geomiam.plan_sentinel2 : scenes and sizes before the start.
    geomiam.StacSource : where scenes are searched.
    geomiam.sources.landsat : Landsat by the same interface.
    geomiam.sources.sentinel1 : radar by the same interface.

    Notes
    -----
    The offset of 1000 since processing baseline 04.00 is determined for each asset from its item, not
    from the date. If an item contradicts itself, its pixels are not read, since they might be wrong by
    0.1.

    Examples
    --------
    >>> import geomiam as gm
    >>> grid = gm.open_cube("cube.zarr")  # doctest: +SKIP
    >>> gm.sentinel2(grid, "2018-05/2018-08", composite="1MS")  # doctest: +SKIP
    """
    query = SeriesQuery(bands=bands, source=source, max_cloud=max_cloud)
    settings = options or SceneOptions()
    return read_series(
        like, time, profile=SENTINEL2, query=query, options=settings, composite=composite
    )


@with_progress
def plan_sentinel2(
    like: Any,
    time: Any,
    *,
    bands: str | Sequence[str] = BANDS,
    source: Any = "earth-search",
    max_cloud: float | None = None,
    options: SceneOptions | None = None,
    progress: bool | None = None,
) -> Plan:
    """Return a plan of the scenes that :func:`sentinel2` would read; no pixel is read.

    Parameters
    ----------
    like, time, bands, source, max_cloud, options, progress
        As for :func:`sentinel2`.

    Returns
    -------
    Plan
        ``scenes`` is a table of scenes with their offsets and the reasons for them. ``dates``, ``bytes``,
        ``lost`` and ``notes`` are summaries, which ``print`` shows.

    Raises
    ------
    NoScenes, SourceError, GridError
        As :func:`sentinel2`.

    See Also
    --------
    geomiam.sentinel2 : the cube of these scenes.

    Examples
    --------
    >>> import geomiam as gm
    >>> grid = gm.open_cube("cube.zarr")  # doctest: +SKIP
    >>> print(gm.plan_sentinel2(grid, "2018-05/2018-08"))  # doctest: +SKIP
    """
    query = SeriesQuery(bands=bands, source=source, max_cloud=max_cloud)
    return plan_series(
        like, time, profile=SENTINEL2, query=query, options=options or SceneOptions()
    )
