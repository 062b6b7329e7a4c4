"""Sites: the predictors of a cube at the places of occurrences, with presences per species."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from geomiam.cube.crs import as_crs
from geomiam.cube.diagnosis import explain_outside
from geomiam.cube.grid import geobox, restore, spatial_dims
from geomiam.cube.place import SITE
from geomiam.cube.store import as_dataset, open_zarr, write_zarr
from geomiam.cube.tables import (
    Points,
    Records,
    locate,
    need_columns,
    numbers,
    read_records,
    read_table,
)
from geomiam.cube.values import as_float
from geomiam.errors import OccurrenceError, OccurrencesLeftOut
from geomiam.outputs.kinds import SITES

REASONS = {
    "no_coordinates": "without coordinates",
    "outside_grid": "outside the grid",
    "no_species": "without a species",
    "empty_cell": "on cells where no predictor is observed",
}


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
) -> xr.Dataset:
    """Read the predictors at occurrences.

    A point takes the values of the cell that contains it. Rows at the same coordinates (and with
    the same ``keep`` values) are one site; records of a species there merge by maximum.
    A cube opened with ``open_cube(path, chunks=None)`` is read fastest.

    Parameters
    ----------
    cube
        Variables with both spatial dims are read, others are left out.
    occurrences
        DataFrame, GeoDataFrame, or a path to csv, csv.gz, parquet or gpkg.
    species
        Long tables: the column of species names. Wide tables: a list of columns, one for each
        species, with 1, 0, counts, or NaN for not surveyed.
    presence
        Long tables: column of 1, 0, counts or NaN; where there is none, every row is a presence.
    x, y
        Coordinate columns; default: lon/lat, longitude/latitude, decimalLongitude/decimalLatitude
        or x/y, in this order, in any case; or the geometry.
    crs
        CRS of the coordinates. Default: of the geometry; EPSG:4326 for columns named lon and lat;
        the cube's for x and y.
    keep
        Columns to copy to the sites as float32 predictors that are known at the sites only.

    Returns
    -------
    xr.Dataset
        Each variable ``(site, *own dims)`` float32; ``presence(site, species)`` 1, 0, or NaN where
        a species was not recorded; the cube's coordinates of the cells' centres along ``site``;
        ``attrs["left_out"]``: JSON, rows left out by reason.

    Raises
    ------
    OccurrenceError
        When no column fits, or more than half of the points lie outside the grid, with a diagnosis.

    Warns
    -----
    OccurrencesLeftOut
        With the number of rows left out by reason.
    """
    cube, table = as_dataset(cube), read_table(occurrences)
    cube = restore(cube, cube)
    keep = (keep,) if isinstance(keep, str) else tuple(keep)
    _check_keep(table, keep, cube=cube)
    records = read_records(table, species=species, presence=presence)
    points = locate(table, x=x, y=y, crs=crs)
    cells, reason = _place(points, geobox(cube))
    reason[(reason == "") & (records.codes < 0)] = "no_species"
    used = np.flatnonzero(reason == "")
    site, first = _group(table.iloc[used], points, used=used, keep=keep)
    sites = read_cells(cube, cells[used[first]])
    sites = sites.assign(
        {k: (SITE, numbers(table, k)[used[first]].astype("float32")) for k in keep}
    )
    empty = _empty(sites)
    reason[used[empty[site]]] = "empty_cell"
    sites = sites.assign(presence=_presence(records, used, site=site)).isel({SITE: ~empty})
    return restore(sites.assign_attrs(left_out=_tell(reason)), sites)


def _check_keep(table: pd.DataFrame, keep: tuple[str, ...], *, cube: xr.Dataset) -> None:
    need_columns(table, keep, setting="keep=")
    if clash := sorted(set(keep) & {*map(str, cube.variables), "presence", "species"}):
        raise OccurrenceError(
            f"keep= names {clash}, which the cube has too; rename the column with table.rename(columns=...)"
        )


def _place(points: Points, box: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return row and column ``(point, 2)`` and why a point cannot be used, ``""`` if it can."""
    cells = cells_of(points, box)
    known = np.isfinite(points.x) & np.isfinite(points.y)
    outside = known & (cells < 0).any(axis=1)
    if not known.any():
        raise OccurrenceError(
            f"none of the {len(known)} rows has coordinates in {points.names}; pass x=, y="
        )
    if outside.sum() * 2 > known.sum():
        raise OccurrenceError(
            explain_outside(points, box, outside=int(outside.sum()), of=int(known.sum()))
        )
    return cells, np.select([~known, outside], ["no_coordinates", "outside_grid"], "").astype(
        "<U14"
    )


