"""One cube from a catalog: every variable read from where the catalog says, on one grid."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import xarray as xr

from geomiam.errors import GridError, SourceError
from geomiam.origin import Grid
from geomiam.schema import Schema, Variable
from geomiam.sources.files import files_of, stamp
from geomiam.sources.parts import (
    Task,
    Told,
    as_chips,
    crs_name,
    derived,
    finer,
    from_files,
    sentinel,
    tasks,
)

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

CHUNK = 512
BUDGET = 16_000_000
"""Numbers in a chunk, at most, where none are asked for: 64 MB."""


@dataclass(frozen=True)
class CubePlan:
    """What a build would read.

    Attributes
    ----------
    table
        One row a variable: variable, modality, source, kind, files, absent (tiles that are not
        there), crs and resolution of the source, resampling, bytes (under the grid, as float32),
        notes.
    grid
        Of the cube.
    missing
        Variables of the catalog that come from no source.
    """

    table: pd.DataFrame
    grid: GeoBox
    missing: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """Bytes that would be read, before compression and without Sentinel-2's margins."""
        return int(self.table["bytes"].sum())

    def __repr__(self) -> str:
        rows, cols = self.grid.shape.yx
        head = (
            f"{rows:,} × {cols:,} cells of {abs(self.grid.resolution.x):g} in {crs_name(self.grid)}"
        )
        lines = [head, *_lines(self.table), f"{self.bytes / 1e6:,.1f} MB to read, as float32"]
        if self.missing:
            lines.append(f"from no source, so not built: {', '.join(self.missing)}")
        return "\n".join([*lines, *itertools.chain.from_iterable(self.table["notes"])])


def _lines(table: pd.DataFrame) -> list[str]:
    """A line for each source and way of reading it."""
    keys = ["modality", "source", "kind", "crs", "resolution", "resampling"]
    made = []
    for (modality, source, kind, crs, cell, how), part in table.groupby(keys, sort=False):
        names = list(part["variable"])
        shown = ", ".join(names[:4]) + (f", … ({len(names)})" if len(names) > 4 else "")
        absent = f", {part['absent'].sum()} tiles not there" if part["absent"].sum() else ""
        where = f"{crs}, {cell}, " if crs else ""
        made.append(
            f"  {modality}: {shown} from {source} ({kind}, {part['files'].sum()} files{absent}; "
            f"{where}resampling {how})"
        )
    return made


