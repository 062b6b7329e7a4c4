"""Sentinel-2 Level-2A on a grid: reflectance with NaN for clouds, and the clear share of each cell.

Composites are medians over the dates of each period.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from geomiam.data.grid.align import methods
from geomiam.data.grid.grid import geobox, restore, spatial_dims
from geomiam.errors import AssetFailed, AssetsFailed, SourceError, warn
from geomiam.progress import with_progress
from geomiam.sources.scenes.asset_reader import FailedAssets, Loader, LoadOptions
from geomiam.sources.scenes.clouds import Mask, cloud_mask
from geomiam.sources.scenes.composites import CLEAR, FAILED, dates_of_steps, in_steps
from geomiam.sources.scenes.mosaic import chunk_side, mosaics
from geomiam.sources.scenes.pixels import SceneSettings, try_mask
from geomiam.sources.scenes.plan import Plan, access_of, make_plan, scene_request
from geomiam.sources.scenes.scene import SCL
from geomiam.sources.stac.stac_source import StacSource, as_source
from geomiam.sources.web.allow_list import scrub

BANDS = ("blue", "green", "red", "nir", "swir16", "swir22")
MODALITY = "sentinel2"


@dataclass(frozen=True, kw_only=True)
class SceneOptions:
    """Options of :func:`geomiam.sentinel2` and :func:`geomiam.plan_sentinel2`.

    Parameters
    ----------
    mask
        ``"scl"``: clouds, their shadows, cirrus, saturated pixels; or SCL classes; or a function
        of a part of a scene (Dataset of the bands and ``scl``) that returns booleans, True = hidden;
        or None. The parts are the chunks of the grid, so that the function must decide pixel by pixel.
    snow
        ``"mask"``: with ``mask="scl"``, hide the class of snow, in lowlands mostly tops of clouds.
    dilate
        Metres by which hidden areas grow.
    resample
        Resampling method of GDAL, if the grid is not a part of the scene's grid.
    on_error
        ``"nan"``: a file that cannot be read becomes NaN, with a warning and a line in
        ``attrs["failed_assets"]``. ``"raise"``: it ends the computation.
    loader
        Function of items, asset keys and a GeoBox that returns a Dataset on the GeoBox. It is called in
        a dask task with one item and one asset, once for each file under a chunk. Default: GeoTIFF.
    hosts
        Further hosts of files, such as ``["data.example.org"]``, patterns such as
        ``"*.example.org"``, or buckets such as ``"s3://name"``. Without it, items of a STAC catalog may
        point only to its host and, for the presets, to the hosts of their files. Items that you pass
        may point to any host except those of private networks. Redirects may stay on the same host.

    Examples
    --------
    >>> gm.sources.SceneOptions(snow="keep").dilate
    '20m'
    """

    mask: Mask = "scl"
    snow: Literal["mask", "keep"] = "mask"
    dilate: str | float = "20m"
    resample: str = "average"
    on_error: Literal["nan", "raise"] = "nan"
    loader: Loader | None = None
    hosts: Sequence[str] = ()


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
    query = {"bands": bands, "source": source, "max_cloud": max_cloud, "composite": composite}
    return read_sentinel2(like, time, **query, options=options or SceneOptions())


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
    options = options or SceneOptions()
    grid, _ = _grid(like)
    clouds = cloud_mask(options.mask, snow=options.snow, dilate=0)
    request = scene_request(grid, time, bands, clouds=clouds, max_cloud=max_cloud)
    stac = as_source(source)
    return make_plan(request, stac, access_of(stac, options.hosts))


def read_sentinel2(
    like: Any,
    time: Any,
    *,
    bands: str | Sequence[str],
    source: Any,
    max_cloud: float | None,
    composite: str | None,
    options: SceneOptions,
    store_rows: Callable[[int], int] | None = None,
) -> xr.Dataset:
    """Return the Dataset of :func:`sentinel2`, in chunks that a store with all dates in one chunk can have.

    ``store_rows`` returns the rows of a chunk of the store from the number of steps in time. Chunks
    that are read are a multiple of these, so that no file is read for two bands of rows.
    """
    grid, template = _grid(like)
    if options.on_error not in ("nan", "raise"):
        raise SourceError(f"on_error={options.on_error!r} is not supported; use 'nan' or 'raise'")
    methods({"reflectance": xr.DataArray()}, options.resample)
    if grid.crs is None:
        raise SourceError("like= has no CRS; give the GeoBox one")
    clouds = cloud_mask(options.mask, snow=options.snow, dilate=options.dilate)
    has_loader = options.loader is not None
    request = scene_request(grid, time, bands, clouds=clouds, max_cloud=max_cloud, items=has_loader)
    stac = as_source(source)
    access = access_of(stac, options.hosts)
    plan = make_plan(request, stac, access)
    if plan.lost and options.on_error == "raise":
        raise AssetFailed("\n".join([*plan.lost[:20], "on_error='nan' leaves them out"]))
    if plan.lost:
        first_lines = "\n".join(plan.lost[:5])
        warn(f"{len(plan.lost)} files or scenes cannot be read:\n{first_lines}", AssetsFailed)
    report = FailedAssets(plan.lost)
    loading = LoadOptions(access, options.loader, options.on_error, report.key)
    scene_settings = SceneSettings(request.bands, request.clouds, options.resample, loading)
    try_mask(scene_settings, plan.windows[0].scenes[0].place.box)
    side = _side(plan, composite, bands=len(request.bands), store_rows=store_rows)
    ds = _assemble(plan, grid, side=side, settings=scene_settings)
    ds, steps = in_steps(ds, composite, start=request.search.start, end=request.search.end)
    names = {d: n for d, n in zip(("y", "x"), spatial_dims(template), strict=True) if d != n}
    ds = restore(ds.rename_dims(names), template).set_coords(FAILED)  # not a predictor
    settings = {n: getattr(options, n) for n in ("mask", "snow", "dilate", "resample")}
    return ds.assign_attrs(
        _provenance(stac, {**settings, "composite": composite}),
        failed_assets=report,
        scenes=json.dumps(_scene_rows(plan, steps)),
        notes=list(plan.notes),
    )


def _side(
    plan: Plan, period: str | None, *, bands: int, store_rows: Callable[[int], int] | None
) -> int:
    """Return the rows and columns of the chunks that are read."""
    counts = dates_of_steps(plan.dates, period)
    if store_rows is None:
        return chunk_side(bands, max(counts))
    rows = store_rows(len(counts))
    side = chunk_side(bands, len(counts) if period is None else max(counts))
    return max(side // rows, 1) * rows


def _grid(like: Any) -> tuple[GeoBox, xr.Dataset]:
    if isinstance(like, GeoBox):
        return like, xr.Dataset(coords=xr_coords(like))
    template = like.to_dataset(name="like") if isinstance(like, xr.DataArray) else like
    return geobox(template), template


def _assemble(plan: Plan, grid: GeoBox, *, side: int, settings: SceneSettings) -> xr.Dataset:
    """Return bands, clear share and failed files along days, lazily."""
    days = [list(g) for _, g in itertools.groupby(plan.windows, key=lambda w: w.day)]
    planes, failures = mosaics(days, grid, side=side, settings=settings)
    counts = [sum(len(w.scenes) for w in d) for d in days]
    ends = np.cumsum([0, *counts])  # the table has the scenes in the order of the windows
    parts = [plan.scenes.iloc[a:b] for a, b in itertools.pairwise(ends)]
    dims = ("time", "y", "x")
    attrs = {"modality": MODALITY, "units": "1", "long_name": "surface reflectance"}
    data = {b: (dims, p, attrs) for b, p in zip(settings.bands, planes, strict=False)}
    clear = {**attrs, "long_name": "clear share of the cell"}
    coords = {
        "time": pd.DatetimeIndex([p["time"].min() for p in parts]).astype("datetime64[ns]"),
        "item_id": ("time", [" ".join(p["id"]) for p in parts]),
        "cloud_cover": ("time", [p["cloud_cover"].mean() for p in parts]),
        "baseline": ("time", [_common(p["baseline"]) for p in parts]),
        "offset": ("time", [_common(p["offset"]) for p in parts]),
    }
    ds = xr.Dataset({**data, CLEAR: (dims, planes[-1], clear)}, coords)
    ds = ds.assign({FAILED: (("time", "asset"), failures)})
    return ds.assign_coords(asset=[*settings.bands, SCL])


def _common(values: pd.Series) -> float:
    return float(values.iloc[0]) if values.nunique(dropna=False) == 1 else np.nan


def _provenance(source: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    import odc.stac

    from geomiam._version import __version__

    stac = isinstance(source, StacSource)
    return {
        "source": scrub(source.url) if stac else "items of the caller",
        "collection": (source.collection or "") if stac else "",
        **{k: getattr(v, "__name__", None) or str(v) for k, v in settings.items()},
        "geomiam_version": __version__,
        "odc_stac_version": odc.stac.__version__,
    }


def _scene_rows(plan: Plan, steps: np.ndarray) -> list[dict[str, Any]]:
    """Return the scenes as rows, each with its step in time."""
    days = plan.dates
    scenes = plan.scenes.drop(columns=["bytes"]).assign(
        time=plan.scenes["time"].astype(str),
        step=[int(steps[days.index(day)]) for day in plan.scenes["day"]],
    )
    rows: list[dict[str, Any]] = (
        scenes.astype(object).where(scenes.notna(), None).to_dict("records")
    )
    return rows
