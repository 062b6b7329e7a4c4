"""SatBird (Teng et al. 2023): eBird hotspots with Sentinel-2 images and environmental rasters.

One folder per region (``USA_summer``, ``USA_winter``, ``Kenya``) with ``<split>_split.csv``,
``images/<id>.tif`` (bands B02, B03, B04, B08), ``environmental_data/<id>.npy`` (19 bioclimatic variables,
in the USA followed by 8 soil variables, each a small raster) and ``targets/<id>.json`` (encounter rates).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr

from geomiam.errors import OccurrenceError
from geomiam.outputs.paths import check_component
from geomiam.schema.schema import Schema
from geomiam_bench.readers.files import (
    choose,
    clean,
    column,
    described,
    need_folder,
    nothing_found,
    read_csv,
    read_image,
    stack,
    warn_missing,
)

Environment = Literal["point", "raster"]
BANDS = ("blue", "green", "red", "nir")
LAYERS = (*(f"bio{i}" for i in range(1, 20)), *(f"soil{i}" for i in range(1, 9)))
"""The files number the layers and do not name the soil variables."""


def satbird_schema(sites: xr.Dataset) -> Schema:
    """Return the schema of sites from :func:`satbird`: satellite, climate and soil."""
    return described(sites, "satbird")


def satbird(
    folder: str | Path,
    *,
    split: str = "train",
    environment: Environment = "point",
    crop: int = 64,
    threshold: float = 0.0,
    hotspots: Sequence[str] | None = None,
    limit: int | None = None,
    chunks: int | None = None,
) -> xr.Dataset:
    """Read hotspots of one region as sites.

    Parameters
    ----------
    folder : path
        Of one region.
    split : str
        ``"train"``, ``"valid"`` or ``"test"``.
    environment : {"point", "raster"}
        The middle cell of each environmental raster as a scalar, or the rasters as images.
    crop : int
        Rows and columns in the middle of the satellite image; the paper takes 64.
    threshold : float
        A species is present where its encounter rate is above.
    hotspots : sequence of str, optional
        These hotspots, in this order.
    limit : int, optional
        The first hotspots only.
    chunks : int, optional
        Sites per dask chunk of images and rasters, which are then read when needed.

    Returns
    -------
    xarray.Dataset
        ``sentinel2(site, s2_band, row, column)``, reflectance as in the file; ``bio1(site)`` … ``bio19`` and,
        where they are, ``soil1`` … ``soil8``, or ``climate(site, bio_layer, env_row, env_column)`` and
        ``soil``; ``presence(site, species)``, NaN at hotspots without a target. Coordinates ``lon``,
        ``lat``, ``siteid``, ``encounter_rate(site, species)`` and ``checklists``.

    Raises
    ------
    OccurrenceError
        If the split or all images and rasters are not there, or sizes disagree.

    Warns
    -----
    MissingFiles
        With the number of hotspots without an image, raster or target.
    """
    if environment not in get_args(Environment):
        raise OccurrenceError(
            f"environment='{environment}' is unknown; use {get_args(Environment)}"
        )
    root = need_folder(folder)
    path = root / f"{split}_split.csv"
    if not path.is_file():
        raise nothing_found(root, [path.name, "images/", "environmental_data/", "targets/"])
    table = read_csv(path)
    key = column(table, ("hotspot_id", "id"), meaning="the id of a hotspot", path=path)
    table = table.iloc[choose(table[key].to_numpy(), hotspots, limit, name="hotspots")]
    ids = [str(i) for i in table[key]]
    kinds = {"images": ".tif", "environmental_data": ".npy", "targets": ".json"}
    paths = {kind: _paths(root, kind, ids, suffix) for kind, suffix in kinds.items()}
    arrays = _images(paths["images"], crop, chunks)
    arrays |= _environment(paths["environmental_data"], environment, chunks)
    if not arrays:
        raise nothing_found(root, [f"images/{ids[0]}.tif", f"environmental_data/{ids[0]}.npy"])
    names = {
        n: column(table, n, meaning=n[0], path=path)
        for n in (("lon", "longitude"), ("lat", "latitude"))
    }
    coords: dict[str, Any] = {n[0]: ("site", table[c].to_numpy()) for n, c in names.items()}
    coords |= {"siteid": ("site", ids)}
    coords |= {"s2_band": list(BANDS)} if "sentinel2" in arrays else {}
    sites = xr.Dataset(arrays, coords, {"crs": "EPSG:4326", "data_set": "SatBird"})
    _warn(paths, len(ids))
    return _with_targets(sites, root, paths["targets"], threshold=threshold)


def _paths(root: Path, folder: str, ids: Sequence[str], suffix: str) -> list[Path | None]:
    paths = [root / folder / check_component(f"{i}{suffix}") for i in ids]
    return [p if p.is_file() else None for p in paths]


def _warn(paths: dict[str, list[Path | None]], count: int) -> None:
    """Warn about missing files of folders that exist; a missing folder is an intended choice."""
    warn_missing(
        {k: kind_paths.count(None) for k, kind_paths in paths.items() if any(kind_paths)}, count
    )


def _images(paths: Sequence[Path | None], crop: int, chunks: int | None) -> dict[str, Any]:
    if not any(paths):
        return {}
    shape = (len(BANDS), crop, crop)
    values = stack(paths, partial(read_middle, crop=crop), shape, chunks=chunks)
    attrs = {"modality": "satellite", "kind": "image", "long_name": "Sentinel-2 reflectance * 1e4"}
    return {"sentinel2": (("site", "s2_band", "row", "column"), values, attrs)}


def read_middle(path: Path, *, crop: int) -> np.ndarray:
    """Read the middle of an image as ``(4, crop, crop)``; NaN where it is smaller."""
    image = read_image(path)
    if len(image) != len(BANDS):
        raise OccurrenceError(f"{path} has {len(image)} bands, expected {BANDS}")
    out: np.ndarray = np.full((len(BANDS), crop, crop), np.nan, np.float32)
    image_part, crop_part = zip(*(_middle(n, crop) for n in image.shape[1:]))
    out[(slice(None), *crop_part)] = image[(slice(None), *image_part)]
    return out


def _middle(size: int, crop: int) -> tuple[slice, slice]:
    """Return the slice of the middle in an image, and its slice in the crop."""
    length = min(size, crop)
    image_part, crop_part = (size - length) // 2, (crop - length) // 2
    return slice(image_part, image_part + length), slice(crop_part, crop_part + length)


def _environment(
    paths: Sequence[Path | None], environment: Environment, chunks: int | None
) -> dict[str, Any]:
    first = next((p for p in paths if p is not None), None)
    if first is None:
        return {}
    shape = np.load(first).shape
    if len(shape) != 3 or shape[0] not in (19, 27):
        raise OccurrenceError(f"{first} is {shape}, expected 19 or 27 layers of rows and columns")
    homes = {"climate": slice(0, 19), "soil": slice(19, shape[0])}
    homes = {name: part for name, part in homes.items() if part.stop > part.start}
    if environment == "raster":
        values = stack(paths, partial(read_layers, shape=shape), shape, chunks=chunks)
        dims = {"climate": "bio_layer", "soil": "soil_layer"}
        return {
            n: (
                ("site", dims[n], "env_row", "env_column"),
                values[:, p],
                {"modality": n, "kind": "image"},
            )
            for n, p in homes.items()
        }
    points = stack(paths, partial(read_point, shape=shape), shape[:1], chunks=None)
    return {
        LAYERS[k]: ("site", points[:, k], {"modality": home, "kind": "scalar"})
        for home, part in homes.items()
        for k in range(part.start, part.stop)
    }


def read_layers(path: Path, *, shape: tuple[int, int, int]) -> np.ndarray:
    """Read environmental rasters ``(layer, row, column)``."""
    values = np.load(path)
    if values.shape != shape:
        raise OccurrenceError(f"{path} is {values.shape}, expected {shape} as the first")
    return clean(values)


def read_point(path: Path, *, shape: tuple[int, int, int]) -> np.ndarray:
    """Read the middle cell of environmental rasters ``(layer,)``."""
    return read_layers(path, shape=shape)[:, shape[1] // 2, shape[2] // 2]


def _with_targets(
    sites: xr.Dataset, root: Path, paths: Sequence[Path | None], *, threshold: float
) -> xr.Dataset:
    targets = [json.loads(p.read_text(encoding="utf-8")) if p else None for p in paths]
    first = next((t for t in targets if t), None)
    if first is None:
        return sites.assign_attrs(no_presence="there are no targets")
    rates = np.array(
        [t["probs"] if t else np.full(len(first["probs"]), np.nan) for t in targets], np.float32
    )
    lists = [t.get("num_complete_checklists", np.nan) if t else np.nan for t in targets]
    presence = np.where(np.isnan(rates), np.nan, rates > threshold).astype(np.float32)
    sites = sites.assign(presence=(("site", "species"), presence))
    return sites.assign_coords(
        species=_names(root, rates.shape[1]),
        encounter_rate=(("site", "species"), rates),
        checklists=("site", np.array(lists, np.float32)),
    )


def _names(root: Path, count: int) -> list[str]:
    """Return names from ``species_list.txt`` if it exists, since the targets have positions only."""
    path = next(
        (p for p in (root / "species_list.txt", root.parent / "species_list.txt") if p.is_file()),
        None,
    )
    names = path.read_text(encoding="utf-8").split("\n") if path else []
    names = [n.strip() for n in names if n.strip()]
    return names if len(names) == count else [f"species {i}" for i in range(count)]
