"""One variable of a catalog on a grid: read from files, scaled, brought there, stacked."""

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
from geomiam.sources.files import files_of
from geomiam.sources.rasters.formats import format_of
from geomiam.sources.report import Told, crs_name, unit_of
from geomiam.sources.stac.stac_source import scrub
from geomiam.sources.tasks import Task
from geomiam.sources.terrain import slope_aspect

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

FINER = 2.0
"""From so many source cells along the side of a cell on, their average is taken."""
KEPT = ("nearest", "mode")
"""Resampling that makes no new values."""


def from_files(task: Task, told: Told) -> xr.DataArray:
    """Read a raster, NetCDF or Zarr source onto the grid of a task, ``(own dims …, y, x)``.

    Raises
    ------
    SourceError
        When files are missing or do not hold what the catalog says.
    """
    files = files_of(task.variable, task.source, base=task.base, box=task.box)
    steps = [_step(task, paths, told, tiled=files.tiled) for paths in files.paths]
    if told.files == 0:
        raise SourceError(
            f"'{task.variable.name}': none of {told.absent} tiles under the grid is at "
            f"{scrub(files.paths[0][0])} and beside it; correct 'root:', or the grid"
        )
    return named(_stacked(steps, files.steps), task)


def derived(task: Task, told: Told, *, of: Task) -> xr.DataArray:
    """Return slope or aspect of elevation, which is read on one more cell on each side of the grid.

    Raises
    ------
    SourceError
        When it is neither, or the elevation is a series.
    """
    which = task.source.derive or task.variable.name
    if which not in ("slope", "aspect"):
        raise SourceError(f"'{which}' cannot be derived; say 'derive: slope' or 'derive: aspect'")
    z = from_files(replace(of, box=task.box.pad(1)), told)
    if z.ndim != 2:
        raise SourceError(
            f"'{task.variable.name}' is derived of '{of.variable.name}', which is no plane"
        )
    slope, aspect = slope_aspect(z.data, task.box)
    return xr.DataArray(slope if which == "slope" else aspect, dims=("y", "x"))


def _step(task: Task, paths: Sequence[str], told: Told, *, tiled: bool) -> xr.DataArray:
    """Files that together cover the place, on the grid."""
    found = _opened(task, paths, told, tiled=tiled)
    if not found:
        return _nowhere(task.box)
    boxes = [geobox(a) for a in found]
    how = task.source.resampling or _resampling(boxes[0], task)
    _tell(told, boxes[0], "none" if same_grid(boxes[0], task.box) else how)
    near = [(a, b) for a, b in zip(found, boxes, strict=True) if reach(b, task.box)]
    if not near:
        told.notes.append(elsewhere(task.variable.name, boxes[0], task.box))
        warn(told.notes[-1], MissingModality)
        return _nowhere(task.box, found[0])
    told.bytes += sum(_bytes(a, b, task.box) for a, b in near)
    return _joined([onto(a, task.box, dims=("y", "x"), resampling=how) for a, _ in near], how)


def _opened(task: Task, paths: Sequence[str], told: Told, *, tiled: bool) -> list[xr.DataArray]:
    """Arrays on their own grids; files of one grid are one array."""
    source, variable = task.source, task.variable
    arrays, absent = format_of(source).read(paths, source, variable=variable, lenient=tiled)
    told.absent += absent
    told.files += len(paths) - absent
    return [_with_units(a.rename(variable.name), task) for a in arrays]


def _with_units(array: xr.DataArray, task: Task) -> xr.DataArray:
    """Keep the units of a file where its numbers are kept; warn where the catalog has others."""
    source, stated = task.source, task.variable.units
    units = text_of(array.attrs, "units")
    if (source.scale, source.offset, source.decode) != (None, None, None):
        array = array.copy(deep=False)
        array.attrs = {k: v for k, v in array.attrs.items() if k != "units"}
    elif units and stated and not same_units(units, stated):
        warn(
            f"'{array.name}' is in '{units}' in its source, the catalog has units '{stated}' and neither 'scale:' "
            "nor 'offset:'; add them, or correct 'units:'",
            DoubtfulSource,
        )
    return array


