"""The grid of a cube: read it from coordinates, compare it, restore it on outputs.

odc-geo provides grids (``GeoBox``). This module adds checks, with messages that state the correction.
"""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Number
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import xarray as xr

from geomiam.errors import GridError
from geomiam.geo.crs import CRS_NAME, crs_coordinate, crs_name, crs_of, same_crs
from geomiam.geo.dims import SITE, spatial_pair

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

Labelled = TypeVar("Labelled", xr.Dataset, xr.DataArray)
Source = xr.DataArray | xr.Dataset | str | Path

SAME_CELL = 0.01  # grids whose corners differ by less than this part of a cell are the same grid
COARSEST = 0.25  # largest accepted rounding of coordinates, as part of a cell


def spatial_dims(ds: xr.Dataset | xr.DataArray) -> tuple[str, str]:
    """Return the names of the two spatial dims in the order ``(y, x)``.

    Raises GridError when there are no spatial dims, or they have no coordinates.
    """
    dims = None if SITE in ds.dims else spatial_pair(ds.dims)
    if dims is None:
        raise GridError(
            "no spatial dims: expected (y, x), (lat, lon), (latitude, longitude) or (rlat, rlon), found "
            f"{tuple(ds.dims)}; rename them, e.g. ds.rename(row='y', col='x')"
        )
    if bare := [d for d in dims if d not in ds.coords]:
        advice = "; assign cell centres, e.g. ds.assign_coords(x=..., y=...)"
        if curvilinear := [str(k) for k, c in ds.coords.items() if set(dims) <= set(c.dims)]:
            advice = (
                f", but {curvilinear} has one for each cell: regrid this curvilinear grid first, e.g. with xesmf "
                "or cdo remapbil"
            )
        raise GridError(f"spatial dims {bare} have no coordinates{advice}")
    return dims


def place_dims(ds: xr.Dataset | xr.DataArray) -> tuple[str, ...]:
    """Return ``("site",)`` for sites and the spatial dims for a cube."""
    return (SITE,) if SITE in ds.dims else spatial_dims(ds)


def geobox(ds: xr.Dataset | xr.DataArray) -> GeoBox:
    """Return the grid of a cube: shape, affine transform and CRS.

    Raises GridError when spatial dims or the CRS are missing, or coordinates are not evenly spaced.
    """
    import odc.geo.xr  # noqa: F401 (registers .odc)
    from odc.geo.geobox import GeoBox

    dims = spatial_dims(ds)
    axes = {d: axis_of(d, ds.coords[d].values) for d in dims if ds.sizes[d] > 1}
    crs, box = crs_of(ds), _bare(ds, dims).odc.uncached.geobox
    if not isinstance(box, GeoBox):
        raise GridError(
            f"no transform for dims {dims} of sizes {[ds.sizes[d] for d in dims]}: the coordinate of a single row "
            "or column does not define its width; set it with ds.rio.write_transform(...) after import rioxarray"
        )
    affine = box.affine
    grid = GeoBox(box.shape, affine, crs)
    if not (affine.b or affine.d):
        # odc-geo takes the first step; a line through all coordinates has a smaller rounding error.
        height, top = axes.get(dims[0], (affine.e, affine.f))
        width, left = axes.get(dims[1], (affine.a, affine.c))
        line = GeoBox(box.shape, type(affine)(width, 0, left, 0, height, top), crs)
        grid = grid if same_grid(grid, line, within=1e-6) else line
    if crs.geographic:
        low, high = sorted((grid.extent.boundingbox.bottom, grid.extent.boundingbox.top))
        # A cell centred on a pole extends beyond it by half.
        limit = 90.0 + abs(grid.affine.e) / 2 + abs(grid.affine.d) / 2 + 1e-6
        if low < -limit or high > limit:
            raise GridError(
                f"'{dims[0]}' runs from {low:g} to {high:g}, but the CRS {crs_name(crs)} has degrees as its unit: set the "
                "CRS of these coordinates, e.g. open_cube(ds, crs='EPSG:32633'), or crs: in the catalog"
            )
    return grid


