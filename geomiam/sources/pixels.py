"""The pixels of one GeoTIFF, read where they are sliced, with its mask and what lies beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geomiam.cube.packing import Packing
from geomiam.errors import SourceError
from geomiam.sources.catalogue import scheme, scrub
from geomiam.sources.load import gdal

TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
RASTERS_BESIDE = (".msk", ".MSK", ".ovr", ".OVR")
MOST_XML = 50_000_000
"""Bytes of an ``.aux.xml``: histograms of many bands take some."""


class NotThere(SourceError):
    """A file is missing; of tiles that is no error, as there are none over the sea."""


@dataclass(frozen=True)
class Pixels:
    """A GeoTIFF as an array ``(band, y, x)`` of float32 that is read where it is sliced.

    Attributes
    ----------
    path
        A file or a URL.
    bands
        Numbers of its bands, from 1.
    grid
        Rows and columns.
    overview
        The overview that is read, from 0; None for full resolution.
    packings
        How the numbers of each band are packed.
    masked
        Whether the file has a mask: inside, as ``.msk`` beside it, or an alpha band.
    stamp
        What changes when the file does.
    """

    path: str
    bands: tuple[int, ...]
    grid: tuple[int, int]
    overview: int | None
    packings: tuple[Packing, ...]
    masked: bool
    stamp: tuple[Any, ...]
    dtype = np.dtype("float32")
    ndim = 3

    @property
    def shape(self) -> tuple[int, int, int]:
        """Bands, rows, columns."""
        return (len(self.bands), *self.grid)

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return (self.path, self.bands, self.overview, self.packings, self.masked, self.stamp)

    def __getitem__(self, key: tuple[slice, slice, slice]) -> np.ndarray:
        from rasterio.windows import Window

        (b, r, c) = (range(n)[k] for k, n in zip(key, self.shape, strict=True))
        if not (len(b) and len(r) and len(c)):
            return np.empty((len(b), len(r), len(c)), self.dtype)
        raw, hidden = self._read(
            [self.bands[i] for i in b], Window(c.start, r.start, len(c), len(r))
        )
        out = np.stack([self.packings[i].decode(plane) for i, plane in zip(b, raw, strict=True)])
        return out if hidden is None else np.where(hidden, np.float32(np.nan), out)

    def _read(self, bands: list[int], window: Any) -> tuple[np.ndarray, np.ndarray | None]:
        """Packed numbers, and where the mask of the file hides them."""
        from rasterio.errors import RasterioError

        try:
            with reading(self.path), opened(self.path, self.overview) as file:
                hidden = file.read_masks(bands, window=window) == 0 if self.masked else None
                return file.read(bands, window=window), hidden
        except RasterioError as error:
            raise SourceError(
                f"{scrub(self.path)} cannot be read to its end: {scrub(error)[:200]}; fetch it again "
                "and build with the same arguments; complete parts are kept"
            ) from None


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Set GDAL's options for a file: beside local ones it looks for ``.aux.xml``, ``.msk``, ``.tfw``.

    Over a network each look is a request, so that there only the file itself counts.

    Raises
    ------
    SourceError
        When a raster beside the file is none, or refers to another file.
    """
    import rasterio

    with gdal():
        if scheme(path):
            yield
            return
        _check_beside(path)
        option = "GDAL_DISABLE_READDIR_ON_OPEN"
        with rasterio.Env(**({} if option in os.environ else {option: "FALSE"})):
            yield


def _check_beside(path: str) -> None:
    """GDAL opens files beside a GeoTIFF by any driver; some drivers read from anywhere."""
    for suffix in RASTERS_BESIDE:
        beside = Path(path + suffix)
        if not beside.is_file():
            continue
        with beside.open("rb") as file:
            if file.read(4) not in TIFF:
                raise SourceError(f"{beside} is no GeoTIFF; remove it, as GDAL would read it too")
    xml = Path(path + ".aux.xml")
    if not xml.is_file():
        return
    if xml.stat().st_size > MOST_XML or b"OVERVIEW_FILE" in xml.read_bytes():
        raise SourceError(
            f"{xml} is over {MOST_XML:,} bytes, or refers to overviews in another file; remove it"
        )


def opened(path: str, overview: int | None = None) -> Any:
    """Open a GeoTIFF, by no other driver.

    Raises
    ------
    SourceError
        When it is not there or is no GeoTIFF.
    """
    import rasterio

    level = {} if overview is None else {"overview_level": overview}
    if not scheme(path) and not Path(path).is_file():
        raise NotThere(f"{path} is not there; download it, or set 'root:' to where it is")
    try:
        return rasterio.open(path, driver="GTiff", sharing=False, **level)
    except rasterio.errors.RasterioError as error:
        kind = NotThere if "404" in str(error) else SourceError
        level_said = "" if overview is None else f" at overview {overview}"
        raise kind(
            f"{scrub(path)} cannot be read as GeoTIFF{level_said}: {scrub(error)[:200]}"
        ) from None
