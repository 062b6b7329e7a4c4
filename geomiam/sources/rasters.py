"""GeoTIFFs, NetCDF and Zarr as labelled lazy arrays on their own grids, in the units of a catalog."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from geomiam.errors import GridError, SourceError
from geomiam.origin import Source
from geomiam.schema import Variable
from geomiam.sources.catalogue import scheme, scrub
from geomiam.sources.files import stamp
from geomiam.sources.load import gdal

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

CHUNK = 2048
BAND = "band"
MAGIC = {b"CDF": ("scipy",), b"\x89HD": ("h5netcdf", "netcdf4")}
"""First bytes of NetCDF 3 and 4, and xarray's engines that read them."""


class NotThere(SourceError):
    """A file is missing; of tiles that is no error, as there are none over the sea."""


@dataclass(frozen=True)
class Pixels:
    """A GeoTIFF as an array ``(band, y, x)`` of float32 that is read where it is sliced."""

    path: str
    bands: tuple[int, ...]
    grid: tuple[int, int]
    overview: int | None
    nodata: tuple[float, ...] | None
    scale: float
    offset: float
    stamp: tuple[Any, ...]
    dtype = np.dtype("float32")
    ndim = 3

    @property
    def shape(self) -> tuple[int, int, int]:
        """Bands, rows, columns."""
        return (len(self.bands), *self.grid)

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return (
            self.path,
            self.bands,
            self.overview,
            self.nodata,
            self.scale,
            self.offset,
            self.stamp,
        )

    def __getitem__(self, key: tuple[slice, slice, slice]) -> np.ndarray:
        from rasterio.windows import Window

        (b, r, c) = (range(n)[k] for k, n in zip(key, self.shape, strict=True))
        if not (len(b) and len(r) and len(c)):
            return np.empty((len(b), len(r), len(c)), self.dtype)
        window = Window(c.start, r.start, len(c), len(r))
        with gdal(), opened(self.path, self.overview) as file:
            raw = file.read([self.bands[i] for i in b], window=window, masked=self.nodata is None)
        return self._numbers(raw)

    def _numbers(self, raw: np.ndarray) -> np.ndarray:
        values = np.ma.getdata(raw).astype("float64")
        gone = np.ma.getmaskarray(raw) if self.nodata is None else np.isin(values, self.nodata)
        out = (values * self.scale + self.offset).astype(self.dtype)
        out[gone] = np.nan
        return out


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


def raster(path: str, source: Source, variable: Variable) -> xr.DataArray:
    """Return a GeoTIFF as ``(y, x)`` or ``(band, y, x)``, lazily; its header is read.

    Raises
    ------
    SourceError
        When it cannot be read, has no CRS, or has not the bands.
    """
    import dask.array as da
    from odc.geo.geobox import GeoBox
    from odc.geo.xr import xr_coords

    with gdal(), opened(path, source.overview) as file:
        bands, single = _bands(file, source, variable)
        box = GeoBox(file.shape, file.transform, _crs(source.crs or file.crs, path))
        scale = file.scales[bands[0] - 1] if source.scale is None else source.scale
        offset = file.offsets[bands[0] - 1] if source.offset is None else source.offset
    known = (scale, offset, tuple(stamp(path)))
    pixels = Pixels(path, bands, tuple(box.shape), source.overview, _several(source.nodata), *known)
    data = da.from_array(pixels, chunks=(1, CHUNK, CHUNK), fancy=False, asarray=False)
    array = xr.DataArray(data, dims=(BAND, "y", "x"), coords=xr_coords(box))
    return _decoded(array.isel({BAND: 0}) if single else array, source)


def _several(values: float | tuple[float, ...] | None) -> tuple[float, ...] | None:
    return values if values is None or isinstance(values, tuple) else (values,)


def _crs(crs: Any, path: str) -> Any:
    if crs is None:
        raise SourceError(
            f"{scrub(path)} has no CRS; add 'crs:' to its source, e.g. crs: EPSG:4326"
        )
    return crs


def _bands(file: Any, source: Source, variable: Variable) -> tuple[tuple[int, ...], bool]:
    """Numbers of the bands, and whether the band is no dim."""
    if source.band is None and file.count > 1 and not variable.dims:
        raise SourceError(
            f"'{variable.name}': {scrub(file.name)} has {file.count} bands; say which by 'band: 1', or "
            "band: all with 'dims:'"
        )
    if source.band is None and file.count == 1:
        return (1,), True
    if source.band in (None, "all"):
        return tuple(range(1, file.count + 1)), False
    wanted = source.band if isinstance(source.band, tuple) else (source.band,)
    names = {d: i for i, d in enumerate(file.descriptions, 1) if d}
    numbers = [b if isinstance(b, int) else names.get(str(b), 0) for b in wanted]
    if bad := [w for w, n in zip(wanted, numbers, strict=True) if not 1 <= n <= file.count]:
        raise SourceError(
            f"'{variable.name}': {scrub(file.name)} has no band {bad[0]!r}; it has 1 to {file.count}"
            f"{', named ' + ', '.join(names) if names else ''}"
        )
    return tuple(numbers), not isinstance(source.band, tuple)


