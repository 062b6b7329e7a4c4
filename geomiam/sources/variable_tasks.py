"""The inputs of a build: for each variable its source and its grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from geomiam.checks.sizes import check_cells
from geomiam.data.grid.chips import CHIP, finer
from geomiam.errors import SourceError
from geomiam.geo.crs import as_crs
from geomiam.outputs.paths import expand, is_remote, real_path
from geomiam.schema.catalogs import find_catalog
from geomiam.schema.modality import Modality
from geomiam.schema.schema import Schema
from geomiam.schema.source import Source
from geomiam.schema.variable import Variable
from geomiam.sources.build_report import VariableReport
from geomiam.sources.target_grid import grid_template

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox


@dataclass(frozen=True)
class VariableTask:
    """One variable to read: its source, its grid, and the folder of relative paths."""

    variable: Variable
    modality: Modality
    source: Source
    box: GeoBox
    base: Path

    @property
    def times(self) -> int:
        """Cells per side of a cell of the cube; 1 without chips."""
        return self.modality.chips or 1

    @property
    def cells(self) -> tuple[int, int]:
        """Number of cells of the grid, and values in each as far as the catalog has labels."""
        rows, cols = self.box.shape.yx
        return int(rows) * int(cols), prod(len(v) for v in self.variable.labels.values())

    @property
    def chip_dims(self) -> tuple[str, str]:
        """Names of the dims of rows and columns inside a cell."""
        dims = self.variable.dims
        return (dims[-2], dims[-1]) if len(dims) >= 2 else CHIP

    @property
    def own_dims(self) -> tuple[str, ...]:
        """Dims of the source beyond place."""
        dims = self.variable.dims
        return dims if self.times == 1 else dims[:-2]

    def empty_report(self) -> VariableReport:
        """Return a report without files."""
        return VariableReport(
            self.variable.name, self.modality.name, self.source.name, self.source.kind
        )


@dataclass(frozen=True)
class BuildInputs:
    """All variables of a build, the grid, and variables of the catalog without a source."""

    schema: Schema
    template: xr.Dataset
    box: GeoBox
    tasks: tuple[VariableTask, ...]
    missing: tuple[str, ...]

    def elevation_of(self, task: VariableTask) -> VariableTask:
        """Return the task of the elevation that a variable is derived from.

        Raises
        ------
        SourceError
            If there is no such variable that is read from files.
        """
        name = task.source.of or "elevation"
        files = {t.variable.name: t for t in self.tasks if t.source.kind not in ("derived", "stac")}
        if name not in files:
            raise SourceError(
                f"'{task.variable.name}' is derived from '{name}', which is not a variable read from files; "
                f"set 'of:', such as of: {next(iter(files), 'elevation')}"
            )
        return files[name]


def build_inputs(
    catalog: Any,
    like: Any,
    *,
    bounds: Sequence[float] | None,
    roots: Mapping[str, str | Path] | None,
) -> BuildInputs:
    """Read a catalog and determine the grid; no file of a source is opened.

    Raises
    ------
    SchemaError, SourceError, GridError
        As :func:`geomiam.build_cube`.
    """
    from geomiam.data.grid.grid import geobox

    if isinstance(catalog, Schema):
        schema, base = catalog, Path.cwd()
    else:
        path, base = find_catalog(catalog)
        schema = Schema.from_yaml(path)
    schema = _with_roots(schema, roots or {})
    template = grid_template(schema, like, bounds)
    box = geobox(template)
    tasks = tuple(_tasks(schema, box, base=base))
    check_cells([t.cells for t in tasks], remedy="raise 'resolution:', or build smaller bounds")
    missing = tuple(sorted(set(schema.variables) - {t.variable.name for t in tasks}))
    return BuildInputs(schema, template, box, tasks, missing)


def _tasks(schema: Schema, box: GeoBox, *, base: Path) -> list[VariableTask]:
    """Return a task for each variable that has a source."""
    tasks = []
    for modality in schema.modalities.values():
        fine = finer(box, modality.chips or 1)
        for variable in modality.variables.values():
            if origin := modality.origin_of(variable.name):
                source = origin.over(schema.sources[origin.source])
                if source.crs is not None:
                    as_crs(source.crs, f"'crs:' of source '{source.name}'")
                tasks.append(VariableTask(variable, modality, source, fine, base))
    if not tasks:
        raise SourceError(
            f"no variable of catalog '{schema.name}' has a source; add 'sources:' and, to "
            "modalities or variables, 'from:'"
        )
    return tasks


def _with_roots(schema: Schema, roots: Mapping[str, str | Path]) -> Schema:
    """Replace roots of the catalog by those of the caller."""
    if unknown := sorted(set(roots) - set(schema.sources)):
        raise SourceError(
            f"roots= has {unknown}, which are not sources of the catalog; it has {', '.join(schema.sources)}"
        )
    at = {k: expand(v) if is_remote(v) else str(real_path(v)) for k, v in roots.items()}
    sources = {k: _with_root(s, at[k]) if k in at else s for k, s in schema.sources.items()}
    return schema.model_copy(update={"sources": sources})


def _with_root(source: Source, root: str) -> Source:
    options = {k: getattr(source, k) for k in source.model_fields_set}
    return Source(**{**options, "root": root})