def cells_of(points: Points, box: Any) -> np.ndarray:
    """Return row and column ``(point, 2)`` of the cells that contain points; -1 for outside."""
    from odc.geo.math import apply_affine

    x, y = points.x, points.y
    if points.crs is not None:
        x, y = _reprojected(x, y, crs=points.crs, to=box.crs)
    with np.errstate(invalid="ignore"):
        cols, rows = map(np.floor, apply_affine(~box.affine, x, y))
        inside = (rows >= 0) & (cols >= 0) & (rows < box.shape.y) & (cols < box.shape.x)
    return np.where(inside[:, None], np.stack([rows, cols], axis=1), -1).astype("int64")


def _reprojected(
    x: np.ndarray, y: np.ndarray, *, crs: Any, to: Any
) -> tuple[np.ndarray, np.ndarray]:
    crs = as_crs(crs, "the CRS of the records")
    return (x, y) if crs == to else crs.transformer_to_crs(to, always_xy=True)(x, y)


def _group(
    rows: pd.DataFrame, points: Points, *, used: np.ndarray, keep: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the site of each row, in order of appearance, and each site's first row."""
    keys = pd.DataFrame({0: points.x[used], 1: points.y[used]})
    keys = pd.concat(
        [keys, *(pd.Series(numbers(rows, k), name=i + 2) for i, k in enumerate(keep))], axis=1
    )
    site = keys.groupby(list(keys.columns), sort=False, dropna=False).ngroup().to_numpy()
    return site, np.unique(site, return_index=True)[1]


def read_cells(cube: xr.Dataset, cells: np.ndarray) -> xr.Dataset:
    """Read the gridded variables at ``(site, 2)`` rows and columns, each cell and chunk once."""
    dims = spatial_dims(cube)
    gridded = cube[[k for k, v in cube.data_vars.items() if set(dims) <= set(v.dims)]]
    once, back = np.unique(cells, axis=0, return_inverse=True)
    at = {d: xr.DataArray(i, dims=SITE) for d, i in zip(dims, once.T, strict=True)}
    found = gridded.isel(at).compute().isel({SITE: back}).transpose(SITE, ...)
    return found.assign({k: as_float(v) for k, v in found.data_vars.items()})


def _empty(sites: xr.Dataset) -> np.ndarray:
    """Return whether a site has no finite value at all, ``(site,)``."""
    observed = np.zeros(sites.sizes[SITE], dtype=bool)
    for var in sites.data_vars.values():
        observed |= np.isfinite(var.values).reshape(len(observed), -1).any(axis=1)
    return ~observed


def _presence(records: Records, used: np.ndarray, *, site: np.ndarray) -> xr.DataArray:
    """Merge records by maximum; a number wins over not recorded."""
    n = int(site.max(initial=-1)) + 1
    merged = np.full((n, len(records.names)), np.nan, dtype="float32")
    at = (site, records.codes[used]) if records.values.ndim == 1 else site
    np.fmax.at(merged, at, records.values[used])
    attrs = {"long_name": "presence", "comment": "1 present, 0 absent, NaN not surveyed"}
    return xr.DataArray(
        merged, dims=(SITE, "species"), coords={"species": records.names}, attrs=attrs
    )


def _tell(reason: np.ndarray) -> str:
    """Return the counts as JSON, with a warning; sites that are none at all are an error."""
    counts = {k: int((reason == k).sum()) for k in REASONS}
    said = ", ".join(f"{n} {REASONS[k]}" for k, n in counts.items() if n)
    if not (reason == "").any():
        raise OccurrenceError(f"no occurrence of {len(reason)} can be used: {said}")
    if said:
        warnings.warn(
            f"of {len(reason)} occurrences left out: {said}", OccurrencesLeftOut, stacklevel=3
        )
    return json.dumps(counts)


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
        When ``path`` exists and ``overwrite`` was not asked for.
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
