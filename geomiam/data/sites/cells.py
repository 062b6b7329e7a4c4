"""Cells at which a cube is read: their requirements, points moved to cells with data, and records left out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import and_, or_
from typing import Any

import numpy as np
import xarray as xr

from geomiam.data.coverage import chunked, gridded, observed_cells
from geomiam.data.grid.grid import place_dims, spatial_dims
from geomiam.data.records.cells import Usable, cell_size, cells_of, snap_points
from geomiam.data.records.coordinates import Points
from geomiam.data.records.diagnosis import explain_outside
from geomiam.data.values import as_float
from geomiam.errors import OccurrenceError, OccurrencesLeftOut, SelectionError, warn
from geomiam.geo.dims import SITE
from geomiam.geo.lengths import as_text

HINTED = 2000  # largest number of excluded records whose distance to data is computed for a hint
REASONS = {
    "no_coordinates": "without coordinates",
    "outside_grid": "outside the grid",
    "swapped": "outside the grid, but inside with x and y swapped",
    "no_species": "without a species",
    "empty_cell": "on cells where no predictor is observed",
    "required": "on cells that lack a required predictor or are masked",
}
"""Descriptions of the reasons for which a record is excluded."""
ROWS = 5  # largest number of rows that a message lists


@dataclass(frozen=True)
class Requirements:
    """Groups of variables, each with at least one observed value in a cell, and a mask."""

    groups: tuple[tuple[str, ...], ...] = ()  # variables of each group
    mask: str | None = None  # variable that is NaN or 0 where cells do not count

    @classmethod
    def of(
        cls, cube: xr.Dataset, require: str | Sequence[str] = (), mask: str | None = None
    ) -> Requirements:
        """Return requirements by modalities (of the attribute ``modality``) and variables of a cube."""
        names = (require,) if isinstance(require, str) else tuple(require)
        members: dict[str, list[str]] = {}
        variables = {name: [name] for name in gridded(cube)}
        for name in variables:
            members.setdefault(str(cube[name].attrs.get("modality", name)), []).append(name)
        choices = variables | members
        if unknown := [n for n in names if n not in choices]:
            raise SelectionError(
                f"require={unknown} is not a modality or variable of the cube; it has modalities "
                f"{list(members)} and variables {list(variables)}"
            )
        if mask is not None and mask not in variables:
            raise SelectionError(
                f"mask='{mask}' is not a variable of the cube; it has {list(variables)}"
            )
        if mask is not None and set(cube[mask].dims) != set(spatial_dims(cube)):
            raise SelectionError(
                f"mask='{mask}' has the dims {cube[mask].dims}; select one step, or pass a variable with {spatial_dims(cube)}"
            )
        return cls(tuple(tuple(choices[n]) for n in names), mask)

    def candidates(self, cube: xr.Dataset) -> xr.DataArray:
        """Return whether each cell has an observed predictor and satisfies the requirements; lazy."""
        return observed_cells(cube) & self.satisfied(chunked(cube))

    def satisfied(self, ds: xr.Dataset) -> Any:
        """Return whether each cell or site has all required groups and is unmasked; True without any."""
        conditions = [reduce(or_, [_any_finite(ds[v]) for v in group]) for group in self.groups]
        if self.mask is not None:
            conditions.append(unmasked(ds[self.mask]))
        return reduce(and_, conditions, True)

    def of_sites(self, sites: xr.Dataset) -> np.ndarray:
        """Return whether each site satisfies the requirements ``(site,)``."""
        return np.broadcast_to(np.asarray(self.satisfied(sites)), sites.sizes[SITE])


def unmasked(mask: xr.DataArray) -> xr.DataArray:
    """Return where a mask is neither NaN nor 0."""
    values = mask.reset_coords(drop=True)
    return values.notnull() & (abs(values) < np.inf) & (values != 0)


def _any_finite(variable: xr.DataArray) -> xr.DataArray:
    values = variable.reset_coords(drop=True)
    finite = abs(values) < np.inf  # False for NaN
    return finite.any([d for d in finite.dims if d not in place_dims(variable)])


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
        finite = np.isfinite(var.values)
        observed |= finite.any(axis=tuple(range(1, finite.ndim)))
    return ~observed


def _usable(cube: xr.Dataset, requirements: Requirements) -> Usable:
    """Return a function that returns which cells have the required data."""

    def usable(cells: np.ndarray) -> np.ndarray:
        sites = read_cells(cube, cells)
        return ~is_empty(sites) & requirements.of_sites(sites)

    return usable


def snapped_cells(
    points: Points, box: Any, cube: xr.Dataset, *, requirements: Requirements, km: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the cells of points ``(point, 2)``, -1 for outside, and the distances of moved points in km."""
    cells = cells_of(points, box)
    if km is None:
        return cells, np.zeros(0)
    usable, inside = _usable(cube, requirements), np.flatnonzero((cells >= 0).all(axis=1))
    unusable = np.ones(len(cells), bool)
    unusable[inside] = ~usable(cells[inside])
    snap = snap_points(points, np.flatnonzero(unusable), box, km=km, usable=usable)
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


def reasons_of(points: Points, box: Any, cells: np.ndarray) -> np.ndarray:
    """Return the reason why each point cannot be used ``(point,)``; ``""`` if it can be used.

    Raises OccurrenceError if no row has coordinates, or more than half of the points lie outside the grid.
    """
    has_coordinates = np.isfinite(points.x) & np.isfinite(points.y)
    outside = has_coordinates & (cells < 0).any(axis=1)
    if not has_coordinates.any():
        raise OccurrenceError(
            f"none of the {len(has_coordinates)} rows has coordinates in {points.names}; pass x=, y="
        )
    if outside.sum() * 2 > has_coordinates.sum():
        raise OccurrenceError(
            explain_outside(points, box, outside=int(outside.sum()), of=int(has_coordinates.sum()))
        )
    inside_if_swapped = (cells_of(replace(points, x=points.y, y=points.x), box) >= 0).all(axis=1)
    reasons = [~has_coordinates, outside & inside_if_swapped, outside]
    return np.select(reasons, ["no_coordinates", "swapped", "outside_grid"], "").astype("<U14")


def report_left_out(reason: np.ndarray, hint: str) -> str:
    """Warn of excluded records, and return their counts as JSON; OccurrenceError if none can be used."""
    counts, parts = {k: int((reason == k).sum()) for k in REASONS}, []
    for name in (k for k, n in counts.items() if n):
        text = f"{counts[name]} {REASONS[name]}"
        if name == "swapped":  # so that the user can correct the rows
            rows = np.flatnonzero(reason == name)
            text += f" (rows {', '.join(map(str, rows[:ROWS]))}{', …' if len(rows) > ROWS else ''})"
        parts.append(text)
    message = ", ".join(parts) + hint
    if not (reason == "").any():
        raise OccurrenceError(f"no occurrence of {len(reason)} can be used: {message}")
    if message:
        warn(f"of {len(reason)} occurrences left out: {message}", OccurrencesLeftOut)
    return json.dumps(counts)
