"""GeoLifeCLEF, the yearly challenges: presence-only records with satellite images and series.

- 2022: ``observations_*_<split>.csv`` and ``patches-*/CD/AB/<…ABCD>_rgb.jpg``, ``_near_ir.jpg``,
  ``_altitude.tif``, ``_landcover.tif``;
- 2023: a table with ``speciesId``, ``patchID`` and ``timeSerieID``, patches as
  ``…rgb…/CD/AB/<…ABCD>.jpeg`` with ``…nir…`` beside, ``time_series_<band>.csv`` with columns ``2000_1`` to
  ``2020_4``, and rasters ``*.tif``; or the same as one Zarr store, ``glc23*.zarr``;
- 2024 and 2025: as GeoPlant, see :func:`geomiam_bench.readers.geoplant`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import xarray as xr

from geomiam.errors import OccurrenceError
from geomiam.schema.schema import Schema
from geomiam_bench.readers.files import (
    choose,
    column,
    described,
    labels,
    need_folder,
    nothing_found,
    read_csv,
    walk,
)
from geomiam_bench.readers.geolifeclef_files import MAKERS, store_of
from geomiam_bench.readers.geoplant import BANDS, geoplant, geoplant_schema

Edition = Literal[2022, 2023, 2024, 2025]
Background = Literal["target-group", "none"]
SPECIES = ("speciesId", "species_id")
IDS = ("glcID", "observation_id", "surveyId", "patchID")


def geolifeclef_schema(sites: xr.Dataset) -> Schema:
    """Return the schema of sites from :func:`geolifeclef`.

    Landsat has one token per band and year, images 5 × 5 per band, land cover is a class. Sites of 2024
    and 2025 have the schema of :func:`geomiam_bench.readers.geoplant_schema`.
    """
    if sites.attrs.get("data_set") == "GeoPlant":
        return geoplant_schema(sites)
    return described(sites, "geolifeclef")


def geolifeclef(
    folder: str | Path,
    *,
    edition: Edition | None = None,
    split: str = "train",
    observations: Sequence[int] | None = None,
    limit: int | None = None,
    min_records: int = 1,
    background: Background = "target-group",
    chunks: int | None = None,
) -> xr.Dataset:
    """Read records of a GeoLifeCLEF challenge as sites.

    Parameters
    ----------
    folder : path
        Where the archives were unpacked, or a Zarr store of the 2023 sample.
    edition : {2022, 2023, 2024, 2025}, optional
        Default: inferred from the files.
    split : str
        As in the names of the files, where they have it.
    observations : sequence of int, optional
        These records (surveys in 2024 and 2025), in this order.
    limit : int, optional
        The first ones only.
    min_records : int
        Species at fewer of the chosen sites are left out.
    background : {"target-group", "none"}
        Until 2023 the records are presence-only. ``"target-group"``: a place where other species were
        recorded counts as an absence. ``"none"``: it counts as not surveyed, NaN.
    chunks : int, optional
        Sites per dask chunk of images, which are then read when needed.

    Returns
    -------
    xarray.Dataset
        ``sentinel2(site, s2_band, row, column)``, ``landsat(site, landsat_band, quarter)`` with NaN after
        the end of a series, one variable ``(site)`` per raster, in 2022 ``altitude(site, row, column)``
        and ``landcover(site)``, the class of the middle cell; ``presence(site, species)``. Records of one
        place and day are one site. Coordinates ``lon``, ``lat``, ``siteid`` and, where the records have them, ``year``
        and ``day_of_year``.

    Raises
    ------
    OccurrenceError
        If the folder has the files of no edition; the message lists its files.

    Warns
    -----
    MissingFiles
        With the number of sites without an image.
    """
    if background not in get_args(Background):
        raise OccurrenceError(f"background='{background}' is unknown; use {get_args(Background)}")
    root = need_folder(folder)
    edition = edition or _edition(root)
    if edition in (2024, 2025):
        options: dict = {"split": split, "surveys": observations, "limit": limit, "chunks": chunks}
        return geoplant(root, min_records=min_records, **options)
    records = _records(root, edition, split)
    places = _places(records)
    ids = places.table["siteid"].to_numpy()
    rows = choose(ids, observations, limit, name="observations")
    arrays = MAKERS[edition](root, places.table.iloc[rows], chunks)
    return _sites(arrays, places, rows, min_records=min_records, background=background)


# Which edition ----------------------------------------------------------------------------------


def _edition(root: Path) -> Edition:
    names = [p.name.lower() for p in walk(root)[0]]
    if root.suffix == ".zarr" or store_of(root):
        return 2023
    if any(n.endswith("_cube.pt") or ("metadata" in n and "pa" in n) for n in names):
        return 2024
    if any(n.startswith("time_series_") for n in names):
        return 2023
    if any(n.startswith("observations_") for n in names):
        return 2022
    raise nothing_found(
        root,
        [
            "glc23*.zarr",
            "*_cube.pt",
            "time_series_*.csv",
            "observations_*.csv",
            "*PA*metadata*.csv",
        ],
    )


# Records ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Places:
    """One row per site, and the species that were recorded there."""

    table: pd.DataFrame
    site: np.ndarray
    """Site of each record."""
    species: np.ndarray
    """Species of each record, or nothing where a test set names none."""


def _records(root: Path, edition: int, split: str) -> pd.DataFrame:
    if edition == 2023 and (store := store_of(root)):
        small = xr.open_zarr(store, consolidated=False)
        flat = [n for n, v in small.variables.items() if v.dims == ("obs",)]
        return (
            small[flat]
            .to_dataframe()
            .reset_index(names="siteid")
            .assign(row=range(small.sizes["obs"]))
        )
    tables = [p for p in walk(root)[0] if p.suffix.lower() == ".csv"]
    prefix = "observations_" if edition == 2022 else ""
    for path in sorted(tables, key=lambda p: (split not in p.name, len(p.name))):
        if prefix in path.name and not path.name.startswith("time_series_"):
            table = read_csv(path)
            if edition == 2022 or {"patchID", "timeSerieID"} <= set(table):
                return _renamed(table, path)
    raise nothing_found(root, [prefix + f"*{split}*.csv with records"])


def _renamed(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    columns_by_role = {
        "siteid": column(table, IDS, meaning="the id of a record", path=path),
        "lon": column(
            table, ("lon", "longitude", "decimalLongitude"), meaning="longitude", path=path
        ),
        "lat": column(table, ("lat", "latitude", "decimalLatitude"), meaning="latitude", path=path),
    }
    return table.rename(
        columns={v: k for k, v in columns_by_role.items()} | {"dayOfYear": "day_of_year"}
    )


def _places(records: pd.DataFrame) -> _Places:
    keys = [k for k in ("lon", "lat", "year", "day_of_year") if k in records]
    site = records.groupby(keys, sort=False, dropna=False).ngroup().to_numpy()
    table = records.iloc[np.unique(site, return_index=True)[1]].reset_index(drop=True)
    name = next((n for n in SPECIES if n in records), None)
    species = records[name].to_numpy() if name else np.array([])
    return _Places(table, site, species)


# Sites ----------------------------------------------------------------------------------------


def _sites(
    arrays: dict[str, Any],
    places: _Places,
    rows: np.ndarray,
    *,
    min_records: int,
    background: Background,
) -> xr.Dataset:
    table = places.table.iloc[rows]
    if not arrays:
        raise OccurrenceError("there are records, but neither images nor series nor rasters beside")
    coord_names = [n for n in ("siteid", "lon", "lat", "year", "day_of_year") if n in table]
    coords: dict[str, Any] = {n: ("site", table[n].to_numpy()) for n in coord_names}
    dims = {d for values in arrays.values() for d in values[0]}
    coords |= {"s2_band": list(BANDS[:4])} if "s2_band" in dims else {}
    if "quarter" in dims:
        coords["quarter"] = pd.date_range("2000-01-01", periods=84, freq="QS")
        coords["landsat_band"] = list(BANDS)
    sites = xr.Dataset(arrays, coords, {"crs": "EPSG:4326", "data_set": "GeoLifeCLEF"})
    if not len(places.species):
        return sites.assign_attrs(no_presence="the records name no species, as in test sets")
    place = np.full(len(places.table), -1)
    place[rows] = np.arange(len(rows))
    site = place[places.site]
    has_label = (site >= 0) & pd.notna(places.species)
    presence = labels(
        site[has_label],
        places.species[has_label].astype(np.int64),
        sites=len(rows),
        min_records=min_records,
        absent_label=0.0 if background == "target-group" else np.nan,
    )
    return sites.assign(presence=presence)
