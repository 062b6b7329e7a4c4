"""Scenes of a collection on a grid: planned, read lazily, and combined by day or period."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from geomiam.data.grid.align import methods
from geomiam.data.grid.grid import geobox, restore, spatial_dims
from geomiam.errors import AssetFailed, AssetsFailed, SourceError, warn
from geomiam.sources.scenes.asset_reader import FailedAssets, LoadOptions
from geomiam.sources.scenes.clouds import AUTO, CloudMask, cloud_mask
from geomiam.sources.scenes.composites import CLEAR, FAILED, dates_of_steps, in_steps
from geomiam.sources.scenes.mosaic import chunk_side, mosaics
from geomiam.sources.scenes.options import SceneOptions
from geomiam.sources.scenes.overviews import COARSEST, MASKED
from geomiam.sources.scenes.pixels import SceneSettings, try_mask
from geomiam.sources.scenes.plan import Plan, access_of, make_plan
from geomiam.sources.scenes.profile import CollectionProfile
from geomiam.sources.scenes.scene import SceneRequest
from geomiam.sources.stac.extent import extent_of_grid
from geomiam.sources.stac.search import Search
from geomiam.sources.stac.stac_source import StacSource, as_source
from geomiam.sources.stac.times import period
from geomiam.sources.web.allow_list import scrub
from geomiam.sources.web.ranges import Access


@dataclass(frozen=True, kw_only=True)
class SeriesQuery:
    """Scenes and bands of a call, as its arguments name them."""

    bands: str | Sequence[str]
    source: Any
    max_cloud: float | None = None
    properties: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def plan_series(
    like: Any, time: Any, *, profile: CollectionProfile, query: SeriesQuery, options: SceneOptions
) -> Plan:
    """Return a plan of the scenes that :func:`read_series` would read; no pixel is read."""
    grid, _ = _grid(like)
    return make_plan(*_prepared(grid, time, profile=profile, query=query, options=options))


def read_series(
    like: Any,
    time: Any,
    *,
    profile: CollectionProfile,
    query: SeriesQuery,
    options: SceneOptions,
    composite: str | None = None,
    store_rows: Callable[[int], int] | None = None,
) -> xr.Dataset:
    """Return scenes on a grid, in chunks that a store with all dates in one chunk can have.

    ``store_rows`` returns the rows of a chunk of the store from the number of steps in time. Chunks
    that are read are a multiple of these, so that no file is read for two bands of rows.
    """
    grid, template = _grid(like)
    if options.on_error not in ("nan", "raise"):
        raise SourceError(f"on_error={options.on_error!r} is not supported; use 'nan' or 'raise'")
    methods({"reflectance": xr.DataArray()}, options.resample)
    if grid.crs is None:
        raise SourceError("like= has no CRS; give the GeoBox one")
    request, stac, access = _prepared(grid, time, profile=profile, query=query, options=options)
    plan = make_plan(request, stac, access)
    if plan.lost and options.on_error == "raise":
        raise AssetFailed("\n".join([*plan.lost[:20], "on_error='nan' leaves them out"]))
    if plan.lost:
        first_lines = "\n".join(plan.lost[:5])
        warn(f"{len(plan.lost)} files or scenes cannot be read:\n{first_lines}", AssetsFailed)
    report = FailedAssets(plan.lost)
    loading = LoadOptions(access, options.loader, options.on_error, report.key)
    clouds = replace(request.clouds, offered=plan.mask_offered)
    scene_settings = SceneSettings(request.bands, clouds, options.resample, loading)
    try_mask(scene_settings, plan.windows[0].scenes[0].place.box)
    side = _side(plan, composite, bands=len(request.bands), store_rows=store_rows)
    ds = _assemble(plan, grid, side=side, settings=scene_settings, profile=profile)
    ds, steps = in_steps(ds, composite, start=request.search.start, end=request.search.end)
    names = {d: n for d, n in zip(("y", "x"), spatial_dims(template), strict=True) if d != n}
    ds = restore(ds.rename_dims(names), template).set_coords(FAILED)  # not a predictor
    settings = {n: getattr(options, n) for n in ("mask", "snow", "dilate", "resample")}
    if options.mask == AUTO:
        settings["mask"] = profile.mask.asset if request.clouds.codes else None
    return ds.assign_attrs(
        _provenance(stac, {**settings, "composite": composite}),
        failed_assets=report,
        scenes=json.dumps(_scene_rows(plan, steps)),
        notes=list(plan.notes),
    )


def _prepared(
    grid: GeoBox,
    time: Any,
    *,
    profile: CollectionProfile,
    query: SeriesQuery,
    options: SceneOptions,
) -> tuple[SceneRequest, StacSource | Iterable[Any], Access]:
    """Return the checked request, the source, and the settings for opening its files."""
    clouds = cloud_mask(options.mask, rule=profile.mask, snow=options.snow, dilate=options.dilate)
    request = scene_request(grid, time, query, profile=profile, clouds=clouds)
    stac = as_source(query.source, profile.presets)
    if isinstance(stac, StacSource) and stac.offset is not None and not profile.by_baseline:
        raise SourceError(
            f"StacSource(offset={stac.offset}) is for Sentinel-2; remove it, since {profile.title} has "
            "one offset for each band"
        )
    access = access_of(stac, options.hosts)
    overview = 1
    if options.overviews and not (options.loader or clouds.function):
        overview = MASKED if clouds.codes else COARSEST
    return replace(request, items=options.loader is not None, overview=overview), stac, access


def scene_request(
    grid: GeoBox, time: Any, query: SeriesQuery, *, profile: CollectionProfile, clouds: CloudMask
) -> SceneRequest:
    """Return the checked arguments of a call."""
    names = (query.bands,) if isinstance(query.bands, str) else tuple(map(str, query.bands))
    mask, max_cloud = profile.mask.asset, query.max_cloud
    if not names or len(set(names)) < len(names) or mask in names:
        raise SourceError(
            f"bands={list(names)}: name each band once, such as {list(profile.bands)[:2]}; "
            f"'{mask}' is {profile.mask.title}, not a band"
        )
    for name in names:
        profile.band(name)
    if max_cloud is not None and not 0 <= max_cloud <= 100:
        raise SourceError(f"max_cloud={max_cloud} is not a percentage; use a number from 0 to 100")
    times = period(time, first=profile.first)
    search = Search(extent_of_grid(grid), *times, max_cloud, profile.collections)
    return SceneRequest(grid, search, names, profile, clouds, query.properties)


def _side(
    plan: Plan, period: str | None, *, bands: int, store_rows: Callable[[int], int] | None
) -> int:
    """Return the rows and columns of the chunks that are read."""
    counts = dates_of_steps([step[0].day for step in plan.steps], period)
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


def _assemble(
    plan: Plan, grid: GeoBox, *, side: int, settings: SceneSettings, profile: CollectionProfile
) -> xr.Dataset:
    """Return bands, clear share and failed files along steps in time, lazily."""
    planes, failures = mosaics(plan.steps, grid, side=side, settings=settings)
    counts = [sum(len(w.scenes) for w in step) for step in plan.steps]
    ends = np.cumsum([0, *counts])  # the table has the scenes in the order of the windows
    parts = [plan.scenes.iloc[a:b] for a, b in itertools.pairwise(ends)]
    dims = ("time", "y", "x")
    data = {}
    for name, plane in zip(settings.bands, planes, strict=False):
        band = profile.band(name)
        attrs = {"modality": profile.modality, "units": band.units, "long_name": band.long_name}
        data[name] = (dims, plane, attrs)
    clear = {"modality": profile.modality, "units": "1", "long_name": "clear share of the cell"}
    coords = {
        "time": pd.DatetimeIndex([p["time"].min() for p in parts]).astype("datetime64[ns]"),
        "item_id": ("time", [" ".join(p["id"]) for p in parts]),
        **{name: ("time", [_of_step(p[name]) for p in parts]) for name in profile.coords},
    }
    ds = xr.Dataset({**data, CLEAR: (dims, planes[-1], clear)}, coords)
    ds = ds.assign({FAILED: (("time", "asset"), failures)})
    return ds.assign_coords(asset=list(settings.assets))


def _of_step(values: pd.Series) -> Any:
    """Return the value of a step in time: the mean cloud cover; of others, that of all scenes or none."""
    if values.name == "cloud_cover":
        return values.mean()
    is_common = values.nunique(dropna=False) == 1
    if values.dtype.kind == "f":
        return float(values.iloc[0]) if is_common else np.nan
    return str(values.iloc[0]) if is_common else ""


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
    counts = [sum(len(w.scenes) for w in windows) for windows in plan.steps]
    scenes = plan.scenes.drop(columns=["bytes"]).assign(
        time=plan.scenes["time"].astype(str), step=np.repeat(steps, counts).astype(int)
    )
    rows: list[dict[str, Any]] = (
        scenes.astype(object).where(scenes.notna(), None).to_dict("records")
    )
    return rows
