"""The pixels of one GeoTIFF, read when they are sliced, with its mask and the files beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geomiam.data.values.packing import Packing
from geomiam.errors import SourceError
from geomiam.sources.web.allow_list import AllowList, scheme, scrub
from geomiam.sources.web.ranges import Access, gdal
from geomiam.sources.web.requests import NoResponse

TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
RASTERS_BESIDE = (".msk", ".MSK", ".ovr", ".OVR")
MOST_XML = 50_000_000
"""Most bytes of an ``.aux.xml``, which may have histograms of many bands."""


class FileMissing(SourceError):
    """A file is missing, which is no error for tiles: products have none over the sea."""


@dataclass(frozen=True)
class Pixels:
    """A GeoTIFF as an array ``(band, y, x)`` of float32 that is read when it is sliced.

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
        Packing of each band.
    masked
        Whether the file has a mask: inside, as ``.msk`` beside it, or an alpha band.
    stamp
        Size and time of the file, by which dask recognizes a changed file.
    hosts
        Hosts beside that of the URL to which redirects may lead.
    """

    path: str
    bands: tuple[int, ...]
    grid: tuple[int, int]
    overview: int | None
    packings: tuple[Packing, ...]
    masked: bool
    stamp: tuple[Any, ...]
    hosts: tuple[str, ...] = ()
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
        """Return packed values, and where the mask of the file excludes them."""
        from rasterio.errors import RasterioError

        try:
            with open_geotiff(self.path, overview=self.overview, hosts=self.hosts) as file:
                hidden = file.read_masks(bands, window=window) == 0 if self.masked else None
                return file.read(bands, window=window), hidden
        except (RasterioError, OSError, NoResponse) as error:
            raise SourceError(
                f"{scrub(self.path)} cannot be read to its end: {scrub(error)[:200]}; fetch it again "
                "and build with the same arguments; complete parts are kept"
            ) from None


@contextmanager
def open_geotiff(
    path: str, *, overview: int | None = None, hosts: Sequence[str] = ()
) -> Iterator[Any]:
    """Open a GeoTIFF with GDAL's GTiff driver; on the web by ranges of bytes.

    GDAL also opens ``.aux.xml``, ``.msk`` and ``.tfw`` beside a local file. Over a network it opens
    only the file itself, since each look-up would be a request.

    Parameters
    ----------
    path
        A file or a URL.
    overview
        Its overview, from 0; None for full resolution.
    hosts
        Hosts beside that of the URL to which redirects may lead.

    Raises
    ------
    SourceError
        If the file is missing, refused or not a GeoTIFF, or a raster beside it is not a GeoTIFF or refers
        to another file.
    """
    from rasterio.errors import RasterioError

    level = {} if overview is None else {"overview_level": overview}
    allow_list = AllowList(tuple(h.lower() for h in hosts), named=True)
    if scheme(path) and (refusal := allow_list.refusal(path)):
        raise SourceError(f"{scrub(path)} is refused: {refusal}")
    with ExitStack() as stack:
        try:
            file = stack.enter_context(
                Access(allow_list).open(path, **level) if scheme(path) else _local(path, level)
            )
        except FileMissing:
            raise
        except (RasterioError, OSError, NoResponse) as error:
            missing = getattr(error, "status", 0) == 404
            at_level = "" if overview is None else f" at overview {overview}"
            raise (FileMissing if missing else SourceError)(
                f"{scrub(path)} cannot be read as GeoTIFF{at_level}: {scrub(error)[:300]}"
            ) from None
        yield file


@contextmanager
def _local(path: str, level: Mapping[str, int]) -> Iterator[Any]:
    import rasterio

    if not Path(path).is_file():
        raise FileMissing(f"{path} is not there; download it, or set 'root:' to where it is")
    _check_beside(path)
    option = "GDAL_DISABLE_READDIR_ON_OPEN"
    beside = {} if option in os.environ else {option: "FALSE"}
    with (
        gdal(),
        rasterio.Env(**beside),
        rasterio.open(path, driver="GTiff", sharing=False, **level) as file,
    ):
        yield file


def _check_beside(path: str) -> None:
    """Check files beside a GeoTIFF: GDAL opens them by any driver, and some drivers read any path."""
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
