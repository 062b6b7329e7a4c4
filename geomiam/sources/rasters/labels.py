"""Labels of arrays of NetCDF and Zarr: decoded by CF conventions, and selected by ``select:`` of a catalog."""

from __future__ import annotations

from typing import Any

import xarray as xr

from geomiam.data.dataset import promote_crs
from geomiam.errors import SourceError
from geomiam.schema.source import Source
from geomiam.sources.web.allow_list import scrub

NAMES_VARIABLES = (
    *("bounds", "grid_mapping", "coordinates", "climatology", "cell_measures", "formula_terms"),
    *("ancillary_variables", "geometry", "units", "calendar"),
)
"""Attributes that xarray decodes and requires to be text."""
PACKED = ("scale_factor", "add_offset", "_Unsigned")


class NothingSelected(SourceError):
    """A file has none of the labels of ``select:``."""


def select_labels(array: xr.DataArray, source: Source, path: str) -> xr.DataArray:
    """Select one label of a dim, which is dropped, or all labels from a first to a last one."""
    select = {d: _as_labels(v, array, d) for d, v in source.select.items()}
    spans = {d: slice(*v) for d, v in select.items() if isinstance(v, list)}
    labels = {d: v for d, v in select.items() if d not in spans}
    try:
        selection = array.sel(labels, drop=True).sel(spans)
    except (KeyError, ValueError, TypeError) as error:
        raise NothingSelected(
            f"{scrub(path)}: 'select: {source.select}' finds nothing: {error}"
        ) from None
    if not selection.size:
        raise NothingSelected(
            f"{scrub(path)}: 'select: {source.select}' finds nothing between the two"
        )
    return selection


def _as_labels(value: Any, array: xr.DataArray, dim: str) -> Any:
    """Return labels of ``select:``; text becomes a number where the steps are whole numbers, such as years."""
    if isinstance(value, list):
        return [_as_labels(v, array, dim) for v in value]
    is_number = isinstance(value, str) and value.strip().lstrip("-").isdigit()
    return (
        int(value) if is_number and dim in array.coords and array[dim].dtype.kind in "iu" else value
    )


def decode_labels(ds: xr.Dataset) -> xr.Dataset:
    """Decode dates and coordinates of a Dataset that was opened with ``decode_cf=False``.

    Variables stay packed, since a catalog may correct their packing. Coordinates are unpacked.
    Attributes that should name variables but are not text are dropped: some writers put numbers
    there. Labels of a time axis stay numbers if their units have no calendar, such as months.
    """
    ds = ds.copy(deep=False)
    holders: list[Any] = [*ds.variables.values(), ds]
    for holder in holders:
        items = holder.attrs.items()
        holder.attrs = {k: v for k, v in items if k not in NAMES_VARIABLES or isinstance(v, str)}
    unpacked_dims = {}
    for dim in (d for d in ds.dims if d in ds.variables and set(PACKED) & set(ds[d].attrs)):
        coord = xr.conventions.decode_cf_variable(dim, ds.variables[dim], decode_times=False)
        unpacked_dims[dim] = xr.Variable(coord.dims, coord.values.astype("float64"), coord.attrs)
    ds = ds.assign_coords(unpacked_dims)
    options: dict[str, Any] = {
        "mask_and_scale": False,
        "decode_coords": "all",
        "decode_timedelta": False,
    }
    try:
        return promote_crs(xr.decode_cf(ds, **options))
    except (ValueError, OverflowError):
        return promote_crs(xr.decode_cf(ds, decode_times=False, **options))
