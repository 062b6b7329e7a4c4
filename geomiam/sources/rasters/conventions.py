"""CF conventions of NetCDF and Zarr files: dates, packed coordinates, and coordinate units."""

from __future__ import annotations

from typing import Any

import xarray as xr

from geomiam.data.dataset import promote_crs
from geomiam.data.grid.grid import spatial_dims
from geomiam.errors import SourceError
from geomiam.geo.crs import crs_name, crs_of
from geomiam.sources.web.allow_list import scrub

NAMES_VARIABLES = (
    "bounds",
    "grid_mapping",
    "coordinates",
    "climatology",
    "cell_measures",
    "formula_terms",
    "ancillary_variables",
    "geometry",
    "units",
    "calendar",
)
"""Attributes that xarray decodes and requires to be text."""
PACKED = ("scale_factor", "add_offset", "_Unsigned")
METRES = {
    **dict.fromkeys(("m", "metre", "meter", "metres", "meters"), 1.0),
    **dict.fromkeys(("km", "kilometre", "kilometer", "kilometres", "kilometers"), 1000.0),
}
EAST = ("degrees_east", "degree_east", "degree_e", "degrees_e", "degreee", "degreese")
NORTH = ("degrees_north", "degree_north", "degree_n", "degrees_n", "degreen", "degreesn")
DEGREES = (*EAST, *NORTH, "degree", "degrees", "deg")
ANGLES = ("rad", "radian", "radians")


def decode_labels(ds: xr.Dataset) -> xr.Dataset:
    """Decode dates and coordinates of a Dataset that was opened with ``decode_cf=False``.

    Variables stay packed, since a catalog may correct their packing. Coordinates are unpacked.
    Attributes that should name variables but are not text are dropped: some writers put numbers
    there. Labels of a time axis stay numbers if their units have no calendar, such as months.
    """
    ds = ds.copy(deep=False)
    for variable in ds.variables.values():
        variable.attrs = {k: v for k, v in variable.attrs.items() if _is_sound(k, v)}
    ds.attrs = {k: v for k, v in ds.attrs.items() if _is_sound(k, v)}
    packed_dims = [d for d in ds.dims if d in ds.variables and set(PACKED) & set(ds[d].attrs)]
    ds = ds.assign_coords({d: _unpacked(ds, str(d)) for d in packed_dims})
    options: dict[str, Any] = {
        "mask_and_scale": False,
        "decode_coords": "all",
        "decode_timedelta": False,
    }
    try:
        return promote_crs(xr.decode_cf(ds, **options))
    except (ValueError, OverflowError):
        return promote_crs(xr.decode_cf(ds, decode_times=False, **options))


def _is_sound(key: str, value: Any) -> bool:
    return key not in NAMES_VARIABLES or isinstance(value, str)


def _unpacked(ds: xr.Dataset, dim: str) -> xr.Variable:
    variable = xr.conventions.decode_cf_variable(dim, ds.variables[dim], decode_times=False)
    return xr.Variable(variable.dims, variable.values.astype("float64"), variable.attrs)


def geographic_crs(array: xr.DataArray, dims: tuple[str, str]) -> str | None:
    """Return the CRS of coordinates in degrees north and east, None for other coordinates.

    CF requires no datum of such coordinates. As in GDAL, it is WGS 84.
    """
    y, x = (str(array[d].attrs.get("units", "")).lower() for d in dims)
    return "EPSG:4326" if y in NORTH and x in EAST else None


def in_crs_units(array: xr.DataArray, path: str) -> xr.DataArray:
    """Return an array with spatial coordinates in units of its CRS.

    Raises
    ------
    SourceError
        If coordinates are in degrees and the CRS is projected, or the reverse.
    """
    crs = crs_of(array)
    for dim in spatial_dims(array):
        unit = str(array[dim].attrs.get("units", "")).strip().lower()
        if (unit in METRES) if crs.geographic else (unit in DEGREES):
            raise SourceError(
                f"{scrub(path)}: coordinate '{dim}' is in '{unit}', but the CRS {crs_name(crs)} is not; correct "
                "'crs:' of the source"
            )
        factor = 1.0 if crs.geographic else _factor(unit, crs)
        if abs(factor - 1) > 1e-9:
            rescaled_labels = array[dim].astype("float64") * factor
            array = array.assign_coords({dim: rescaled_labels.variable})
    return array


def _factor(unit: str, crs: Any) -> float:
    """Return the number of CRS units in a unit of coordinates.

    Radians are viewing angles of a geostationary satellite (CF ``geostationary``): times its height
    they are metres.
    """
    if unit in ANGLES:
        return float(crs.proj.to_cf().get("perspective_point_height", 1.0))
    return METRES[unit] / crs.proj.axis_info[0].unit_conversion_factor if unit in METRES else 1.0
