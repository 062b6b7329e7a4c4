"""One cube from a catalog: every variable read from where the catalog says, on one grid."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from geomiam.checks.files import reason
from geomiam.data.grid.chips import fold
from geomiam.data.grid.grid import merge, restore, spatial_dims
from geomiam.data.store.encoding import chunk_sizes
from geomiam.data.store.resume import write_parts
from geomiam.data.store.store import open_cube
from geomiam.errors import GeomiamError, GridError, OutputExists, OutputRefused, SourceError
from geomiam.outputs.check import check_output, refuse_overlap
from geomiam.outputs.paths import real_path
from geomiam.progress import with_progress
from geomiam.schema.schema import Schema
from geomiam.sources import scenes
from geomiam.sources.attributes import described
from geomiam.sources.fingerprint import fingerprint, paths_of
from geomiam.sources.finish import closing, mend
from geomiam.sources.parts import derived, from_files
from geomiam.sources.report import CubePlan, Told
from geomiam.sources.tasks import Task, Todo, understood

CHUNK = 512
"""Rows and columns of a chunk, at most, where none are asked for."""
WHOLE = 2**31 - 1
"""More than the steps of any own dim: its length is in the source."""
BUDGET = 16_000_000
"""Numbers in such a chunk, at most: 64 MB."""


@with_progress
def build_cube(
    catalog: str | Path | Schema,
    like: Any = None,
    *,
    out: str | Path | None = None,
    bounds: Sequence[float] | None = None,
    roots: Mapping[str, str | Path] | None = None,
    overwrite: bool = False,
    chunks: Mapping[str, int] | None = None,
    progress: bool | None = None,
    repair: bool = False,
) -> xr.Dataset:
    """Build a cube from a catalog: every variable from its source, on one grid.

    Headers of files are read and catalogues searched now; pixels when they are computed or written.

    Parameters
    ----------
    catalog
        A YAML file with ``sources:`` and ``from:``; or the name of one that comes with geomiam, see
        :func:`geomiam.catalogs`; or a Schema. Relative paths start from the file, and otherwise
        from the working directory.
    like
        The grid: a GeoBox, a Dataset or DataArray, or the path of a Zarr store or GeoTIFF. Default:
        the catalog's ``grid:``.
    out
        Zarr store to write. A build that was stopped is continued: what is complete and comes from the
        same catalog, files, scenes and grid is kept. Default: nothing is written.
    bounds
        ``(xmin, ymin, xmax, ymax)`` in the CRS of the catalog's ``grid:``, in place of its own; or
        an ``odc.geo`` BoundingBox with a CRS, such as degrees: the cells that cover it.
    roots
        Source to directory or URL, in place of the ``root:`` in the catalog: a copy of your own.
    overwrite
        Replace the store that is there.
    chunks
        Of the cube, such as ``{"y": 256, "x": 256}``; own dims stay whole.
    progress
        Show a bar while it is written; default: on a terminal or in a notebook.
    repair
        Of a cube that is at ``out``: read again the dates of which files of Sentinel-2 could not be
        read, and nothing else. Where there is none, it is built.

    Returns
    -------
    xr.Dataset
        Float32, NaN where a source has nothing; dask. ``attrs["sources"]`` (JSON) says for each
        variable which CRS, resolution and resampling was used; ``attrs["scenes"]`` (JSON) which
        scenes of Sentinel-2; ``attrs["failed_assets"]`` which files of them could not be read. A
        cube that was written has ``attrs["coverage"]`` and ``attrs["variable_coverage"]`` (JSON),
        the share of cells with data per modality and per variable.

    Raises
    ------
    SchemaError
        When the catalog contradicts itself.
    SourceError
        When a source cannot be read, or the catalog names none.
    GridError
        Without a grid, or where variables have other labels along one dim.
    OutputExists
        When ``out`` exists, and neither ``overwrite`` nor ``repair`` is asked for.
    ResumeRefused
        When the cube to repair was built from other files, scenes or settings.

    Warns
    -----
    AssetsFailed
        For files of Sentinel-2 that could not be read, and are NaN.
    MissingModality
        For a source that lies elsewhere than the grid, with where both lie.
    DoubtfulSource
        For a variable without a number in any cell, units other than the catalog's, and ``nodata:``
        that the file cannot hold.
    """
    mending = repair and out is not None and real_path(out).exists()
    if out is not None:
        _claim(out, overwrite or mending, inputs=[catalog, like])
    todo = understood(catalog, like, bounds=bounds, roots=roots)
    if out is not None:
        refuse_overlap(real_path(out), [p for t in todo.tasks for p in paths_of(t)])
    assembled = _assembled(todo, _chunks(chunks, todo))
    if out is None:
        return assembled.cube
    prints = {
        t.variable.name: fingerprint(
            t, assembled.cube, todo, scenes=assembled.scenes.get(t.variable.name)
        )
        for t in todo.tasks
    }
    if mending:
        mend(real_path(out), assembled.dates, assembled.scenes, todo=todo, prints=prints)
        return open_cube(out)
    with _sources_end(out):
        write_parts(
            assembled.cube,
            out,
            prints=prints,
            together=[[t.variable.name for t in group] for group in scenes.kinds(todo.tasks)],
            remarks={name: known.failed for name, known in assembled.scenes.items()},
            overwrite=overwrite,
            finish=partial(closing, todo, prints),
        )
    mend(
        real_path(out), assembled.dates, assembled.scenes, todo=todo, prints=prints
    )  # what failed before a build was stopped
    return open_cube(out)


def _claim(out: str | Path, overwrite: bool, *, inputs: Sequence[Any]) -> None:
    """Claim the store, and name the way to complete one that is there."""
    try:
        check_output(out, overwrite, inputs=inputs)
    except OutputRefused:
        raise
    except OutputExists as error:
        raise OutputExists(f"{error}, or repair=True to read again what failed in it") from None


@contextmanager
def _sources_end(out: str | Path) -> Iterator[None]:
    """Name damage of a source, whatever its decoder raises; errors of the output stay as they are."""
    try:
        yield
    except (GeomiamError, MemoryError):
        raise
    except Exception as error:
        ours = isinstance(error, OSError) and error.errno is not None
        if ours and Path(out).name in str(error.filename or Path(out).name):  # type: ignore[attr-defined]
            raise
        raise SourceError(
            f"a source cannot be read to its end: {reason(error)}; fetch its files again and build with "
            "the same arguments; complete parts are kept"
        ) from error


def plan_cube(
    catalog: str | Path | Schema,
    like: Any = None,
    *,
    bounds: Sequence[float] | None = None,
    roots: Mapping[str, str | Path] | None = None,
) -> CubePlan:
    """Say what :func:`build_cube` would read, without reading a pixel.

    Parameters
    ----------
    catalog, like, bounds, roots
        As for :func:`build_cube`.

    Returns
    -------
    CubePlan
        Printing it sums it up. Of Sentinel-2 it has the plan of :func:`geomiam.plan_sentinel2`.

    Raises
    ------
    SchemaError, SourceError, GridError
        As :func:`build_cube`.
    """
    todo = understood(catalog, like, bounds=bounds, roots=roots)
    planned = {t.variable: t for g in scenes.kinds(todo.tasks) for t in scenes.plan(g)}
    rows = []
    for task in todo.tasks:
        told = planned.get(task.variable.name) or task.told()
        if task.source.kind != "stac":
            _read(task, told, todo)
        rows.append(asdict(told))
    return CubePlan(pd.DataFrame(rows), todo.box, todo.missing)


@dataclass(frozen=True)
class Made:
    """A cube, lazy, and what is known of each Sentinel-2 variable in it.

    ``dates`` are these variables in chunks of single dates, of which one can be read alone.
    """

    cube: xr.Dataset
    scenes: dict[str, scenes.Scenes]
    dates: xr.Dataset


def _assembled(todo: Todo, chunks: dict[str, int]) -> Made:
    found: dict[str, scenes.Scenes] = {}
    for group in scenes.kinds(todo.tasks):
        read = scenes.read(group)
        found |= dict.fromkeys((t.variable.name for t in group), read)
    back = dict(zip(("y", "x"), spatial_dims(todo.template), strict=True))
    parts, rows, dates = [], [], xr.Dataset()
    for task in todo.tasks:
        name = task.variable.name
        told = found[name].told[name] if name in found else task.told()
        array = found[name].arrays[name] if name in found else _read(task, told, todo)
        finished = _finished(array, task, told, todo)
        parts.append(_chunked(finished, chunks).rename(back).to_dataset(name=name))
        if name in found:
            dates[name] = finished.rename(back).variable
        rows.append({k: v for k, v in asdict(told).items() if v})
    cube = restore(_merged(parts, todo), todo.template)
    items = {
        t.source.name: found[t.variable.name].items for t in todo.tasks if t.variable.name in found
    }
    failed = list(dict.fromkeys(line for known in found.values() for line in known.failed))
    cube.attrs = {
        "title": todo.schema.title or todo.schema.name,
        "catalog": todo.schema.name,
        "sources": json.dumps(rows),
        **({"scenes": json.dumps(items)} if items else {}),
        **({"failed_assets": failed} if failed else {}),
    }
    return Made(cube, found, dates)


def _read(task: Task, told: Told, todo: Todo) -> xr.DataArray:
    """Read one variable that is no Sentinel-2 onto the grid of its task."""
    if task.source.kind == "derived":
        return derived(task, told, of=todo.elevation_of(task))
    return from_files(task, told)


def _finished(array: xr.DataArray, task: Task, told: Told, todo: Todo) -> xr.DataArray:
    """A variable with dims and attributes of the cube, as it was read."""
    array = array.drop_vars([c for c in array.coords if c not in array.dims or c in ("y", "x")])
    if task.times > 1:
        array = fold(array, task.times, dims=task.chip_dims)
    source = todo.elevation_of(task).source if task.source.kind == "derived" else task.source
    return described(array, task, told, source)


def _merged(parts: Sequence[xr.Dataset], todo: Todo) -> xr.Dataset:
    try:
        return merge(parts)
    except GridError as error:
        uses: dict[str, dict[str, list[str]]] = {}
        for task in todo.tasks:
            for dim in task.variable.dims:
                uses.setdefault(dim, {}).setdefault(task.source.name, []).append(task.variable.name)
        clash = [(d, u) for d, u in uses.items() if len(u) > 1 and f"'{d}'" in str(error)]
        if not clash:
            raise
        dim, users = clash[0]
        said = " and ".join(f"{s} ({', '.join(names)})" for s, names in users.items())
        raise GridError(
            f"{said} share the dim '{dim}' but not its labels; give the variables of one source a dim "
            f"of their own in the catalog, such as dims: [{list(users)[-1]}_{dim}]"
        ) from None


def _chunked(array: xr.DataArray, chunks: Mapping[str, int]) -> xr.DataArray:
    own = {str(d): n for d, n in array.sizes.items() if d not in ("y", "x")}
    depth = array.size // max(array.sizes["y"] * array.sizes["x"], 1)
    side = min(CHUNK, max(16, int((BUDGET / max(depth, 1)) ** 0.5) // 16 * 16))
    sizes = {d: min(chunks.get(d, side), array.sizes[d]) for d in ("y", "x")}
    return array.chunk({**{d: chunks.get(d, -1) for d in own}, **sizes})


def _chunks(chunks: Mapping[str, int] | None, todo: Todo) -> dict[str, int]:
    """Return chunks along y, x and own dims; the dims of the grid may be named as in the cube."""
    place = dict(zip(spatial_dims(todo.template), ("y", "x"), strict=True))
    height, width = todo.box.shape.yx
    sizes = {str(d): WHOLE for t in todo.tasks for d in t.variable.dims}
    sizes |= {str(d): {"y": height, "x": width}[d] for d in place.values()}
    if isinstance(chunks, Mapping):
        chunks = {place.get(d, d): n for d, n in chunks.items()}
    return chunk_sizes(chunks, sizes, automatic=CHUNK)
