"""Maps as cloud-optimised GeoTIFF: one band per species, and per species and group for an explanation."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from geomiam._version import __version__
from geomiam.checks.names import list_names
from geomiam.data.grid.grid import geobox, spatial_dims
from geomiam.errors import GridError, OutputRefused, SelectionError
from geomiam.inference.outside import OUTSIDE

SUFFIXES = (".tif", ".tiff")
TILE = 256
MOST_BANDS = 65_535
"""Limit of the TIFF format, whose number of samples has 16 bits."""
MAIN = ("suitability", "shapley")
"""Layers of a map for people, whose bands need no name of a layer."""
REQUESTED = (
    *("spread", "shapley_spread", "prediction_set"),
    *("main_effect", "interaction"),
    *("dissimilarity", "inside", "point_density", "mess", "most_dissimilar"),
    *("exdet", "most_influential", "value_of_information"),
)
"""Layers that a map has only on request: they are written too. Others are written if they are named."""
LABELS = ("combination", "group", "species")
"""Dims beyond place of the layers of a map, which the tags of a band have."""
COPIED = ("tiled", "blockxsize", "blockysize", "compress", "predictor", "interleave", "bigtiff")


@dataclass(frozen=True)
class Band:
    """One band: a layer with one label along each dim beyond place."""

    variable: str
    labels: dict[str, str]
    index: dict[str, int]
    is_main: bool  # a layer that needs no name beside its labels

    @property
    def name(self) -> str:
        """Name of the species, of the group for a Shapley value, and of the layer for other layers."""
        words = [*self.labels.values()]
        if not self.is_main or not words:
            words = [*words, self.variable] if "species" in self.labels else [self.variable, *words]
        return ": ".join(words)


def is_geotiff(path: str | Path) -> bool:
    """Return whether the name of an output is that of a GeoTIFF."""
    return Path(path).suffix.lower() in SUFFIXES


def layers_of(maps: xr.Dataset, layers: Sequence[str] | None = None) -> list[str]:
    """Return the names of layers to write: those of the caller, or of :data:`MAIN` and :data:`REQUESTED`, or all."""
    place = set(spatial_dims(maps))
    on_grid = [str(n) for n, v in maps.data_vars.items() if place <= set(v.dims)]
    if layers is not None:
        if unknown := [n for n in layers if n not in on_grid]:
            raise SelectionError(f"no layer '{unknown[0]}'; there are {list_names(on_grid)}")
        return list(dict.fromkeys(layers))
    if not on_grid:
        raise GridError("the maps have no layer on their grid; pass the maps of gm.predict")
    return [n for n in (*MAIN, *REQUESTED) if n in on_grid] if "suitability" in on_grid else on_grid


def bands_of(maps: xr.Dataset, layers: Sequence[str] | None = None) -> list[Band]:
    """Return the bands in order: the layers of each species, followed by layers without species."""
    names = layers_of(maps, layers)
    by_species = [n for n in names if "species" in maps[n].dims]
    bands = []
    for number in range(maps.sizes["species"] if by_species else 0):
        for name in by_species:
            bands += _bands(maps, name, {"species": number}, is_only=len(names) == 1)
    for name in (n for n in names if n not in by_species):
        bands += _bands(maps, name, {}, is_only=False)
    return bands


def _bands(maps: xr.Dataset, name: str, fixed: dict[str, int], *, is_only: bool) -> list[Band]:
    place = spatial_dims(maps)
    dims = [str(d) for d in maps[name].dims if d not in place and d not in fixed]
    is_main = is_only or name in MAIN
    bands = []
    for numbers in itertools.product(*(range(maps.sizes[d]) for d in dims)):
        index = {**fixed, **dict(zip(dims, numbers, strict=True))}
        labels = {
            d: str(maps[d].values[i]) if d in maps.coords else str(i) for d, i in index.items()
        }
        bands.append(Band(name, labels, index, is_main))
    return bands


def check_grid(ds: xr.Dataset) -> None:
    """Refuse data that a GeoTIFF cannot hold."""
    if "site" in ds.dims:
        raise GridError("sites have no grid; write them to a Zarr store, such as --out map.zarr")
    geobox(ds)


def write_geotiff(
    maps: xr.Dataset,
    path: Path,
    *,
    layers: Sequence[str] | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> None:
    """Write a cloud-optimised GeoTIFF block by block, with overviews of half the size each."""
    import rasterio
    import rasterio.shutil
    from rasterio.enums import Resampling

    maps = north_up(maps)
    bands = bands_of(maps, layers)
    if len(bands) > MOST_BANDS:
        raise OutputRefused(
            f"{len(bands):,} bands exceed the limit of a TIFF, {MOST_BANDS:,}; pass fewer species=, or "
            "write a Zarr store"
        )
    box = geobox(maps)
    plain = path.with_name(f"{path.name}.plain")
    profile = _profile(box, len(bands))
    names = {b.variable for b in bands}
    try:
        with rasterio.open(plain, "w", **profile) as file:
            file.update_tags(**_tags(maps), **{k: str(v) for k, v in (attrs or {}).items()})
            for number, band in enumerate(bands, 1):
                file.set_band_description(number, band.name)
                file.update_tags(number, variable=band.variable, **band.labels)
            for window, arrays in _blocks(maps, names):
                for number, band in enumerate(bands, 1):
                    layer = arrays[band.variable].isel(band.index).values
                    file.write(np.asarray(layer, np.float32), number, window=window)
        if factors := _factors(box.shape.yx):
            kinds = {is_classes(maps[n]) for n in names}
            method = Resampling.average if kinds == {False} else Resampling.nearest
            with (
                rasterio.Env(GDAL_TIFF_OVR_BLOCKSIZE=str(TILE)),
                rasterio.open(plain, "r+") as file,
            ):
                file.build_overviews(factors, method)
        # A copy with its overviews has the order of a cloud-optimised GeoTIFF: headers, overviews, cells.
        options = {k: profile[k] for k in COPIED}
        rasterio.shutil.copy(plain, path, driver="GTiff", copy_src_overviews=True, **options)
    finally:
        plain.unlink(missing_ok=True)


def _factors(shape: Sequence[int]) -> list[int]:
    """Return factors of overviews, until one tile holds the map."""
    factors = [2]
    while max(shape) > TILE * factors[-1]:
        factors.append(2 * factors[-1])
    return factors if max(shape) > TILE else []


def is_classes(array: xr.DataArray) -> bool:
    """Return whether a layer has classes, whose codes have no average."""
    return "flag_values" in array.attrs or array.attrs.get("kind") == "categorical"


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
        "predictor": 3,  # of differences of floats
        "interleave": "band",
        "bigtiff": "if_safer",
    }


def _tags(maps: xr.Dataset) -> dict[str, str]:
    tags = {"TIFFTAG_SOFTWARE": f"geomiam {__version__}"}
    tags |= {k: str(maps.attrs[k]) for k in ("model_id", "groups", "method") if k in maps.attrs}
    if "scale" in getattr(maps.get("suitability"), "attrs", {}):
        tags["scale"] = str(maps["suitability"].attrs["scale"])
    if OUTSIDE in maps:  # bands are species and groups; a Zarr map has the share per cell
        tags[f"{OUTSIDE}_mean"] = f"{float(maps[OUTSIDE].mean()):.4f}"
        tags[f"{OUTSIDE}_cells"] = f"{float((maps[OUTSIDE] > 0).mean()):.4f}"
    if "base_value" in maps:
        values = zip(maps["species"].values, maps["base_value"].values)
        tags["base_value"] = json.dumps({str(s): float(v) for s, v in values})
    return tags


def north_up(maps: xr.Dataset) -> xr.Dataset:
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
    chunks = maps[sorted(names)[-1]].encoding.get("preferred_chunks", {})
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
    names = dict.fromkeys(t["variable"] for t in tags)
    return xr.Dataset({name: _layer(stack, tags, name) for name in names})


def _layer(stack: xr.DataArray, tags: Sequence[Mapping[str, str]], name: str) -> xr.DataArray:
    """Return the bands of a layer, with dims of the labels in their tags."""
    bands = [i for i, t in enumerate(tags) if t["variable"] == name]
    dims = [d for d in LABELS if d in tags[bands[0]]]
    labels = {d: list(dict.fromkeys(tags[i][d] for i in bands)) for d in dims}
    at = {tuple(tags[i][d] for d in dims): i for i in bands}
    numbers = [at[key] for key in itertools.product(*labels.values())]
    index = np.reshape(numbers, [len(v) for v in labels.values()])
    return stack.isel(band=xr.DataArray(index, dims=dims, coords=labels))