def _decoded(array: xr.DataArray, source: Source) -> xr.DataArray:
    if source.decode == "signed-square":
        return np.sign(array) * array**2
    return array


def labelled(path: str, source: Source, variable: Variable) -> xr.DataArray:
    """Return a variable of a NetCDF file or Zarr store, spatial dims last, lazily.

    Raises
    ------
    SourceError
        When it cannot be read, or has not the variable.
    """
    ds = _dataset(path, source)
    name = source.variable or variable.name
    if name not in ds.data_vars:
        raise SourceError(
            f"{scrub(path)} has no variable '{name}'; it has {', '.join(map(str, ds.data_vars))}: "
            "say which by 'variable:'"
        )
    array = _selected(ds[name], source, path)
    array = _westward(_placed(array, source, path))
    return _decoded(_packed(array, source), source)


def _dataset(path: str, source: Source) -> xr.Dataset:
    if not scheme(path) and not Path(path).exists():
        raise NotThere(f"{path} is not there; download it, or set 'root:' to where it is")
    how: dict[str, Any] = {"chunks": {}, "mask_and_scale": False, "decode_coords": "all"}
    try:
        if source.kind == "zarr":
            return xr.open_dataset(path, engine="zarr", consolidated=None, **how)
        return xr.open_dataset(path, engine=_engine(path), **how)
    except (OSError, ValueError, KeyError) as error:
        raise SourceError(
            f"{scrub(path)} cannot be read as {source.kind}: {scrub(error)[:200]}"
        ) from None


def _engine(path: str) -> Any:
    if scheme(path):
        raise SourceError(
            f"{scrub(path)}: NetCDF is not read over a network; download it and set 'root:'"
        )
    with open(path, "rb") as file:
        able = MAGIC.get(file.read(3))
    if able is None:
        raise SourceError(f"{path} is no NetCDF file")
    found = [e for e in able if e in xr.backends.list_engines()]
    if not found:
        raise SourceError(f"{path} is NetCDF 4; pip install h5netcdf")
    return found[0]


def _selected(array: xr.DataArray, source: Source, path: str) -> xr.DataArray:
    try:
        return array.sel(source.select, drop=True) if source.select else array
    except (KeyError, ValueError) as error:
        raise SourceError(
            f"{scrub(path)}: 'select: {source.select}' finds nothing: {error}"
        ) from None


def _placed(array: xr.DataArray, source: Source, path: str) -> xr.DataArray:
    """Spatial dims last, with a CRS."""
    from odc.geo.xr import assign_crs

    from geomiam.cube.grid import crs_of, spatial_dims

    array = array.transpose(..., *spatial_dims(array))
    if source.crs:
        return assign_crs(array, source.crs)
    try:
        return assign_crs(array, crs_of(array))
    except GridError:
        return assign_crs(array, _crs(None, path))


def _westward(array: xr.DataArray) -> xr.DataArray:
    """Longitudes from 0 to 360 become those from -180 to 180."""
    from geomiam.cube.grid import crs_of, spatial_dims

    x = spatial_dims(array)[1]
    if not crs_of(array).geographic or float(array[x].max()) <= 180.5:
        return array
    turned = array.assign_coords({x: (array[x] + 180) % 360 - 180}).sortby(x)
    return turned.chunk({x: -1})


def _packed(array: xr.DataArray, source: Source) -> xr.DataArray:
    """Float32 with NaN: what the file says of its packing, or what the catalog says in its place."""
    from geomiam.cube.values import SENTINELS, as_float

    attrs = dict(array.attrs)
    if source.nodata is not None:
        attrs = {k: v for k, v in attrs.items() if k not in SENTINELS}
        attrs["nodata"] = source.nodata
    given = {"scale_factor": source.scale, "add_offset": source.offset}
    attrs |= {k: v for k, v in given.items() if v is not None}
    array = array.copy(deep=False)
    array.attrs = attrs
    return as_float(array)


def joined(parts: Sequence[xr.DataArray], how: str) -> xr.DataArray:
    """Join files that lie side by side on one grid: where two have data, means or the first.

    A cell under the seam of two files has a part of its pixels in each.
    """
    first, *others = parts
    if not others:
        return first
    if how in ("nearest", "mode"):
        for part in others:
            first = first.where(first.notnull(), part)
        return first
    total = sum((p.fillna(0) for p in others), first.fillna(0))
    count = sum((p.notnull() for p in others), first.notnull().astype("float32"))
    return (total / count.where(count > 0)).astype("float32").assign_attrs(first.attrs)


def cells_under(own: GeoBox, box: GeoBox) -> float:
    """Return how many cells of a source, along a side, lie under a cell in the middle of a grid."""
    from odc.geo.overlap import native_pix_transform
    from odc.geo.types import xy_

    rows, cols = (n // 2 for n in box.shape.yx)
    cell = box[rows : rows + 1, cols : cols + 1]
    corners = [xy_(x, y) for y, x in itertools.product((0.0, 1.0), (0.0, 1.0))]
    there = np.array([p.xy for p in native_pix_transform(own, cell).back(corners)])
    spans = np.ptp(there, axis=0)
    return float(np.sqrt(spans.prod())) if np.isfinite(spans).all() else 1.0
