"""Layers of raster files that no catalog describes: bands of GeoTIFFs, variables of NetCDF and Zarr."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError
from rasterio.windows import Window

from geomiam.data.kinds import Guess, guess_kind, sample_values
from geomiam.data.predictors import own_dims
from geomiam.errors import DoubtfulSource, GridError, InputNotFound, SourceError, warn
from geomiam.geo.crs import as_crs
from geomiam.geo.dims import on_place
from geomiam.outputs.paths import expand, is_remote
from geomiam.schema.source import Source
from geomiam.schema.variable import Variable
from geomiam.sources.rasters.formats import format_of
from geomiam.sources.rasters.geotiff import open_geotiff
from geomiam.sources.references.documents import SUFFIXES, is_references
from geomiam.sources.web.allow_list import scrub

KINDS_OF_FILES = {
    **dict.fromkeys((".tif", ".tiff"), "raster"),
    **dict.fromkeys((".nc", ".nc4", ".cdf"), "netcdf"),
    ".zarr": "zarr",
}
"""Kind of source by suffix."""
USUAL_NODATA = (-9999, -32768, -99999, -2147483648)
"""Values by which programs mark missing cells; all below -1e30 are marks too."""
SIDE = 32
"""Cells per side of a window in which they are looked for."""
OTHER_RASTERS = (".asc", ".vrt", ".img", ".grd", ".jp2", ".bil", ".hdf", ".grib", ".adf", ".flt")
"""Suffixes of rasters that are not read."""


@dataclass(frozen=True)
class Layer:
    """One predictor in files that no catalog describes.

    ``array`` is lazy and on the grid of the files; ``label`` is the name that the layers of the files share.
    """

    name: str
    label: str
    source: Source  # with the options for reading this layer
    array: xr.DataArray
    is_only: bool  # the files have no other layer
    is_integer: bool  # as the files store it

    @property
    def paths(self) -> list[str]:
        """The files, absolute, or URLs."""
        return list(self.source.path or ())

    def renamed(self, name: str) -> Layer:
        """Return the layer under another name."""
        return replace(self, name=name, array=self.array.rename(name))

    def guess(self) -> Guess:
        """Return the inferred kind; of integers from a sample, since readers return float32."""
        array = self.array
        if self.is_integer and not own_dims(array):
            values = sample_values(array).values.astype("float32")
            values = np.pad(values, (0, -len(values) % 64), constant_values=np.nan)
            sample = xr.DataArray(values.reshape(64, -1), dims=("y", "x"), name=self.name)
            sample.attrs = array.attrs
            sample.encoding = dict(array.encoding)
            array = sample
        return guess_kind(array)


def kind_of_file(path: str | Path) -> str | None:
    """Return the kind of source of a file by its suffix, or None."""
    return KINDS_OF_FILES.get(Path(str(path)).suffix.lower())


def files_in(path: str | Path) -> list[str]:
    """Return the rasters of a folder or a pattern, in order; a single file is returned as it is."""
    text = expand(path)
    is_store = bool(kind_of_file(text)) and os.path.isdir(text)
    if is_remote(text) or os.path.isfile(text) or is_store:
        return [text]
    if is_references(text) and not glob.has_magic(text):
        return [text]
    if os.path.isdir(text):
        entries = [os.path.join(text, name) for name in sorted(os.listdir(text))]
    elif glob.has_magic(text):
        entries = sorted(glob.glob(text, recursive=True))
    else:
        raise InputNotFound(f"no file or folder at {text}; correct the path")
    entries = [e for e in entries if not os.path.basename(e).startswith(".")]
    # A folder may have other JSON files, such as items of a STAC catalog.
    is_file = is_references if Path(text).suffix.lower() in SUFFIXES else kind_of_file
    if files := [e for e in entries if is_file(e)]:
        return files
    unread_files = [e for e in entries if e.lower().endswith(OTHER_RASTERS)]
    if unread_files:
        name = os.path.basename(unread_files[0])
        raise InputNotFound(
            f"{text} has no GeoTIFF, NetCDF or Zarr, but {name}, which is not read; convert it, e.g. "
            f"gdal_translate {name} {Path(name).stem}.tif"
        )
    raise InputNotFound(
        f"{text} has no GeoTIFF (.tif), NetCDF (.nc) or Zarr (.zarr); for files in folders below it, pass a "
        "pattern such as 'folder/**/*.tif'"
    )


def layers_of(
    paths: Sequence[str],
    label: str,
    *,
    crs: str | None,
    kinds: Mapping[str, str],
    allow: Sequence[str] = (),
) -> Iterator[Layer]:
    """Yield the layers of files that together cover an area.

    ``crs`` is that of files without one; ``allow`` are folders and URLs that references may lead to.
    """
    for path in paths:
        if "{" in path or "}" in path:
            raise SourceError(f"{path} has a brace in its path; rename the file or its folder")
        if not is_remote(path) and not os.path.exists(path):
            raise InputNotFound(f"no file at {path}; correct the path")
    kinds_of_paths = ["zarr" if is_references(p) else kind_of_file(p) for p in paths]
    kind = kinds_of_paths[0]
    if kind is None or any(k != kind for k in kinds_of_paths):
        raise SourceError(
            f"{label}: files such as {scrub(paths[0])} are not read; pass GeoTIFF (.tif), NetCDF (.nc) or Zarr "
            "(.zarr), kerchunk references (.json, .parq), and files of one format for one layer"
        )
    absolute = tuple(p if is_remote(p) else os.path.abspath(p) for p in paths)
    options: dict[str, Any] = {"name": label, "kind": kind, "path": absolute}
    if allow and is_references(paths[0]):
        options["allow"] = tuple(allow)
    if kind == "raster":
        yield from _bands(options, label, crs=crs, kinds=kinds)
    else:
        yield from _variables(options, label, crs=crs, kinds=kinds)


def _bands(
    options: dict[str, Any], label: str, *, crs: str | None, kinds: Mapping[str, str]
) -> Iterator[Layer]:
    path = options["path"][0]
    with open_geotiff(path) as file:
        descriptions, dtypes = list(file.descriptions), list(map(np.dtype, file.dtypes))
        if file.crs is None and crs is not None:
            _check_degrees(file.bounds, crs, path)
            options["crs"] = crs
    names = [_plain(d) if d else "" for d in descriptions]
    if len(names) == 1:
        names = [label]
    elif not all(names) or len(set(names)) < len(names):
        names = [f"{label}_{number}" for number in range(1, len(names) + 1)]
    for number, name in enumerate(names, 1):
        source = Source(**options, band=number)
        array = _read(source, name, kinds.get(name))
        array.encoding["source"] = path  # colour tables and class names are read from it
        is_integer = dtypes[number - 1].kind in "iu"
        yield Layer(name, label, source, array, len(names) == 1, is_integer)
    if not is_remote(path):
        _warn_of_unstated_nodata(path)


def _check_degrees(bounds: Any, crs: str, path: str) -> None:
    """Refuse coordinates that are degrees in a projected CRS, where they would be a few metres."""
    is_degrees = max(map(abs, bounds[::2])) <= 360 and max(map(abs, bounds[1::2])) <= 90
    if is_degrees and as_crs(crs, "crs=").projected:
        west, south, east, north = bounds
        raise SourceError(
            f"{path} has no CRS, so that its coordinates count as those of crs={crs}; but x {west:g} to {east:g} and "
            f"y {south:g} to {north:g} are degrees: write its CRS into the file, rio edit-info --crs EPSG:4326 {path}"
        )


def _warn_of_unstated_nodata(path: str) -> None:
    """Warn if a file that states no nodata value has a usual one, in nine windows of its bands."""
    with open_geotiff(path) as file, suppress(RasterioError):  # damage is reported by the reader
        bands = [b for b, f in enumerate(file.mask_flag_enums, 1) if MaskFlags.all_valid in f]
        rows, cols = ({0, max(0, n - SIDE) // 2, max(0, n - SIDE)} for n in file.shape)
        windows = [Window(col, row, SIDE, SIDE) for row, col in product(rows, cols)]
        for band in bands:
            low = min(np.fmin.reduce(file.read(band, window=w), axis=None) for w in windows)
            if low in USUAL_NODATA or low < -1e30:
                warn(
                    f"{path} states no nodata value, but has cells of {low:g}, which count as data; if they are "
                    f"missing, write it into the file: rio edit-info --nodata {low:.9g} {path}",
                    DoubtfulSource,
                )
                return


def _variables(
    options: dict[str, Any], label: str, *, crs: str | None, kinds: Mapping[str, str]
) -> Iterator[Layer]:
    reader: Any = format_of(Source(**options))
    path = options["path"][0]
    ds = reader.dataset(path, Source(**options))
    names = [str(n) for n in on_place(ds) if ds[n].dtype.kind in "iuf"]
    if not names:
        raise SourceError(
            f"{scrub(path)} has no variable on a grid; it has {', '.join(map(str, ds.variables))}"
        )
    for inside in names:
        name = label if len(names) == 1 and inside.startswith("__") else _plain(inside)
        source = Source(**options, variable=inside, select=_single_labels(ds[inside]))
        try:
            array = _read(source, name, kinds.get(name))
        except (SourceError, GridError) as error:
            if crs is None or "no CRS" not in str(error):
                raise
            source = Source(**options, variable=inside, select=source.select, crs=crs)
            array = _read(source, name, kinds.get(name))
        is_packed = bool({"scale_factor", "add_offset"} & set(ds[inside].attrs))
        is_integer = ds[inside].dtype.kind in "iu" and not is_packed
        yield Layer(name, label, source, array, len(names) == 1, is_integer)


def _read(source: Source, name: str, kind: str | None) -> xr.DataArray:
    """Return a layer on the grid of its files; of tiles on several grids, the first."""
    variable = Variable(name=name, kind="categorical" if kind == "categorical" else "scalar")
    try:
        arrays, _ = format_of(source).read(
            list(source.path or ()), source, variable=variable, lenient=False
        )
    except SourceError as error:
        # the remedy of a build is a key of its catalog
        text = str(error).replace("add 'crs:' to its source, e.g. crs: EPSG:4326", "")
        if text == str(error):
            raise
        raise SourceError(
            f"{text}pass crs= with the CRS of the file, e.g. crs='EPSG:4326'"
        ) from None
    return arrays[0].rename(name).copy(deep=False)


def _single_labels(array: xr.DataArray) -> dict[str, Any]:
    """Return the label of each dim beyond place that has one step, which is dropped."""
    labels: dict[str, Any] = {}
    for dim in own_dims(array):
        if array.sizes[dim] == 1 and dim in array.coords and array[dim].dtype.kind in "iuf":
            labels[dim] = array[dim].values[0].item()
        elif array.sizes[dim] == 1 and dim in array.coords and array[dim].dtype.kind == "M":
            labels[dim] = str(array[dim].values[0])
    return labels


def _plain(name: str) -> str:
    """Return a name without path separators, which the name of a predictor cannot have."""
    return re.sub(r"[/\\]", "_", name.strip()) or "layer"
