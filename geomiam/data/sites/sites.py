"""Sites: the predictors of a cube at occurrences, with presences per species."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from geomiam.data.dataset import as_dataset
from geomiam.data.grid.grid import geobox, restore
from geomiam.data.records.coordinates import Points, check_columns, locate, numbers
from geomiam.data.records.files import read_table
from geomiam.data.records.labels import Records, labels_of
from geomiam.data.records.origin import provenance
from geomiam.data.sites.cells import (
    Requirements,
    is_empty,
    read_cells,
    reasons_of,
    report_left_out,
    snap_hint,
    snapped_cells,
)
from geomiam.data.sites.records_labels import LARGE, label_table, lazy_table
from geomiam.data.sites.target_group import has_target_group, with_target_group
from geomiam.errors import OccurrenceError, RecordsMerged, warn
from geomiam.geo.dims import SITE
from geomiam.geo.lengths import Length, kilometres


def sample(
    cube: xr.Dataset | xr.DataTree,
    occurrences: pd.DataFrame | str | Path,
    *,
    species: str | Sequence[str] = "species",
    presence: str = "presence",
    keep: str | Sequence[str] = (),
    thin: bool = True,
    snap: Length | None = None,
    require: str | Sequence[str] = (),
    mask: str | None = None,
) -> xr.Dataset:
    """Read the predictors of a cube at occurrences.

    A record takes the values of the cell that contains it. Records in one cell (and with the same
    ``keep`` values) are one site. Records of a species at one site are merged by maximum, so that a
    presence takes precedence over absences. Reading is fastest from a cube opened with
    ``open_cube(path, chunks=None)``. Labels of more than 1 GiB are a dask array, of which
    :func:`geomiam.fit` reads chunks in turn.

    Parameters
    ----------
    cube
        Variables with both spatial dims are read; other variables are left out.
    occurrences
        Records of :func:`read_records`, or any table or path that it reads. Where coordinates or labels
        have unusual columns, or another CRS than usual, read the table with that function first.
    species
        For a long table, the column of species names; names that differ by case or blanks are joined.
        For a wide table, a list of columns, one for each species, with 1, 0, counts, or NaN for not
        surveyed.
    presence
        For a long table, the column of labels as for :func:`read_records`; without it, rows are presences.
    keep
        Columns to copy to the sites, as float32 predictors that are available at the sites only.
    thin
        If False, records at different coordinates are different sites, also in one cell. Records at the
        same coordinates are always one site.
    snap
        Largest distance by which records outside the grid or its data are moved to the nearest cell with
        data: km, or text such as ``"5 km"``. It is measured to the edge of the cell.
    require
        Modalities (by the attribute ``modality``) or variables of which a cell must have a value.
    mask
        Variable of the cube, such as a land mask: cells where it is NaN or 0 do not count.

    Returns
    -------
    xr.Dataset
        Variables ``(site, *own dims)`` float32; ``presence(site, species)`` with 1, 0, or NaN where a
        species was not recorded; coordinates of the cell centres along ``site``. Attributes, as JSON:
        ``left_out`` with the number of rows left out by reason; ``sampled`` with the numbers of rows,
        sites, records merged with another record of the same species and site, absences by Darwin Core
        terms and moved records, and the longest distance of a move in km; ``records`` with the origin,
        cleaning and thinning of the records. Sites of an occurrence cube have the coordinate
        ``target_group_records(site, target_group)``: the records of each class.

    Raises
    ------
    OccurrenceError
        When a column is missing or invalid, or when more than half of the points lie outside the grid;
        the message has the probable cause.
    SelectionError
        When ``require`` or ``mask`` is not in the cube.
    LengthError
        When ``snap`` is not a length.

    Warns
    -----
    OccurrencesLeftOut
        With the number of rows left out by reason.
    RecordsMerged
        With the number of records merged by ``thin``.
    NamesJoined
        With the species names that were joined.

    See Also
    --------
    geomiam.read_records : read GBIF files.
    geomiam.add_background : background points for presence-only records.
    geomiam.chips : windows of images around the sites.

    Examples
    --------
    >>> import geomiam as gm, pandas as pd
    >>> cube = gm.demo.load_cube()
    >>> records = pd.DataFrame(
    ...     {"species": ["a", "b"], "lon": [-120.0, -113.0], "lat": [39.5, 41.0]}
    ... )
    >>> sites = gm.sample(cube, records)
    >>> dict(sites["presence"].sizes)
    {'site': 2, 'species': 2}
    """
    cube, table = as_dataset(cube), read_table(occurrences)
    keep = (keep,) if isinstance(keep, str) else tuple(keep)
    cube = restore(cube, cube)
    _check_table(table, cube, keep)
    requirements = Requirements.of(cube, require, mask)
    distance = None if snap is None else kilometres(snap, "snap")
    records = labels_of(table, species=species, presence=presence)
    points = locate(table)
    box = geobox(cube)
    cells, moved_km = snapped_cells(points, box, cube, requirements=requirements, km=distance)
    reason = reasons_of(points, box, cells)
    reason[(reason == "") & (records.codes < 0) & ~has_target_group(table)] = "no_species"
    used_rows = np.flatnonzero(reason == "")
    site, first = _group(table, points, cells, rows=used_rows, keep=keep, thin=thin)
    at = used_rows[first]  # the record that a site is read at
    kept_columns = {k: (SITE, numbers(table, k)[at].astype("float32")) for k in keep}
    sites = read_cells(cube, cells[at]).assign(kept_columns)
    empty = is_empty(sites)
    lacking = ~empty & ~requirements.of_sites(sites)
    reason[used_rows[empty[site]]], reason[used_rows[lacking[site]]] = "empty_cell", "required"
    usable = ~empty & ~lacking
    merged_count = _merged(records, used_rows[usable[site]], site[usable[site]])
    sites = sites.assign(presence=_presence(records, used_rows, site=site))
    sites = with_target_group(sites, table, records, rows=used_rows, site=site)
    sites = sites.isel({SITE: usable})
    is_lazy = any(v.chunks is not None for v in cube.variables.values())
    hint = ""
    if not (distance or is_lazy):  # dask reads whole chunks for a few cells
        hint = snap_hint(points, reason, box, cube, requirements=requirements)
    left_out = report_left_out(reason, hint)
    if thin and merged_count:
        _warn_of_merged(merged_count, sites)
    counts = {"rows": len(table), "sites": sites.sizes[SITE], "merged": merged_count}
    counts_text = json.dumps({**counts, "absences": records.absences, **_moves(moved_km)})
    attrs = {"left_out": left_out, "sampled": counts_text} | provenance(table)
    return restore(sites.assign_attrs(attrs), sites)


def _moves(km: np.ndarray) -> dict[str, float]:
    """Return the number of records that moved to another cell, and the longest distance."""
    return {"snapped": len(km), "snapped_km": round(float(km.max(initial=0)), 3)}


def _check_table(table: pd.DataFrame, cube: xr.Dataset, keep: tuple[str, ...]) -> None:
    """Refuse an empty table, and columns to keep that are absent or have the name of a layer."""
    if table.empty:
        raise OccurrenceError(
            f"the table of occurrences has no rows; its columns are {list(table.columns)}"
        )
    check_columns(table, keep, setting="keep=")
    if clash := sorted(set(keep) & {*map(str, cube.variables), "presence", "species"}):
        raise OccurrenceError(
            f"keep= names {clash}, which the cube has too; rename the column with table.rename(columns=...)"
        )


def _warn_of_merged(count: int, sites: xr.Dataset) -> None:
    warn(
        f"{count:,} records have the same cell and species as another record and are merged, so that "
        f"{sites.sizes[SITE]:,} sites remain; thin=False keeps all records",
        RecordsMerged,
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
    """Return the site of each row, numbered in order of appearance, and the first row of each site."""
    place = cells[rows] if thin else np.stack([points.x[rows], points.y[rows]], 1)
    columns = [numbers(table, k)[rows] for k in keep]
    keys = pd.DataFrame(dict(enumerate([*place.T, *columns])))
    site = keys.groupby(list(keys.columns), sort=False, dropna=False).ngroup().to_numpy()
    return site, np.unique(site, return_index=True)[1]


def _merged(records: Records, rows: np.ndarray, site: np.ndarray) -> int:
    """Return the number of records with the same species and site as an earlier record."""
    values = _values(records)[rows]
    row, column = np.nonzero(np.isfinite(values if records.wide else values[:, None]))
    species = column if records.wide else records.codes[rows[row]]
    return len(row) - len(np.unique(np.stack([site[row], species], 1), axis=0))


def _values(records: Records) -> np.ndarray:
    """Return the labels; NaN for rows without a species, which count the records of a target group."""
    return records.values if records.wide else np.where(records.codes < 0, np.nan, records.values)


def _presence(records: Records, rows: np.ndarray, *, site: np.ndarray) -> xr.DataArray:
    """Merge records by maximum; a number takes precedence over NaN. A large table is a dask array."""
    shape = (int(site.max(initial=-1)) + 1, len(records.names))
    codes, values = records.codes[rows], _values(records)[rows]
    if records.wide:
        presence = label_table(site, values, shape=shape)
    elif 4 * shape[0] * shape[1] <= LARGE:
        presence = label_table((site, codes), values, shape=shape)
    else:
        presence = lazy_table(site, codes, values, shape=shape)
    attrs = {"long_name": "presence", "comment": "1 present, 0 absent, NaN not surveyed"}
    return xr.DataArray(
        presence, dims=(SITE, "species"), coords={"species": records.names}, attrs=attrs
    )
