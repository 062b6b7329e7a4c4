"""Indexes of tiles: the files of a product that touch a grid, by a table of their bounds or by a VRT."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox

from geomiam.data.grid.source_windows import reach
from geomiam.errors import GeomiamError, SourceError
from geomiam.geo.crs import as_crs
from geomiam.geo.longitude import lonlat_bounds
from geomiam.schema.source import Source, TileIndex
from geomiam.sources.web.allow_list import AllowList, scheme, scrub
from geomiam.sources.web.ranges import open_bytes

if TYPE_CHECKING:
    import pandas as pd

BOUNDS = ("wgs84_west", "wgs84_south", "wgs84_east", "wgs84_north")
PATH = "path"
MARGIN = 0.01
"""Degrees around the bounds of a tile, from which the kernels of resampling read."""
MOST_ROWS = 5_000_000
MOST_XML = 2**27
"""Most bytes of a VRT."""
SHOWN = 12  # values of a column that a message lists


def tiles_under(
    location: str, source: Source, *, box: GeoBox, stamp: Sequence[Any] = ()
) -> list[str]:
    """Return the files of an index that touch a grid, by path or URL, in the order of the index.

    ``location`` is the path or URL of the index, and ``stamp`` the size and time of a local one: an index
    is read once. Raises SourceError if it cannot be read, no tile touches the grid, or a path leads out of
    its folder.
    """
    index = source.index
    assert index is not None
    is_vrt = index.path.lower().endswith(".vrt")
    select = _of_vrt if is_vrt else _of_table
    try:
        names = select(location, source, box, tuple(map(str, stamp)))
    except GeomiamError as error:
        raise SourceError(f"index of source '{source.name}': {scrub(error)}") from None
    except Exception as error:  # parsers raise errors of any type for damaged files
        raise SourceError(
            f"index of source '{source.name}': {scrub(location)} cannot be read: {scrub(error)[:200]}"
        ) from None
    return [_resolved(name, location, index) for name in names]


def _resolved(name: str, location: str, index: TileIndex) -> str:
    """Return the path or URL of a file of an index, which must lie below the folder of the index."""
    start = f"{index.prefix.rstrip('/')}/" if index.prefix else ""
    parts = [p for p in re.split(r"[/\\]", name.removeprefix(start)) if p != "."]
    is_below = name.startswith(start) and not {"", ".."} & set(parts) and ":" not in "".join(parts)
    if not is_below:
        lead = f"'{index.prefix}'" if index.prefix else "its folder"
        raise SourceError(
            f"{scrub(location)} names the file '{scrub(name)[:200]}', which does not lie below {lead}; set "
            "'prefix:' of 'index:' to the start of its paths"
        )
    if scheme(location):
        return "/".join([location.partition("?")[0].rpartition("/")[0], *parts])
    return os.path.join(os.path.dirname(location), *parts)


# a table of bounds --------------------------------------------------------------------------------


def _of_table(location: str, source: Source, box: GeoBox, stamp: tuple[str, ...]) -> list[str]:
    index = source.index
    assert index is not None
    table = _table(location, tuple(index.where), source.hosts, stamp)
    west, south, east, north = (table[c].to_numpy("float64") for c in BOUNDS)
    east = np.where(east < west, east + 360, east)  # across the antimeridian
    under = np.zeros(len(table), bool)
    for w, s, e, n in lonlat_bounds(box):
        rows = (south < n + MARGIN) & (north > s - MARGIN)
        for turn in (0, 360):
            under |= rows & (west < e + turn + MARGIN) & (east > w + turn - MARGIN)
    selected_rows = under & _rows_where(table, index)
    if not selected_rows.any():
        raise SourceError(_no_tile(location, table, under, index))
    return list(dict.fromkeys(table[PATH][selected_rows].astype(str)))


def _rows_where(table: pd.DataFrame, index: TileIndex) -> np.ndarray:
    """Return which rows have the values of ``where:``; numbers are compared as numbers."""
    rows = np.ones(len(table), bool)
    for column, value in index.where.items():
        try:
            rows &= table[column].to_numpy("float64") == float(value)
        except ValueError:  # a column or value of text
            rows &= table[column].astype(str).to_numpy() == str(value)
    return rows


def _no_tile(location: str, table: pd.DataFrame, under: np.ndarray, index: TileIndex) -> str:
    place = f"none of the {len(table):,} tiles of {scrub(location)} touches the grid"
    if not under.any():
        return f"{place}; correct the grid"
    conditions = ", ".join(f"{k}: {v}" for k, v in index.where.items())
    values = [f"{c}: {', '.join(map(str, table[c][under].unique()[:SHOWN]))}" for c in index.where]
    return f"{place} and has {conditions}; tiles that touch it have {'; '.join(values)}"


@lru_cache(maxsize=4)
def _table(
    location: str, columns: tuple[str, ...], hosts: tuple[str, ...], stamp: tuple[str, ...]
) -> pd.DataFrame:
    """Return the columns of a table that are needed; of a file on the web, only their bytes are read."""
    try:
        from pyarrow import parquet
    except ImportError:
        raise SourceError(f"{scrub(location)} is Parquet; pip install 'geomiam[vector]'") from None
    names = list(dict.fromkeys((PATH, *BOUNDS, *columns)))
    with open_bytes(location, _allow_list(hosts)) as stream:
        file = parquet.ParquetFile(stream)
        if missing := [n for n in names if n not in file.schema_arrow.names]:
            columns_in_file = ", ".join(file.schema_arrow.names)
            raise SourceError(
                f"{scrub(location)} has no column '{missing[0]}'; it has {columns_in_file}"
            )
        if file.metadata.num_rows > MOST_ROWS:
            raise SourceError(
                f"{scrub(location)} has {file.metadata.num_rows:,} rows, more than {MOST_ROWS:,}"
            )
        return file.read(columns=names).to_pandas()


def _allow_list(hosts: tuple[str, ...]) -> AllowList:
    return AllowList(tuple(h.lower() for h in hosts), named=True)


# a virtual raster of GDAL -------------------------------------------------------------------------


@dataclass(frozen=True)
class _Mosaic:
    """The files of a VRT, and the columns and rows of its grid that each fills."""

    box: GeoBox
    names: tuple[str, ...]
    spans: np.ndarray  # first and last column, first and last row (n, 4)


def _of_vrt(location: str, source: Source, box: GeoBox, stamp: tuple[str, ...]) -> list[str]:
    mosaic = _vrt(location, source.hosts, stamp)
    left, right, top, bottom = mosaic.spans.T
    under = np.zeros(len(mosaic.names), bool)
    for part in reach(mosaic.box, box):
        rows = (top < part.rows.stop) & (bottom > part.rows.start)
        for cols in part.cols:
            if isinstance(cols, slice):
                under |= rows & (left < cols.stop) & (right > cols.start)
    if not under.any():
        raise SourceError(
            f"none of the {len(mosaic.names):,} tiles of {scrub(location)} touches the grid; correct the grid"
        )
    return [n for n, is_under in zip(mosaic.names, under, strict=True) if is_under]


@lru_cache(maxsize=32)
def _vrt(location: str, hosts: tuple[str, ...], stamp: tuple[str, ...]) -> _Mosaic:
    """Read the grid and the files of a VRT as data: GDAL would open every path in it."""
    with open_bytes(location, _allow_list(hosts)) as stream:
        text = stream.read(MOST_XML + 1)
    if len(text) > MOST_XML or b"<!" in text.replace(b"<!--", b""):
        raise SourceError(
            f"{scrub(location)} is over {MOST_XML:,} bytes, or has definitions (<!), which no VRT needs"
        )
    root = ElementTree.fromstring(text)
    affine = Affine.from_gdal(*map(float, root.findtext("GeoTransform", "").split(",")))
    shape = int(root.attrib["rasterYSize"]), int(root.attrib["rasterXSize"])
    crs = as_crs(root.findtext("SRS", ""), f"SRS of {scrub(location)}")
    bands = [_files(band) for band in root.iter("VRTRasterBand")]
    if not bands or not bands[0] or any(b != bands[0] for b in bands):
        raise SourceError(
            f"{scrub(location)} has no files, or others in each band; name the files by 'path:'"
        )
    spans = np.array(list(bands[0].values()), "float64")
    return _Mosaic(GeoBox(shape, affine, crs), tuple(bands[0]), spans)


def _files(band: ElementTree.Element) -> dict[str, tuple[float, ...]]:
    """Return the spans of columns and rows of a band of a VRT by the file that fills them."""
    files: dict[str, tuple[float, ...]] = {}
    for entry in band:
        name, place = entry.findtext("SourceFilename"), entry.find("DstRect")
        if name is not None and place is not None:
            x, y, width, height = (
                float(place.attrib[k]) for k in ("xOff", "yOff", "xSize", "ySize")
            )
            left, right, top, bottom = files.get(name, (x, x, y, y))  # a file may fill two spans
            files[name] = (
                min(left, x),
                max(right, x + width),
                min(top, y),
                max(bottom, y + height),
            )
    return files
