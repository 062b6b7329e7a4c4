"""Thinning: one record of each species per cell, within a distance, or per bin of the environment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from geomiam.checks.settings import check_count
from geomiam.data.cleaning.frame import RecordColumns, standard_records
from geomiam.data.cleaning.outliers import CLASSES
from geomiam.data.dataset import as_dataset
from geomiam.data.grid.grid import geobox, spatial_dims
from geomiam.data.records.cells import cells_of
from geomiam.data.sites.cells import read_cells
from geomiam.errors import RecordsRemoved, SettingError, warn
from geomiam.geo.lengths import Length, as_text, kilometres
from geomiam.geo.places import Places, chord


def thin_records(
    records: pd.DataFrame | str | Path,
    *,
    distance: Length | None = None,
    grid: xr.Dataset | xr.DataArray | xr.DataTree | Length | None = None,
    environment: xr.Dataset | xr.DataTree | None = None,
    bins: int = 10,
    rng: int | np.random.Generator | None = None,
) -> pd.DataFrame:
    """Keep fewer records where they are dense: by distance, per cell of a grid, or per bin of the environment.

    Presences and absences of each species are thinned separately. Cleaning judges each record; thinning
    draws among good ones at random. So it is a separate step, after :func:`geomiam.clean_records`, and can be
    repeated with other seeds.

    Parameters
    ----------
    records
        Records of :func:`geomiam.read_records`, or any table or path that it reads.
    distance
        Least distance between two records that are kept, in km along the surface of the earth. Records with
        the fewest neighbours are kept first, ties in random order. No removed record could be added again.
    grid
        One random record per cell: a cube whose grid is used, or the side of equal-area squares in km.
    environment
        A cube: its variables with one number in each cell are divided in ``bins`` of equal width, classes
        by their value, and one random record is kept for each combination (Varela et al. 2014, Ecography
        37, 1084-1091).
    bins
        Number of bins for ``environment``.
    rng
        Seed or generator.

    Returns
    -------
    pandas.DataFrame
        The records that are kept, in their order. Records without coordinates, outside the grid or without
        data are kept too. ``attrs["thinning"]`` has the method, its setting, and the numbers of ``rows``
        and ``removed`` records.

    Raises
    ------
    SettingError
        If not exactly one of ``distance``, ``grid`` and ``environment`` is passed.
    LengthError
        If a length is not valid.

    Warns
    -----
    RecordsRemoved
        With the number of removed records.

    See Also
    --------
    geomiam.clean_records : remove records that cannot be right.
    geomiam.sample : keep one record per cell with ``thin=True``.

    Examples
    --------
    >>> import geomiam as gm, pandas as pd
    >>> table = pd.DataFrame({"species": "Quercus ilex", "lon": [3.9, 3.91, 4.9], "lat": 43.6})
    >>> records = gm.thin_records(table, distance="5 km", rng=0)
    >>> len(records), records.attrs["thinning"]["removed"]
    (2, 1)
    """
    methods = {"distance": distance, "grid": grid, "environment": environment}
    names = [k for k, v in methods.items() if v is not None]
    if len(names) != 1:
        raise SettingError(
            f"thinning needs one of distance=, grid= and environment=, found {names or 'none'}; pass for example "
            "distance='10 km'"
        )
    check_count("bins", bins, minimum=2, hint="10 is the default")
    table, rng = standard_records(records), np.random.default_rng(rng)
    columns = RecordColumns(table)
    if distance is not None:
        km = kilometres(distance, "distance")
        setting = as_text(km)
        keep = _by_distance(columns, km, rng)
    else:
        key, setting = (
            _cells(columns, grid) if grid is not None else _bins(columns, environment, bins)
        )
        keep = _by_key(columns, key, rng)
    return _thinned(table, keep, method=names[0], setting=setting)


def _thinned(table: pd.DataFrame, keep: np.ndarray, *, method: str, setting: str) -> pd.DataFrame:
    removed_count = int((~keep).sum())
    if removed_count:
        warn(
            f"thinning by {method} ({setting}) removes {removed_count:,} of {len(table):,} records",
            RecordsRemoved,
        )
    out = table[keep].reset_index(drop=True)
    steps = {"method": method, "setting": setting, "rows": len(table), "removed": removed_count}
    out.attrs = {**table.attrs, "thinning": steps}
    return out


def _groups(columns: RecordColumns, rows: np.ndarray) -> Iterator[np.ndarray]:
    """Yield rows of equal species and presence."""
    table = columns.table.iloc[rows]
    keys = [table[c].to_numpy(object) for c in ("species", "presence")]
    for _, index in pd.Series(rows).groupby(keys, dropna=False):
        yield index.to_numpy()


def _by_distance(columns: RecordColumns, km: float, rng: np.random.Generator) -> np.ndarray:
    keep = ~columns.valid
    for rows in _groups(columns, np.flatnonzero(columns.valid)):
        keep[rows[spread(columns.places(rows), km, rng)]] = True
    return keep


def spread(places: Places, km: float, rng: np.random.Generator) -> np.ndarray:
    """Return the indices of places of which no two are closer than a distance, and to which none can be added.

    Places with the fewest neighbours come first, which keeps more places than a random order.
    """
    from scipy.spatial import cKDTree

    points = places.points()
    tree = cKDTree(points)
    radius = np.nextafter(chord(km), 0)  # places at the distance itself are kept
    counts = tree.query_ball_point(points, radius, return_length=True)
    order = np.lexsort((rng.random(len(points)), counts))
    is_open, kept_places = np.ones(len(points), bool), []
    for place in order:
        if is_open[place]:
            kept_places.append(place)
            is_open[tree.query_ball_point(points[place], radius)] = False
    return np.array(kept_places, int)


def _by_key(columns: RecordColumns, key: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return which records are kept: one random record for each species, presence and key; -1: all."""
    keep = key < 0
    rows = rng.permutation(np.flatnonzero(~keep))
    table = columns.table.iloc[rows][["species", "presence"]].assign(key=key[rows])
    keep[rows[~table.duplicated().to_numpy()]] = True
    return keep


