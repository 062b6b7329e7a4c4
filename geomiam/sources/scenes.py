"""Variables of a catalog that come from Sentinel-2."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import xarray as xr

from geomiam.errors import SourceError
from geomiam.sources.parts import named as with_labels
from geomiam.sources.report import Told
from geomiam.sources.sentinel2.composites import CLEAR, LOOKS
from geomiam.sources.sentinel2.sentinel2 import plan_sentinel2, sentinel2
from geomiam.sources.stac.stac_source import StacSource, as_source
from geomiam.sources.tasks import Task

AVERAGE = "average"
TIME = "time"


def kinds(tasks: Sequence[Task]) -> list[list[Task]]:
    """Return those of Sentinel-2, together where one search and one mask serve them all."""
    groups: dict[Any, list[Task]] = {}
    for task in tasks:
        if task.source.kind == "stac":
            key = (task.source.name, task.times, task.source.resampling)
            groups.setdefault(key, []).append(task)
    return list(groups.values())


@dataclass(frozen=True)
class Scenes:
    """Variables of one Sentinel-2 source, by name, and how they came to be.

    ``failed`` is a list that grows while pixels are computed; ``items`` are facts about each scene;
    ``steps`` is the step in time that each scene goes into, ``times`` the dim of it by variable.
    """

    arrays: dict[str, xr.DataArray]
    told: dict[str, Told]
    failed: list[str]
    items: list[dict[str, Any]]
    steps: dict[str, int] = field(default_factory=dict)
    times: dict[str, str] = field(default_factory=dict)


def read(tasks: Sequence[Task]) -> Scenes:
    """Read variables of one source together, so that each scene is masked once for all of them."""
    source = tasks[0].source
    ds = sentinel2(
        tasks[0].box,
        source.time,
        bands=_every(tasks),
        dilate=source.dilate,
        composite=source.composite,
        resample=source.resampling or AVERAGE,
        on_error=source.on_error,
        **_search(tasks[0]),
    )
    items = json.loads(ds.attrs["scenes"])
    notes = [f"{source.name}: {note}" for note in ds.attrs["notes"]]
    made = {t.variable.name: _channels(ds, t) for t in tasks}
    told = {t.variable.name: _told(t, notes, len(items)) for t in tasks}
    steps = {row["id"]: row["step"] for row in items}
    times = {t.variable.name: dim for t in tasks if (dim := _time_dim(t, made))}
    return Scenes(made, told, ds.attrs["failed_assets"], items, steps, times)


def _time_dim(task: Task, made: dict[str, xr.DataArray]) -> str | None:
    """Return the name that a catalog gives to the dim of time; None where there is none."""
    default_dims = ("band", TIME) if isinstance(task.source.band, tuple) else (TIME,)
    free = [d for d in default_dims if d not in task.own_dims]
    lacking = [d for d in task.own_dims if d not in default_dims]
    name = dict(zip(free, lacking)).get(TIME, TIME)
    return name if name in made[task.variable.name].dims else None


def plan(tasks: Sequence[Task]) -> list[Told]:
    """Say what :func:`read` would read."""
    source = tasks[0].source
    found = plan_sentinel2(tasks[0].box, source.time, bands=_every(tasks), **_search(tasks[0]))
    notes = [f"{source.name}: {line}" for line in repr(found).splitlines()]
    told = [_told(t, notes, len(found.scenes)) for t in tasks]
    for report in told:
        report.bytes = found.bytes // len(tasks)
    return told


def _told(task: Task, notes: Sequence[str], scenes: int) -> Told:
    report = task.told()
    report.resampling = task.source.resampling or AVERAGE
    report.notes, report.files = list(notes), scenes
    return report


def _search(task: Task) -> dict[str, Any]:
    keys = ("mask", "snow", "max_cloud", "hosts")
    return {"source": _catalogue(task), **{k: getattr(task.source, k) for k in keys}}


def _catalogue(task: Task) -> Any:
    """A local catalogue may be named relative to the YAML file."""
    root = task.source.root or "earth-search"
    local = task.base / root
    found = as_source(str(local) if local.exists() else root)
    said = {k: v for k in ("collection", "query") if (v := getattr(task.source, k))}
    return replace(found, **said) if isinstance(found, StacSource) else found


def _every(tasks: Sequence[Task]) -> list[str]:
    named = dict.fromkeys(itertools.chain.from_iterable(map(_bands, tasks)))
    if bands := [b for b in named if b not in (CLEAR, LOOKS)]:
        return bands
    raise SourceError(
        f"source '{tasks[0].source.name}' is asked for {', '.join(named)} alone; add a band, such as red"
    )


def _bands(task: Task) -> list[str]:
    band = task.source.band
    if band is None or band == "all":
        band = task.source.variable or task.variable.name
    names = [str(b) for b in band] if isinstance(band, tuple) else [str(band)]
    if isinstance(band, int):
        raise SourceError(
            f"'{task.variable.name}': band {band} of Sentinel-2; name it: band: red, or band: B04"
        )
    return names


def _channels(ds: xr.Dataset, task: Task) -> xr.DataArray:
    bands = _bands(task)
    if isinstance(task.source.band, tuple):
        made = xr.concat([ds[b] for b in bands], "band").assign_coords(band=bands)
    else:
        made = ds[bands[0]]
    return with_labels(made.drop_vars([c for c in made.coords if c not in made.dims]), task)
