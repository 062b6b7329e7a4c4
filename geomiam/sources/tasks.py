"""A catalog understood: which variable is read from where, onto which grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from geomiam.checks.sizes import check_cells
from geomiam.data.grid.chips import CHIP, finer
from geomiam.errors import GridError, SourceError
from geomiam.geo.crs import as_crs
from geomiam.outputs.paths import expand, is_remote, real_path
from geomiam.schema.catalogs import find
from geomiam.schema.data_source import Grid, Source
from geomiam.schema.schema import Modality, Schema, Variable
from geomiam.sources.report import Told

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox


MOST_CELLS = 1e12


@dataclass(frozen=True)
class Task:
    """What is to be read for one variable, from where and onto which grid."""

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
        """Cells of the grid, and numbers in each, as far as the catalog states its labels."""
        rows, cols = self.box.shape.yx
        return int(rows) * int(cols), prod(len(v) for v in self.variable.labels.values())

    @property
    def chip_dims(self) -> tuple[str, str]:
        """Names of rows and columns inside a cell."""
        dims = self.variable.dims
        return (dims[-2], dims[-1]) if len(dims) >= 2 else CHIP

    @property
    def own_dims(self) -> tuple[str, ...]:
        """Dims that the source has beyond place."""
        dims = self.variable.dims
        return dims if self.times == 1 else dims[:-2]

    def told(self) -> Told:
        """Return an empty report."""
        return Told(self.variable.name, self.modality.name, self.source.name, self.source.kind)


@dataclass(frozen=True)
class Todo:
    """All that is to be read for a cube."""

    schema: Schema
    template: xr.Dataset
    box: GeoBox
    tasks: tuple[Task, ...]
    missing: tuple[str, ...]

    def elevation_of(self, task: Task) -> Task:
        """Return the task of the variable that a derived one is made of.

        Raises
        ------
        SourceError
            When there is none that is read from files.
        """
        name = task.source.of or "elevation"
        files = {t.variable.name: t for t in self.tasks if t.source.kind not in ("derived", "stac")}
        if name not in files:
            raise SourceError(
                f"'{task.variable.name}' is derived of '{name}', which is no variable read from a file; "
                f"name one by 'of:', such as of: {next(iter(files), 'elevation')}"
            )
        return files[name]


def understood(
    catalog: Any,
    like: Any,
    *,
    bounds: Sequence[float] | None,
    roots: Mapping[str, str | Path] | None,
) -> Todo:
    """Read a catalog and find the grid; no file of a source is opened.

    Raises
    ------
    SchemaError, SourceError, GridError
        As :func:`geomiam.build_cube`.
    """
    from geomiam.data.grid.grid import empty, geobox

    if isinstance(catalog, Schema):
        schema, base = catalog, Path.cwd()
    else:
        path, base = find(catalog)
        schema = Schema.from_yaml(path)
    schema = _rooted(schema, roots or {})
    template = _template(schema, like, bounds)
    template = template if isinstance(template, xr.Dataset) else empty(template)
    box = geobox(template)
    made = tuple(_tasks(schema, box, base=base))
    check_cells([t.cells for t in made], remedy="raise 'resolution:', or build smaller bounds")
    missing = tuple(sorted(set(schema.variables) - {t.variable.name for t in made}))
    return Todo(schema, template, box, made, missing)


def _tasks(schema: Schema, box: GeoBox, *, base: Path) -> list[Task]:
    """One task for each variable that comes from a source."""
    made = []
    for modality in schema.modalities.values():
        fine = finer(box, modality.chips or 1)
        for variable in modality.variables.values():
            if origin := modality.origin_of(variable.name):
                source = origin.over(schema.sources[origin.source])
                if source.crs is not None:
                    as_crs(source.crs, f"'crs:' of source '{source.name}'")
                made.append(Task(variable, modality, source, fine, base))
    if not made:
        raise SourceError(
            f"catalog '{schema.name}' says of no variable where it is from; add 'sources:' and, to "
            "modalities or variables, 'from:'"
        )
    return made


def _rooted(schema: Schema, roots: Mapping[str, str | Path]) -> Schema:
    """Put the caller's directories in place of the catalog's."""
    if unknown := sorted(set(roots) - set(schema.sources)):
        raise SourceError(
            f"roots= names {unknown}, no source of the catalog; it has {', '.join(schema.sources)}"
        )
    at = {k: expand(v) if is_remote(v) else str(real_path(v)) for k, v in roots.items()}
    moved = {k: _with_root(s, at[k]) if k in at else s for k, s in schema.sources.items()}
    return schema.model_copy(update={"sources": moved})


def _with_root(source: Source, root: str) -> Source:
    said = {k: getattr(source, k) for k in source.model_fields_set}
    return Source(**{**said, "root": root})


def _template(schema: Schema, like: Any, bounds: Sequence[float] | None) -> Any:
    """The cube whose grid it is, or a GeoBox."""
    if like is None:
        return _grid(schema, bounds)
    if bounds is not None:
        raise GridError("like= is a grid with bounds of its own; pass like= or bounds=, not both")
    if isinstance(like, (str, Path)):
        return _opened(str(like))
    return like.to_dataset(name="like") if isinstance(like, xr.DataArray) else like


def _grid(schema: Schema, bounds: Sequence[float] | None) -> GeoBox:
    from odc.geo.geobox import GeoBox
    from odc.geo.geom import BoundingBox

    grid = schema.grid
    if grid is None or (grid.bounds is None and bounds is None):
        lacks = "grid" if grid is None else "bounds in its grid"
        raise GridError(
            f"catalog '{schema.name}' has no {lacks}; pass like=cube, or add "
            "grid: {crs: EPSG:3035, resolution: 1000, bounds: [xmin, ymin, xmax, ymax]}"
        )
    own = getattr(bounds, "crs", None)
    crs = as_crs(grid.crs, f"'grid: crs' of catalog '{schema.name}'")
    corners = _bounds(bounds, str(own or grid.crs)) if bounds is not None else grid.bounds
    assert corners is not None
    if own is not None:  # cells that cover it, on the lattice that all cubes of the catalog share
        west, south, east, north = corners
        corners = BoundingBox(west, south, east, north, crs=own).to_crs(crs)
    _check_resolution(tuple(corners), grid.resolution)
    return GeoBox.from_bbox(corners, crs=crs, resolution=grid.resolution, tight=own is None)


def _check_resolution(corners: Sequence[float], resolution: float) -> None:
    """Refuse cells so small or so large that the grid has no usable number of them."""
    west, south, east, north = corners
    rows, cols = (north - south) / resolution, (east - west) / resolution
    if not (isfinite(rows) and isfinite(cols) and rows * cols < MOST_CELLS):
        raise GridError(
            f"bounds of {east - west:g} x {north - south:g} in cells of {resolution:g} are {rows:.3g} x "
            f"{cols:.3g} cells, more than {MOST_CELLS:.0e}; raise 'resolution:' or build smaller bounds"
        )
    if resolution > 1e3 * max(north - south, east - west):
        raise GridError(
            f"bounds of {east - west:g} x {north - south:g} are far smaller than one cell of "
            f"{resolution:g}; lower 'resolution:'"
        )


def _bounds(bounds: Sequence[float], crs: str) -> Any:
    try:
        return Grid(crs=crs, resolution=1, bounds=tuple(bounds)).bounds  # type: ignore[arg-type]
    except ValueError:
        across = len(tuple(bounds)) == 4 and -180 <= bounds[2] < bounds[0] <= 180
        hint = f"; across the antimeridian xmax is {bounds[2] + 360:g}" if across else ""
        raise GridError(
            f"bounds={tuple(bounds)}: expected xmin, ymin, xmax, ymax in {crs}{hint}"
        ) from None


def _opened(path: str) -> Any:
    from odc.geo.geobox import GeoBox

    from geomiam.data.store.store import open_cube
    from geomiam.sources.rasters.geotiff import check_place, known_crs
    from geomiam.sources.rasters.pixels import opened

    path = expand(path)
    if not path.lower().endswith((".tif", ".tiff")):
        cube = open_cube(path)
        return cube.drop_vars(list(cube.data_vars))
    with opened(path) as file:
        check_place(file)
        return GeoBox(file.shape, file.transform, known_crs(file.crs, path))