def build_cube(
    catalog: str | Path | Schema,
    like: Any = None,
    *,
    out: str | Path | None = None,
    bounds: Sequence[float] | None = None,
    roots: Mapping[str, str | Path] | None = None,
    overwrite: bool = False,
    chunks: Mapping[str, int] | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Build a cube from a catalog: every variable from its source, on one grid.

    Headers of files are read and catalogues searched now; pixels when they are computed or written.

    Parameters
    ----------
    catalog
        A YAML file with ``sources:`` and ``from:``, or a Schema of one; of a Schema, relative paths
        are relative to the working directory.
    like
        The grid: a GeoBox, a Dataset or DataArray, or the path of a Zarr store or GeoTIFF. Default:
        the catalog's ``grid:``.
    out
        Zarr store to write. A build that was stopped goes on: variables that are complete and
        follow from the same catalog, files and grid are kept. Default: nothing is written.
    bounds
        ``(xmin, ymin, xmax, ymax)`` in the CRS of the catalog's ``grid:``, in place of its own.
    roots
        Source to directory or URL, in place of the ``root:`` in the catalog: a copy of your own.
    overwrite
        Replace the store that is there.
    chunks
        Of the cube, such as ``{"y": 256, "x": 256}``; own dims stay whole.
    progress
        Show a bar for what takes long to write.

    Returns
    -------
    xr.Dataset
        Float32, NaN where a source has nothing; dask. ``attrs["sources"]`` (JSON) says for each
        variable which CRS, resolution and resampling was used; of a cube that was written,
        ``attrs["coverage"]`` (JSON) the fraction of cells with data per modality.

    Raises
    ------
    SchemaError
        When the catalog contradicts itself.
    SourceError
        When a source cannot be read, or the catalog names none.
    GridError
        Without a grid.
    OutputExists
        When ``out`` exists and ``overwrite`` is False.
    """
    from geomiam.cube.store import claim, open_cube

    if out is not None:
        claim(out, overwrite)
    todo = _understood(catalog, like, bounds=bounds, roots=roots)
    cube, told = _assembled(todo, dict(chunks or {}))
    if out is None:
        return cube
    _written(cube, out, todo, overwrite=overwrite, progress=progress)
    return open_cube(out)


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
    todo = _understood(catalog, like, bounds=bounds, roots=roots)
    rows = []
    scenes: dict[Any, Told] = {}
    for task in todo.tasks:
        told = task.told()
        if task.source.kind == "stac":
            _scenes(task, told, seen=scenes)
        else:
            todo.read(task, told)
        rows.append(asdict(told))
    return CubePlan(pd.DataFrame(rows), todo.box, todo.missing)


def _scenes(task: Task, told: Told, *, seen: dict[Any, Told]) -> None:
    from geomiam.sources.parts import catalogue_of, bands_of
    from geomiam.sources.sentinel2 import plan_sentinel2

    source = task.source
    keep: dict[str, Any] = {k: getattr(source, k) for k in ("mask", "snow", "max_cloud")}
    plan = plan_sentinel2(
        task.box, source.time, bands=bands_of(task), source=catalogue_of(task), **keep
    )
    told.files, told.bytes = len(plan.scenes), plan.bytes
    told.resampling = source.resampling or "average"
    key = (source.name, task.chips)
    told.notes = (
        [] if key in seen else [f"{source.name}: {line}" for line in repr(plan).splitlines()]
    )
    seen[key] = told


@dataclass(frozen=True)
class Todo:
    """A catalog that was understood: what is to be read onto which grid."""

    schema: Schema
    box: GeoBox
    template: xr.Dataset
    tasks: tuple[Task, ...]
    missing: tuple[str, ...]

    def read(self, task: Task, told: Told) -> xr.DataArray:
        """Read one variable that is no Sentinel-2 onto the grid of its task, before chips."""
        if task.source.kind != "derived":
            return from_files(task, told)
        named = {t.variable.name: t for t in self.tasks}
        of = named.get(task.source.of or "elevation")
        if of is None or of.source.kind in ("derived", "stac"):
            raise SourceError(
                f"'{task.variable.name}' is derived of '{task.source.of or 'elevation'}', which is no "
                f"variable read from a file; name one of {', '.join(named)} by 'of:'"
            )
        return derived(task, told, from_files, of)


def _understood(
    catalog: Any,
    like: Any,
    *,
    bounds: Sequence[float] | None,
    roots: Mapping[str, str | Path] | None,
) -> Todo:
    from geomiam.cube.grid import _empty, geobox

    known = isinstance(catalog, Schema)
    schema = catalog if known else Schema.from_yaml(catalog)
    base = Path.cwd() if known else Path(catalog).resolve().parent
    schema = _rooted(schema, roots or {})
    template = _template(schema, like, bounds)
    template = template if isinstance(template, xr.Dataset) else _empty(template)
    box = geobox(template)
    made = tuple(tasks(schema, box, base=base))
    missing = tuple(sorted(set(schema.variables) - {t.variable.name for t in made}))
    return Todo(schema, box, template, made, missing)


def _rooted(schema: Schema, roots: Mapping[str, str | Path]) -> Schema:
    if unknown := sorted(set(roots) - set(schema.sources)):
        raise SourceError(
            f"roots= names {unknown}, no source of the catalog; it has {', '.join(schema.sources)}"
        )
    at = {k: str(Path(v).resolve()) if "://" not in str(v) else str(v) for k, v in roots.items()}
    moved = {
        k: s.model_copy(update={"root": at[k]}, deep=False) if k in at else s
        for k, s in schema.sources.items()
    }
    for name in at:  # so that Origin.over passes it on
        moved[name].model_fields_set.add("root")
    return schema.model_copy(update={"sources": moved})


def _template(schema: Schema, like: Any, bounds: Sequence[float] | None) -> Any:
    if like is not None and bounds is not None:
        raise GridError("like= is a grid with bounds of its own; pass like= or bounds=, not both")
    if like is None:
        return _grid(schema, bounds)
    if isinstance(like, (str, Path)):
        return _opened(str(like))
    return like.to_dataset(name="like") if isinstance(like, xr.DataArray) else like


def _grid(schema: Schema, bounds: Sequence[float] | None) -> GeoBox:
    from odc.geo.geobox import GeoBox

    grid = schema.grid
    if grid is None or (grid.bounds is None and bounds is None):
        raise GridError(
            f"catalog '{schema.name}' has no {'grid' if grid is None else 'bounds in its grid'}; pass "
            "like=cube, or add grid: {crs: EPSG:3035, resolution: 1000, bounds: [xmin, ymin, xmax, ymax]}"
        )
    if bounds is not None:
        try:
            grid = Grid(crs=grid.crs, resolution=grid.resolution, bounds=tuple(bounds))  # type: ignore[arg-type]
        except ValueError as error:
            raise GridError(f"bounds={tuple(bounds)}: xmin, ymin, xmax, ymax are wanted") from error
    return GeoBox.from_bbox(grid.bounds, crs=grid.crs, resolution=grid.resolution, tight=True)


def _opened(path: str) -> Any:
    from odc.geo.geobox import GeoBox

    from geomiam.cube.store import open_cube
    from geomiam.sources.load import gdal
    from geomiam.sources.rasters import opened

    if not path.lower().endswith((".tif", ".tiff")):
        return open_cube(path)[[]]
    with gdal(), opened(path) as file:
        return GeoBox(file.shape, file.transform, file.crs)


def _assembled(todo: Todo, chunks: dict[str, int]) -> tuple[xr.Dataset, list[Told]]:
    from geomiam.cube.grid import merge, restore, spatial_dims

    scenes = _sentinels(todo)
    parts, told = [], []
    names = dict(zip(("y", "x"), spatial_dims(todo.template), strict=True))
    for task in todo.tasks:
        report = task.told()
        array = scenes.get(task.variable.name)
        if array is None:
            array = todo.read(task, report)
        else:
            report.resampling = task.source.resampling or "average"
        array = _bare(as_chips(array, task.chips, task.variable))
        array = _chunked(_described(array, task, report), chunks).rename(names)
        parts.append(array.to_dataset(name=task.variable.name))
        told.append(report)
    cube = restore(merge(parts), todo.template)
    rows = [{k: v for k, v in asdict(t).items() if v} for t in told]
    facts = {"title": todo.schema.title or todo.schema.name, "sources": json.dumps(rows)}
    cube.attrs = {**facts, "catalog": todo.schema.name}
    return cube, told


def _sentinels(todo: Todo) -> dict[str, xr.DataArray]:
    """All of Sentinel-2, one search for each source and grid."""
    found: dict[str, xr.DataArray] = {}
    of_stac = [t for t in todo.tasks if t.source.kind == "stac"]
    for key in dict.fromkeys((t.source.name, t.chips) for t in of_stac):
        group = [t for t in of_stac if (t.source.name, t.chips) == key]
        found |= sentinel(group, finer(todo.box, key[1]))
    return found


def _bare(array: xr.DataArray) -> xr.DataArray:
    """Without place: that is put back for all variables alike."""
    gone = [c for c in array.coords if c not in array.dims or c in ("y", "x")]
    return array.drop_vars(gone)


def _described(array: xr.DataArray, task: Task, told: Told) -> xr.DataArray:
    variable, modality = task.variable, task.modality
    facts = {
        "modality": modality.name,
        "units": variable.units,
        "long_name": variable.long_name,
        "kind": variable.kind,
        "source": modality.source or task.source.title or task.source.name,
        "license": modality.license or task.source.license,
        "citation": modality.citation or task.source.citation,
        "resampling": told.resampling,
        "source_crs": told.crs,
        "source_resolution": told.resolution,
        **_flags(variable),
    }
    array.attrs = {k: v for k, v in facts.items() if v}
    return array


def _flags(variable: Variable) -> dict[str, Any]:
    meanings = " ".join(m.replace(" ", "_") for m in variable.classes.values())
    return {"flag_values": list(variable.classes), "flag_meanings": meanings}


def _chunked(array: xr.DataArray, chunks: Mapping[str, int]) -> xr.DataArray:
    own = [d for d in array.dims if d not in ("y", "x")]
    deep = 1
    for dim in own:
        deep *= array.sizes[dim]
    side = CHUNK if deep * CHUNK**2 <= BUDGET else max(16, int((BUDGET / deep) ** 0.5) // 16 * 16)
    place = {d: min(chunks.get(d, side), array.sizes[d]) for d in ("y", "x")}
    asked = {d: chunks[str(d)] for d in own if d in chunks}
    return array.chunk({**dict.fromkeys(own, -1), **asked, **place})


def _written(
    cube: xr.Dataset, out: str | Path, todo: Todo, *, overwrite: bool, progress: bool
) -> None:
    from geomiam.cube.resume import write_parts

    prints = {t.variable.name: _print(t, cube, todo) for t in todo.tasks}
    finish = _coverage(todo)
    write_parts(cube, out, prints=prints, overwrite=overwrite, progress=progress, finish=finish)


def _print(task: Task, cube: xr.Dataset, todo: Todo) -> str:
    """Fingerprint of all that a variable's numbers follow from."""
    from geomiam._version import __version__

    array = cube[task.variable.name]
    tied = [task]
    if task.source.kind == "derived":
        tied += [t for t in todo.tasks if t.variable.name == (task.source.of or "elevation")]
    facts = [
        __version__,
        [list(task.box.shape.yx), list(task.box.affine), str(task.box.crs), list(cube.dims)],
        [array.dims, array.chunks, sorted((k, str(v)) for k, v in array.attrs.items())],
        [[t.source.model_dump(mode="json"), t.variable.model_dump(mode="json")] for t in tied],
        [stamp(p) for t in tied for p in _paths(t)],
        [str(array[d].values.tolist()) for d in array.dims if d in array.coords],
    ]
    return hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()


def _paths(task: Task) -> list[str]:
    if task.source.kind in ("derived", "stac"):
        return []
    files = files_of(task.variable, task.source, base=task.base, box=task.box)
    return list(itertools.chain.from_iterable(files.paths))


def _coverage(todo: Todo) -> Callable[[Path], Mapping[str, Any]]:
    def finish(store: Path) -> dict[str, Any]:
        from geomiam.cube.coverage import coverage
        from geomiam.cube.store import open_cube

        made = [t.variable.name for t in todo.tasks]
        found = coverage(open_cube(store), todo.schema.subset(made))
        seen = {
            str(m): round(float(found["observed"].sel(modality=m)), 6)
            for m in found["modality"].values
        }
        return {"coverage": json.dumps(seen)}

    return finish


def summary(cube: xr.Dataset) -> str:
    """Return how a cube was made and what it covers, in lines, from its attributes.

    Parameters
    ----------
    cube
        From :func:`build_cube`.
    """
    blank = asdict(Told("", "", "", ""))
    table = pd.DataFrame([{**blank, **row} for row in json.loads(cube.attrs["sources"])])
    lines = _lines(table)
    lines += [n for notes in table["notes"] for n in notes]
    for modality, share in json.loads(cube.attrs.get("coverage", "{}")).items():
        lines.append(f"  {modality}: data in {share:.1%} of the cells that have any")
    return "\n".join(lines)
