"""Predictors at the cells of points, and the snapping of points to cells with data."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from geomiam.data.grid.grid import spatial_dims
from geomiam.data.records.cells import Usable, cell_size, cells_of, snap_points
from geomiam.data.records.coordinates import Points
from geomiam.data.sites.requirements import Requirements
from geomiam.data.values.missing import as_float
from geomiam.geo.dims import SITE
from geomiam.geo.lengths import as_text

HINTED = 2000
"""Largest number of excluded records whose distance to data is computed for a hint."""


def read_cells(cube: xr.Dataset, cells: np.ndarray) -> xr.Dataset:
    """Read the variables of a cube at ``(site, 2)`` rows and columns; each cell and chunk is read once."""
    dims = spatial_dims(cube)
    grid_variables = cube[[k for k, v in cube.data_vars.items() if set(dims) <= set(v.dims)]]
    unique_cells, cell_numbers = np.unique(cells, axis=0, return_inverse=True)
    at = {d: xr.DataArray(i, dims=SITE) for d, i in zip(dims, unique_cells.T, strict=True)}
    values = grid_variables.isel(at).compute().isel({SITE: cell_numbers}).transpose(SITE, ...)
    return values.assign({k: as_float(v) for k, v in values.data_vars.items()})


def is_empty(sites: xr.Dataset) -> np.ndarray:
    """Return whether each site has no finite value ``(site,)``."""
    observed = np.zeros(sites.sizes[SITE], dtype=bool)
    for var in sites.data_vars.values():
        observed |= np.isfinite(var.values).reshape(len(observed), -1).any(axis=1)
    return ~observed


def has_required(sites: xr.Dataset, requirements: Requirements) -> np.ndarray:
    """Return whether each site satisfies the requirements ``(site,)``."""
    return np.broadcast_to(np.asarray(requirements.satisfied(sites)), sites.sizes[SITE])


def _usable(cube: xr.Dataset, requirements: Requirements) -> Usable:
    """Return a function that returns which cells have the required data."""

    def usable(cells: np.ndarray) -> np.ndarray:
        sites = read_cells(cube, cells)
        return ~is_empty(sites) & has_required(sites, requirements)

    return usable


def snapped_cells(
    points: Points, box: Any, cube: xr.Dataset, *, requirements: Requirements, km: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the cells of points ``(point, 2)``, -1 for outside, and the distances of moved points in km."""
    cells = cells_of(points, box)
    if km is None:
        return cells, np.zeros(0)
    inside = np.flatnonzero((cells >= 0).all(axis=1))
    unusable = np.ones(len(cells), bool)
    unusable[inside] = ~_usable(cube, requirements)(cells[inside])
    snap = snap_points(
        points, np.flatnonzero(unusable), box, km=km, usable=_usable(cube, requirements)
    )
    cells[snap.rows] = snap.cells
    return cells, snap.km


def snap_hint(
    points: Points, reason: np.ndarray, box: Any, cube: xr.Dataset, *, requirements: Requirements
) -> str:
    """Return a hint with the number of excluded records within about one cell of data, or no text."""
    left_out = np.flatnonzero(np.isin(reason, ["outside_grid", "empty_cell", "required"]))[:HINTED]
    km = cell_size(box)
    near = snap_points(points, left_out, box, km=km, usable=_usable(cube, requirements))
    if not len(near.rows):
        return ""
    return (
        f"; {len(near.rows)} of them lie within one cell of a cell with data: snap='{as_text(np.ceil(km))}' "
        "moves them there"
    )


def is_lazy(cube: xr.Dataset) -> bool:
    """Return whether the cube has dask arrays, which read whole chunks for a few cells."""
    return any(v.chunks is not None for v in cube.variables.values())
