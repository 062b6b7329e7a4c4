"""GeoTIFFs as lazy arrays with coordinates, in the units of the catalog."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import rasterio
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError
from rasterio.windows import Window

from geomiam.checks.sizes import check_raster
from geomiam.data.grid.grid import SAME_CELL
from geomiam.data.values import Packing, text_of
from geomiam.errors import SourceError
from geomiam.schema.source import Source
from geomiam.schema.variable import Variable
from geomiam.sources.paths import stamp
from geomiam.sources.rasters.formats import FileMissing, apply_decode, check_nodata, required_crs
from geomiam.sources.web.allow_list import AllowList, scheme, scrub
from geomiam.sources.web.ranges import Access, gdal
from geomiam.sources.web.requests import NoResponse

CHUNK = 2048
BAND = "band"
BANDS = 8
"""Most bands of a file on the web that are read together, if they are stored band by band."""
HEADERS = 16
"""Number of files that are opened at a time: over a network most of the time is latency."""
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
RASTERS_BESIDE = (".msk", ".MSK", ".ovr", ".OVR")
MOST_XML = 50_000_000
"""Most bytes of an ``.aux.xml``, which may have histograms of many bands."""


class GeoTIFF:
    """Reader of GeoTIFFs as lazy arrays ``(y, x)`` or ``(band, y, x)``; only headers are read.

    Files on one grid, such as tiles, become one array, so that a cell under a seam is resampled from
    the pixels on both sides.
    """

    def read(
        self,
        paths: Sequence[str],
        source: Source,
        *,
        variable: Variable,
        lenient: bool,
        near: GeoBox | None = None,
    ) -> tuple[list[xr.DataArray], int]:
        """Read files; see :class:`~geomiam.sources.rasters.formats.Format`."""
        read_header = partial(_header, source=source, variable=variable, lenient=lenient)
        with ThreadPoolExecutor(min(HEADERS, len(paths))) as pool:
            headers = [h for h in pool.map(read_header, paths) if h is not None]
        groups: list[list[Header]] = []
        for header in headers:
            for group in groups:
                same = len(group[0].pixels.bands) == len(header.pixels.bands)
                if same and _shift(group[0].box, header.box) is not None:
                    group.append(header)
                    break
            else:
                groups.append([header])
        return [_array(g, source) for g in groups], len(paths) - len(headers)


@dataclass(frozen=True)
class Header:
    """Metadata of a GeoTIFF."""

    pixels: Pixels
    box: GeoBox
    single: bool  # the variable has no dim of bands
    mixed: bool  # bands are stored pixel by pixel, and therefore read together
    units: str | None = None  # of all bands, if they are equal


def _header(path: str, *, source: Source, variable: Variable, lenient: bool) -> Header | None:
    try:
        with open_geotiff(path, overview=source.overview, hosts=source.hosts) as file:
            check_raster(file, location=scrub(path), error=SourceError)
            bands, single = _bands(file, source, variable)
            check_transform(file, source.crs)
            box = GeoBox(file.shape, file.transform, required_crs(source.crs or file.crs, path))
            packings = tuple(_packing(file, b, source, variable=variable) for b in bands)
            has_mask = any(MaskFlags.per_dataset in file.mask_flag_enums[b - 1] for b in bands)
            mixed = file.interleaving is not None and file.interleaving.value == "PIXEL"
            units = {file.units[b - 1] for b in bands}
    except FileMissing:
        if lenient:
            return None
        raise
    files = (path, bands, box.shape.yx, source.overview)
    pixels = Pixels(*files, packings, has_mask, tuple(stamp(path)), source.hosts)
    return Header(pixels, box, single, mixed, units.pop() if len(units) == 1 else None)


def _bands(file: Any, source: Source, variable: Variable) -> tuple[tuple[int, ...], bool]:
    """Return the numbers of the bands, and whether the variable has no dim of bands."""
    if source.band is None and file.count > 1 and not variable.dims:
        raise SourceError(
            f"'{variable.name}': {scrub(file.name)} has {file.count} bands; choose one by 'band: 1', or "
            "band: all with 'dims:'"
        )
    if source.band is None and file.count == 1:
        return (1,), True
    if source.band in (None, "all"):
        return tuple(range(1, file.count + 1)), False
    bands_in_catalog = source.band if isinstance(source.band, tuple) else (source.band,)
    names = {d: i for i, d in enumerate(file.descriptions, 1) if d}
    numbers = [b if isinstance(b, int) else names.get(str(b), 0) for b in bands_in_catalog]
    for band, number in zip(bands_in_catalog, numbers, strict=True):
        if not 1 <= number <= file.count:
            raise SourceError(
                f"'{variable.name}': {scrub(file.name)} has no band {band!r}; it has 1 to {file.count}"
                f"{', named ' + ', '.join(names) if names else ''}"
            )
    return tuple(numbers), not isinstance(source.band, tuple)


def _packing(file: Any, band: int, source: Source, *, variable: Variable) -> Packing:
    """Return the packing of a band: from the catalog, otherwise from the file."""
    dtype = np.dtype(file.dtypes[band - 1])
    if dtype.kind not in "iuf":
        raise SourceError(
            f"'{variable.name}': band {band} of {scrub(file.name)} has the type {dtype}; write its real "
            "part or its magnitude to another file"
        )
    nodata = file.nodatavals[band - 1] if source.nodata is None else source.nodata
    fills = () if nodata is None else nodata if isinstance(nodata, tuple) else (nodata,)
    check_nodata(variable.name, source, fills, dtype)
    scale = file.scales[band - 1] if source.scale is None else source.scale
    offset = file.offsets[band - 1] if source.offset is None else source.offset
    return Packing(fills, scale, offset, codes=variable.kind == "categorical")


def check_transform(file: Any, crs: str | None = None) -> None:
    """Refuse a GeoTIFF without a transform, whose coordinates would be pixel numbers."""
    if not file.transform.is_identity:
        return
    points, _ = file.gcps
    instead = f"{len(points)} ground control points" if points else "RPCs" if file.rpcs else "none"
    crs = str(crs or file.crs or "EPSG:4326")
    remedy = (
        f"warp it first, e.g. gdalwarp -t_srs {crs} in.tif out.tif"
        if instead != "none"
        else f"write one, e.g. gdal_translate -a_srs {crs} -a_ullr west north east south in.tif out.tif"
    )
    raise SourceError(
        f"{scrub(file.name)} has no transform from pixels to coordinates (found: {instead}); {remedy}"
    )


def _shift(a: GeoBox, b: GeoBox) -> tuple[int, int] | None:
    """Return the rows and columns from one grid to another, None if they are not parts of one grid."""
    step = ~a.affine * b.affine
    rotation = (step.a - 1, step.b, step.d, step.e - 1)
    if a.crs != b.crs or max(map(abs, rotation)) * max(*a.shape, *b.shape) > SAME_CELL:
        return None
    row, col = round(step.f), round(step.c)
    off = max(abs(step.f - row), abs(step.c - col))
    return (row, col) if off < SAME_CELL else None


def _array(group: Sequence[Header], source: Source) -> xr.DataArray:
    """Return files on one grid as one array."""
    first = group[0]
    shifts = np.array([_shift(first.box, h.box) for h in group])
    start = shifts.min(axis=0)
    ends = [s + h.box.shape.yx for s, h in zip(shifts, group, strict=True)]
    rows, cols = (int(n) for n in np.max(ends, axis=0) - start)
    at = [(int(r), int(c)) for r, c in shifts - start]
    bands = len(first.pixels.bands)
    placements = tuple(zip(at, (h.pixels for h in group), strict=True))
    pixels = Mosaic(placements, (bands, rows, cols)) if len(group) > 1 else first.pixels
    affine = first.box.affine * first.box.affine.translation(int(start[1]), int(start[0]))
    coords = xr_coords(GeoBox((rows, cols), affine, first.box.crs), dims=("y", "x"))
    # on the web each chunk reads the header of the file again
    together = BANDS if scheme(first.pixels.path) else 1
    deep = bands if first.mixed else min(bands, together)
    side = max(256, int(CHUNK / deep**0.5) // 256 * 256)
    data = da.from_array(pixels, chunks=(deep, side, side), fancy=False, asarray=False)
    array = xr.DataArray(data, dims=(BAND, "y", "x"), coords=coords)
    if units := text_of({"units": first.units}, "units"):
        array.attrs["units"] = units
    return apply_decode(array.isel({BAND: 0}) if first.single else array, source)


# pixels -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mosaic:
    """Files on one grid as one array ``(band, y, x)``; where files overlap, the first with data is used."""

    parts: tuple[tuple[tuple[int, int], Pixels], ...]
    shape: tuple[int, int, int]
    dtype = np.dtype("float32")
    ndim = 3

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return self.shape, [(at, p.__dask_tokenize__()) for at, p in self.parts]

    def __getitem__(self, key: tuple[slice, slice, slice]) -> np.ndarray:
        b, *spans = (range(n)[k] for k, n in zip(key, self.shape, strict=True))
        out = np.full((len(b), *map(len, spans)), np.float32(np.nan))
        for at, part in self.parts:
            place, inside = [slice(None)], [slice(b.start, b.stop)]
            for span, start, size in zip(spans, at, part.grid, strict=True):
                low, high = max(span.start, start), min(span.stop, start + size)
                place.append(slice(low - span.start, high - span.start))
                inside.append(slice(low - start, high - start))
            if all(s.start < s.stop for s in place[1:]):
                region, (bands, rows, cols) = tuple(place), inside
                piece = part[bands, rows, cols]
                out[region] = np.where(np.isnan(out[region]), piece, out[region])
        return out


@dataclass(frozen=True)
class Pixels:
    """A GeoTIFF as an array ``(band, y, x)`` of float32 that is read when it is sliced."""

    path: str  # a file or a URL
    bands: tuple[int, ...]  # from 1
    grid: tuple[int, int]  # rows and columns
    overview: int | None  # from 0; None for full resolution
    packings: tuple[Packing, ...]  # of each band
    masked: bool  # the file has a mask: inside, as .msk beside it, or an alpha band
    stamp: tuple[Any, ...]  # size and time of the file, by which dask recognizes a changed file
    hosts: tuple[str, ...] = ()  # to which redirects may lead, beside that of the URL
    dtype = np.dtype("float32")
    ndim = 3

    @property
    def shape(self) -> tuple[int, int, int]:
        """Bands, rows, columns."""
        return (len(self.bands), *self.grid)

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return (self.path, self.bands, self.overview, self.packings, self.masked, self.stamp)

    def __getitem__(self, key: tuple[slice, slice, slice]) -> np.ndarray:
        (b, r, c) = (range(n)[k] for k, n in zip(key, self.shape, strict=True))
        if not (len(b) and len(r) and len(c)):
            return np.empty((len(b), len(r), len(c)), self.dtype)
        bands, window = [self.bands[i] for i in b], Window(c.start, r.start, len(c), len(r))
        try:
            with open_geotiff(self.path, overview=self.overview, hosts=self.hosts) as file:
                hidden = file.read_masks(bands, window=window) == 0 if self.masked else None
                planes = file.read(bands, window=window)
        except (RasterioError, OSError, NoResponse) as error:
            raise SourceError(
                f"{scrub(self.path)} cannot be read to its end: {scrub(error)[:200]}; fetch it again "
                "and build with the same arguments; complete parts are kept"
            ) from None
        out = np.stack([self.packings[i].decode(p) for i, p in zip(b, planes, strict=True)])
        return out if hidden is None else np.where(hidden, np.float32(np.nan), out)


@contextmanager
def open_geotiff(
    path: str, *, overview: int | None = None, hosts: Sequence[str] = ()
) -> Iterator[Any]:
    """Open a GeoTIFF, or its overview, with GDAL's GTiff driver; on the web by ranges of bytes.

    GDAL also opens ``.aux.xml``, ``.msk`` and ``.tfw`` beside a local file. Over a network it opens
    only the file itself, since each look-up would be a request.
    """
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
    if not Path(path).is_file():
        raise FileMissing(f"{path} is not there; download it, or set 'root:' to where it is")
    # GDAL opens files beside a GeoTIFF by any driver, and some drivers read any path
    for beside in (Path(path + suffix) for suffix in RASTERS_BESIDE):
        if beside.is_file():
            with beside.open("rb") as start:
                if start.read(4) not in TIFF:
                    raise SourceError(
                        f"{beside} is no GeoTIFF; remove it, as GDAL would read it too"
                    )
    xml = Path(path + ".aux.xml")
    if xml.is_file() and (xml.stat().st_size > MOST_XML or b"OVERVIEW_FILE" in xml.read_bytes()):
        raise SourceError(
            f"{xml} is over {MOST_XML:,} bytes, or refers to overviews in another file; remove it"
        )
    option = "GDAL_DISABLE_READDIR_ON_OPEN"
    beside_files = {} if option in os.environ else {option: "FALSE"}
    with (
        gdal(),
        rasterio.Env(**beside_files),
        rasterio.open(path, driver="GTiff", sharing=False, **level) as file,
    ):
        yield file
