"""The grid of a cube that is read from raster files of any grids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox

from geomiam.data.grid.grid import geobox, same_grid
from geomiam.errors import GridAssumed, GridError, warn
from geomiam.geo.crs import as_crs
from geomiam.geo.lengths import kilometres
from geomiam.sources.build_report import crs_name, unit_of
from geomiam.sources.rasters.layers import Layer
from geomiam.sources.variable_reader import EARTH


def grid_of_files(
    layers: Sequence[Layer], grid: Any, *, resolution: float | str | None, crs: Any
) -> Any:
    """Return the grid of the caller, or the grid of the layer with the smallest cells."""
    if grid is not None:
        if resolution is not None or crs is not None:
            raise GridError(
                "grid= states the CRS and resolution; pass grid= alone, or crs= and resolution="
            )
        return grid
    boxes = [geobox(a.array) for a in layers]
    number = int(np.argmin([round(cell_area(b), 6) for b in boxes]))
    box = boxes[number]
    if resolution is None and crs is None:
        if not all(same_grid(b, box) for b in boxes):
            rows, cols = box.shape.yx
            warn(
                f"files lie on several grids; all are brought onto that of '{layers[number].name}', which has "
                f"the smallest cells: {rows:,} × {cols:,} cells of {abs(box.resolution.x):.6g} {unit_of(box)} "
                f"in {crs_name(box)}. For another grid pass grid=, crs= or resolution=",
                GridAssumed,
            )
        return box
    target: Any = box.crs if crs is None else as_crs(crs, "crs=")
    if target == box.crs and resolution is None:
        return box
    if resolution is None:
        return box.to_crs(target)
    bounds = box.extent.to_crs(target).boundingbox if target != box.crs else box.boundingbox
    return GeoBox.from_bbox(bounds, crs=target, resolution=_cell(resolution, target))


def _cell(resolution: float | str, crs: Any) -> float:
    """Return the side of a cell in units of a CRS."""
    if not isinstance(resolution, str):
        if not 0 < resolution < float("inf"):
            raise GridError(
                f"resolution={resolution}; pass a number above 0 in units of the CRS, or '1 km'"
            )
        return float(resolution)
    metres = 1000 * kilometres(resolution, "resolution")
    if crs.geographic:
        raise GridError(
            f"resolution='{resolution}' is a length, but the CRS of the grid is in degrees: pass degrees, e.g. "
            f"resolution={metres / (EARTH * np.pi / 180):.6g}, or a CRS in metres, e.g. crs='EPSG:6933' (equal area, all continents)"
        )
    return metres / float(crs.proj.axis_info[0].unit_conversion_factor)


def cell_area(box: GeoBox) -> float:
    """Return the area of a cell in the middle of a grid in m², to compare grids of different CRS."""
    area = abs(box.resolution.x * box.resolution.y)
    if box.crs is None:
        return area
    if not box.crs.geographic:
        return area * float(box.crs.proj.axis_info[0].unit_conversion_factor) ** 2
    middle = float(np.radians((box.boundingbox.bottom + box.boundingbox.top) / 2))
    return area * (EARTH * np.pi / 180) ** 2 * float(np.cos(middle))
