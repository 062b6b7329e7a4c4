"""Variables of a catalog that are read from Sentinel-2 scenes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import xarray as xr

from geomiam.errors import SourceError
from geomiam.sources.build_report import VariableReport
from geomiam.sources.sentinel2.composites import CLEAR, LOOKS
from geomiam.sources.sentinel2.sentinel2 import plan_sentinel2, sentinel2
from geomiam.sources.stac.stac_source import StacSource, as_source
from geomiam.sources.variable_reader import with_catalog_dims
from geomiam.sources.variable_tasks import VariableTask

AVERAGE = "average"
TIME = "time"


def group_by_source(tasks: Sequence[VariableTask]) -> list[list[VariableTask]]:
    """Return the variables of Sentinel-2, in groups that share one search and one mask."""
    groups: dict[Any, list[VariableTask]] = {}
    for task in tasks:
        if task.source.kind == "stac":
            key = (task.source.name, task.times, task.source.resampling)
            groups.setdefault(key, []).append(task)
    return list(groups.values())


@dataclass(frozen=True)
class SceneVariables:
    """Variables of one Sentinel-2 source.

    Attributes
    ----------
    arrays, reports
        By name of the variable.
    failed
        Lines on files that could not be read; the list grows while pixels are computed.
    items
        Metadata of each scene.
    steps
        Step in time by scene.
    time_dims
        Name of the dim of time by variable.
    """

    arrays: dict[str, xr.DataArray]
    reports: dict[str, VariableReport]
    failed: list[str]
    items: list[dict[str, Any]]
    steps: dict[str, int] = field(default_factory=dict)
    time_dims: dict[str, str] = field(default_factory=dict)


def read_scenes(tasks: Sequence[VariableTask]) -> SceneVariables:
    """Read the variables of one source together, so that each scene is masked once for all of them."""
    source = tasks[0].source
    ds = sentinel2(
        tasks[0].box,
        source.time,
        bands=_all_bands(tasks),
        dilate=source.dilate,
        composite=source.composite,
        resample=source.resampling or AVERAGE,
        on_error=source.on_error,
        **_search(tasks[0]),
    )
    items = json.loads(ds.attrs["scenes"])
    notes = [f"{source.name}: {note}" for note in ds.attrs["notes"]]
    arrays = {t.variable.name: _channels(ds, t) for t in tasks}
    reports = {t.variable.name: _report(t, notes, len(items)) for t in tasks}
    steps = {row["id"]: row["step"] for row in items}
    time_dims = {t.variable.name: dim for t in tasks if (dim := _time_dim(t, arrays))}
    return SceneVariables(arrays, reports, ds.attrs["failed_assets"], items, steps, time_dims)


def _time_dim(task: VariableTask, arrays: dict[str, xr.DataArray]) -> str | None:
    """Return the name of the dim of time in the catalog; None for a variable without it."""
    default_dims = ("band", TIME) if isinstance(task.source.band, tuple) else (TIME,)
    free = [d for d in default_dims if d not in task.own_dims]
    lacking = [d for d in task.own_dims if d not in default_dims]
    name = dict(zip(free, lacking)).get(TIME, TIME)
    return name if name in arrays[task.variable.name].dims else None


def plan_scenes(tasks: Sequence[VariableTask]) -> list[VariableReport]:
    """Return reports on the scenes that :func:`read_scenes` would read; no pixel is read."""
    source = tasks[0].source
    plan = plan_sentinel2(tasks[0].box, source.time, bands=_all_bands(tasks), **_search(tasks[0]))
    notes = [f"{source.name}: {line}" for line in repr(plan).splitlines()]
    reports = [_report(t, notes, len(plan.scenes)) for t in tasks]
    for report in reports:
        report.bytes = plan.bytes // len(tasks)
    return reports


def _report(task: VariableTask, notes: Sequence[str], scenes: int) -> VariableReport:
    report = task.empty_report()
    report.resampling = task.source.resampling or AVERAGE
    report.notes, report.files = list(notes), scenes
    return report


def _search(task: VariableTask) -> dict[str, Any]:
    keys = ("mask", "snow", "max_cloud", "hosts")
    return {"source": _stac_source(task), **{k: getattr(task.source, k) for k in keys}}


def _stac_source(task: VariableTask) -> Any:
    """Return the STAC source; the path of a local STAC catalog may be relative to the YAML file."""
    root = task.source.root or "earth-search"
    local = task.base / root
    source = as_source(str(local) if local.exists() else root)
    options = {k: v for k in ("collection", "query") if (v := getattr(task.source, k))}
    return replace(source, **options) if isinstance(source, StacSource) else source


def _all_bands(tasks: Sequence[VariableTask]) -> list[str]:
    names = dict.fromkeys(itertools.chain.from_iterable(map(_bands, tasks)))
    if bands := [b for b in names if b not in (CLEAR, LOOKS)]:
        return bands
    raise SourceError(
        f"variables of source '{tasks[0].source.name}' need {', '.join(names)} only; add a band, such as red"
    )


def _bands(task: VariableTask) -> list[str]:
    band = task.source.band
    if band is None or band == "all":
        band = task.source.variable or task.variable.name
    names = [str(b) for b in band] if isinstance(band, tuple) else [str(band)]
    if isinstance(band, int):
        raise SourceError(
            f"'{task.variable.name}': band {band} of Sentinel-2; name it: band: red, or band: B04"
        )
    return names


def _channels(ds: xr.Dataset, task: VariableTask) -> xr.DataArray:
    bands = _bands(task)
    if isinstance(task.source.band, tuple):
        array = xr.concat([ds[b] for b in bands], "band").assign_coords(band=bands)
    else:
        array = ds[bands[0]]
    return with_catalog_dims(
        array.drop_vars([c for c in array.coords if c not in array.dims]), task
    )
