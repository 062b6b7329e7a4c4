"""Maps as GeoTIFF: one band per species, and per species and group for an explanation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from geomiam._version import __version__
from geomiam.data.grid.grid import geobox, spatial_dims
from geomiam.errors import GridError, OutputRefused
from geomiam.inference.outside import OUTSIDE

SUFFIXES = (".tif", ".tiff")
TILE = 256
MOST_BANDS = 65_535
"""Limit of the TIFF format, whose number of samples has 16 bits."""


@dataclass(frozen=True)
class Band:
    """One band: a layer of the map with its labels."""

    variable: str
    labels: dict[str, str]

    @property
    def name(self) -> str:
        """Name of the species, and of the group for a Shapley value."""
        return ": ".join(self.labels[d] for d in ("species", "group") if d in self.labels)


def is_geotiff(path: str | Path) -> bool:
    """Return whether the name of an output is that of a GeoTIFF."""
    return Path(path).suffix.lower() in SUFFIXES


def bands_of(maps: xr.Dataset) -> list[Band]:
    """Return the bands in order: the suitability of each species, followed by its Shapley values."""
    bands = []
    for species in map(str, maps["species"].values):
        bands.append(Band("suitability", {"species": species}))
        for group in map(str, maps["group"].values) if "shapley" in maps else ():
            bands.append(Band("shapley", {"species": species, "group": group}))
    return bands


def check_grid(ds: xr.Dataset) -> None:
    """Refuse data that a GeoTIFF cannot hold."""
    if "site" in ds.dims:
        raise GridError("sites have no grid; write them to a Zarr store, such as --out map.zarr")
    geobox(ds)


def write_geotiff(maps: xr.Dataset, path: Path) -> None:
    """Write a map block by block."""
    import rasterio

    maps, bands = _north_up(maps), bands_of(maps)
    if len(bands) > MOST_BANDS:
        raise OutputRefused(
            f"{len(bands):,} bands exceed the limit of a TIFF, {MOST_BANDS:,}; pass fewer species=, or "
            "write a Zarr store"
        )
    box = geobox(maps)
    with rasterio.open(path, "w", **_profile(box, len(bands))) as file:
        file.update_tags(**_tags(maps))
        for number, band in enumerate(bands, 1):
            file.set_band_description(number, band.name)
            file.update_tags(number, variable=band.variable, **band.labels)
        for window, arrays in _blocks(maps, {b.variable for b in bands}):
            for number, band in enumerate(bands, 1):
                layer = arrays[band.variable].sel(band.labels).values
                file.write(np.asarray(layer, np.float32), number, window=window)


def _profile(box: Any, count: int) -> dict[str, Any]:
    height, width = box.shape.yx
    return {
        "driver": "GTiff",
        "height": height,
        "width": width,
        "count": count,
        "dtype": "float32",
        "crs": box.crs.to_wkt(),
        "transform": box.affine,
        "nodata": np.nan,
        "tiled": True,
        "blockxsize": TILE,
        "blockysize": TILE,
        "compress": "deflate",
        "interleave": "band",
        "bigtiff": "if_safer",
    }


def _tags(maps: xr.Dataset) -> dict[str, str]:
    tags = {"TIFFTAG_SOFTWARE": f"geomiam {__version__}"}
    tags |= {k: str(maps.attrs[k]) for k in ("model_id", "groups", "method") if k in maps.attrs}
    if "scale" in maps["suitability"].attrs:
        tags["scale"] = str(maps["suitability"].attrs["scale"])
    if OUTSIDE in maps:  # bands are species and groups; a Zarr map has the share per cell
        tags[f"{OUTSIDE}_mean"] = f"{float(maps[OUTSIDE].mean()):.4f}"
        tags[f"{OUTSIDE}_cells"] = f"{float((maps[OUTSIDE] > 0).mean()):.4f}"
    if "base_value" in maps:
        values = zip(maps["species"].values, maps["base_value"].values)
        tags["base_value"] = json.dumps({str(s): float(v) for s, v in values})
    return tags


def _north_up(maps: xr.Dataset) -> xr.Dataset:
    """Return rows from north to south and columns from west to east, as other programs expect."""
    affine = geobox(maps).affine
    y, x = spatial_dims(maps)
    if affine.e > 0:
        maps = maps.isel({y: slice(None, None, -1)})
    return maps.isel({x: slice(None, None, -1)}) if affine.a < 0 else maps


def _blocks(maps: xr.Dataset, names: set[str]) -> Iterator[tuple[Any, dict[str, xr.DataArray]]]:
    """Yield windows of the file with their layers; one window is in memory at a time."""
    from rasterio.windows import Window

    y, x = spatial_dims(maps)
    chunks = maps["suitability"].encoding.get("preferred_chunks", {})
    rows, columns = (max(TILE, int(chunks.get(d, TILE))) for d in (y, x))
    for top in range(0, maps.sizes[y], rows):
        for left in range(0, maps.sizes[x], columns):
            part = maps.isel({y: slice(top, top + rows), x: slice(left, left + columns)})
            window = Window(left, top, part.sizes[x], part.sizes[y])
            yield window, {n: part[n].load().transpose(..., y, x) for n in names}


def open_geotiff(path: str | Path) -> xr.Dataset:
    """Open a map written by :func:`write_geotiff` lazily, with its labels."""
    import rasterio
    import rioxarray

    with rasterio.open(path) as file:
        tags = [file.tags(number) for number in file.indexes]
    stack = rioxarray.open_rasterio(path, chunks={})
    assert isinstance(stack, xr.DataArray)
    stack = stack.drop_vars("band")
    stack.attrs = {}
    species = list(dict.fromkeys(t["species"] for t in tags))
    groups = list(dict.fromkeys(t["group"] for t in tags if "group" in t))
    at = {(t["variable"], t["species"], t.get("group")): i for i, t in enumerate(tags)}
    layer = stack.isel(band=[at["suitability", s, None] for s in species])
    layers = {"suitability": layer.rename(band="species")}
    if groups:
        parts = [stack.isel(band=[at["shapley", s, g] for s in species]) for g in groups]
        layers["shapley"] = xr.concat(parts, "group").rename(band="species")
    labels = {"species": species, **({"group": groups} if groups else {})}
    return xr.Dataset(layers).assign_coords(labels)
