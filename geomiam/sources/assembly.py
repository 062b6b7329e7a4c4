"""Assembly of a cube: every variable is read onto the grid, labelled, chunked and merged."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import xarray as xr

from geomiam.data.grid.chips import fold
from geomiam.data.grid.grid import merge, restore, spatial_dims
from geomiam.data.store.encoding import chunk_sizes
from geomiam.errors import GridError
from geomiam.sources.attributes import with_attributes
from geomiam.sources.build_report import VariableReport
from geomiam.sources.scene_variables import SceneVariables, group_by_source, read_scenes
from geomiam.sources.variable_reader import read_variable
from geomiam.sources.variable_tasks import BuildInputs, VariableTask

CHUNK = 512
"""Most rows and columns of a chunk, unless the caller sets chunks."""
WHOLE_DIM = 2**31 - 1
"""Stands for the length of a dim beyond place, which only the source has."""
CHUNK_VALUES = 16_000_000
"""Most values of such a chunk: 64 MB of float32, of which a worker holds several at once."""


@dataclass(frozen=True)
class AssembledCube:
    """A lazy cube, and the scenes behind its Sentinel-2 variables.

    Attributes
    ----------
    cube
        All variables, dask.
    scenes
        Scenes by name of a Sentinel-2 variable.
    dates
        The Sentinel-2 variables in chunks of single dates, each of which can be read alone.
    """

    cube: xr.Dataset
    scenes: dict[str, SceneVariables]
    dates: xr.Dataset


def assemble(inputs: BuildInputs, chunks: Mapping[str, int]) -> AssembledCube:
    """Read all variables lazily and merge them.

    Raises
    ------
    SourceError
        If a source cannot be read.
    GridError
        If variables have different labels along one dim.
    """
    scenes: dict[str, SceneVariables] = {}
    for group in group_by_source(inputs.tasks):
        scenes |= dict.fromkeys((t.variable.name for t in group), read_scenes(group))
    back = dict(zip(("y", "x"), spatial_dims(inputs.template), strict=True))
    parts, rows, dates = [], [], xr.Dataset()
    for task in inputs.tasks:
        name = task.variable.name
        report = scenes[name].reports[name] if name in scenes else task.empty_report()
        array = scenes[name].arrays[name] if name in scenes else read_variable(task, report, inputs)
        array = _finish(array, task, report, inputs)
        parts.append(_with_chunks(array, chunks).rename(back).to_dataset(name=name))
        if name in scenes:
            dates[name] = array.rename(back).variable
        rows.append({k: v for k, v in asdict(report).items() if v})
    cube = restore(_merge(parts, inputs), inputs.template)
    cube.attrs = _attributes(inputs, rows, scenes)
    return AssembledCube(cube, scenes, dates)


def _attributes(
    inputs: BuildInputs, rows: Sequence[Mapping[str, Any]], scenes: Mapping[str, SceneVariables]
) -> dict[str, Any]:
    source_of = {t.variable.name: t.source.name for t in inputs.tasks}
    items = {source_of[name]: variables.items for name, variables in scenes.items()}
    failures = list(dict.fromkeys(line for v in scenes.values() for line in v.failed))
    return {
        "title": inputs.schema.title or inputs.schema.name,
        "catalog": inputs.schema.name,
        "sources": json.dumps(rows),
        **({"scenes": json.dumps(items)} if items else {}),
        **({"failed_assets": failures} if failures else {}),
    }


def _finish(
    array: xr.DataArray, task: VariableTask, report: VariableReport, inputs: BuildInputs
) -> xr.DataArray:
    """Give a variable the dims and attributes of the cube."""
    array = array.drop_vars([c for c in array.coords if c not in array.dims or c in ("y", "x")])
    if task.times > 1:
        array = fold(array, task.times, dims=task.chip_dims)
    source = inputs.elevation_of(task).source if task.source.kind == "derived" else task.source
    return with_attributes(array, task, report, source)


def _merge(parts: Sequence[xr.Dataset], inputs: BuildInputs) -> xr.Dataset:
    try:
        return merge(parts)
    except GridError as error:
        users: dict[str, dict[str, list[str]]] = {}
        for task in inputs.tasks:
            for dim in task.variable.dims:
                names = users.setdefault(dim, {}).setdefault(task.source.name, [])
                names.append(task.variable.name)
        clashes = [(d, u) for d, u in users.items() if len(u) > 1 and f"'{d}'" in str(error)]
        if not clashes:
            raise
        dim, sources = clashes[0]
        sharing = " and ".join(f"{s} ({', '.join(names)})" for s, names in sources.items())
        raise GridError(
            f"{sharing} share the dim '{dim}' but not its labels; give the variables of one source a "
            f"separate dim in the catalog, such as dims: [{list(sources)[-1]}_{dim}]"
        ) from None


def _with_chunks(array: xr.DataArray, chunks: Mapping[str, int]) -> xr.DataArray:
    depth = max(array.size // max(array.sizes["y"] * array.sizes["x"], 1), 1)
    side = min(CHUNK, max(16, int((CHUNK_VALUES / depth) ** 0.5) // 16 * 16))
    spatial = {d: min(chunks.get(d, side), array.sizes[d]) for d in ("y", "x")}
    return array.chunk({d: spatial.get(d, chunks.get(d, -1)) for d in map(str, array.dims)})


def chunks_of(chunks: Mapping[str, int] | None, inputs: BuildInputs) -> dict[str, int]:
    """Return checked chunks along y, x and the dims beyond place.

    The spatial dims may have their names in the cube.

    Raises
    ------
    GridError
        If a dim is unknown or a size is not positive.
    """
    names = dict(zip(spatial_dims(inputs.template), ("y", "x"), strict=True))
    height, width = inputs.box.shape.yx
    sizes = {str(d): WHOLE_DIM for t in inputs.tasks for d in t.variable.dims}
    sizes |= {"y": height, "x": width}
    if isinstance(chunks, Mapping):
        chunks = {names.get(d, d): n for d, n in chunks.items()}
    return chunk_sizes(chunks, sizes, automatic=CHUNK)
