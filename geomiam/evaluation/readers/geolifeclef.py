"""GeoLifeCLEF, the yearly challenges: presence-only records with satellite images and series.

- 2022: ``observations_*_<split>.csv`` and ``patches-*/CD/AB/<…ABCD>_rgb.jpg``, ``_near_ir.jpg``,
  ``_altitude.tif``, ``_landcover.tif``;
- 2023: a table with ``speciesId``, ``patchID`` and ``timeSerieID``, patches as
  ``…rgb…/CD/AB/<…ABCD>.jpeg`` with ``…nir…`` beside, ``time_series_<band>.csv`` with columns ``2000_1`` to
  ``2020_4``, and rasters ``*.tif``; or the same as one Zarr store, ``glc23*.zarr``;
- 2024 and 2025: as GeoPlant, see :func:`geomiam.readers.geoplant`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import xarray as xr

from geomiam.errors import OccurrenceError
from geomiam.evaluation.readers.files import (
    choose,
    clean,
    column,
    described,
    labels,
    need_folder,
    nothing_found,
    read_csv,
    read_image,
    stack,
    walk,
    warn_missing,
)
from geomiam.evaluation.readers.geoplant import BANDS, geoplant, geoplant_schema, read_patch
from geomiam.evaluation.readers.survey_files import image_of
from geomiam.schema import Schema

Edition = Literal[2022, 2023, 2024, 2025]
Background = Literal["target-group", "none"]
HOMES = {
    "human": "human",
    "bio": "climate",
    "clim": "climate",
    "soil": "soil",
    "elev": "topography",
}
SPECIES = ("speciesId", "species_id")
IDS = ("glcID", "observation_id", "surveyId", "patchID")


def geolifeclef_schema(sites: xr.Dataset) -> Schema:
    """Return what the predictors of :func:`geolifeclef`'s sites are.

    Landsat has one token per band and year, images 5 × 5 per band, land cover is a class. Sites of 2024
    and 2025 have the schema of :func:`geomiam.readers.geoplant_schema`.
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
        Default: told from the files.
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
        place and day are one site. Coordinates ``lon``, ``lat``, ``siteid`` and, where told, ``year``
        and ``day_of_year``.

    Raises
    ------
    OccurrenceError
        If the files of no edition are there, with what was found.

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
    made = MAKERS[edition](root, places.table.iloc[rows], chunks)
    return _sites(made, places, rows, min_records=min_records, background=background)


# Which edition ----------------------------------------------------------------------------------


def _edition(root: Path) -> Edition:
    names = [p.name.lower() for p in walk(root)[0]]
    if root.suffix == ".zarr" or _store(root):
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


def _store(root: Path) -> Path | None:
    if root.suffix == ".zarr":
        return root
    return next(iter(sorted(root.glob("glc23*.zarr"))), None)


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
    if edition == 2023 and (store := _store(root)):
        small = xr.open_zarr(store, consolidated=False)
        flat = [n for n, v in small.variables.items() if v.dims == ("obs",)]
        return (
            small[flat]
            .to_dataframe()
            .reset_index(names="siteid")
            .assign(row=range(small.sizes["obs"]))
        )
    tables = [p for p in walk(root)[0] if p.suffix.lower() == ".csv"]
    named = "observations_" if edition == 2022 else ""
    for path in sorted(tables, key=lambda p: (split not in p.name, len(p.name))):
        if named in path.name and not path.name.startswith("time_series_"):
            table = read_csv(path)
            if edition == 2022 or {"patchID", "timeSerieID"} <= set(table):
                return _renamed(table, path)
    raise nothing_found(root, [named + f"*{split}*.csv with records"])


