"""Names of spatial dims, the one list that every verb uses."""

from __future__ import annotations

from collections.abc import Iterable

import xarray as xr

SITE = "site"
PAIRS = (
    ("y", "x"),
    ("lat", "lon"),
    ("latitude", "longitude"),
    ("rlat", "rlon"),
    ("grid_latitude", "grid_longitude"),
    ("projection_y_coordinate", "projection_x_coordinate"),
    ("northing", "easting"),
    ("yc", "xc"),
)
"""Names of rows and columns, in any case: those of xarray, CF models, iris and CORDEX."""
NAMES = frozenset((SITE, *(name for pair in PAIRS for name in pair)))


def is_place(dim: object) -> bool:
    """Return whether a dim locates a value; all other dims of a predictor are its own."""
    return str(dim).lower() in NAMES


def spatial_pair(dims: Iterable[object]) -> tuple[str, str] | None:
    """Return the names of rows and columns among dims, or None where there is no pair."""
    by_name = {str(d).lower(): str(d) for d in dims}
    for rows, cols in PAIRS:
        if rows in by_name and cols in by_name:
            return by_name[rows], by_name[cols]
    return None


def on_place(ds: xr.Dataset) -> list[str]:
    """Return the variables with a number at every place; bounds and grid mappings are none of them.

    Parameters
    ----------
    ds
        Cube or sites. Without dims of place, all variables with dims are taken to lie on it.
    """
    place = {d for d in ds.dims if is_place(d)}
    bounds = {str(v.attrs.get("bounds", v.encoding.get("bounds"))) for v in ds.variables.values()}
    return [
        str(name)
        for name, v in ds.data_vars.items()
        if v.dims and place <= set(v.dims) and v.dtype.kind in "fiub" and str(name) not in bounds
    ]
