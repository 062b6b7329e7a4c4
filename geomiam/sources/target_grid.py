"""The grid of a cube to build: from ``like=``, or from the catalog and ``bounds=``."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from geomiam.errors import GridError
from geomiam.geo.crs import as_crs
from geomiam.outputs.paths import expand
from geomiam.schema.schema import Schema
from geomiam.schema.source import Grid

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

MOST_CELLS = 1e12


def grid_template(schema: Schema, like: Any, bounds: Sequence[float] | None) -> xr.Dataset:
    """Return a Dataset on the grid of ``like=``, or of the catalog.

    Raises
    ------
    GridError
        If there is no grid, or both ``like=`` and ``bounds=`` are passed.
    """
    from geomiam.data.grid.grid import empty

    if like is None:
        return empty(_catalog_grid(schema, bounds))
    if bounds is not None:
        raise GridError("like= is a grid with bounds; pass like= or bounds=, not both")
    if isinstance(like, (str, Path)):
        like = _grid_of_file(str(like))
    if isinstance(like, xr.DataArray):
        return like.to_dataset(name="like")
    return like if isinstance(like, xr.Dataset) else empty(like)


def _catalog_grid(schema: Schema, bounds: Sequence[float] | None) -> GeoBox:
    from odc.geo.geobox import GeoBox
    from odc.geo.geom import BoundingBox

    grid = schema.grid
    if grid is None or (grid.bounds is None and bounds is None):
        lacks = "grid" if grid is None else "bounds in its grid"
        raise GridError(
            f"catalog '{schema.name}' has no {lacks}; pass like=cube, or add "
            "grid: {crs: EPSG:3035, resolution: 1000, bounds: [xmin, ymin, xmax, ymax]}"
        )
    bounds_crs = getattr(bounds, "crs", None)
    crs = as_crs(grid.crs, f"'grid: crs' of catalog '{schema.name}'")
    corners = (
        _checked_bounds(bounds, str(bounds_crs or grid.crs)) if bounds is not None else grid.bounds
    )
    assert corners is not None
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
        return Grid(crs=crs, resolution=1, bounds=tuple(bounds)).bounds  # type: ignore[arg-type]
    except ValueError:
        across = len(tuple(bounds)) == 4 and -180 <= bounds[2] < bounds[0] <= 180
        hint = f"; across the antimeridian xmax is {bounds[2] + 360:g}" if across else ""
        raise GridError(
            f"bounds={tuple(bounds)}: expected xmin, ymin, xmax, ymax in {crs}{hint}"
        ) from None


def _grid_of_file(path: str) -> Any:
    """Return the empty Dataset of a Zarr store, or the GeoBox of a GeoTIFF."""
    from odc.geo.geobox import GeoBox

    from geomiam.data.store.store import open_cube
    from geomiam.sources.rasters.geotiff import check_transform, required_crs
    from geomiam.sources.rasters.pixels import open_geotiff

    path = expand(path)
    if not path.lower().endswith((".tif", ".tiff")):
        cube = open_cube(path)
        return cube.drop_vars(list(cube.data_vars))
    with open_geotiff(path) as file:
        check_transform(file)
        return GeoBox(file.shape, file.transform, required_crs(file.crs, path))
