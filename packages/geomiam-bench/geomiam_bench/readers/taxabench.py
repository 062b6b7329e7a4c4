"""TaxaBench-8k (Sastry et al. 2025): observations with image, audio, satellite, environment and location.

A table of observations (``taxabench*.csv`` or ``test_df.csv``) and, per modality, one vector per observation
from a frozen encoder, as in MIAM: either one file ``*embeds*_loc_env_img_aud_sat.pt``, whose name lists the
modalities in order, or ``image.npy``, ``audio.npy``, … Photographs and sounds themselves need such an encoder and are not
read. ``bioclim_elevation_scaled.npy``, a global grid, gives the environment where there is no vector of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from geomiam.errors import OccurrenceError
from geomiam.schema.schema import Schema
from geomiam_bench.readers.cubes import read_pt
from geomiam_bench.readers.files import (
    choose,
    clean,
    column,
    described,
    labels,
    need_folder,
    nothing_found,
    read_csv,
)

MODALITIES = {
    "loc": "location",
    "env": "environment",
    "img": "image",
    "aud": "audio",
    "sat": "satellite",
}
TABLES = ("taxabench*.csv", "test_df.csv")
GRID = "bioclim_elevation_scaled.npy"
LAYERS = (*(f"bio{i}" for i in range(1, 20)), "elevation")
NAMES = (
    "species",
    "scientific_name",
    "taxon_name",
    "taxa",
    "taxonomic_name",
    "name",
    "label",
    "class",
)


def taxabench_schema(sites: xr.Dataset) -> Schema:
    """Return the schema of sites from :func:`taxabench`: a vector per modality is one token."""
    return described(sites, "taxabench")


def taxabench(
    folder: str | Path,
    *,
    species: str | None = None,
    observations: Sequence[int] | None = None,
    limit: int | None = None,
    min_records: int = 1,
) -> xr.Dataset:
    """Read observations as sites.

    Parameters
    ----------
    folder : path
        With the table and the vectors.
    species : str, optional
        Column of the species; default: one of the usual names.
    observations : sequence of int, optional
        Rows of the table, from 0, in this order.
    limit : int, optional
        The first ones only.
    min_records : int
        Species with fewer of the chosen observations are left out, with their observations; MIAM takes
        10, which leaves 199 species.

    Returns
    -------
    xarray.Dataset
        Per modality a vector such as ``image(site, image_feature)``. Without vectors of them: ``longitude``
        and ``latitude``; ``bio1`` … ``bio19`` and ``elevation`` of the grid's cell. ``presence(site, species)``
        is 1 for the species that was observed, else 0: train with ``loss="cross-entropy"``. Coordinates
        ``lon``, ``lat``, ``siteid`` (row of the table).

    Raises
    ------
    OccurrenceError
        If there is no table, a column is not there, or numbers of rows disagree.
    ArtifactError
        If a ``.pt`` file is damaged or contains anything but tensors.
    """
    root = need_folder(folder)
    path = next((p for pattern in TABLES for p in sorted(root.glob(pattern))), None)
    if path is None:
        raise nothing_found(root, TABLES)
    table = read_csv(path)
    name = column(table, NAMES if species is None else (species,), meaning="the species", path=path)
    vectors = _vectors(root, len(table))
    rows = choose(np.arange(len(table)), observations, limit, name="observations")
    enough = table[name].iloc[rows].map(table[name].iloc[rows].value_counts()) >= min_records
    rows = rows[enough.to_numpy()]
    selected_rows = table.iloc[rows]
    lon = selected_rows[
        column(table, ("lon", "longitude"), meaning="longitude", path=path)
    ].to_numpy(float)
    lat = selected_rows[column(table, ("lat", "latitude"), meaning="latitude", path=path)].to_numpy(
        float
    )
    presence = labels(
        np.arange(len(rows)),
        selected_rows[name].to_numpy(),
        sites=len(rows),
        min_records=min_records,
    )
    coords = {"siteid": ("site", rows), "lon": ("site", lon), "lat": ("site", lat)}
    arrays = _of_places(root, lon, lat, without=vectors) | {
        home: (("site", f"{home}_feature"), clean(v[rows]), {"modality": home, "kind": "vector"})
        for home, v in vectors.items()
    }
    attrs = {"crs": "EPSG:4326", "data_set": "TaxaBench-8k"}
    return xr.Dataset(arrays, coords, attrs).assign(presence=presence)


def _vectors(root: Path, count: int) -> dict[str, np.ndarray]:
    """Vectors ``(row of the table, feature)`` by modality."""
    vectors: dict[str, np.ndarray] = {}
    for path in sorted(root.glob("*embeds*.pt")):
        vectors |= _of_pt(path, count)
    for short, home in MODALITIES.items():
        for path in (p for n in (home, short) for p in sorted(root.glob(f"{n}*.npy"))):
            vectors[home] = np.load(path, mmap_mode="r")
    for home, values in vectors.items():
        if values.ndim != 2 or len(values) != count:
            raise OccurrenceError(
                f"the vectors of '{home}' are {values.shape}, the table has {count} rows: they must agree"
            )
    return vectors


def _of_pt(path: Path, count: int) -> dict[str, np.ndarray]:
    """One tensor ``(row, modality, feature)``, or a list or dict of one per modality."""
    content = read_pt(path)
    if isinstance(content, dict):
        homes = [MODALITIES.get(str(k), str(k)) for k in content]
        parts = list(content.values())
    else:
        homes = [MODALITIES[w] for w in re.split(r"[_.]", path.name) if w in MODALITIES]
        rows_first = isinstance(content, np.ndarray) and len(content) == count
        parts = list(np.moveaxis(content, 1, 0)) if rows_first else list(content)
    is_modality = [
        isinstance(p, np.ndarray) and h in MODALITIES.values() for h, p in zip(homes, parts)
    ]
    if len(homes) != len(parts) or not all(is_modality):
        raise OccurrenceError(
            f"{path} holds {len(parts)} parts {homes}; expected one tensor per modality of "
            f"{list(MODALITIES.values())}, named by keys or in the file's name"
        )
    return dict(zip(homes, parts))


def _of_places(
    root: Path, lon: np.ndarray, lat: np.ndarray, *, without: dict[str, np.ndarray]
) -> dict[str, Any]:
    arrays: dict[str, Any] = {}
    if "location" not in without:
        for name, values in {"longitude": lon, "latitude": lat}.items():
            arrays[name] = ("site", clean(values), {"modality": "location", "kind": "scalar"})
    if "environment" not in without and (root / GRID).is_file():
        cells = clean(_cells(root / GRID, lon, lat))
        for k, name in enumerate(LAYERS):
            attrs = {"modality": "environment", "kind": "scalar"}
            arrays[name] = ("site", cells[:, k], attrs)
    return arrays


def _cells(path: Path, lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    """Layers ``(n, 20)`` of the cells of a global grid ``(row, column, layer)``, north at the top."""
    grid = np.load(path, mmap_mode="r")
    if grid.ndim != 3 or grid.shape[2] != len(LAYERS):
        raise OccurrenceError(
            f"{path} is {grid.shape}, expected rows, columns and {len(LAYERS)} layers"
        )
    is_located = np.isfinite(lon) & np.isfinite(lat)
    north, east = (
        np.where(is_located, (90 - lat) / 180, 0),
        np.where(is_located, (lon + 180) / 360, 0),
    )
    places = [
        np.floor(part * size).astype(int).clip(0, size - 1)
        for part, size in zip((north, east), grid.shape)
    ]
    return np.where(is_located[:, None], grid[places[0], places[1]], np.nan)
