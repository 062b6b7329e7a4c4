"""Images, series and rasters of the GeoLifeCLEF challenges of 2022 and 2023."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from geomiam_bench.readers.files import (
    clean,
    column,
    read_csv,
    read_image,
    stack,
    walk,
    warn_missing,
)
from geomiam_bench.readers.geoplant import BANDS, read_patch
from geomiam_bench.readers.survey_files import image_of

HOMES = {
    "human": "human",
    "bio": "climate",
    "clim": "climate",
    "soil": "soil",
    "elev": "topography",
}
STORED: dict[str, dict[str, Any]] = {
    "sentinel2": {"modality": "satellite", "kind": "image"},
    "landsat": {"modality": "time_series", "kind": "series", "window": 4},
    "lights2009": {"modality": "human", "kind": "scalar"},
    "built2009": {"modality": "human", "kind": "scalar"},
}
"""Variables of the Zarr store of the 2023 sample."""

Made = dict[str, Any]


def made_2022(root: Path, table: pd.DataFrame, chunks: int | None) -> Made:
    """Patches of colours, near infrared, altitude and land cover."""
    kinds = {"rgb": "_rgb", "nir": "_near_ir", "altitude": "_altitude", "landcover": "_landcover"}
    digit_folders = walk(root)[1]
    paths = {k: _images(digit_folders, table["siteid"], end) for k, end in kinds.items()}
    arrays = _sentinel2(paths, chunks)
    if any(paths["altitude"]):
        read, shape = read_altitude, read_altitude(next(filter(None, paths["altitude"]))).shape
        attrs = {"modality": "topography", "kind": "image", "units": "m"}
        values = stack(paths["altitude"], read, shape, chunks=chunks)
        arrays["altitude"] = (("site", "row", "column"), values, attrs)
    if any(paths["landcover"]):
        attrs = {"modality": "land_cover", "kind": "categorical"}
        arrays["landcover"] = (
            "site",
            stack(paths["landcover"], read_class, (), chunks=None),
            attrs,
        )
    warn_missing({k: p.count(None) for k, p in paths.items() if any(p)}, len(table))
    return arrays


def made_2023(root: Path, table: pd.DataFrame, chunks: int | None) -> Made:
    """Patches, Landsat series and rasters, or all of them from one store."""
    if store := store_of(root):
        return _made_of_store(store, table, chunks)
    files, digit_folders = walk(root)
    folders_by_kind = {
        kind: [f for f in digit_folders if kind in str(f.relative_to(root)).lower()]
        for kind in ("rgb", "nir")
    }
    paths = {
        kind: _images(folders, table["patchID"], "") for kind, folders in folders_by_kind.items()
    }
    arrays = _sentinel2(paths, chunks) | _landsat(files, table)
    for path in (p for p in files if p.suffix.lower() in (".tif", ".tiff")):
        attrs = {"modality": _home(path.relative_to(root)), "kind": "scalar"}
        arrays[path.stem] = ("site", _sampled(path, table), attrs)
    warn_missing({k: p.count(None) for k, p in paths.items() if any(p)}, len(table))
    return arrays


def _made_of_store(store: Path, table: pd.DataFrame, chunks: int | None) -> Made:
    names = {
        "obs": "site",
        "ls_band": "landsat_band",
        "time": "quarter",
        "py": "row",
        "px": "column",
    }
    store_data = xr.open_zarr(store, consolidated=False, chunks=None if chunks is None else {})
    selected_data = store_data.rename({k: v for k, v in names.items() if k in store_data.dims})
    selected_data = selected_data.isel(site=table["row"].to_numpy())
    selected_data = selected_data.sel(s2_band=list(BANDS[:4]), landsat_band=list(BANDS))
    selected_data = selected_data if chunks is None else selected_data.chunk(site=chunks)
    arrays = {}
    for name, attributes in STORED.items():
        array = selected_data[name].transpose("site", ...).astype(np.float32)
        store_attrs = {k: array.attrs[k] for k in ("units", "long_name") if k in array.attrs}
        arrays[name] = (array.dims, array.data, store_attrs | attributes)
    return arrays


def _images(digit_folders: Sequence[Path], ids: pd.Series, end: str) -> list[Path | None]:
    return [image_of(digit_folders, str(i), end=end) for i in ids]


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
    series_paths = {
        b: next((p for p in files if p.name == f"time_series_{b}.csv"), None) for b in BANDS
    }
    if not any(series_paths.values()):
        return {}
    values: np.ndarray = np.full((len(table), len(BANDS), 84), np.nan, np.float32)
    quarters = [f"{y}_{q}" for y in range(2000, 2021) for q in range(1, 5)]
    for band, path in enumerate(series_paths.values()):
        if path is not None:
            series = read_csv(path)
            key = column(
                series, ("timeSerieID", "time_series_id", "id"), meaning="the series", path=path
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


def store_of(root: Path) -> Path | None:
    """The Zarr store of the 2023 sample, if there is one."""
    if root.suffix == ".zarr":
        return root
    return next(iter(sorted(root.glob("glc23*.zarr"))), None)


MAKERS: dict[int, Callable[[Path, pd.DataFrame, int | None], Made]] = {
    2022: made_2022,
    2023: made_2023,
}
