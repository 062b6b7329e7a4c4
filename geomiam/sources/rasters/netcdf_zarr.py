"""NetCDF and Zarr as lazy arrays with coordinates, by CF conventions, in the units of the catalog."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
import zarr
from dask.base import tokenize
from odc.geo.geobox import GeoBox
from odc.geo.xr import assign_crs

from geomiam.checks.files import regular_file
from geomiam.checks.sizes import check_hdf5, check_metadata, check_zarr
from geomiam.data.grid.grid import geobox, spatial_dims
from geomiam.data.grid.source_windows import reach
from geomiam.data.store.chunk_reader import ZarrReader, guarded_store
from geomiam.data.values import SENTINELS, as_float, numbers_of
from geomiam.errors import GridError, SourceError
from geomiam.geo.crs import as_crs, crs_name, crs_of
from geomiam.schema.source import Source
from geomiam.schema.variable import Variable
from geomiam.sources.paths import stamp
from geomiam.sources.rasters.formats import FileMissing, apply_decode, check_nodata, required_crs
from geomiam.sources.rasters.labels import NothingSelected, decode_labels, select_labels
from geomiam.sources.references.documents import is_references
from geomiam.sources.references.store import ReferenceStore, reference_store
from geomiam.sources.web.allow_list import REMOTE, scheme, scrub

MAGIC = {b"CDF": ("scipy",), b"\x89HD": ("h5netcdf", "netcdf4")}
"""First bytes of NetCDF 3 and 4, and xarray's engines that read them."""
METRES = {
    **dict.fromkeys(("m", "metre", "meter", "metres", "meters"), 1.0),
    **dict.fromkeys(("km", "kilometre", "kilometer", "kilometres", "kilometers"), 1000.0),
}
EAST = ("degrees_east", "degree_east", "degree_e", "degrees_e", "degreee", "degreese")
NORTH = ("degrees_north", "degree_north", "degree_n", "degrees_n", "degreen", "degreesn")
LATITUDES, LONGITUDES = ("lat", "latitude"), ("lon", "long", "longitude")
DEGREES = (*EAST, *NORTH, "degree", "degrees", "deg")
ANGLES = ("rad", "radian", "radians")


LEVELS = 3
"""Most folders above a group of the web in which consolidated metadata are looked for."""
LARGE = 2**27
"""Least number of pixels of an array of which only those near the grid are opened."""
SIDE = 128
"""Least side of a dask chunk of Zarr in cells."""


