"""Variables from scenes of STAC catalogs: reading them, and again in a cube on disk what failed."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

from geomiam.errors import SourceError
from geomiam.sources.build_report import VariableReport
from geomiam.sources.inputs import VariableTask
from geomiam.sources.scenes.asset_reader import FailedAssets
from geomiam.sources.scenes.composites import CLEAR, LOOKS
from geomiam.sources.scenes.landsat import LANDSAT
from geomiam.sources.scenes.options import SceneOptions
from geomiam.sources.scenes.read import SeriesQuery, plan_series, read_series
from geomiam.sources.scenes.sentinel1 import SENTINEL1
from geomiam.sources.scenes.sentinel2 import SENTINEL2
from geomiam.sources.stac.stac_source import StacSource, as_source
from geomiam.sources.variable_reader import with_catalog_dims

PROFILES = {p.modality: p for p in (SENTINEL2, LANDSAT, SENTINEL1)}
"""Collections by ``product:`` of a catalog."""
AVERAGE = "average"
TIME = "time"
FAILED = "failed_assets"
"""Attribute of a cube with a line for each file that could not be read."""


@dataclass(frozen=True)
class SceneVariables:
    """Variables of one source of scenes, by name of the variable."""

    source: str
    arrays: dict[str, xr.DataArray]
    reports: dict[str, VariableReport]
    failed: FailedAssets  # lines on files; the list grows while pixels are computed
    items: list[dict[str, Any]]  # metadata of each scene
    time_dims: dict[str, str]  # name of the dim of time
    rows: int  # of the chunks that are read


def read_scenes(tasks: Sequence[VariableTask], store_rows: Callable[[int], int]) -> SceneVariables:
    """Read the variables of one source together, so that each scene is masked once for all of them.

    ``store_rows`` returns the rows of a chunk of the store from the number of steps in time.
    """
    source = tasks[0].source
    query, options = _search(tasks)
    ds = read_series(
        tasks[0].box,
        source.time,
        profile=PROFILES[source.product],
        query=query,
        options=options,
        composite=source.composite,
        store_rows=store_rows,
    )
    rows = ds[query.bands[0]].chunksizes["y"][0]
    items = json.loads(ds.attrs["scenes"])
    reports = _reports(tasks, ds.attrs["notes"], len(items))
    arrays, time_dims = {}, {}
    for task in tasks:
        name, bands = task.variable.name, _bands(task)
        default_dims: tuple[str, ...] = (TIME,)
        array = ds[bands[0]]
        if isinstance(task.source.band, tuple):
            default_dims = ("band", TIME)
            array = xr.concat([ds[b] for b in bands], "band").assign_coords(band=bands)
        array = array.drop_vars([c for c in array.coords if c not in array.dims])
        arrays[name] = with_catalog_dims(array, task)
        free = [d for d in default_dims if d not in task.own_dims]
        lacking = [d for d in task.own_dims if d not in default_dims]
        time_dim = dict(zip(free, lacking)).get(TIME, TIME)
        if time_dim in arrays[name].dims:
            time_dims[name] = time_dim
    return SceneVariables(source.name, arrays, reports, ds.attrs[FAILED], items, time_dims, rows)


def plan_scenes(tasks: Sequence[VariableTask]) -> dict[str, VariableReport]:
    """Return reports on the scenes that :func:`read_scenes` would read; no pixel is read."""
    query, options = _search(tasks)
    grid, source = tasks[0].box, tasks[0].source
    profile = PROFILES[source.product]
    plan = plan_series(grid, source.time, profile=profile, query=query, options=options)
    reports = _reports(tasks, repr(plan).splitlines(), len(plan.scenes))
    for report in reports.values():
        report.bytes = plan.bytes // len(tasks)
    return reports


def _reports(
    tasks: Sequence[VariableTask], lines: Sequence[str], scenes: int
) -> dict[str, VariableReport]:
    return {
        t.variable.name: VariableReport(
            t.variable.name,
            t.modality.name,
            t.source.name,
            t.source.kind,
            files=scenes,
            resampling=t.source.resampling or AVERAGE,
            notes=[f"{t.source.name}: {line}" for line in lines],
        )
        for t in tasks
    }


def _search(tasks: Sequence[VariableTask]) -> tuple[SeriesQuery, SceneOptions]:
    """Return what reading and planning share."""
    source = tasks[0].source
    names = list(dict.fromkeys(itertools.chain.from_iterable(map(_bands, tasks))))
    bands = [b for b in names if b not in (CLEAR, LOOKS)]
    if not bands:
        raise SourceError(
            f"variables of source '{source.name}' need {', '.join(names)} only; add a band, such as red"
        )
    presets = PROFILES[source.product].presets
    root = source.root or next(iter(presets))
    local = (
        tasks[0].base / root
    )  # the path of a local STAC catalog may be relative to the YAML file
    stac = as_source(str(local) if local.exists() else root, presets)
    if isinstance(stac, StacSource):
        changes = {k: v for k in ("collection", "query") if (v := getattr(source, k))}
        stac = replace(stac, **changes)
    fields = ["mask", "snow", "dilate", "overviews", "on_error", "hosts"]
    settings = {k: getattr(source, k) for k in fields}
    options = SceneOptions(**settings, resample=source.resampling or AVERAGE)
    return SeriesQuery(bands=bands, source=stac, max_cloud=source.max_cloud), options


def _bands(task: VariableTask) -> list[str]:
    band = task.source.band
    if isinstance(band, int):
        raise SourceError(
            f"'{task.variable.name}': band: {band} is a number, but bands of scenes have names, such as band: red"
        )
    if band is None or band == "all":
        band = task.source.variable or task.variable.name
    return [str(b) for b in band] if isinstance(band, tuple) else [str(band)]


# repair -------------------------------------------------------------------------------------------


def repair_scenes(
    store: Path, dates: xr.Dataset, scenes: Sequence[SceneVariables], *, rows: str
) -> list[str]:
    """Read the files again that failed, write their pixels, and return the lines that remain.

    ``dates`` are the variables of scenes of the cube, lazy, in chunks of single dates. A step and
    band of rows is replaced only if no further file failed in it: a repair never loses data.
    """
    lines = failed_lines(store)
    for variables in scenes:
        # failures by the metadata of items: reading again does not change them
        remain = set(variables.failed)
        steps = {row["id"]: row["step"] for row in variables.items}
        again = [x for x in lines if x not in remain and _scene(x) in steps]
        for step in sorted({steps[_scene(x)] for x in again}):
            old = {x for x in again if steps[_scene(x)] == step}
            remain |= _read_again(store, dates, variables, step=step, old=old, rows=rows)
        lines = [x for x in lines if x not in again or x in remain]
    return lines


def _read_again(
    store: Path,
    dates: xr.Dataset,
    variables: SceneVariables,
    *,
    step: int,
    old: set[str],
    rows: str,
) -> set[str]:
    """Read one step in time again, a row of chunks at a time, and return the lines that remain."""
    names, remain = list(variables.arrays), set()
    height = max(dates[names[0]].chunksizes.get(rows, (dates.sizes[rows],)))
    times = {n: {d: slice(step, step + 1)} for n, d in variables.time_dims.items()}
    for start in range(0, dates.sizes[rows], height):
        band = {rows: slice(start, min(start + height, dates.sizes[rows]))}
        part = {n: {**band, **times.get(n, {})} for n in names}
        before = len(variables.failed)
        fresh = xr.Dataset({n: dates[n].isel(part[n]) for n in names}).compute(scheduler="threads")
        failures = {_file(x) for x in variables.failed[before:]}
        del variables.failed[before:]
        if failures - {_file(x) for x in old}:
            remain |= old
        else:
            remain |= {x for x in old if _file(x) in failures}
            _write(store, fresh, part)
    return remain


def _write(store: Path, fresh: xr.Dataset, part: Mapping[str, Mapping[str, slice]]) -> None:
    """Write values into the store; where they are NaN, those on disk are kept."""
    group: Any = zarr.open_group(store, mode="r+")
    for name, array in fresh.data_vars.items():
        at = tuple(part[str(name)].get(str(d), slice(None)) for d in array.dims)
        values = array.values
        group[str(name)][at] = np.where(np.isnan(values), group[str(name)][at], values)


def failed_lines(store: Path) -> list[str]:
    """Return the lines of a cube on files that could not be read."""
    attrs: dict[str, Any] = dict(zarr.open_group(store, mode="r").attrs)
    return list(attrs.get(FAILED, []))


def _scene(line: str) -> str:
    return line.partition(" / ")[0]


def _file(line: str) -> str:
    """Return the scene and asset of a line, without the error."""
    scene, _, asset_and_error = line.partition(" / ")
    return f"{scene} / {asset_and_error.partition(':')[0]}"
