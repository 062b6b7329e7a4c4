"""The grid of a cube: read it from coordinates, restore it on outputs, and align sources to it.

odc-geo provides grids (``GeoBox``). This module adds checks, with messages that state the correction.
"""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Number
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import xarray as xr

from geomiam.data.grid.axes import COARSEST, SAME_CELL, axis_of, rounding
from geomiam.data.grid.lattice import same_grid
from geomiam.errors import GridError
from geomiam.geo.crs import CRS_NAME, crs_coordinate, crs_name, crs_of
from geomiam.geo.dims import SITE, spatial_pair

if TYPE_CHECKING:
    from affine import Affine
    from odc.geo.geobox import GeoBox

Labelled = TypeVar("Labelled", xr.Dataset, xr.DataArray)
Source = xr.DataArray | xr.Dataset | str | Path


def spatial_dims(ds: xr.Dataset | xr.DataArray) -> tuple[str, str]:
    """Return the names of the two spatial dims in the order ``(y, x)``.

    Raises
    ------
    GridError
        When there are no spatial dims, or they have no coordinates.
    """
    dims = None if SITE in ds.dims else spatial_pair(ds.dims)
    if dims is None:
        raise GridError(
            "no spatial dims: expected (y, x), (lat, lon), (latitude, longitude) or (rlat, rlon), found "
            f"{tuple(ds.dims)}; rename them, e.g. ds.rename(row='y', col='x')"
        )
    if bare := [d for d in dims if d not in ds.coords]:
        curvilinear = [str(k) for k, c in ds.coords.items() if set(dims) <= set(c.dims)]
        raise GridError(
            f"spatial dims {bare} have no coordinates"
            + (
                f", but {curvilinear} has one for each cell: regrid this curvilinear grid first, e.g. with xesmf "
                "or cdo remapbil"
                if curvilinear
                else "; assign cell centres, e.g. ds.assign_coords(x=..., y=...)"
            )
        )
    return dims


def geobox(ds: xr.Dataset | xr.DataArray) -> GeoBox:
    """Return the grid of a cube: shape, affine transform and CRS.

    Raises
    ------
    GridError
        When spatial dims or the CRS are missing, or coordinates are not evenly spaced.
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
    grid = GeoBox(box.shape, box.affine, crs)
    if not (box.affine.b or box.affine.d):
        affine = _fitted(box.affine, rows=axes.get(dims[0]), cols=axes.get(dims[1]))
        line = GeoBox(box.shape, affine, crs)
        grid = grid if same_grid(grid, line, within=1e-6) else line
    _check_latitudes(grid, dims[0])
    return grid


def _bare(ds: xr.Dataset | xr.DataArray, dims: tuple[str, str]) -> xr.Dataset:
    """Return the grid without variables, with the dim names that odc-geo expects."""
    axes = {n: (n, ds[d].values, ds[d].attrs) for n, d in zip(("y", "x"), dims)}
    name = crs_coordinate(ds)
    attrs = dict(ds.coords[name].attrs) if name else {}
    attrs |= {"spatial_ref": crs_of(ds).to_wkt()}
    side = _side(ds) if min(ds.sizes[d] for d in dims) == 1 else None
    if side and "GeoTransform" not in attrs:
        attrs["GeoTransform"] = f"0 {side} 0 0 0 {-side}"
    return xr.Dataset(coords={**axes, CRS_NAME: ((), 0, attrs)})


def _side(ds: xr.Dataset | xr.DataArray) -> float | None:
    """Return the side of a cell from attributes: the coordinate of a single row does not define it."""
    variable_attrs = [v.attrs for v in ds.data_vars.values()] if isinstance(ds, xr.Dataset) else []
    sides = {
        a["resolution"]
        for a in (ds.attrs, *variable_attrs)
        if isinstance(a.get("resolution"), Number)
    }
    side = float(sides.pop()) if len(sides) == 1 else 0.0
    return side if 0 < side < np.inf else None


def _fitted(affine: Affine, *, rows: Any, cols: Any) -> Affine:
    """Replace steps and edges by those of lines fitted to all coordinates, where there are several."""
    (height, top), (width, left) = rows or (affine.e, affine.f), cols or (affine.a, affine.c)
    return type(affine)(width, 0, left, 0, height, top)


def _check_latitudes(box: GeoBox, dim: str) -> None:
    """Refuse latitudes that are not degrees. A cell centred on a pole extends beyond it by half."""
    if box.crs is None or not box.crs.geographic:
        return
    low, high = sorted((box.extent.boundingbox.bottom, box.extent.boundingbox.top))
    limit = 90.0 + abs(box.affine.e) / 2 + abs(box.affine.d) / 2 + 1e-6
    if low < -limit or high > limit:
        raise GridError(
            f"'{dim}' runs from {low:g} to {high:g}, but the CRS {crs_name(box.crs)} has degrees as its unit: set the "
            "CRS of these coordinates, e.g. open_cube(ds, crs='EPSG:32633'), or crs: in the catalog"
        )


def slack(ds: xr.Dataset | xr.DataArray) -> float:
    """Return the part of a cell by which the dtype of its coordinates may displace a grid."""
    parts = [SAME_CELL]
    for dim in spatial_dims(ds):
        centres = ds.coords[dim].values
        if centres.size > 1:
            parts.append(2 * rounding(centres) / abs(axis_of(dim, centres)[0]))
    return min(max(parts), COARSEST)


def restore(out: Labelled, like: xr.Dataset | xr.DataArray) -> Labelled:
    """Restore the spatial or site coordinates, the CRS and ``grid_mapping`` of an output.

    Parameters
    ----------
    out
        Computed from ``like``. Its coordinates may be missing or changed.
    like
        A cube or sites. Coordinates along its spatial dims or ``site``, and scalar ones, are copied.

    Returns
    -------
    Labelled
        ``out`` with these coordinates. Nothing is computed, and the CRS coordinate is never a dask array.
    """
    place = place_dims(like)
    old = [n for n in (crs_coordinate(out), crs_coordinate(like)) if n in out.coords]
    out = out.drop_vars(old).assign_coords(
        {
            k: c.variable
            for k, c in like.coords.items()
            if k != crs_coordinate(like) and _fits(c, out, place=place)
        }
    )
    out = out.assign_coords(_fresh_crs(out, like))
    return _map_grid(out, crs_coordinate(out), place=place)


def place_dims(ds: xr.Dataset | xr.DataArray) -> tuple[str, ...]:
    """Return ``("site",)`` for sites and the spatial dims for a cube."""
    return (SITE,) if SITE in ds.dims else spatial_dims(ds)


def _fits(coord: xr.DataArray, out: xr.Dataset | xr.DataArray, *, place: tuple[str, ...]) -> bool:
    return set(coord.dims) <= set(place) and all(
        out.sizes.get(d) == n for d, n in coord.sizes.items()
    )


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


def _map_grid(out: Labelled, name: str | None, *, place: tuple[str, ...]) -> Labelled:
    """Set ``grid_mapping`` in ``encoding``: xarray refuses to write it from ``attrs``."""
    out = out.copy(deep=False)
    for var in out.data_vars.values() if isinstance(out, xr.Dataset) else [out]:
        var.attrs.pop("grid_mapping", None)
        var.encoding.pop("grid_mapping", None)
        if name and set(place) <= set(var.dims):
            var.encoding["grid_mapping"] = name
    return out


def merge(parts: Iterable[xr.Dataset]) -> xr.Dataset:
    """Merge datasets on one grid by variable name; labels of shared dims must be equal.

    Raises
    ------
    GridError
        When dims of one name differ in size or labels.
    """
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
