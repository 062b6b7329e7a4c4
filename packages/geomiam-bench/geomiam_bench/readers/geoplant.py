"""GeoPlant (Picek et al. 2024) and the GeoLifeCLEF challenges 2024 and 2025, which share its files.

Found by name anywhere below one folder, as they come out of their archives:

- ``*PA*metadata*train*.csv``: one row per survey and species;
- ``*bioclimatic*``, ``*soilgrids*``, ``*elevation*``, ``*landcover*``, ``*human_footprint*.csv`` by survey;
- ``*bioclimatic_monthly_<id>_cube.pt`` (4 variables, 19 years, 12 months) and
  ``*landsat*_<id>_cube.pt`` (6 bands, 4 quarters, 21 years): mind the order of the axes;
- Sentinel-2 patches ``…RGB…/CD/AB/<…ABCD>.jpeg`` with ``…NIR…`` beside, or four-band ``.tiff``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from geomiam.errors import OccurrenceError
from geomiam.schema.schema import Schema
from geomiam_bench.readers.cubes import read_cube
from geomiam_bench.readers.files import (
    catalog,
    choose,
    clean,
    labels,
    need_folder,
    nothing_found,
    present,
    read_image,
    stack,
    warn_missing,
)
from geomiam_bench.readers.survey_files import KEY, Source, SurveyFiles

MODALITIES = ("tabular", "time_series", "satellite")
SPECIES = "speciesId"
FAMILIES = {
    "climate": r"bioclimatic(?!.?monthly)",
    "soil": r"soil.?grids?",
    "elevation": r"elevation",
    "land cover": r"land.?cover",
    "human footprint": r"human.?footprint",
}
CLIMATE = ("tas", "tasmin", "tasmax", "pr")
BANDS = ("red", "green", "blue", "nir", "swir1", "swir2")
BIOCLIM_SHAPE, LANDSAT_SHAPE = (4, 19, 12), (6, 4, 21)
FIRST_DAY = "2000-01-01"


def geoplant_schema(sites: xr.Dataset | None = None) -> Schema:
    """Return the schema of GeoPlant's predictors: three modalities, 350 tokens as in MIAM.

    Parameters
    ----------
    sites : xarray.Dataset, optional
        From :func:`geoplant`; the schema then has only their variables. Columns that the catalog does not list, such as
        the second version of the human footprint, are left to :func:`geomiam.infer_schema`.

    Raises
    ------
    OccurrenceError
        If the sites contain no variable of it.
    """
    return present(catalog("geoplant"), sites)


def geoplant(
    folder: str | Path,
    *,
    source: Source = "PA",
    split: str = "train",
    modalities: Sequence[str] | None = None,
    surveys: Sequence[int] | None = None,
    limit: int | None = None,
    min_records: int = 1,
    chunks: int | None = None,
) -> xr.Dataset:
    """Read GeoPlant, or a GeoLifeCLEF challenge of 2024 or 2025, as sites.

    Parameters
    ----------
    folder : path
        Where the archives were unpacked, with any folders below.
    source : {"PA", "PO"}
        Presence-absence surveys, or presence-only records.
    split : str
        As in the names of the files: ``"train"``, ``"test"``, ``"test-iid"``, ``"test-ood"``.
    modalities : sequence of str, optional
        Of ``"tabular"``, ``"time_series"``, ``"satellite"``; default: those with files.
    surveys : sequence of int, optional
        These surveys, in this order.
    limit : int, optional
        The first surveys only: ``limit=100`` tries a data set of 40 GB in seconds.
    min_records : int
        Species at fewer of the chosen sites are left out; the papers take species with more than 20.
    chunks : int, optional
        Sites per dask chunk of cubes and patches, which are then read when needed.

    Returns
    -------
    xarray.Dataset
        Columns of the tables ``(site)``; ``bioclim(site, climate, month)``, 228 months from 2000, raw
        CHELSA integers; ``landsat(site, landsat_band, quarter)``, 84 quarters from 2000;
        ``sentinel2(site, s2_band, row, column)``; ``presence(site, species)``: 1, else 0 (PA) or NaN
        (PO: absences are unknown), and left out where the metadata name no species, as in test sets.
        Coordinates ``lon``, ``lat``, ``siteid``, ``year``. All float32; NaN = missing, ±inf and numbers
        beyond 1e10 included.

    Raises
    ------
    OccurrenceError
        If files of a requested modality, or surveys, are missing; the message lists the files.
    ArtifactError
        If a cube is damaged or contains anything but its tensor.

    Warns
    -----
    MissingFiles
        With the number of sites without a cube or patch.
    """
    files = SurveyFiles.of(need_folder(folder), source, split)
    modality_names = _check_modalities(modalities)
    records = files.records()
    rows = records.drop_duplicates(KEY).reset_index(drop=True)
    rows = rows.iloc[choose(rows[KEY].to_numpy(), surveys, limit, name="surveys")]
    ids = rows[KEY].to_numpy()
    makers = {"tabular": _tables, "time_series": _series, "satellite": _patches}
    parts = {name: makers[name](files, ids, chunks) for name in modality_names}
    if empty_parts := [n for n, part in parts.items() if not part[0] and modalities is not None]:
        raise nothing_found(files.root, [f"files of '{n}' ({source} {split})" for n in empty_parts])
    if not any(part[0] for part in parts.values()):
        raise nothing_found(files.root, [f"predictors ({source} {split})"])
    warn_missing(
        {k: n for _, empty_parts in parts.values() for k, n in empty_parts.items()}, len(ids)
    )
    arrays = {name: array for part, _ in parts.values() for name, array in part.items()}
    return _sites(arrays, rows, records, source=source, min_records=min_records)


def _check_modalities(modalities: Sequence[str] | None) -> tuple[str, ...]:
    modality_names = MODALITIES if modalities is None else tuple(modalities)
    if unknown := [m for m in modality_names if m not in MODALITIES]:
        raise OccurrenceError(f"no modalities {unknown}; GeoPlant has {MODALITIES}")
    return modality_names


# Parts -------------------------------------------------------------------------------------------


Part = tuple[dict[str, Any], dict[str, int]]
"""Variables by name, and the number of sites without a file by kind of file."""


def _tables(files: SurveyFiles, ids: np.ndarray, chunks: int | None) -> Part:
    catalog_variables = catalog("geoplant").variables
    arrays = {}
    for pattern in FAMILIES.values():
        for path in files.tables(pattern):
            table = pd.read_csv(path)
            if KEY not in table:
                raise OccurrenceError(f"{path} has no column {KEY}, found {list(table.columns)}")
            table = table.drop_duplicates(KEY).set_index(KEY).reindex(ids)
            for name in table.columns.drop("Unnamed: 0", errors="ignore"):
                attrs = _attrs(catalog_variables.get(str(name)), "tabular")
                arrays[str(name)] = ("site", clean(table[name]), attrs)
    return arrays, {}


def _attrs(variable: Any, modality: str) -> dict[str, str]:
    attrs = {"modality": modality}
    if variable is not None:
        descriptions = {"units": variable.units, "long_name": variable.long_name}
        attrs |= {k: v for k, v in descriptions.items() if v}
        attrs |= {"type": "categorical"} if variable.kind == "categorical" else {}
    return attrs


def _series(files: SurveyFiles, ids: np.ndarray, chunks: int | None) -> Part:
    catalog_variables, arrays, missing_counts = catalog("geoplant").variables, {}, {}
    kinds = {
        "bioclim": (read_bioclim, (4, 228), ("site", "climate", "month")),
        "landsat": (read_landsat, (6, 84), ("site", "landsat_band", "quarter")),
    }
    for name, (read, shape, dims) in kinds.items():
        if cubes := files.cubes[name]:
            paths = [cubes.get(int(i)) for i in ids]
            values = stack(paths, read, shape, chunks=chunks)
            arrays[name] = (dims, values, _attrs(catalog_variables[name], "time_series"))
            missing_counts[f"{name} cubes"] = sum(p is None for p in paths)
    return arrays, missing_counts


def read_bioclim(path: Path) -> np.ndarray:
    """Read a climate cube as ``(4, 228)``: variable, month after month."""
    return clean(read_cube(path, BIOCLIM_SHAPE).reshape(4, -1))


def read_landsat(path: Path) -> np.ndarray:
    """Read a Landsat cube as ``(6, 84)``: band, quarter after quarter; the file has years last."""
    return clean(read_cube(path, LANDSAT_SHAPE).transpose(0, 2, 1).reshape(6, -1))


def _patches(files: SurveyFiles, ids: np.ndarray, chunks: int | None) -> Part:
    paths = files.patches(ids)
    first = next((p for kind_paths in paths.values() for p in kind_paths if p is not None), None)
    if first is None:
        return {}, {}
    none: list[Path | None] = [None] * len(ids)
    trios = zip(*(paths.get(kind, none) for kind in ("rgb", "nir", "all")))
    items = [trio if any(trio) else None for trio in trios]
    size = read_image(first).shape[1:]
    values = stack(items, partial(read_patch, size=size), (4, *size), chunks=chunks)
    attrs = _attrs(catalog("geoplant").variables["sentinel2"], "satellite")
    missing_counts = {
        f"sentinel2 {k}".removesuffix(" all"): p.count(None) for k, p in paths.items()
    }
    return {"sentinel2": (("site", "s2_band", "row", "column"), values, attrs)}, missing_counts


def read_patch(
    paths: tuple[Path | None, Path | None, Path | None], *, size: tuple[int, int]
) -> np.ndarray:
    """Read a patch as ``(4, row, column)`` from its colours, its near infrared, or one file of both.

    Raises
    ------
    OccurrenceError
        If a file has other sizes than the first.
    """
    out: np.ndarray = np.full((4, *size), np.nan, np.float32)
    for path, bands in zip(paths, (slice(0, 3), slice(3, 4), slice(0, 4))):
        if path is not None:
            image = read_image(path)[: bands.stop - bands.start]
            if image.shape != out[bands].shape:
                raise OccurrenceError(f"{path} is {image.shape}, expected {out[bands].shape}")
            out[bands] = image
    return out


def _sites(
    arrays: dict[str, Any],
    rows: pd.DataFrame,
    records: pd.DataFrame,
    *,
    source: Source,
    min_records: int,
) -> xr.Dataset:
    coords: dict[str, Any] = {
        "siteid": ("site", rows[KEY].to_numpy()),
        **{n: ("site", rows[n].to_numpy()) for n in ("lon", "lat", "year") if n in rows},
        **{dim: steps for dim, steps in _steps().items() if _has(arrays, dim)},
    }
    sites = xr.Dataset(
        arrays, coords, {"crs": "EPSG:4326", "data_set": "GeoPlant", "source": source}
    )
    if SPECIES not in records:
        return sites.assign_attrs(no_presence="the metadata name no species, as in test sets")
    site = pd.Index(rows[KEY]).get_indexer(records[KEY])
    has_label = (site >= 0) & records[SPECIES].notna().to_numpy()
    species = records[SPECIES].to_numpy()[has_label].astype(np.int64)
    absent_label = 0.0 if source == "PA" else np.nan
    presence = labels(
        site[has_label],
        species,
        sites=len(rows),
        min_records=min_records,
        absent_label=absent_label,
    )
    return sites.assign(presence=presence)


def _has(arrays: dict[str, Any], dim: str) -> bool:
    return any(dim in dims for dims, *_ in arrays.values() if not isinstance(dims, str))


def _steps() -> dict[str, Any]:
    """Return the coordinates of the dims of cubes and patches."""
    return {
        "climate": list(CLIMATE),
        "month": pd.date_range(FIRST_DAY, periods=228, freq="MS"),
        "landsat_band": list(BANDS),
        "quarter": pd.date_range(FIRST_DAY, periods=84, freq="QS"),
        "s2_band": list(BANDS[:4]),
    }
