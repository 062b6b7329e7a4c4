"""GeoTIFFs as lazy arrays with coordinates, in the units of the catalog."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from geomiam.checks.sizes import check_raster
from geomiam.data.grid.axes import SAME_CELL
from geomiam.data.values.attributes import text_of
from geomiam.data.values.packing import Packing, fits
from geomiam.errors import DoubtfulSource, SourceError, warn
from geomiam.schema.source import Source
from geomiam.schema.variable import Variable
from geomiam.sources.paths import stamp
from geomiam.sources.rasters.pixels import FileMissing, Pixels, open_geotiff
from geomiam.sources.web.allow_list import scrub

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

CHUNK = 2048
BAND = "band"
HEADERS = 16
"""Number of files that are opened at a time: over a network most of the time is latency."""


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
        b, r, c = (range(n)[k] for k, n in zip(key, self.shape, strict=True))
        out = np.full((len(b), len(r), len(c)), np.float32(np.nan))
        for (row, col), part in self.parts:
            rows, cols = _overlap(r, row, part.shape[1]), _overlap(c, col, part.shape[2])
            if len(rows) and len(cols):
                place = (slice(None), _from(rows, r.start), _from(cols, c.start))
                piece = part[(slice(b.start, b.stop), _from(rows, row), _from(cols, col))]
                out[place] = np.where(np.isnan(out[place]), piece, out[place])
        return out


def _overlap(span: range, start: int, size: int) -> range:
    return range(max(span.start, start), min(span.stop, start + size))


def _from(span: range, start: int) -> slice:
    return slice(span.start - start, span.stop - start)


class GeoTIFF:
    """Reader of GeoTIFFs as lazy arrays ``(y, x)`` or ``(band, y, x)``; only headers are read.

    Files on one grid, such as tiles, become one array, so that a cell under a seam is resampled from
    the pixels on both sides.
    """

    def read(
        self, paths: Sequence[str], source: Source, *, variable: Variable, lenient: bool
    ) -> tuple[list[xr.DataArray], int]:
        """Read files; see :class:`~geomiam.sources.rasters.formats.Format`.

        Raises
        ------
        SourceError
            If a file cannot be read, has no CRS, or lacks the bands.
        """
        read_header = partial(_header, source=source, variable=variable, lenient=lenient)
        with ThreadPoolExecutor(min(HEADERS, len(paths))) as pool:
            headers = [h for h in pool.map(read_header, paths) if h is not None]
        groups: list[list[Header]] = []
        for header in headers:
            _add_to_group(groups, header)
        return [_array(g, source) for g in groups], len(paths) - len(headers)


@dataclass(frozen=True)
class Header:
    """Metadata of a GeoTIFF.

    Attributes
    ----------
    pixels, box
        The file as an array, and its grid.
    single
        The variable has no dim of bands.
    mixed
        Bands are stored pixel by pixel, and therefore read together.
    units
        Units of all bands, if they are equal.
    """

    pixels: Pixels
    box: GeoBox
    single: bool
    mixed: bool
    units: str | None = None


def _header(path: str, *, source: Source, variable: Variable, lenient: bool) -> Header | None:
    from odc.geo.geobox import GeoBox
    from rasterio.enums import MaskFlags

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
    rows, cols = box.shape.yx
    read = Pixels(
        path,
        bands,
        (rows, cols),
        source.overview,
        packings,
        has_mask,
        tuple(stamp(path)),
        source.hosts,
    )
    return Header(read, box, single, mixed, units.pop() if len(units) == 1 else None)


def _packing(file: Any, band: int, source: Source, *, variable: Variable) -> Packing:
    """Return the packing of a band: from the catalog, otherwise from the file."""
    dtype = np.dtype(file.dtypes[band - 1])
    if dtype.kind not in "iuf":
        raise SourceError(
            f"'{variable.name}': band {band} of {scrub(file.name)} has the type {dtype}; write its real "
            "part or its magnitude to another file"
        )
    declared_nodata = file.nodatavals[band - 1]
    fills = _several(source.nodata) or (() if declared_nodata is None else (declared_nodata,))
    if source.nodata is not None and not any(fits(f, dtype) for f in fills):
        warn(
            f"'{variable.name}': nodata: {source.nodata} cannot occur in {dtype}, the type of the file, so "
            "it marks no pixel as missing; correct 'nodata:' in the catalog",
            DoubtfulSource,
        )
    scale = file.scales[band - 1] if source.scale is None else source.scale
    offset = file.offsets[band - 1] if source.offset is None else source.offset
    return Packing(fills, scale, offset, codes=variable.kind == "categorical")


def check_transform(file: Any, crs: str | None = None) -> None:
    """Refuse a GeoTIFF without a transform, whose coordinates would be pixel numbers.

    Raises
    ------
    SourceError
        If there is no transform. The message has the command that adds one.
    """
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


def _add_to_group(groups: list[list[Header]], header: Header) -> None:
    """Add a file to the group of its grid, or start a group."""
    for group in groups:
        same = len(group[0].pixels.bands) == len(header.pixels.bands)
        if same and _shift(group[0].box, header.box) is not None:
            group.append(header)
            return
    groups.append([header])


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
    import dask.array as da
    from odc.geo.geobox import GeoBox
    from odc.geo.xr import xr_coords

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
    deep = bands if first.mixed else 1
    side = max(256, int(CHUNK / deep**0.5) // 256 * 256)
    data = da.from_array(pixels, chunks=(deep, side, side), fancy=False, asarray=False)
    array = xr.DataArray(data, dims=(BAND, "y", "x"), coords=coords)
    if units := text_of({"units": first.units}, "units"):
        array.attrs["units"] = units
    return apply_decode(array.isel({BAND: 0}) if first.single else array, source)


def _several(values: float | tuple[float, ...] | None) -> tuple[float, ...]:
    return () if values is None else values if isinstance(values, tuple) else (values,)


def required_crs(crs: Any, path: str) -> Any:
    """Return the CRS unchanged.

    Raises
    ------
    SourceError
        If it is None.
    """
    if crs is None:
        raise SourceError(
            f"{scrub(path)} has no CRS; add 'crs:' to its source, e.g. crs: EPSG:4326"
        )
    return crs


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
    if bad := [
        w for w, n in zip(bands_in_catalog, numbers, strict=True) if not 1 <= n <= file.count
    ]:
        raise SourceError(
            f"'{variable.name}': {scrub(file.name)} has no band {bad[0]!r}; it has 1 to {file.count}"
            f"{', named ' + ', '.join(names) if names else ''}"
        )
    return tuple(numbers), not isinstance(source.band, tuple)


def apply_decode(array: xr.DataArray, source: Source) -> xr.DataArray:
    """Apply ``decode:`` of a source, after scale and offset."""
    if source.decode == "signed-square":
        return array * abs(array)
    return array
