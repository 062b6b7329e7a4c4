"""Sites: the predictors of a cube at the places of occurrences, with presences per species."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from geomiam.data.dataset import as_dataset
from geomiam.data.grid.grid import geobox, restore
from geomiam.data.records.coordinates import Points, locate, need_columns, numbers
from geomiam.data.records.files import read_table
from geomiam.data.records.records import Records, read_records
from geomiam.data.sites.cells import (
    has_required,
    is_empty,
    is_lazy,
    read_cells,
    snap_hint,
    snapped_cells,
)
from geomiam.data.sites.left_out import reasons_of, report_left_out, warn_merged
from geomiam.data.sites.requirements import Requirements
from geomiam.data.store.store import open_zarr, write_zarr
from geomiam.errors import OccurrenceError
from geomiam.geo.dims import SITE
from geomiam.geo.lengths import Length, kilometres
from geomiam.outputs.kinds import SITES


def sample(
    cube: xr.Dataset | xr.DataTree,
    occurrences: pd.DataFrame | str | Path,
    *,
    species: str | Sequence[str] = "species",
    presence: str = "presence",
    x: str | None = None,
    y: str | None = None,
    crs: Any = None,
    keep: str | Sequence[str] = (),
    thin: bool = True,
    snap: Length | None = None,
    require: str | Sequence[str] = (),
    mask: str | None = None,
) -> xr.Dataset:
    """Read the predictors at occurrences.

    A point takes the values of the cell that contains it. Records in one cell (and with the same
    ``keep`` values) are one site; records of a species there merge by maximum, so that a presence wins
    over absences. A cube opened with ``open_cube(path, chunks=None)`` is read fastest.

    Parameters
    ----------
    cube
        Variables with both spatial dims are read, others are left out.
    occurrences
        DataFrame, GeoDataFrame, or a path to csv, tsv, txt, parquet or gpkg. Text is separated by
        commas, semicolons, or tabs, as GBIF's downloads are.
    species
        Long tables: the column of species names; names that differ by case or blanks are one. Wide
        tables: a list of columns, one for each species, with 1, 0, counts, or NaN for not surveyed.
    presence
        Long tables: column of 1, 0, counts, NaN, or PRESENT and ABSENT. Where there is none, every row is
        a presence, unless Darwin Core's ``occurrenceStatus`` or an ``individualCount`` of 0 states an absence.
    x, y
        Coordinate columns; default: lon/lat, longitude/latitude, decimalLongitude/decimalLatitude
        or x/y, in this order, in any case; or the geometry, also as well-known text. Longitudes of
        0 to 360 and of -180 to 180 are the same.
    crs
        CRS of the coordinates. Default: of the geometry; EPSG:4326 for columns named lon and lat;
        the cube's for x and y.
    keep
        Columns to copy to the sites as float32 predictors that are known at the sites only.
    thin
        False: records at different coordinates are different sites, also in one cell. Those at the
        same coordinates are one site either way.
    snap
        Move records that miss the grid or its data to the nearest cell with data, if its edge is at
        most so far: km, or text such as ``"5 km"``.
    require
        Modalities (by the attribute ``modality``) or variables that a cell must have a value of.
    mask
        Variable of the cube, such as a land mask: cells where it is NaN or 0 do not count.

    Returns
    -------
    xr.Dataset
        Each variable ``(site, *own dims)`` float32; ``presence(site, species)`` 1, 0, or NaN where
        a species was not recorded; the cube's coordinates of the cells' centres along ``site``.
        Attributes, as JSON: ``left_out``, rows left out by reason; ``sampled``, the numbers of rows,
        sites, records merged with another of the same species and site, absences stated by Darwin Core,
        rows that were moved, and the longest distance in km.

    Raises
    ------
    OccurrenceError
        When no column fits, or more than half of the points lie outside the grid, with a diagnosis.
    SelectionError
        When ``require`` or ``mask`` name something that the cube has not.
    LengthError
        When ``snap`` is no length.

    Warns
    -----
    OccurrencesLeftOut
        With the number of rows left out by reason.
    RecordsMerged
        With the number of records merged by ``thin``.
    NamesJoined
        With the species names that were joined.
    """
    cube, table = as_dataset(cube), read_table(occurrences)
    if table.empty:
        raise OccurrenceError(
            f"the table of occurrences has no rows; its columns are {list(table.columns)}"
        )
    cube = restore(cube, cube)
    keep = (keep,) if isinstance(keep, str) else tuple(keep)
    _check_keep(table, keep, cube=cube)
    requirements = Requirements.of(cube, require, mask)
    distance = None if snap is None else kilometres(snap, "snap")
    records = read_records(table, species=species, presence=presence)
    points = locate(table, x=x, y=y, crs=crs)
    box = geobox(cube)
    cells, moved_km = snapped_cells(points, box, cube, requirements=requirements, km=distance)
    reason = reasons_of(points, box, cells)
    reason[(reason == "") & (records.codes < 0)] = "no_species"
    used_rows = np.flatnonzero(reason == "")
    site, first = _group(table, points, cells, rows=used_rows, keep=keep, thin=thin)
    sites = read_cells(cube, cells[used_rows[first]])
    sites = sites.assign(
        {k: (SITE, numbers(table, k)[used_rows[first]].astype("float32")) for k in keep}
    )
    empty = is_empty(sites)
    lacking = ~empty & ~has_required(sites, requirements)
    reason[used_rows[empty[site]]], reason[used_rows[lacking[site]]] = "empty_cell", "required"
    usable = ~empty & ~lacking
    merged_count = _merged(records, used_rows[usable[site]], site[usable[site]])
    sites = sites.assign(presence=_presence(records, used_rows, site=site)).isel({SITE: usable})
    hint = (
        ""
        if distance or is_lazy(cube)
        else snap_hint(points, reason, box, cube, requirements=requirements)
    )
    left_out = report_left_out(reason, hint)
    if thin and merged_count:
        warn_merged(merged_count, sites.sizes[SITE])
    counts: dict[str, float] = {
        "rows": len(table),
        "sites": sites.sizes[SITE],
        "merged": merged_count,
        "absences": records.absences,
        "snapped": len(moved_km),
        "snapped_km": round(float(moved_km.max(initial=0)), 3),
    }
    return restore(sites.assign_attrs(left_out=left_out, sampled=json.dumps(counts)), sites)


def _check_keep(table: pd.DataFrame, keep: tuple[str, ...], *, cube: xr.Dataset) -> None:
    need_columns(table, keep, setting="keep=")
    if clash := sorted(set(keep) & {*map(str, cube.variables), "presence", "species"}):
        raise OccurrenceError(
            f"keep= names {clash}, which the cube has too; rename the column with table.rename(columns=...)"
        )


def _group(
    table: pd.DataFrame,
    points: Points,
    cells: np.ndarray,
    *,
    rows: np.ndarray,
    keep: tuple[str, ...],
    thin: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the site of each used row, in order of appearance, and each site's first row."""
    place = cells[rows] if thin else np.stack([points.x[rows], points.y[rows]], 1)
    columns = [numbers(table, k)[rows] for k in keep]
    keys = pd.DataFrame(dict(enumerate([*place.T, *columns])))
    site = keys.groupby(list(keys.columns), sort=False, dropna=False).ngroup().to_numpy()
    return site, np.unique(site, return_index=True)[1]