class _WithCoordinates:
    """Reader of a variable of files with coordinates, spatial dims last, lazily.

    Several files are combined by their coordinates: years of a series, or tiles of a map.
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
        parts, absent = self._parts(paths, source, variable, lenient=lenient, near=near)
        if len(parts) <= 1 or source.tiles:
            return parts, absent
        try:
            union = xr.combine_by_coords([p.rename(variable.name) for p in parts], join="exact")
        except ValueError as error:
            raise SourceError(
                f"'{variable.name}': {len(paths)} files such as {scrub(paths[0])} cannot be combined: {error}"
            ) from None
        return [union[variable.name] if isinstance(union, xr.Dataset) else union], absent

    def _parts(
        self,
        paths: Sequence[str],
        source: Source,
        variable: Variable,
        *,
        lenient: bool,
        near: GeoBox | None,
    ) -> tuple[list[xr.DataArray], int]:
        """Return the files that hold labels of ``select:``, and the number of files that are missing."""
        parts, absent, no_labels = [], 0, None
        for path in paths:
            try:
                parts.append(_array(self.dataset(path, source), path, source, variable, near))
            except NothingSelected as error:  # such as a file of another year
                no_labels = error
            except FileMissing:
                if not lenient:
                    raise
                absent += 1
        if no_labels is not None and not parts:
            raise no_labels
        return parts, absent

    def open(self, path: str, source: Source) -> xr.Dataset:
        """Open a file lazily, undecoded, after a check of the sizes that its metadata state."""
        raise NotImplementedError

    def dataset(self, path: str, source: Source) -> xr.Dataset:
        if not scheme(path) and not os.path.exists(path):
            raise FileMissing(f"{path} is not there; download it, or set 'root:' to where it is")
        try:
            with warnings.catch_warnings():
                # xarray warns of attributes that geomiam does not use
                warnings.simplefilter("ignore")
                return decode_labels(self.open(path, source))
        except SourceError:
            raise
        except Exception as error:  # decoders raise errors of any type for damaged files
            is_missing = isinstance(error, FileNotFoundError) and not os.path.exists(path)
            if is_missing:
                raise FileMissing(
                    f"{scrub(path)} is not there; correct 'root:' and 'path:'"
                ) from None
            raise SourceError(
                f"{scrub(path)} cannot be read as {source.kind}: {scrub(error)[:200]}"
            ) from None


class NetCDF(_WithCoordinates):
    """NetCDF 3 and 4, on a local disk."""

    def open(self, path: str, source: Source) -> xr.Dataset:
        if scheme(path):
            raise SourceError(
                f"{scrub(path)}: NetCDF is not read over a network; download it and set 'root:'"
            )
        with regular_file(path, error=SourceError).open("rb") as file:
            able = MAGIC.get(file.read(3))
        if able is None:
            raise SourceError(f"{path} is no NetCDF file")
        engine: Any = next((e for e in able if e in xr.backends.list_engines()), None)
        if engine is None:
            raise SourceError(f"{path} is NetCDF 4; pip install 'geomiam[netcdf]'")
        if engine != "scipy":
            check_hdf5(path, SourceError)
        return xr.open_dataset(path, engine=engine, chunks={}, decode_cf=False)


class ZarrStore(_WithCoordinates):
    """Zarr, on a local disk or over a network, and references to chunks of other files."""

    def open(self, path: str, source: Source) -> xr.Dataset:
        root: Any
        if is_references(path):
            root, name = reference_store(path, source.allow), ""
        else:
            if not scheme(path):
                check_metadata(path)
            root, name = _root_of(path)
        group = zarr.open_group(guarded_store(root), mode="r", path=name)
        check_zarr(group, location=scrub(path), error=SourceError)
        is_list = isinstance(root, ReferenceStore)  # its metadata are those that were checked
        place: dict[str, Any] = {"group": name or None, "consolidated": False if is_list else None}
        return xr.open_dataset(root, engine=ZarrReader, **place, decode_cf=False)


def _root_of(path: str) -> tuple[str, str]:
    """Return the address of a store, and the group in it that a path names.

    A web server lists no folders, so the arrays of a group are read from consolidated metadata. A store with a
    group for each part of a product, such as UTM zones, may have these in a folder above only.
    """
    if scheme(path) not in REMOTE or "?" in path:
        return path, ""
    root, name = path.rstrip("/"), ""
    for _ in range(LEVELS):
        try:
            group = zarr.open_group(root, mode="r")
        except FileNotFoundError:
            if not name:
                raise
            break
        if group.metadata.consolidated_metadata is not None:
            return root, name
        root, _, last = root.rpartition("/")
        name = f"{last}/{name}".rstrip("/")
    return path, ""


def _sides(array: xr.DataArray) -> dict[Any, int]:
    """Return the sides of dask chunks: those of stored chunks, of which several are one where they are small."""
    stored_chunks = array.encoding.get("preferred_chunks", {})
    sides = {d: stored_chunks.get(d, n) for d, n in array.sizes.items()}
    for dim in spatial_dims(array):
        while sides[dim] < min(SIDE, array.sizes[dim]):
            sides[dim] *= 2
    return sides


def _chunked(
    array: xr.DataArray, path: str, source: Source, window: Mapping[str, slice]
) -> xr.DataArray:
    """Return a window of an array in dask chunks.

    Called after labels are selected, since dask makes a task for every chunk of what it selects from.
    """
    array = array.isel(window)
    if array.chunks is not None:
        return array
    # dask takes arrays of equal names for the same
    token = tokenize(stamp(path), array.name, source.select, sorted(window.items(), key=str))
    return array.chunk(_sides(array), token=token)


def _window(array: xr.DataArray, near: GeoBox | None) -> dict[str, slice]:
    """Return the rows and columns of a very large array that lie near a grid, whole chunks; none for others.

    Dask would make a task for each chunk of a store that covers a continent.
    """
    dims = spatial_dims(array)
    if near is None or math.prod(array.sizes[d] for d in dims) < LARGE:
        return {}
    parts = reach(geobox(array), near)
    spans = [c for part in parts for c in part.cols]
    if len(spans) != 1 or not isinstance(
        spans[0], slice
    ):  # none, or on both sides of the antimeridian
        return {}
    sides, window = _sides(array), {}
    for dim, span in zip(dims, (parts[0].rows, spans[0]), strict=True):
        # far more than kernels need, so that no cell is as wide as half of the window
        margin, side = 2 * (span.stop - span.start) + SIDE, sides[dim]
        start = max(0, span.start - margin) // side * side
        window[dim] = slice(start, min(array.sizes[dim], span.stop + margin))
    return window


def _array(
    ds: xr.Dataset, path: str, source: Source, variable: Variable, near: GeoBox | None
) -> xr.DataArray:
    """Return a variable, unpacked, with spatial dims last, a CRS, and coordinates in its units."""
    array = select_labels(
        _variable(ds, source.variable or variable.name, "variable", path), source, path
    )
    dims = spatial_dims(array)
    try:
        crs = source.crs or crs_of(array)
    except GridError:
        crs = required_crs(_stated_crs(ds, path, degrees=_has_degrees(array, dims)), path)
    array = _in_crs_units(assign_crs(array, crs), path)
    window = _window(array, near)
    array = _chunked(array, path, source, window).transpose(..., *dims)
    if variable.kind == "categorical":
        array.attrs["kind"] = "categorical"  # so that codes are checked
    array = _unpack(array, source)
    if source.scale_variable is not None:
        factors = _chunked(_factors(ds, source, path), path, source, window)
        array = _scaled(array, factors)
    return apply_decode(array, source)


def _variable(ds: xr.Dataset, name: str, key: str, path: str) -> xr.DataArray:
    """Return a variable of a file; ``key`` is that of the catalog which names it."""
    if name not in ds.data_vars:
        raise SourceError(
            f"{scrub(path)} has no variable '{name}'; it has {', '.join(map(str, ds.data_vars))}: "
            f"choose one by '{key}:'"
        )
    return ds[name]


def _factors(ds: xr.Dataset, source: Source, path: str) -> xr.DataArray:
    """Return the factor of each pixel, at the labels of ``select:``."""
    factors = _variable(ds, str(source.scale_variable), "scale_variable", path)
    labels = {d: v for d, v in source.select.items() if d in factors.dims}
    return select_labels(factors, source.model_copy(update={"select": labels}), path)


def _scaled(array: xr.DataArray, factors: xr.DataArray) -> xr.DataArray:
    """Return values times the factor of their pixel, NaN where the factor is not finite."""
    if not set(factors.dims) <= set(array.dims):
        raise SourceError(
            f"'scale_variable: {factors.name}' has dims {factors.dims}, the values have {array.dims}"
        )
    factors = factors.astype("float32").assign_coords({d: array[d] for d in factors.dims})
    products = array * factors.where(np.isfinite(factors))
    return products.transpose(*array.dims).assign_attrs(array.attrs)


def _stated_crs(ds: xr.Dataset, path: str, *, degrees: bool) -> Any:
    """Return the CRS that a store states by the convention proj of GeoZarr, or that its coordinates imply."""
    text = ds.attrs.get("proj:code") or ds.attrs.get("proj:wkt2")
    if isinstance(text, str):
        return as_crs(text, f"'proj:' attribute of {scrub(path)}")
    return "EPSG:4326" if degrees else None


def _has_degrees(array: xr.DataArray, dims: tuple[str, str]) -> bool:
    """Return whether the coordinates are latitude and longitude, by their units or else their names."""
    # CF requires no datum of coordinates in degrees north and east; as in GDAL, it is WGS 84.
    y, x = (array[d] for d in dims)
    units = [str(c.attrs.get("units", "")).lower() for c in (y, x)]
    if any(units):
        return units[0] in NORTH and units[1] in EAST
    in_range = bool((abs(y) <= 90).all() and (x >= -180).all() and (x <= 360).all())
    return in_range and dims[0].lower() in LATITUDES and dims[1].lower() in LONGITUDES


def _in_crs_units(array: xr.DataArray, path: str) -> xr.DataArray:
    """Return an array with spatial coordinates in units of its CRS."""
    crs = crs_of(array)
    for dim in spatial_dims(array):
        unit = str(array[dim].attrs.get("units", "")).strip().lower()
        if (unit in METRES) if crs.geographic else (unit in DEGREES):
            raise SourceError(
                f"{scrub(path)}: coordinate '{dim}' is in '{unit}', but the CRS {crs_name(crs)} is not; correct "
                "'crs:' of the source"
            )
        factor = 1.0
        if unit in ANGLES and not crs.geographic:
            # viewing angles of a geostationary satellite (CF geostationary): times its height, metres
            factor = float(crs.proj.to_cf().get("perspective_point_height", 1.0))
        elif unit in METRES and not crs.geographic:
            factor = METRES[unit] / crs.proj.axis_info[0].unit_conversion_factor
        if abs(factor - 1) > 1e-9:
            rescaled_labels = array[dim].astype("float64") * factor
            array = array.assign_coords({dim: rescaled_labels.variable})
    return array


def _unpack(array: xr.DataArray, source: Source) -> xr.DataArray:
    """Return float32 with NaN, unpacked by the catalog, otherwise by the file."""
    attrs = dict(array.attrs)
    if source.nodata is not None:
        attrs = {k: v for k, v in attrs.items() if k not in SENTINELS}
        attrs["nodata"] = source.nodata
    packing_of_catalog = {"scale_factor": source.scale, "add_offset": source.offset}
    attrs |= {k: v for k, v in packing_of_catalog.items() if v is not None}
    array = array.copy(deep=False)
    array.attrs = attrs
    check_nodata(array.name, source, numbers_of(attrs, "nodata"), array.dtype)
    return as_float(array)
