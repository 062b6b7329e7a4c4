"""Sentinel-2 Level-2A on a grid: reflectance with NaN for clouds, and how clear each cell was."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from geomiam.errors import AssetFailed, AssetsFailed, SourceError, warn
from geomiam.progress import with_progress
from geomiam.sources.sentinel2 import composites
from geomiam.sources.sentinel2.clouds import Mask, clouds
from geomiam.sources.sentinel2.composites import CLEAR, FAILED
from geomiam.sources.sentinel2.load import FailedAssets, GeoTiffs, Loader, Reading
from geomiam.sources.sentinel2.mosaic import Recipe, day
from geomiam.sources.sentinel2.plan import Plan, access_of, prepare, request
from geomiam.sources.sentinel2.windows import Window
from geomiam.sources.stac.items import SCL
from geomiam.sources.stac.stac_source import StacSource, as_source
from geomiam.sources.web.text import scrub

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

BANDS = ("blue", "green", "red", "nir", "swir16", "swir22")
MODALITY = "sentinel2"


@with_progress
def sentinel2(
    like: Any,
    time: Any,
    *,
    bands: str | Sequence[str] = BANDS,
    source: Any = "earth-search",
    mask: Mask = "scl",
    snow: Literal["mask", "keep"] = "mask",
    dilate: str | float = "20m",
    max_cloud: float | None = None,
    composite: str | None = None,
    resample: str = "average",
    on_error: Literal["nan", "raise"] = "nan",
    loader: Loader | None = None,
    hosts: Sequence[str] = (),
    progress: bool | None = None,
) -> xr.Dataset:
    """Read Sentinel-2 reflectance onto a grid, NaN where clouds, shadows or gaps are.

    Lazy: the catalogue is searched now, pixels are read when they are computed. Each scene is
    scaled by what its own item says and masked on its own pixels; then scenes of one day are
    joined and brought onto the grid. A cell is kept when any of its pixels is clear.

    Parameters
    ----------
    like
        The grid: an ``odc.geo`` GeoBox or any georeferenced Dataset or DataArray.
    time
        ``"2018-03"``, ``"2018-03/2018-08"``, a pair, a slice, or one date, time or period of Python,
        numpy, pandas or xarray; dates, and times at midnight, count as whole days. In UTC.
    bands
        Names such as ``"red"`` or ``"B04"``; variables are named as given here.
    source
        ``"earth-search"`` (Collection 1), ``"earth-search-l2a"``, ``"planetary-computer"``, the URL
        or path of an API or a static catalogue, a :class:`StacSource`, an item, a list or
        FeatureCollection of items, or a search of pystac-client.
    mask
        ``"scl"``: clouds, their shadows, cirrus, saturated pixels; or SCL classes; or a function
        from one scene (Dataset of the bands and ``scl``) to booleans, True = hidden; or None.
    snow
        With ``mask="scl"``: hide what is classified as snow, in lowlands mostly the tops of clouds.
    dilate
        Metres by which what is hidden grows.
    max_cloud
        Leave out scenes with more cloud cover, in percent of the whole scene.
    composite
        None: one step of time a solar day. ``"median"``: one step for all; or a pandas frequency
        such as ``"1MS"``: the median of each of its periods, NaN where nothing was seen.
    resample
        How pixels become cells where the grid is not the scene's own: one of GDAL's names.
    on_error
        ``"nan"``: a file that cannot be read becomes NaN, with a warning and a line in
        ``attrs["failed_assets"]``. ``"raise"``: it ends the computation.
    loader
        Reads instead of the package: a function of items, asset keys and a GeoBox that returns a
        Dataset on it, called in each task with one item and one asset.
    hosts
        Further hosts that files may be read from, such as ``["data.example.org"]``, patterns such as
        ``"*.example.org"``, or buckets such as ``"s3://name"``. Without it, items of a catalogue may
        point to the catalogue's own host and, for well-known ones, to where their files are; items
        that you pass to any host but those of private networks, and redirects to the same host.
    progress
        Count the items while the catalogue is searched; default: on a terminal or in a notebook.

    Returns
    -------
    xr.Dataset
        Each band ``(time, y, x)`` float32 reflectance, dask; ``clear_fraction(time, y, x)``, the
        share of a cell that was seen; coordinates ``item_id``, ``cloud_cover``, ``baseline``,
        ``offset`` along time, NaN where the scenes of a day differ, and ``failed(time, asset)``, how
        many files could not be read, dask as well. Composites have ``looks(time, y, x)`` instead, the dates with data.
        ``attrs``: ``failed_assets``, ``scenes`` (JSON), and how it was made.

    Raises
    ------
    NoScenes
        When nothing was found.
    SourceError
        When the catalogue cannot be asked, or a setting is wrong.
    AssetFailed
        With ``on_error="raise"``; for what metadata tell, at once.
    GridError
        When ``like`` has no grid, or GDAL has no such resampling.

    Warns
    -----
    AssetsFailed
        For files that could not be read.

    Notes
    -----
    The offset of 1000 since processing baseline 04.00 is decided for each asset by its item, never
    by date. Where an item contradicts itself its pixels are not read, as they might be off by 0.1.
    """
    grid, template = _grid(like)
    _check(on_error, resample, grid)
    wanted = request(
        grid, time, bands, clouds=clouds(mask, snow=snow, dilate=dilate), max_cloud=max_cloud
    )
    stac = as_source(source)
    plan = prepare(wanted, stac, hosts=hosts)
    report = _report(plan, on_error)
    access = access_of(stac if isinstance(stac, StacSource) else None, hosts)
    reading = Reading(loader or GeoTiffs(access), on_error, report.key)
    recipe = Recipe(wanted.bands, wanted.clouds, resample, reading)
    ds = _assemble(plan, grid, recipe=recipe)
    when = wanted.search
    steps = composites.steps(ds["time"].values, composite, start=when.start, end=when.end)
    if composite:
        ds = composites.composite(ds, composite, start=when.start, end=when.end)
    made = _made(stac, mask=mask, snow=snow, dilate=dilate, composite=composite, resample=resample)
    ds = _placed(ds, template).set_coords(FAILED)  # not a predictor
    return ds.assign_attrs(made, failed_assets=report, **_told(plan, steps))


@with_progress
def plan_sentinel2(
    like: Any,
    time: Any,
    *,
    bands: str | Sequence[str] = BANDS,
    source: Any = "earth-search",
    mask: Mask = "scl",
    snow: Literal["mask", "keep"] = "mask",
    max_cloud: float | None = None,
    hosts: Sequence[str] = (),
    progress: bool | None = None,
) -> Plan:
    """Say what :func:`sentinel2` would read, without reading a pixel.

    Parameters
    ----------
    like, time, bands, source, mask, snow, max_cloud, hosts, progress
        As for :func:`sentinel2`.

    Returns
    -------
    Plan
        ``scenes`` is a table of scenes with their offsets and the rule behind each; ``dates``,
        ``bytes``, ``lost`` and ``notes`` sum it up, and so does printing it.

    Raises
    ------
    NoScenes, SourceError, GridError
        As :func:`sentinel2`.
    """
    grid, _ = _grid(like)
    chosen = clouds(mask, snow=snow, dilate=0)
    wanted = request(grid, time, bands, clouds=chosen, max_cloud=max_cloud)
    return prepare(wanted, source, hosts=hosts)


def _grid(like: Any) -> tuple[GeoBox, xr.Dataset]:
    from odc.geo.geobox import GeoBox
    from odc.geo.xr import xr_coords

    from geomiam.data.grid.grid import geobox

    if isinstance(like, GeoBox):
        return like, xr.Dataset(coords=xr_coords(like))
    template = like.to_dataset(name="like") if isinstance(like, xr.DataArray) else like
    return geobox(template), template


def _check(on_error: str, resample: str, grid: GeoBox) -> None:
    from geomiam.data.grid.align import methods

    if on_error not in ("nan", "raise"):
        raise SourceError(f"on_error={on_error!r} is not known; use 'nan' or 'raise'")
    methods({"reflectance": xr.DataArray()}, resample)
    if grid.crs is None:
        raise SourceError("like= has no CRS; give the GeoBox one")


def _report(plan: Plan, on_error: str) -> FailedAssets:
    if plan.lost and on_error == "raise":
        raise AssetFailed("\n".join([*plan.lost[:20], "on_error='nan' leaves them out"]))
    if plan.lost:
        shown = "\n".join(plan.lost[:5])
        warn(f"{len(plan.lost)} files or scenes cannot be read:\n{shown}", AssetsFailed)
    return FailedAssets(plan.lost)


def _assemble(plan: Plan, grid: GeoBox, *, recipe: Recipe) -> xr.Dataset:
    import dask.array as da

    days = [list(g) for _, g in itertools.groupby(plan.windows, key=lambda w: w.day)]
    planes, failed = zip(*(day(d, grid, recipe=recipe) for d in days), strict=True)
    stack = da.stack(planes)
    dims = ("time", "y", "x")
    attrs = {"modality": MODALITY, "units": "1", "long_name": "surface reflectance"}
    data = {b: (dims, stack[:, i], attrs) for i, b in enumerate(recipe.bands)}
    clear = {**attrs, "long_name": "share of the cell that was seen"}
    return (
        xr.Dataset(
            {**data, CLEAR: (dims, da.nan_to_num(stack[:, -1]), clear)}, _coordinates(plan, days)
        )
        .assign({FAILED: (("time", "asset"), da.stack(failed))})
        .assign_coords(asset=[*recipe.bands, SCL])
    )


def _coordinates(plan: Plan, days: Sequence[Sequence[Window]]) -> dict[str, Any]:
    counts = [sum(len(w.scenes) for w in d) for d in days]
    ends = np.cumsum([0, *counts])  # the table has the scenes in the order of the windows
    parts = [plan.scenes.iloc[a:b] for a, b in itertools.pairwise(ends)]
    return {
        "time": pd.DatetimeIndex([p["time"].min() for p in parts]).astype("datetime64[ns]"),
        "item_id": ("time", [" ".join(p["id"]) for p in parts]),
        "cloud_cover": ("time", [p["cloud_cover"].mean() for p in parts]),
        "baseline": ("time", [_common(p["baseline"]) for p in parts]),
        "offset": ("time", [_common(p["offset"]) for p in parts]),
    }


def _common(values: pd.Series) -> float:
    return float(values.iloc[0]) if values.nunique(dropna=False) == 1 else np.nan


def _placed(ds: xr.Dataset, template: xr.Dataset) -> xr.Dataset:
    """Stamp coordinates and CRS of the grid, under its own names of dims."""
    from geomiam.data.grid.grid import restore, spatial_dims

    names = dict(zip(("y", "x"), spatial_dims(template), strict=True))
    return restore(ds.rename_dims(names) if names != {"y": "y", "x": "x"} else ds, template)


def _made(source: Any, **settings: Any) -> dict[str, Any]:
    import odc.stac

    from geomiam._version import __version__

    stac = isinstance(source, StacSource)
    return {
        "source": scrub(source.url) if stac else "items given by the caller",
        "collection": (source.collection or "") if stac else "",
        **{k: _text(v) for k, v in settings.items()},
        "geomiam_version": __version__,
        "odc_stac_version": odc.stac.__version__,
    }


def _text(value: Any) -> str:
    return getattr(value, "__name__", None) or str(value)


def _told(plan: Plan, steps: np.ndarray) -> dict[str, Any]:
    """Return the scenes as JSON, each with the step in time that it goes into."""
    days = sorted({w.day for w in plan.windows})
    scenes = plan.scenes.drop(columns=["bytes"]).assign(
        time=plan.scenes["time"].astype(str),
        step=[int(steps[days.index(day)]) for day in plan.scenes["day"]],
    )
    rows = scenes.astype(object).where(scenes.notna(), None).to_dict("records")
    return {
        "scenes": json.dumps(rows),
        "notes": list(plan.notes),
    }