def _cells(columns: RecordColumns, grid: Any) -> tuple[np.ndarray, str]:
    """Return the number of the cell of each record, -1 for none."""
    key = np.full(len(columns), -1)
    rows = np.flatnonzero(columns.valid)
    if isinstance(grid, (int, float, str)):
        km = kilometres(grid, "grid")
        cells, setting = columns.places(rows).squares(km), f"squares of {as_text(km)}"
    else:
        box = geobox(
            as_dataset(grid.rename("grid").to_dataset() if isinstance(grid, xr.DataArray) else grid)
        )
        cells, setting = (
            cells_of(columns.points(rows), box),
            f"grid of {box.shape.y} x {box.shape.x} cells",
        )
    on_grid = (cells >= 0).all(axis=1)
    key[rows[on_grid]] = np.unique(cells[on_grid], axis=0, return_inverse=True)[1].ravel()
    return key, setting


def _bins(columns: RecordColumns, environment: Any, bins: int) -> tuple[np.ndarray, str]:
    """Return the number of the environmental bin of each record, -1 where nothing is observed."""
    cube = as_dataset(environment)
    dims, box = spatial_dims(cube), geobox(cube)
    names = [str(k) for k, v in cube.data_vars.items() if set(v.dims) == set(dims)]
    if not names:
        raise SettingError(
            "environment= has no variable with one number in each cell; pass a cube with such variables"
        )
    key = np.full(len(columns), -1)
    rows = np.flatnonzero(columns.valid)
    cells = cells_of(columns.points(rows), box)
    on_grid = (cells >= 0).all(axis=1)
    rows = rows[on_grid]
    if not len(rows):
        return key, f"{bins} bins of {len(names)} variables"
    sites = read_cells(cube[names], cells[on_grid])
    codes = np.stack([_binned(sites[n], bins) for n in names], 1)
    is_observed = (codes >= 0).any(axis=1)
    key[rows[is_observed]] = np.unique(codes[is_observed], axis=0, return_inverse=True)[1].ravel()
    return key, f"{bins} bins of {len(names)} variables"


def _binned(variable: xr.DataArray, bins: int) -> np.ndarray:
    """Return the bin of each value, -1 where it is missing; each class is a bin."""
    values = np.asarray(variable.values, float)
    is_class = (
        bool(set(CLASSES) & set(variable.attrs)) or variable.attrs.get("type") == "categorical"
    )
    observed = np.isfinite(values)
    out = np.full(len(values), -1)
    if is_class:
        out[observed] = np.unique(values[observed], return_inverse=True)[1]
    elif observed.any():
        low, high = values[observed].min(), values[observed].max()
        position = (values[observed] - low) / max(high - low, np.finfo(float).tiny)
        out[observed] = np.minimum((position * bins).astype(int), bins - 1)
    return out
