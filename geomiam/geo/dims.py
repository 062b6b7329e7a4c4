"""Names of spatial dims, and functions that recognise them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import xarray as xr

from geomiam.errors import GridError

T = TypeVar("T")

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
"""Names of rows and columns in lower case: those of xarray, CF models, iris and CORDEX."""
NAMES = frozenset((SITE, *(name for pair in PAIRS for name in pair)))


def is_place(dim: object) -> bool:
    """Return whether a dim is spatial or ``site``; a predictor's other dims are its own dims."""
    return str(dim).lower() in NAMES


def spatial_pair(dims: Iterable[object]) -> tuple[str, str] | None:
    """Return the names of the row and column dims, or None if there is no known pair."""
    by_name = {str(d).lower(): str(d) for d in dims}
    for rows, cols in PAIRS:
        if rows in by_name and cols in by_name:
            return by_name[rows], by_name[cols]
    return None


def as_named(sizes: Mapping[Any, T], dims: Iterable[object]) -> dict[Any, T]:
    """Return sizes with the dim names of the data: y stands for the rows under any name of :data:`PAIRS`.

    Raises GridError if two names stand for one dim, such as y and latitude.
    """
    dims = [str(d) for d in dims]
    pair = spatial_pair(dims)
    sizes_by_dim: dict[Any, T] = {}
    for dim, size in sizes.items():
        name = dim
        if dim not in dims and pair is not None:
            # Exact, so that the caller reports "Y" for a dim "y" as a typing error.
            roles = (pair[names.index(str(dim))] for names in PAIRS if dim in names)
            name = next(roles, dim)
        if name in sizes_by_dim:
            raise GridError(
                f"'{dim}' and another name both stand for the dim '{name}'; pass only one of them"
            )
        sizes_by_dim[name] = size
    return sizes_by_dim


def on_place(ds: xr.Dataset) -> list[str]:
    """Return the names of numeric variables at every cell or site, without bounds of coordinates.

    Without spatial dims and ``site``, every numeric variable with dims counts.
    """
    place = {d for d in ds.dims if is_place(d)}
    bounds = {str(v.attrs.get("bounds", v.encoding.get("bounds"))) for v in ds.variables.values()}
    return [
        str(name)
        for name, v in ds.data_vars.items()
        if v.dims and place <= set(v.dims) and v.dtype.kind in "fiub" and str(name) not in bounds
    ]
