"""Attributes of NetCDF and Zarr as files have them: labels decoded, coordinates in the units of the CRS."""

from __future__ import annotations

from typing import Any

import xarray as xr

from geomiam.data.dataset import promote_crs
from geomiam.data.grid.grid import spatial_dims
from geomiam.errors import SourceError
from geomiam.geo.crs import crs_name, crs_of
from geomiam.sources.stac.stac_source import scrub

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
"""Attributes that xarray decodes, and expects to be text."""
PACKED = ("scale_factor", "add_offset", "_Unsigned")
METRES = {
    **dict.fromkeys(("m", "metre", "meter", "metres", "meters"), 1.0),
    **dict.fromkeys(("km", "kilometre", "kilometer", "kilometres", "kilometers"), 1000.0),
}
EAST = ("degrees_east", "degree_east", "degree_e", "degrees_e", "degreee", "degreese")
NORTH = ("degrees_north", "degree_north", "degree_n", "degrees_n", "degreen", "degreesn")
DEGREES = (*EAST, *NORTH, "degree", "degrees", "deg")
ANGLES = ("rad", "radian", "radians")


def decoded_labels(ds: xr.Dataset) -> xr.Dataset:
    """Decode dates and coordinates of a Dataset that was opened with ``decode_cf=False``.

    Variables stay packed, since a catalog may correct how they are. Coordinates are unpacked.
    Attributes that name variables, but are no text, are left out: some writers put numbers there.
    Labels of a time axis whose units have no calendar, such as months, stay numbers.
    """
    ds = ds.copy(deep=False)
    for variable in ds.variables.values():
        variable.attrs = {k: v for k, v in variable.attrs.items() if _is_sound(k, v)}
    ds.attrs = {k: v for k, v in ds.attrs.items() if _is_sound(k, v)}
    packed = [d for d in ds.dims if d in ds.variables and set(PACKED) & set(ds[d].attrs)]
    ds = ds.assign_coords({d: _unpacked(ds, str(d)) for d in packed})
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


def degrees_of(array: xr.DataArray, dims: tuple[str, str]) -> str | None:
    """Return the CRS of coordinates that are declared as degrees north and east, else None.

    CF asks for no datum of such coordinates; WGS 84 is what GDAL takes.
    """
    y, x = (str(array[d].attrs.get("units", "")).lower() for d in dims)
    return "EPSG:4326" if y in NORTH and x in EAST else None


def in_units_of(array: xr.DataArray, path: str) -> xr.DataArray:
    """Return an array whose spatial coordinates are in the units of its CRS.

    Raises
    ------
    SourceError
        When coordinates are declared in degrees, and the CRS is projected, or the reverse.
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
            moved = array[dim].astype("float64") * factor
            array = array.assign_coords({dim: moved.variable})
    return array


def _factor(unit: str, crs: Any) -> float:
    """Units of the CRS in a unit of coordinates; radians are angles seen from a satellite."""
    if unit in ANGLES:
        return float(crs.proj.to_cf().get("perspective_point_height", 1.0))
    return METRES[unit] / crs.proj.axis_info[0].unit_conversion_factor if unit in METRES else 1.0