def _bare(ds: xr.Dataset | xr.DataArray, dims: tuple[str, str]) -> xr.Dataset:
    """Return the grid without variables, with the dim names that odc-geo expects."""
    axes = {n: (n, ds[d].values, ds[d].attrs) for n, d in zip(("y", "x"), dims)}
    name = crs_coordinate(ds)
    attrs = dict(ds.coords[name].attrs) if name else {}
    attrs |= {"spatial_ref": crs_of(ds).to_wkt()}
    if min(ds.sizes[d] for d in dims) == 1 and "GeoTransform" not in attrs:
        # The coordinate of a single row does not define its width; an attribute may.
        variables = list(ds.data_vars.values()) if isinstance(ds, xr.Dataset) else []
        widths = [v.attrs.get("resolution") for v in (ds, *variables)]
        sides: set[Any] = {w for w in widths if isinstance(w, Number)}
        side = float(sides.pop()) if len(sides) == 1 else 0.0
        if 0 < side < np.inf:
            attrs["GeoTransform"] = f"0 {side} 0 0 0 {-side}"
    return xr.Dataset(coords={**axes, CRS_NAME: ((), 0, attrs)})


def axis_of(dim: str, centres: np.ndarray) -> tuple[float, float]:
    """Return the step between cells and the edge before the first cell.

    ``centres`` are the coordinates of at least two cells, ascending or descending ``(n,)``. Raises
    GridError when cells are not evenly spaced, or the dtype of the coordinates is too coarse.
    """
    values, number = centres.astype("float64"), np.arange(centres.size)
    if not np.isfinite(values).all():
        raise GridError(
            f"coordinate '{dim}' has {int((~np.isfinite(values)).sum())} values that are NaN or infinite; "
            f"assign the cell centres, e.g. ds.assign_coords({dim}=numpy.linspace(first, last, {values.size}))"
        )
    # With the first two centres alone, their rounding error would grow with the number of cells.
    step = float(np.polyfit(number - number.mean(), values - values.mean(), 1)[0])
    coarse, steps = _rounding(centres), np.diff(values)
    line = values.mean() + step * (number - (values.size - 1) / 2)
    worst = np.abs(values - line).max()
    if step and worst <= max(SAME_CELL * abs(step), min(2 * coarse, COARSEST * abs(step))):
        first = float(values.mean() - step * number.mean())
        return step, first - step / 2
    if step and coarse > COARSEST * abs(step) and worst <= 4 * coarse:
        raise GridError(
            f"coordinate '{dim}' is {centres.dtype}, which is too coarse for cells of {abs(step):g}: values near "
            f"{abs(values[0]):g} are rounded to {2 * coarse:g}; compute it again in float64, e.g. "
            f"ds.assign_coords({dim}=numpy.linspace(first, last, {values.size}))"
        )
    raise GridError(
        f"coordinate '{dim}' is not evenly spaced: steps from {steps.min():g} to {steps.max():g}; "
        f"interpolate onto even steps first, e.g. ds.interp({dim}=numpy.linspace({values[0]:g}, "
        f"{values[-1]:g}, {values.size}))"
    )


def _rounding(centres: np.ndarray) -> float:
    """Return the largest rounding error of coordinates due to their dtype, in their unit."""
    if centres.dtype.kind != "f" or not centres.size:
        return 0.0
    return float(np.finfo(centres.dtype).eps * np.abs(centres).max() / 2)


def slack(ds: xr.Dataset | xr.DataArray) -> float:
    """Return the part of a cell by which the dtype of its coordinates may displace a grid."""
    parts = [SAME_CELL]
    for dim in spatial_dims(ds):
        centres = ds.coords[dim].values
        if centres.size > 1:
            parts.append(2 * _rounding(centres) / abs(axis_of(dim, centres)[0]))
    return min(max(parts), COARSEST)