def _resampling(own: GeoBox, task: Task) -> str:
    if task.variable.kind in ("categorical", "circular"):
        return "nearest"
    return "average" if cells_under(own, task.box) >= FINER else "bilinear"


def cells_under(own: GeoBox, box: GeoBox) -> float:
    """Return how many cells of a source, along a side, lie under a cell in the middle of a grid."""
    from odc.geo.overlap import native_pix_transform
    from odc.geo.types import xy_

    rows, cols = (n // 2 for n in box.shape.yx)
    cell = box[rows : rows + 1, cols : cols + 1]
    corners = [xy_(x, y) for y in (0.0, 1.0) for x in (0.0, 1.0)]
    there = np.array([p.xy for p in native_pix_transform(own, cell).back(corners)])
    spans = np.ptp(there, axis=0)
    return float(np.sqrt(spans.prod())) if np.isfinite(spans).all() else 1.0


def _tell(told: Told, own: GeoBox, how: str) -> None:
    if not told.crs:
        told.crs = crs_name(own)
        told.resolution = f"{abs(own.resolution.x):.6g} {unit_of(own)}"
    told.resampling = how


def _bytes(array: xr.DataArray, own: GeoBox, box: GeoBox) -> int:
    """Numbers of a source under the grid, as float32."""
    planes = array.size // max(own.shape.y * own.shape.x, 1)
    return 4 * planes * max((part.pixels for part in reach(own, box)), default=0)


def _nowhere(box: GeoBox, like: xr.DataArray | None = None) -> xr.DataArray:
    """NaN on a grid, with the own dims of an array."""
    import dask.array as da

    own = own_dims(like) if like is not None else ()
    sizes = [like.sizes[d] for d in own] if like is not None else []
    data = da.full((*sizes, *box.shape.yx), np.float32(np.nan), dtype="float32", chunks=1024)
    return xr.DataArray(data, dims=(*own, "y", "x"))


def _joined(parts: Sequence[xr.DataArray], how: str) -> xr.DataArray:
    """Join sources of different grids: where two have data, means or the first.

    A cell under a seam has a part of its pixels in each.
    """
    first, *others = parts
    if not others:
        return first
    if how in KEPT:
        for part in others:
            first = first.where(first.notnull(), part)
        return first
    total = sum((p.fillna(0) for p in others), first.fillna(0))
    count = sum((p.notnull() for p in others), first.notnull().astype("float32"))
    return (total / count.where(count > 0)).astype("float32")


def _stacked(
    steps: Sequence[xr.DataArray], dims: Sequence[tuple[str, Sequence[Any]]]
) -> xr.DataArray:
    """Put combinations of labels, in order, into dims of their own."""
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


def named(array: xr.DataArray, task: Task) -> xr.DataArray:
    """Give own dims the names and labels of the catalog, in its order.

    Raises
    ------
    SourceError
        When there are more dims or labels, or fewer, than the catalog says.
    """
    variable, wanted = task.variable, task.own_dims
    found = own_dims(array)
    free = [d for d in found if d not in wanted]
    lacking = [d for d in wanted if d not in found]
    if len(free) != len(lacking):
        raise SourceError(
            f"'{variable.name}' has dims {found or 'none'} in its source, the catalog says "
            f"{wanted or 'none'}; correct 'dims:', choose one by 'band:' or 'select:', or name it in 'path:'"
        )
    array = array.rename(dict(zip(free, lacking, strict=True)))
    for dim in wanted:
        array = _labelled(array, dim, variable.labels.get(dim), new=dim in lacking)
    return array.transpose(*wanted, "y", "x")


def _labelled(
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