def _renamed(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    found = {
        "siteid": column(table, IDS, what="the id of a record", path=path),
        "lon": column(table, ("lon", "longitude", "decimalLongitude"), what="longitude", path=path),
        "lat": column(table, ("lat", "latitude", "decimalLatitude"), what="latitude", path=path),
    }
    return table.rename(columns={v: k for k, v in found.items()} | {"dayOfYear": "day_of_year"})


def _places(records: pd.DataFrame) -> _Places:
    keys = [k for k in ("lon", "lat", "year", "day_of_year") if k in records]
    site = records.groupby(keys, sort=False, dropna=False).ngroup().to_numpy()
    table = records.iloc[np.unique(site, return_index=True)[1]].reset_index(drop=True)
    name = next((n for n in SPECIES if n in records), None)
    species = records[name].to_numpy() if name else np.array([])
    return _Places(table, site, species)


# Predictors -------------------------------------------------------------------------------------

Made = dict[str, Any]


def _made_2022(root: Path, table: pd.DataFrame, chunks: int | None) -> Made:
    kinds = {"rgb": "_rgb", "nir": "_near_ir", "altitude": "_altitude", "landcover": "_landcover"}
    sharded = walk(root)[1]
    paths = {k: _images(sharded, table["siteid"], end) for k, end in kinds.items()}
    made = _sentinel2(paths, chunks)
    if any(paths["altitude"]):
        read, shape = read_altitude, read_altitude(next(filter(None, paths["altitude"]))).shape
        attrs = {"modality": "topography", "kind": "image", "units": "m"}
        values = stack(paths["altitude"], read, shape, chunks=chunks)
        made["altitude"] = (("site", "row", "column"), values, attrs)
    if any(paths["landcover"]):
        attrs = {"modality": "land_cover", "kind": "categorical"}
        made["landcover"] = ("site", stack(paths["landcover"], read_class, (), chunks=None), attrs)
    warn_missing({k: p.count(None) for k, p in paths.items() if any(p)}, len(table))
    return made


def _made_2023(root: Path, table: pd.DataFrame, chunks: int | None) -> Made:
    if store := _store(root):
        return _made_of_store(store, table, chunks)
    files, sharded = walk(root)
    said = {
        kind: [f for f in sharded if kind in str(f.relative_to(root)).lower()]
        for kind in ("rgb", "nir")
    }
    paths = {kind: _images(folders, table["patchID"], "") for kind, folders in said.items()}
    made = _sentinel2(paths, chunks) | _landsat(files, table)
    for path in (p for p in files if p.suffix.lower() in (".tif", ".tiff")):
        attrs = {"modality": _home(path.relative_to(root)), "kind": "scalar"}
        made[path.stem] = ("site", _sampled(path, table), attrs)
    warn_missing({k: p.count(None) for k, p in paths.items() if any(p)}, len(table))
    return made


def _made_of_store(store: Path, table: pd.DataFrame, chunks: int | None) -> Made:
    names = {
        "obs": "site",
        "ls_band": "landsat_band",
        "time": "quarter",
        "py": "row",
        "px": "column",
    }
    opened = xr.open_zarr(
        store, consolidated=False, chunks=None if chunks is None else {"obs": chunks}
    )
    chosen = opened.rename(
        {k: v for k, v in names.items() if k in opened.variables or k in opened.dims}
    )
    chosen = chosen.isel(site=table["row"].to_numpy())
    facts = {
        "sentinel2": {"modality": "satellite", "kind": "image"},
        "landsat": {"modality": "time_series", "kind": "series", "window": 4},
        "lights2009": {"modality": "human", "kind": "scalar"},
        "built2009": {"modality": "human", "kind": "scalar"},
    }
    kept = {n: chosen[n].astype(np.float32) for n in facts if n in chosen}
    told = {k: v for k, v in {"long_name": 0, "units": 0}.items()}
    return {
        n: (v.dims, v.data, {k: a for k, a in v.attrs.items() if k in told} | facts[n])
        for n, v in kept.items()
    }


def _images(sharded: Sequence[Path], ids: pd.Series, end: str) -> list[Path | None]:
    return [image_of(sharded, str(i), end=end) for i in ids]


def _sentinel2(paths: dict[str, list[Path | None]], chunks: int | None) -> Made:
    first = next((p for k in ("rgb", "nir") for p in paths[k] if p is not None), None)
    if first is None:
        return {}
    size = read_image(first).shape[1:]
    trios = [(a, b, None) if a or b else None for a, b in zip(paths["rgb"], paths["nir"])]
    values = stack(trios, partial(read_patch, size=size), (4, *size), chunks=chunks)
    attrs = {"modality": "satellite", "kind": "image"}
    return {"sentinel2": (("site", "s2_band", "row", "column"), values, attrs)}


def _landsat(files: Sequence[Path], table: pd.DataFrame) -> Made:
    found = {b: next((p for p in files if p.name == f"time_series_{b}.csv"), None) for b in BANDS}
    if not any(found.values()):
        return {}
    values: np.ndarray = np.full((len(table), len(BANDS), 84), np.nan, np.float32)
    quarters = [f"{y}_{q}" for y in range(2000, 2021) for q in range(1, 5)]
    for band, path in enumerate(found.values()):
        if path is not None:
            series = read_csv(path)
            key = column(
                series, ("timeSerieID", "time_series_id", "id"), what="the series", path=path
            )
            series = series.set_index(key).reindex(table["timeSerieID"].to_numpy())
            values[:, band] = clean(series.reindex(columns=quarters).to_numpy())  # "eos" is NaN
    attrs = {"modality": "time_series", "kind": "series", "window": 4}
    return {"landsat": (("site", "landsat_band", "quarter"), values, attrs)}


def read_altitude(path: Path) -> np.ndarray:
    """Read an altitude patch as ``(row, column)``."""
    return clean(read_image(path)[0])


def read_class(path: Path) -> np.ndarray:
    """Read the class of the middle cell of a land cover patch."""
    patch = read_image(path)[0]
    return patch[patch.shape[0] // 2, patch.shape[1] // 2]


def _sampled(path: Path, table: pd.DataFrame) -> np.ndarray:
    """The cells of a raster at the records; NaN outside and where it has no data."""
    import rasterio
    from rasterio.warp import transform

    with rasterio.open(path) as raster:
        lon, lat = table["lon"].tolist(), table["lat"].tolist()
        xs, ys = transform("EPSG:4326", raster.crs or "EPSG:4326", lon, lat)
        cells = raster.sample(zip(xs, ys), indexes=1, masked=True)
        return clean([float(c[0]) if not np.ma.is_masked(c) else np.nan for c in cells])


def _home(path: Path) -> str:
    return next((home for word, home in HOMES.items() if word in str(path).lower()), "environment")


MAKERS: dict[int, Callable[[Path, pd.DataFrame, int | None], Made]] = {
    2022: _made_2022,
    2023: _made_2023,
}


def _sites(
    made: Made, places: _Places, rows: np.ndarray, *, min_records: int, background: Background
) -> xr.Dataset:
    table = places.table.iloc[rows]
    if not made:
        raise OccurrenceError("there are records, but neither images nor series nor rasters beside")
    told = [n for n in ("siteid", "lon", "lat", "year", "day_of_year") if n in table]
    coords: dict[str, Any] = {n: ("site", table[n].to_numpy()) for n in told}
    dims = {d for values in made.values() for d in values[0]}
    coords |= {"s2_band": list(BANDS[:4])} if "s2_band" in dims else {}
    if "quarter" in dims:
        coords["quarter"] = pd.date_range("2000-01-01", periods=84, freq="QS")
        coords["landsat_band"] = list(BANDS)
    sites = xr.Dataset(made, coords, {"crs": "EPSG:4326", "data_set": "GeoLifeCLEF"})
    if not len(places.species):
        return sites.assign_attrs(no_presence="the records name no species, as in test sets")
    place = np.full(len(places.table), -1)
    place[rows] = np.arange(len(rows))
    site = place[places.site]
    known = (site >= 0) & pd.notna(places.species)
    found = labels(
        site[known],
        places.species[known].astype(np.int64),
        sites=len(rows),
        min_records=min_records,
        other=0.0 if background == "target-group" else np.nan,
    )
    return sites.assign(presence=found)