def _merged(records: Records, rows: np.ndarray, site: np.ndarray) -> int:
    """Return how many records share species and site with an earlier one."""
    values = records.values[rows]
    row, column = np.nonzero(np.isfinite(values if records.wide else values[:, None]))
    species = column if records.wide else records.codes[rows[row]]
    return len(row) - len(np.unique(np.stack([site[row], species], 1), axis=0))


def _presence(records: Records, rows: np.ndarray, *, site: np.ndarray) -> xr.DataArray:
    """Merge records by maximum; a number wins over not recorded."""
    n = int(site.max(initial=-1)) + 1
    presence = np.full((n, len(records.names)), np.nan, dtype="float32")
    at = (site, records.codes[rows]) if records.values.ndim == 1 else site
    np.fmax.at(presence, at, records.values[rows])
    attrs = {"long_name": "presence", "comment": "1 present, 0 absent, NaN not surveyed"}
    return xr.DataArray(
        presence, dims=(SITE, "species"), coords={"species": records.names}, attrs=attrs
    )


def write_sites(sites: xr.Dataset, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write sites as Zarr v3; they are there complete or not at all.

    Parameters
    ----------
    sites
        From :func:`sample`.
    path
        A local directory.
    overwrite
        Replace the store that is there.

    Returns
    -------
    Path
        The store.

    Raises
    ------
    OutputExists
        When ``path`` exists and ``overwrite`` is False.
    OutputRefused
        When ``path`` lies in a store, or holds anything but sites that geomiam wrote.
    """
    return write_zarr(sites, path, overwrite=overwrite, kind=SITES)


def open_sites(path: str | Path) -> xr.Dataset:
    """Read sites into memory.

    Returns
    -------
    xr.Dataset
        What :func:`write_sites` wrote.

    Raises
    ------
    FileNotFoundError
        When there is no Zarr store at ``path``.
    """
    return open_zarr(path, chunks=None).load()
