"""NetCDF and Zarr as lazy arrays with coordinates, in the units of the catalog."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any

import xarray as xr

from geomiam.checks.files import regular_file
from geomiam.checks.sizes import check_hdf5, check_metadata, check_zarr
from geomiam.data.grid.grid import spatial_dims
from geomiam.data.store.chunk_reader import ZarrReader, guarded_store
from geomiam.data.values.missing import as_float
from geomiam.data.values.packing import SENTINELS, fits, numbers_of
from geomiam.errors import DoubtfulSource, GridError, SourceError, warn
from geomiam.geo.crs import crs_of
from geomiam.schema.source import Source
from geomiam.schema.variable import Variable
from geomiam.sources.rasters.conventions import decode_labels, geographic_crs, in_crs_units
from geomiam.sources.rasters.geotiff import apply_decode, required_crs
from geomiam.sources.rasters.pixels import FileMissing
from geomiam.sources.web.allow_list import scheme, scrub

MAGIC = {b"CDF": ("scipy",), b"\x89HD": ("h5netcdf", "netcdf4")}
"""First bytes of NetCDF 3 and 4, and xarray's engines that read them."""


class _WithCoordinates:
    """Reader of a variable of files with coordinates, spatial dims last, lazily.

    Several files are combined by their coordinates: years of a series, or tiles of a map.
    """

    def read(
        self, paths: Sequence[str], source: Source, *, variable: Variable, lenient: bool
    ) -> tuple[list[xr.DataArray], int]:
        """Read files; see :class:`~geomiam.sources.rasters.formats.Format`. All files must exist.

        Raises
        ------
        SourceError
            If a file cannot be read or lacks the variable, or files cannot be combined.
        """
        parts = [_array(self._dataset(path, source), path, source, variable) for path in paths]
        return [_combine(parts, paths, variable)], 0

    def open(self, path: str) -> xr.Dataset:
        """Open a file lazily, undecoded, after a check of the sizes that its metadata state."""
        raise NotImplementedError

    def _dataset(self, path: str, source: Source) -> xr.Dataset:
        if not scheme(path) and not os.path.exists(path):
            raise FileMissing(f"{path} is not there; download it, or set 'root:' to where it is")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore"
                )  # xarray warns of attributes that geomiam does not use
                return decode_labels(self.open(path))
        except SourceError:
            raise
        except Exception as error:  # decoders raise errors of any type for damaged files
            raise SourceError(
                f"{scrub(path)} cannot be read as {source.kind}: {scrub(error)[:200]}"
            ) from None


class NetCDF(_WithCoordinates):
    """NetCDF 3 and 4, on a local disk."""

    def open(self, path: str) -> xr.Dataset:
        """Open a file lazily, undecoded, after a check of the sizes that its metadata state."""
        engine = _engine(path)
        if engine != "scipy":
            check_hdf5(path, SourceError)
        return xr.open_dataset(path, engine=engine, chunks={}, decode_cf=False)


class ZarrStore(_WithCoordinates):
    """Zarr, on a local disk or over a network."""

    def open(self, path: str) -> xr.Dataset:
        """Open a store lazily, undecoded, after a check of the sizes that its metadata state."""
        import zarr

        if not scheme(path):
            check_metadata(path)
        group = zarr.open_group(guarded_store(path), mode="r")
        check_zarr(group, location=scrub(path), error=SourceError)
        return xr.open_dataset(
            path, engine=ZarrReader, chunks={}, decode_cf=False, consolidated=None
        )


def _combine(
    parts: Sequence[xr.DataArray], paths: Sequence[str], variable: Variable
) -> xr.DataArray:
    if len(parts) == 1:
        return parts[0]
    try:
        union = xr.combine_by_coords([p.rename(variable.name) for p in parts], join="exact")
    except ValueError as error:
        raise SourceError(
            f"'{variable.name}': {len(paths)} files such as {scrub(paths[0])} cannot be combined: {error}"
        ) from None
    return union[variable.name] if isinstance(union, xr.Dataset) else union


def _array(ds: xr.Dataset, path: str, source: Source, variable: Variable) -> xr.DataArray:
    name = source.variable or variable.name
    if name not in ds.data_vars:
        raise SourceError(
            f"{scrub(path)} has no variable '{name}'; it has {', '.join(map(str, ds.data_vars))}: "
            "choose one by 'variable:'"
        )
    array = _with_crs(_select(ds[name], source, path), source, path)
    if variable.kind == "categorical":
        array.attrs["kind"] = "categorical"  # so that codes are checked
    return apply_decode(_unpack(array, source), source)


def _engine(path: str) -> Any:
    if scheme(path):
        raise SourceError(
            f"{scrub(path)}: NetCDF is not read over a network; download it and set 'root:'"
        )
    with regular_file(path, error=SourceError).open("rb") as file:
        able = MAGIC.get(file.read(3))
    if able is None:
        raise SourceError(f"{path} is no NetCDF file")
    engines = [e for e in able if e in xr.backends.list_engines()]
    if not engines:
        raise SourceError(f"{path} is NetCDF 4; pip install 'geomiam[netcdf]'")
    return engines[0]


def _select(array: xr.DataArray, source: Source, path: str) -> xr.DataArray:
    """Select one label of a dim, which is dropped, or all labels from a first to a last one."""
    spans = {d: slice(*v) for d, v in source.select.items() if isinstance(v, list)}
    labels = {d: v for d, v in source.select.items() if d not in spans}
    try:
        selection = array.sel(labels, drop=True).sel(spans)
    except (KeyError, ValueError, TypeError) as error:
        raise SourceError(
            f"{scrub(path)}: 'select: {source.select}' finds nothing: {error}"
        ) from None
    if not selection.size:
        raise SourceError(f"{scrub(path)}: 'select: {source.select}' finds nothing between the two")
    return selection


def _with_crs(array: xr.DataArray, source: Source, path: str) -> xr.DataArray:
    """Return an array with spatial dims last, a CRS, and coordinates in its units."""
    from odc.geo.xr import assign_crs

    dims = spatial_dims(array)
    array = array.transpose(..., *dims)
    try:
        crs = source.crs or crs_of(array)
    except GridError:
        crs = required_crs(geographic_crs(array, dims), path)
    return in_crs_units(assign_crs(array, crs), path)


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
    if source.nodata is not None and not any(
        fits(f, array.dtype) for f in numbers_of(attrs, "nodata")
    ):
        warn(
            f"'{array.name}': nodata: {source.nodata} cannot occur in {array.dtype}, the type of the file, so "
            "it marks nothing as missing; correct 'nodata:' in the catalog",
            DoubtfulSource,
        )
    return as_float(array)