def same_grid(a: GeoBox, b: GeoBox, *, within: float = SAME_CELL) -> bool:
    """Return whether two grids have the same shape and CRS, and corners within a part of a cell."""
    from odc.geo.math import apply_affine

    if a.shape != b.shape or not same_crs(a.crs, b.crs):
        return False
    rows, cols = a.shape
    y, x = np.array([0.0, rows, rows]), np.array([0.0, 0.0, cols])
    corners_in_a = apply_affine(~a.affine, *apply_affine(b.affine, x, y))
    return bool(np.abs(np.subtract(corners_in_a, (x, y))).max() < within)


def snapped(box: GeoBox, lattice: GeoBox, *, within: float) -> GeoBox:
    """Return a grid moved onto the lattice of another, or unchanged if a corner would move over ``within`` cells."""
    from affine import Affine
    from odc.geo.geobox import GeoBox

    if not same_crs(box.crs, lattice.crs):
        return box
    step = ~lattice.affine * box.affine
    shift = Affine.translation(round(step.c), round(step.f))
    rows, cols = box.shape
    corners = [(x, y) for x in (0, cols) for y in (0, rows)]
    displacement = max(np.abs(np.subtract(step * c, shift * c)).max() for c in corners)
    return GeoBox(box.shape, lattice.affine * shift, lattice.crs) if displacement <= within else box


def restore(out: Labelled, like: xr.Dataset | xr.DataArray) -> Labelled:
    """Restore the spatial or site coordinates, the CRS and ``grid_mapping`` of an output.

    ``out`` is computed from ``like``, a cube or sites; its coordinates may be missing or changed.
    Coordinates along the spatial dims or ``site`` of ``like``, and scalar ones, are copied. Nothing is
    computed, and the CRS coordinate is never a dask array.
    """
    place, old = set(place_dims(like)), crs_coordinate(like)
    coords = {
        k: c.variable
        for k, c in like.coords.items()
        if k != old
        and set(c.dims) <= place
        and all(out.sizes.get(d) == n for d, n in c.sizes.items())
    }
    old_names = [n for n in (crs_coordinate(out), old) if n in out.coords]
    out = out.drop_vars(old_names).assign_coords(coords)
    out = out.assign_coords(_fresh_crs(out, like)).copy(deep=False)
    name = crs_coordinate(out)
    for var in out.data_vars.values() if isinstance(out, xr.Dataset) else [out]:
        var.attrs.pop("grid_mapping", None)  # xarray refuses to write it from attrs
        var.encoding.pop("grid_mapping", None)
        if name and place <= set(var.dims):
            var.encoding["grid_mapping"] = name
    return out


def _fresh_crs(
    out: xr.Dataset | xr.DataArray, like: xr.Dataset | xr.DataArray
) -> dict[str, xr.DataArray]:
    """Return a new CRS coordinate: after a crop, the old GeoTransform would misplace the data."""
    from odc.geo.xr import xr_crs_coord

    try:
        crs = crs_of(like)
    except GridError:
        return {}
    name = crs_coordinate(like) or CRS_NAME
    old = dict(like.coords[name].attrs) if name in like.coords else {}
    new = xr_crs_coord(crs, name=name)
    try:
        box = geobox(out.assign_coords({name: new.assign_attrs({**old, **new.attrs})}))
        new = xr_crs_coord(crs, name=name, transform=box.transform)
    except GridError:
        old.pop("GeoTransform", None)
    return {name: new.assign_attrs({**old, **new.attrs})}


def merge(parts: Iterable[xr.Dataset]) -> xr.Dataset:
    """Merge datasets on one grid by variable name; GridError if labels of shared dims differ."""
    try:
        return xr.merge(parts, join="exact", compat="minimal", combine_attrs="drop_conflicts")
    except ValueError as error:
        raise GridError(
            f"variables share a dim, but its labels differ: {str(error).splitlines()[0]}; "
            "rename the dim of one, e.g. ds.rename(band='soil_band')"
        ) from None


def empty(box: GeoBox) -> xr.Dataset:
    """Return a Dataset without variables on a grid."""
    from odc.geo.xr import xr_coords

    return xr.Dataset(coords=xr_coords(box))
