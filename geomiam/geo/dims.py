"""Names of spatial dims, the one list that every verb uses."""

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


def as_named(sizes: Mapping[Any, T], dims: Iterable[object]) -> dict[Any, T]:
    """Return sizes by the dims that the data have: y is the rows, whatever the rows are called.

    Parameters
    ----------
    sizes
        By dim; spatial dims by any of the names in :data:`PAIRS`.
    dims
        Dims of the data.

    Raises
    ------
    GridError
        If two names mean one dim, such as y and latitude.
    """
    dims = [str(d) for d in dims]
    pair = spatial_pair(dims)
    sizes_by_dim: dict[Any, T] = {}
    for dim, size in sizes.items():
        name = dim if dim in dims or pair is None else _role(dim, pair)
        if name in sizes_by_dim:
            raise GridError(
                f"'{dim}' and another name both mean the dim '{name}'; give one of them"
            )
        sizes_by_dim[name] = size
    return sizes_by_dim


def _role(dim: object, pair: tuple[str, str]) -> Any:
    """Return the row or column dim that a name stands for; other names stay."""
    for names in PAIRS:
        if dim in names:  # "Y" for a dim "y" is a slip, which the caller reports
            return pair[names.index(str(dim))]
    return dim


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
