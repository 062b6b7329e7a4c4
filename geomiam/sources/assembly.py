"""Assembly of a cube: every variable is read onto the grid, labelled, chunked and merged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import xarray as xr

from geomiam.checks.sizes import CHUNK_SIDE, CHUNK_VALUES
from geomiam.data.grid.chips import CHIP, fold
from geomiam.data.grid.grid import merge, restore, spatial_dims
from geomiam.data.store.encoding import chunk_sizes
from geomiam.data.values import flags_of, text_of
from geomiam.errors import GridError
from geomiam.sources.build_report import VariableReport
from geomiam.sources.inputs import BuildInputs, VariableTask
from geomiam.sources.paths import stamp
from geomiam.sources.scene_variables import SceneVariables, read_scenes
from geomiam.sources.variable_reader import read_variable

WHOLE_DIM = 2**31 - 1
"""Stands for the length of a dim beyond place, which only the source has."""
WITHOUT_EFFECT = {"on_error", "hosts"}
"""Keys of a source that change no value."""


@dataclass(frozen=True)
class AssembledCube:
    """A lazy cube, its Sentinel-2 variables, and the same in chunks of single dates.

    Each chunk of ``dates`` can be read alone, which a repair requires.
    """

    cube: xr.Dataset
    scenes: list[SceneVariables]
    dates: xr.Dataset

    def failures(self) -> dict[str, list[str]]:
        """Return the lines on files that could not be read until now, by variable."""
        return {name: v.failed.collect() for v in self.scenes for name in v.arrays}


def assemble(inputs: BuildInputs, chunks: Mapping[str, int] | str | None) -> AssembledCube:
    """Read all variables lazily and merge them."""
    sizes = _chunks_of(chunks, inputs)
    scenes = [
        read_scenes(group, lambda steps: sizes.get("y", _side(steps)))
        for group in inputs.scene_groups
    ]
    arrays = {name: (a, v.reports[name]) for v in scenes for name, a in v.arrays.items()}
    back = dict(zip(("y", "x"), spatial_dims(inputs.template), strict=True))
    parts, rows, dates = [], [], xr.Dataset()
    for task in inputs.tasks:
        name = task.variable.name
        array, report = arrays.get(name) or read_variable(task)
        array = array.drop_vars([c for c in array.coords if c not in array.dims or c in ("y", "x")])
        if task.times > 1:
            dims = task.variable.dims
            row, col = dims[-2:] if len(dims) >= 2 else CHIP  # inside a cell
            array = fold(array, task.times, dims=(row, col))
        array = _with_attributes(array, task, report)
        parts.append(_with_chunks(array, sizes).rename(back).to_dataset(name=name))
        if name in arrays:
            dates[name] = array.rename(back).variable
        rows.append({k: v for k, v in asdict(report).items() if v})
    cube = restore(_merge(parts, inputs), inputs.template)
    items = {v.source: v.items for v in scenes}
    failures = list(dict.fromkeys(line for v in scenes for line in v.failed))
    cube.attrs = {
        "title": inputs.schema.title or inputs.schema.name,
        "catalog": inputs.schema.name,
        "sources": json.dumps(rows),
        **({"scenes": json.dumps(items)} if items else {}),
        **({"failed_assets": failures} if failures else {}),
    }
    return AssembledCube(cube, scenes, dates)


def _with_attributes(
    array: xr.DataArray, task: VariableTask, report: VariableReport
) -> xr.DataArray:
    """Return a variable with attributes of the catalog, otherwise of its file."""
    variable, modality = task.variable, task.modality
    source = task.elevation.source if task.elevation else task.source
    classes = variable.classes
    if variable.kind == "categorical" and not classes:
        classes = flags_of(array.attrs)
    attrs = {
        "modality": modality.name,
        "units": variable.units or text_of(array.attrs, "units"),
        "long_name": variable.long_name,
        "kind": variable.kind,
        "source": modality.source or source.title or source.name,
        "license": modality.license or source.license,
        "citation": modality.citation or source.citation,
        "period": source.period,
        "resampling": report.resampling,
        "source_crs": report.crs,
        "source_resolution": report.resolution,
        "flag_values": list(classes),
        "flag_meanings": " ".join(m.replace(" ", "_") for m in classes.values()),
    }
    array = array.copy(deep=False)
    array.attrs = {k: v for k, v in attrs.items() if v}
    return array


def _merge(parts: Sequence[xr.Dataset], inputs: BuildInputs) -> xr.Dataset:
    """Merge variables; if labels of a dim differ, the message names the sources and variables."""
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


def _chunks_of(chunks: Mapping[str, int] | str | None, inputs: BuildInputs) -> dict[str, int]:
    """Return checked chunks along y, x and dims beyond place; y and x may have the cube's names."""
    names = dict(zip(spatial_dims(inputs.template), ("y", "x"), strict=True))
    height, width = inputs.box.shape.yx
    sizes = {str(d): WHOLE_DIM for t in inputs.tasks for d in t.variable.dims}
    sizes |= {"y": height, "x": width}
    if isinstance(chunks, Mapping):
        chunks = {names.get(d, d): n for d, n in chunks.items()}
    return chunk_sizes(chunks, sizes, automatic=CHUNK_SIDE)


def _with_chunks(array: xr.DataArray, chunks: Mapping[str, int]) -> xr.DataArray:
    depth = max(array.size // max(array.sizes["y"] * array.sizes["x"], 1), 1)
    spatial = {d: min(chunks.get(d, _side(depth)), array.sizes[d]) for d in ("y", "x")}
    return array.chunk({d: spatial.get(d, chunks.get(d, -1)) for d in map(str, array.dims)})


def _side(depth: int) -> int:
    """Return the rows and columns of a chunk with so many values in each cell."""
    return min(CHUNK_SIDE, max(16, int((CHUNK_VALUES / depth) ** 0.5) // 16 * 16))


def fingerprints(inputs: BuildInputs, assembly: AssembledCube) -> dict[str, str]:
    """Return by variable a digest of everything that determines its values."""
    from geomiam._version import __version__

    items = {name: v.items for v in assembly.scenes for name in v.arrays}
    prints = {}
    for task in inputs.tasks:
        array, box = assembly.cube[task.variable.name], task.box
        tasks = [task, *([task.elevation] if task.elevation else [])]
        options = [t.source.model_dump(mode="json", exclude=WITHOUT_EFFECT) for t in tasks]
        variables = [t.variable.model_dump(mode="json") for t in tasks]
        parts = [
            __version__,
            [list(box.shape.yx), list(box.affine), str(box.crs), list(assembly.cube.dims)],
            [array.dims, array.chunks, sorted((k, str(v)) for k, v in array.attrs.items())],
            list(zip(options, variables, strict=True)),
            [stamp(p) for t in tasks for p in t.files.flat],
            [str(array[d].values.tolist()) for d in array.dims if d in array.coords],
            items.get(task.variable.name, []),
        ]
        text = json.dumps(parts, default=str)
        prints[task.variable.name] = hashlib.sha256(text.encode()).hexdigest()
    return prints
