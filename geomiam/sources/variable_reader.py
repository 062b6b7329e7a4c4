"""Reading one variable of a catalog onto the grid: from files, or derived from elevation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from geomiam.data.grid.grid import geobox
from geomiam.data.grid.lattice import same_grid
from geomiam.data.grid.source_windows import reach
from geomiam.data.grid.warp import elsewhere, onto
from geomiam.data.values.attributes import text_of
from geomiam.data.variables import own_dims, same_units
from geomiam.errors import DoubtfulSource, MissingModality, SourceError, warn
from geomiam.sources.build_report import VariableReport, crs_name, unit_of
from geomiam.sources.paths import files_of
from geomiam.sources.rasters.formats import format_of
from geomiam.sources.stac.stac_source import scrub
from geomiam.sources.terrain import slope_aspect
from geomiam.sources.variable_tasks import BuildInputs, VariableTask

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

FINER = 2.0
"""Least number of source cells along the side of a cell from which their average is used."""
SELECTING = ("nearest", "mode")
"""Resampling methods that return only values of the source."""


def read_variable(task: VariableTask, report: VariableReport, inputs: BuildInputs) -> xr.DataArray:
    """Read one variable that is not from Sentinel-2 onto its grid, ``(*dims, y, x)``, lazily."""
    if task.source.kind == "derived":
        return _derive(task, report, elevation=inputs.elevation_of(task))
    return _read_files(task, report)


def _read_files(task: VariableTask, report: VariableReport) -> xr.DataArray:
    """Read the files of a raster, NetCDF or Zarr source onto the grid of a task.

    Raises
    ------
    SourceError
        If files are missing or do not contain the variable of the catalog.
    """
    files = files_of(task.variable, task.source, base=task.base, box=task.box)
    steps = [_step(task, paths, report, lenient=files.tiled) for paths in files.paths]
    if report.files == 0:
        raise SourceError(
            f"'{task.variable.name}': none of {report.absent} tiles under the grid exists, such as "
            f"{scrub(files.paths[0][0])}; correct 'root:', or the grid"
        )
    return with_catalog_dims(_stacked(steps, files.steps), task)


def _derive(task: VariableTask, report: VariableReport, *, elevation: VariableTask) -> xr.DataArray:
    """Return slope or aspect; elevation is read with one more cell on each side of the grid.

    Raises
    ------
    SourceError
        If the variable is neither, or the elevation has dims beyond place.
    """
    quantity = task.source.derive or task.variable.name
    if quantity not in ("slope", "aspect"):
        raise SourceError(
            f"'{quantity}' cannot be derived; add 'derive: slope' or 'derive: aspect'"
        )
    z = _read_files(replace(elevation, box=task.box.pad(1)), report)
    if z.ndim != 2:
        raise SourceError(
            f"'{task.variable.name}' is derived from '{elevation.variable.name}', which has dims "
            f"beyond place: {z.dims[:-2]}"
        )
    slope, aspect = slope_aspect(z.data, task.box)
    return xr.DataArray(slope if quantity == "slope" else aspect, dims=("y", "x"))


def _step(
    task: VariableTask, paths: Sequence[str], report: VariableReport, *, lenient: bool
) -> xr.DataArray:
    """Return files that together cover the grid, on the grid."""
    arrays = _open_files(task, paths, report, lenient=lenient)
    if not arrays:
        return _all_missing(task.box)
    boxes = [geobox(a) for a in arrays]
    method = task.source.resampling or _resampling(boxes[0], task)
    _report_grid(report, boxes[0], "none" if same_grid(boxes[0], task.box) else method)
    near = [(a, b) for a, b in zip(arrays, boxes, strict=True) if reach(b, task.box)]
    if not near:
        report.notes.append(elsewhere(task.variable.name, boxes[0], task.box))
        warn(report.notes[-1], MissingModality)
        return _all_missing(task.box, arrays[0])
    report.bytes += sum(_bytes(a, b, task.box) for a, b in near)
    return _combine(
        [onto(a, task.box, dims=("y", "x"), resampling=method) for a, _ in near], method
    )


def _open_files(
    task: VariableTask, paths: Sequence[str], report: VariableReport, *, lenient: bool
) -> list[xr.DataArray]:
    """Return arrays on the grids of the files; files of one grid are one array."""
    source, variable = task.source, task.variable
    arrays, absent = format_of(source).read(paths, source, variable=variable, lenient=lenient)
    report.absent += absent
    report.files += len(paths) - absent
    return [_with_units(a.rename(variable.name), task) for a in arrays]


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
    if task.variable.kind in ("categorical", "circular"):
        return "nearest"
    return "average" if source_cells_per_cell(source_box, task.box) >= FINER else "bilinear"


def source_cells_per_cell(source_box: GeoBox, box: GeoBox) -> float:
    """Return the number of source cells along the side of a cell in the middle of a grid."""
    from odc.geo.overlap import native_pix_transform
    from odc.geo.types import xy_

    rows, cols = (n // 2 for n in box.shape.yx)
    cell = box[rows : rows + 1, cols : cols + 1]
    corners = [xy_(x, y) for y in (0.0, 1.0) for x in (0.0, 1.0)]
    pixels = np.array([p.xy for p in native_pix_transform(source_box, cell).back(corners)])
    spans = np.ptp(pixels, axis=0)
    return float(np.sqrt(spans.prod())) if np.isfinite(spans).all() else 1.0


def _report_grid(report: VariableReport, source_box: GeoBox, method: str) -> None:
    if not report.crs:
        report.crs = crs_name(source_box)
        report.resolution = f"{abs(source_box.resolution.x):.6g} {unit_of(source_box)}"
    report.resampling = method


def _bytes(array: xr.DataArray, source_box: GeoBox, box: GeoBox) -> int:
    """Return the bytes of a source under the grid, as float32."""
    planes = array.size // max(source_box.shape.y * source_box.shape.x, 1)
    return 4 * planes * max((part.pixels for part in reach(source_box, box)), default=0)


def _all_missing(box: GeoBox, like: xr.DataArray | None = None) -> xr.DataArray:
    """Return NaN on a grid, with the dims of an array beyond place."""
    import dask.array as da

    dims = own_dims(like) if like is not None else ()
    sizes = [like.sizes[d] for d in dims] if like is not None else []
    data = da.full((*sizes, *box.shape.yx), np.float32(np.nan), dtype="float32", chunks=1024)
    return xr.DataArray(data, dims=(*dims, "y", "x"))


def _combine(parts: Sequence[xr.DataArray], method: str) -> xr.DataArray:
    """Combine files of different grids: where two have data, their mean, or the first of them.

    The pixels of a cell under a seam are in both files.
    """
    first, *rest = parts
    if not rest:
        return first
    if method in SELECTING:
        for part in rest:
            first = first.where(first.notnull(), part)
        return first
    total = sum((p.fillna(0) for p in rest), first.fillna(0))
    count = sum((p.notnull() for p in rest), first.notnull().astype("float32"))
    return (total / count.where(count > 0)).astype("float32")


def _stacked(
    steps: Sequence[xr.DataArray], dims: Sequence[tuple[str, Sequence[Any]]]
) -> xr.DataArray:
    """Stack arrays of combinations of labels, in order, along new dims."""
    if not dims:
        return steps[0]
    import dask.array as da

    full = max(steps, key=lambda s: s.ndim)
    data = da.stack([da.broadcast_to(da.asarray(s.data), full.shape) for s in steps])
    data = data.reshape((*(len(v) for _, v in dims), *full.shape))
    coords = {d: list(v) for d, v in dims}
    return xr.DataArray(
        data, dims=(*coords, *full.dims), coords={**full.coords, **coords}, attrs=full.attrs
    )


def with_catalog_dims(array: xr.DataArray, task: VariableTask) -> xr.DataArray:
    """Return an array whose dims beyond place have the names, labels and order of the catalog.

    Raises
    ------
    SourceError
        If the number of dims or labels differs from the catalog.
    """
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
        array = _with_labels(array, dim, variable.labels.get(dim), new=dim in lacking)
    return array.transpose(*catalog_dims, "y", "x")


def _with_labels(
    array: xr.DataArray, dim: str, labels: Sequence[Any] | None, *, new: bool
) -> xr.DataArray:
    if labels is None:
        return array if dim in array.coords else array.assign_coords({dim: range(array.sizes[dim])})
    if len(labels) != array.sizes[dim]:
        raise SourceError(
            f"'{array.name}' has {array.sizes[dim]} steps along '{dim}', the catalog {len(labels)} labels; "
            f"correct 'labels:'"
        )
    return array.assign_coords({dim: list(labels)}) if new else array
