"""Reading one variable of a catalog onto the grid: from files, or derived from elevation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.overlap import native_pix_transform
from odc.geo.types import xy_

from geomiam.data.grid.grid import geobox, same_grid
from geomiam.data.grid.source_windows import reach
from geomiam.data.grid.warp import elsewhere, onto
from geomiam.data.predictors import own_dims, same_units
from geomiam.data.values import text_of
from geomiam.errors import DoubtfulSource, MissingModality, SourceError, warn
from geomiam.sources.build_report import VariableReport, crs_name, unit_of
from geomiam.sources.inputs import VariableTask
from geomiam.sources.rasters.formats import format_of
from geomiam.sources.web.allow_list import scrub

FINER = 2.0
"""Least number of source cells along the side of a cell from which their average is used."""
SELECTING = ("nearest", "mode")
"""Resampling methods that return only values of the source."""
EARTH = 6_371_008.8
"""Mean radius of the earth in metres (IUGG)."""


def read_variable(task: VariableTask) -> tuple[xr.DataArray, VariableReport]:
    """Read a variable that is not from Sentinel-2 onto its grid, ``(*dims, y, x)``, lazily."""
    report = VariableReport(
        task.variable.name, task.modality.name, task.source.name, task.source.kind
    )
    elevation, quantity = task.elevation, task.source.derive or task.variable.name
    if elevation is None:
        return _read_files(task, report), report
    if quantity not in ("slope", "aspect"):
        raise SourceError(
            f"'{quantity}' cannot be derived; add 'derive: slope' or 'derive: aspect'"
        )
    # the differences of Horn need one more cell on each side of the grid
    z = _read_files(replace(elevation, box=task.box.pad(1)), report)
    if z.ndim != 2:
        raise SourceError(
            f"'{task.variable.name}' is derived from '{elevation.variable.name}', which has dims "
            f"beyond place: {z.dims[:-2]}"
        )
    slope, aspect = slope_aspect(z.data, task.box)
    return xr.DataArray(slope if quantity == "slope" else aspect, dims=("y", "x")), report


def _read_files(task: VariableTask, report: VariableReport) -> xr.DataArray:
    """Read the files of a raster, NetCDF or Zarr source onto the grid of a task."""
    files = task.files
    steps = [_step(task, paths, report, lenient=files.tiled) for paths in files.paths]
    if report.files == 0:
        raise SourceError(
            f"'{task.variable.name}': none of {report.absent} tiles under the grid exists, such as "
            f"{scrub(files.paths[0][0])}; correct 'root:', or the grid"
        )
    if not files.steps:
        return with_catalog_dims(steps[0], task)
    full = max(steps, key=lambda s: s.ndim)
    data = da.stack([da.broadcast_to(da.asarray(s.data), full.shape) for s in steps])
    data = data.reshape((*(len(v) for _, v in files.steps), *full.shape))
    coords = {d: list(v) for d, v in files.steps}
    series = xr.DataArray(
        data, dims=(*coords, *full.dims), coords={**full.coords, **coords}, attrs=full.attrs
    )
    return with_catalog_dims(series, task)


def _step(
    task: VariableTask, paths: Sequence[str], report: VariableReport, *, lenient: bool
) -> xr.DataArray:
    """Return files that together cover the grid, on the grid."""
    source, variable = task.source, task.variable
    # files of one grid are one array
    arrays, absent = format_of(source).read(
        paths, source, variable=variable, lenient=lenient, near=task.box
    )
    report.absent += absent
    report.files += len(paths) - absent
    if not arrays:
        return _all_missing(task.box)
    arrays = [_with_units(a.rename(variable.name), task) for a in arrays]
    boxes = [geobox(a) for a in arrays]
    method = source.resampling or _resampling(boxes[0], task)
    if not report.crs:
        report.crs = crs_name(boxes[0])
        report.resolution = f"{abs(boxes[0].resolution.x):.6g} {unit_of(boxes[0])}"
    report.resampling = "none" if same_grid(boxes[0], task.box) else method
    near = []
    for array, box in zip(arrays, boxes, strict=True):
        if parts := reach(box, task.box):
            near.append(array)
            planes = array.size // max(box.shape.y * box.shape.x, 1)
            report.bytes += 4 * planes * max(part.pixels for part in parts)
    if not near:
        report.notes.append(elsewhere(variable.name, boxes[0], task.box))
        warn(report.notes[-1], MissingModality)
        return _all_missing(task.box, arrays[0])
    return _combine([onto(a, task.box, dims=("y", "x"), resampling=method) for a in near], method)


def _with_units(array: xr.DataArray, task: VariableTask) -> xr.DataArray:
    """Drop the units of a file whose values are rescaled; warn if units differ from those of the catalog."""
    source, catalog_units = task.source, task.variable.units
    units = text_of(array.attrs, "units")
    if (source.scale, source.offset, source.decode) != (None, None, None):
        array = array.copy(deep=False)
        array.attrs = {k: v for k, v in array.attrs.items() if k != "units"}
    elif units and catalog_units and not same_units(units, catalog_units):
        warn(
            f"'{array.name}' is in '{units}' in its source, the catalog has units '{catalog_units}' and neither 'scale:' "
            "nor 'offset:'; add them, or correct 'units:'",
            DoubtfulSource,
        )
    return array


def _resampling(source_box: GeoBox, task: VariableTask) -> str:
    """Return the default method; the average if a cell in the middle of the grid has many source cells."""
    if task.variable.kind in ("categorical", "circular"):
        return "nearest"
    rows, cols = (n // 2 for n in task.box.shape.yx)
    cell = task.box[rows : rows + 1, cols : cols + 1]
    corners = [xy_(x, y) for y in (0.0, 1.0) for x in (0.0, 1.0)]
    pixels = np.array([p.xy for p in native_pix_transform(source_box, cell).back(corners)])
    spans = np.ptp(pixels, axis=0)
    finer = np.isfinite(spans).all() and np.sqrt(spans.prod()) >= FINER
    return "average" if finer else "bilinear"


def _all_missing(box: GeoBox, like: xr.DataArray | None = None) -> xr.DataArray:
    """Return NaN on a grid, with the dims of an array beyond place."""
    dims = own_dims(like) if like is not None else ()
    sizes = [like.sizes[d] for d in dims] if like is not None else []
    data = da.full((*sizes, *box.shape.yx), np.float32(np.nan), dtype="float32", chunks=1024)
    return xr.DataArray(data, dims=(*dims, "y", "x"))


def _combine(parts: Sequence[xr.DataArray], method: str) -> xr.DataArray:
    """Combine files of different grids: where two have data, their mean, or the first of them.

    The pixels of a cell under a seam are in both files.
    """
    first, *other_parts = parts
    if not other_parts:
        return first
    if method in SELECTING:
        for part in other_parts:
            first = first.where(first.notnull(), part)
        return first
    total = sum((p.fillna(0) for p in other_parts), first.fillna(0))
    count = sum((p.notnull() for p in other_parts), first.notnull().astype("float32"))
    return (total / count.where(count > 0)).astype("float32")


def with_catalog_dims(array: xr.DataArray, task: VariableTask) -> xr.DataArray:
    """Return an array whose dims beyond place have the names, labels and order of the catalog."""
    variable, catalog_dims = task.variable, task.own_dims
    source_dims = own_dims(array)
    free = [d for d in source_dims if d not in catalog_dims]
    lacking = [d for d in catalog_dims if d not in source_dims]
    if len(free) != len(lacking):
        raise SourceError(
            f"'{variable.name}' has dims {source_dims or 'none'} in its source, the catalog has "
            f"{catalog_dims or 'none'}; correct 'dims:', choose one by 'band:' or 'select:', or name it in 'path:'"
        )
    array = array.rename(dict(zip(free, lacking, strict=True)))
    for dim in catalog_dims:
        size, labels = array.sizes[dim], variable.labels.get(dim)
        if labels is not None and len(labels) != size:
            raise SourceError(
                f"'{array.name}' has {size} steps along '{dim}', the catalog {len(labels)} labels; "
                f"correct 'labels:'"
            )
        if labels is not None and dim in lacking:
            array = array.assign_coords({dim: list(labels)})
        elif labels is None and dim not in array.coords:
            array = array.assign_coords({dim: range(size)})
    return array.transpose(*catalog_dims, "y", "x")


# slope and aspect ---------------------------------------------------------------------------------


def slope_aspect(z: Any, box: GeoBox) -> tuple[Any, Any]:
    """Return slope and aspect in degrees, from elevation in metres, numpy or dask.

    ``z`` is ``(..., y + 2, x + 2)``: one more cell on each side of ``box``. Slope is against the
    horizontal; aspect is the direction of the steepest descent, clockwise from north (0 to 360), NaN
    where it is flat. Both are NaN where any of nine cells is NaN.
    """
    # Horn, B. K. P. (1981). Hill shading and the reflectance map. Proceedings of the IEEE 69(1), 14-47,
    # doi:10.1109/PROC.1981.11918: weights 1, 2, 1 on three differences over two cells; as in gdaldem
    a, b, c = z[..., :-2, :-2], z[..., :-2, 1:-1], z[..., :-2, 2:]
    d, e, f = z[..., 1:-1, :-2], z[..., 1:-1, 1:-1], z[..., 1:-1, 2:]
    g, h, i = z[..., 2:, :-2], z[..., 2:, 1:-1], z[..., 2:, 2:]
    centre = e * 0  # Horn's kernel omits the cell: without this term its NaN would be lost
    east = (c + 2 * f + i) - (a + 2 * d + g) + centre
    south = (g + 2 * h + i) - (a + 2 * b + c) + centre
    width, height = _cell_sides(box)
    east = east / (8 * width) * np.sign(box.affine.a)
    north = -south / (8 * height) * -np.sign(box.affine.e)
    steep = np.hypot(east, north)
    slope = np.degrees(np.arctan(steep))
    aspect = np.degrees(np.arctan2(-east, -north)) % 360
    flat = np.where(steep > 0, np.float32(0), np.float32(np.nan))
    return slope.astype("float32"), (aspect + flat).astype("float32")


def _cell_sides(box: GeoBox) -> tuple[Any, Any]:
    """Return width and height of cells in metres: numbers, or the width by row ``(y, 1)`` for degrees."""
    dx, dy = abs(box.affine.a), abs(box.affine.e)
    if not box.crs or not box.crs.geographic:
        metres = box.crs.proj.axis_info[0].unit_conversion_factor if box.crs else 1.0
        return dx * metres, dy * metres
    rows = np.arange(box.shape.y) + 0.5
    lat = np.radians(box.affine.f + box.affine.e * rows)[:, None]
    arc = np.radians(1.0) * EARTH
    return (dx * arc * np.cos(lat)).astype("float32"), dy * arc
