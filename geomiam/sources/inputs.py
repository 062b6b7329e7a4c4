"""The inputs of a build: the grid of the cube, and for each variable its source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite, prod
from pathlib import Path
from typing import Any

import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.geom import BoundingBox

from geomiam.checks.sizes import check_cells
from geomiam.data.grid.chips import finer
from geomiam.data.grid.grid import empty, geobox
from geomiam.data.store.store import as_cube
from geomiam.errors import GridError, SourceError
from geomiam.geo.crs import as_crs
from geomiam.outputs.paths import expand, is_remote, real_path
from geomiam.schema.catalogs import find_catalog
from geomiam.schema.parameters import with_parameters
from geomiam.schema.schema import Schema
from geomiam.schema.source import Grid, Source
from geomiam.schema.variable import Modality, Variable
from geomiam.sources.paths import Files, files_of
from geomiam.sources.rasters.formats import required_crs
from geomiam.sources.rasters.geotiff import check_transform, open_geotiff

MOST_CELLS = 1e12


@dataclass(frozen=True)
class VariableTask:
    """One variable to read: its source, its grid, and the folder of relative paths.

    ``elevation`` is the variable that slope and aspect are derived from.
    """

    variable: Variable
    modality: Modality
    source: Source
    box: GeoBox
    base: Path
    elevation: VariableTask | None = None

    @property
    def times(self) -> int:
        """Cells per side of a cell of the cube; 1 without chips."""
        return self.modality.chips or 1

    @property
    def own_dims(self) -> tuple[str, ...]:
        """Dims of the source beyond place."""
        return self.variable.dims if self.times == 1 else self.variable.dims[:-2]

    @property
    def files(self) -> Files:
        """The files that the variable is read from; none for Sentinel-2 and derived variables."""
        if self.source.kind in ("derived", "stac"):
            return Files((), (), False)
        return files_of(self.variable, self.source, base=self.base, box=self.box)


@dataclass(frozen=True)
class BuildInputs:
    """All variables of a build, the grid, and variables of the catalog without a source."""

    schema: Schema
    template: xr.Dataset
    box: GeoBox
    tasks: tuple[VariableTask, ...]
    missing: tuple[str, ...]

    @property
    def scene_groups(self) -> list[list[VariableTask]]:
        """The variables of Sentinel-2, in groups that share one search and one mask."""
        groups: dict[Any, list[VariableTask]] = {}
        for task in self.tasks:
            if task.source.kind == "stac":
                key = (task.source.name, task.times, task.source.resampling)
                groups.setdefault(key, []).append(task)
        return list(groups.values())


def build_inputs(
    catalog: Any,
    like: Any,
    *,
    bounds: Sequence[float] | None,
    roots: Mapping[str, str | Path] | None,
    parameters: Mapping[str, Any] | None,
) -> BuildInputs:
    """Read a catalog and determine the grid; no file of a source is opened."""
    if isinstance(catalog, Schema):
        schema, base = catalog, Path.cwd()
    else:
        path, base = find_catalog(catalog)
        schema = Schema.from_yaml(path)
    schema = _with_roots(with_parameters(schema, parameters or {}), roots or {})
    template = _grid_template(schema, like, bounds)
    box = geobox(template)
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
    files = {t.variable.name: t for t in tasks if t.source.kind not in ("derived", "stac")}
    tasks = [_with_elevation(t, files) if t.source.kind == "derived" else t for t in tasks]
    # cells of each grid, and values in a cell as far as the catalog has labels
    sizes = [(prod(t.box.shape.yx), prod(map(len, t.variable.labels.values()))) for t in tasks]
    check_cells(sizes, remedy="raise 'resolution:', or build smaller bounds")
    missing = sorted(set(schema.variables) - {t.variable.name for t in tasks})
    return BuildInputs(schema, template, box, tuple(tasks), tuple(missing))


def _with_elevation(task: VariableTask, files: Mapping[str, VariableTask]) -> VariableTask:
    name = task.source.of or "elevation"
    if name not in files:
        raise SourceError(
            f"'{task.variable.name}' is derived from '{name}', which is not a variable read from files; "
            f"set 'of:', such as of: {next(iter(files), 'elevation')}"
        )
    return replace(task, elevation=files[name])


def _with_roots(schema: Schema, roots: Mapping[str, str | Path]) -> Schema:
    """Replace roots of the catalog by those of the caller."""
    if unknown := sorted(set(roots) - set(schema.sources)):
        raise SourceError(
            f"roots= has {unknown}, which are not sources of the catalog; it has {', '.join(schema.sources)}"
        )
    sources = dict(schema.sources)
    for name, root in roots.items():
        options = {k: getattr(sources[name], k) for k in sources[name].model_fields_set}
        text = expand(root) if is_remote(root) else str(real_path(root))
        sources[name] = Source(**{**options, "root": text})
    return schema.model_copy(update={"sources": sources})


# the grid -----------------------------------------------------------------------------------------


def _grid_template(schema: Schema, like: Any, bounds: Sequence[float] | None) -> xr.Dataset:
    """Return a Dataset on the grid of ``like=``, or of the catalog."""
    if like is None:
        return empty(_catalog_grid(schema, bounds))
    if bounds is not None:
        raise GridError("like= is a grid with bounds; pass like= or bounds=, not both")
    if isinstance(like, (str, Path)):
        path = expand(str(like))
        if not path.lower().endswith((".tif", ".tiff")):
            cube = as_cube(path)
            return cube.drop_vars(list(cube.data_vars))
        with open_geotiff(path) as file:
            check_transform(file)
            like = GeoBox(file.shape, file.transform, required_crs(file.crs, path))
    if isinstance(like, xr.DataArray):
        return like.to_dataset(name="like")
    return like if isinstance(like, xr.Dataset) else empty(like)


def _catalog_grid(schema: Schema, bounds: Sequence[float] | None) -> GeoBox:
    grid = schema.grid
    if grid is None or (grid.bounds is None and bounds is None):
        lacks = "grid" if grid is None else "bounds in its grid"
        raise GridError(
            f"catalog '{schema.name}' has no {lacks}; pass like=cube, or add "
            "grid: {crs: EPSG:3035, resolution: 1000, bounds: [xmin, ymin, xmax, ymax]}"
        )
    bounds_crs = getattr(bounds, "crs", None)
    crs = as_crs(grid.crs, f"'grid: crs' of catalog '{schema.name}'")
    corners: Any = grid.bounds
    if bounds is not None:
        corners = _checked_bounds(bounds, str(bounds_crs or grid.crs))
    if bounds_crs is not None:
        west, south, east, north = corners
        corners = BoundingBox(west, south, east, north, crs=bounds_crs).to_crs(crs)
    _check_resolution(tuple(corners), grid.resolution)
    # cells that cover bounds of another CRS are on the lattice that all cubes of the catalog share
    return GeoBox.from_bbox(corners, crs=crs, resolution=grid.resolution, tight=bounds_crs is None)


def _check_resolution(corners: Sequence[float], resolution: float) -> None:
    """Refuse a resolution with more than MOST_CELLS cells, or with far less than one."""
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


def _checked_bounds(bounds: Sequence[float], crs: str) -> Any:
    try:
        return Grid(crs=crs, resolution=1, bounds=tuple(bounds)).bounds
    except ValueError:
        across = len(tuple(bounds)) == 4 and -180 <= bounds[2] < bounds[0] <= 180
        hint = f"; across the antimeridian xmax is {bounds[2] + 360:g}" if across else ""
        raise GridError(
            f"bounds={tuple(bounds)}: expected xmin, ymin, xmax, ymax in {crs}{hint}"
        ) from None
