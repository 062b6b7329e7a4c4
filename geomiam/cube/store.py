"""Reading and writing cubes, sites and maps as Zarr v3."""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import xarray as xr

from geomiam.cube.coordinates import plain_coordinates, text_names
from geomiam.cube.grid import (
    CRS_NAME,
    crs_coordinate,
    geobox,
    restore,
    spatial_dims,
)
from geomiam.cube.palette import mark_classes
from geomiam.cube.tree import as_dataset, promote_crs
from geomiam.cube.values import as_float
from geomiam.errors import OutputExists

Chunks = Mapping[str, int] | Literal["auto"] | None
AS_STORED: Mapping[str, int] = MappingProxyType({})
MARKS = ("zarr.json", ".zgroup", ".zattrs")
ENCODED = ("grid_mapping", "_FillValue", "missing_value")
SLOW = 2.0
"""Seconds after which a write shows its progress."""


def open_cube(
    source: str | Path | xr.Dataset | xr.DataTree, *, chunks: Chunks = AS_STORED, crs: Any = None
) -> xr.Dataset:
    """Open a cube lazily, as one float32 Dataset with its CRS in ``spatial_ref``.

    Parameters
    ----------
    source
        A Zarr directory, ``.zarr.zip`` or URL, with one group or one group per modality; or a
        Dataset or DataTree opened already.
    chunks
        ``{}``: dask arrays in the store's chunks; ``"auto"`` or a mapping: other dask chunks;
        ``None``: no dask, values are read when asked for, which is fastest for :func:`sample`.
        Variables not stored as float32 are then read at once.
    crs
        Replaces the CRS of the data, or sets one where there is none.

    Returns
    -------
    xr.Dataset
        Variables with their attributes; missing values are NaN.

    Raises
    ------
    GridError
        When the data have no CRS or no regular grid, or modalities lie on different grids.
    FileNotFoundError
        When there is no Zarr store at ``source``.
    """
    opened = open_zarr(source, chunks=chunks) if isinstance(source, (str, Path)) else source
    ds = promote_crs(as_dataset(opened))
    gridded = {k: v for k, v in ds.data_vars.items() if _gridded(ds, v)}
    ds = ds.assign({k: as_float(mark_classes(v)) for k, v in gridded.items()})
    if crs is not None:
        ds = _set_crs(ds, crs)
    geobox(ds)
    return restore(ds, ds)


def _gridded(ds: xr.Dataset, array: xr.DataArray) -> bool:
    """Whether a variable lies on the grid; bounds of its axes and the like stay as they are."""
    return set(spatial_dims(ds)) <= set(array.dims)


def open_zarr(path: str | Path, *, chunks: Chunks = AS_STORED) -> Any:
    """Open a store lazily: a Dataset with variables sorted by name, or a DataTree where it has groups.

    Raises
    ------
    FileNotFoundError
        When there is no Zarr store.
    """
    import zarr

    store = _store(path)
    try:
        nested = any(True for _ in zarr.open_group(store, mode="r").groups())
    except (FileNotFoundError, ValueError) as error:
        raise FileNotFoundError(
            f"no Zarr group at {path}; write one with geomiam.write_cube(ds, path), "
            "or open other formats with xarray and pass the Dataset"
        ) from error
    chunks = dict(chunks) if isinstance(chunks, Mapping) else chunks
    how: dict[str, Any] = {
        "engine": "zarr",
        "chunks": chunks,
        "consolidated": False,
        "decode_coords": "all",
    }
    return xr.open_datatree(store, **how) if nested else _orderly(xr.open_dataset(store, **how))


def _orderly(ds: xr.Dataset) -> xr.Dataset:
    """Sort by name, as directories list in any order; and make labels ordinary numpy text."""
    ds = ds.drop_vars(ds.data_vars).assign({k: ds[k] for k in sorted(map(str, ds.data_vars))})
    text = [k for k in ds.indexes if ds[k].dtype.kind == "T"]
    return ds.assign_coords({k: np.array(ds[k].values.tolist(), dtype=str) for k in text})


def _store(path: str | Path) -> Any:
    from zarr.storage import ZipStore

    local = Path(path)
    if "://" in str(path) or local.suffix != ".zip" or not local.is_file():
        return str(path)
    return ZipStore(local, mode="r")


def _set_crs(ds: xr.Dataset, crs: Any) -> xr.Dataset:
    from odc.geo.xr import assign_crs

    old = crs_coordinate(ds)
    ds = ds.drop_vars(old) if old else ds.copy(deep=False)
    ds.attrs = {k: v for k, v in ds.attrs.items() if k != "crs"}
    for var in ds.data_vars.values():
        var.encoding.pop("grid_mapping", None)
    return assign_crs(ds, crs, old or CRS_NAME)


def write_cube(
    ds: xr.Dataset | xr.DataTree,
    path: str | Path,
    *,
    overwrite: bool = False,
    chunks: Chunks = None,
    progress: bool = True,
) -> Path:
    """Write a cube as Zarr v3; it is there complete or not at all.

    Parameters
    ----------
    ds
        The cube; written as float32 with NaN for missing.
    path
        A local directory.
    overwrite
        Replace the store that is there; it stays until the new one is complete.
    chunks
        Chunks on disk, e.g. ``{"y": 512, "x": 512}``; default: those of ``ds``.
    progress
        Show a bar when writing takes long.

    Returns
    -------
    Path
        The store.

    Raises
    ------
    GridError
        When the data have no CRS or no regular grid.
    OutputExists
        When ``path`` exists and ``overwrite`` was not asked for.
    """
    cube = open_cube(ds)
    cube = cube if chunks is None else cube.chunk(chunks)
    return write_zarr(cube, path, overwrite=overwrite, progress=progress)


def write_zarr(
    ds: xr.Dataset, path: str | Path, *, overwrite: bool = False, progress: bool = True
) -> Path:
    """Write a Dataset as Zarr v3 through a temporary sibling that is renamed when complete.

    Encodings left over from the store it was read from are dropped: chunks on disk are those in
    memory. ``_FillValue`` and ``grid_mapping`` go into the encoding.

    Raises
    ------
    OutputExists
        When ``path`` exists and ``overwrite`` is False, or is no Zarr store.
    """
    target = claim(path, overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _complete(target) as partial, _progress(progress):
        encodable(ds).to_zarr(partial, mode="w-", zarr_format=3, consolidated=False)
    return target


def claim(path: str | Path, overwrite: bool) -> Path:
    """Return a local path that may be written, before any work is done for it.

    Raises
    ------
    OutputExists
        When something is there that must not be replaced.
    """
    if "://" in str(path):
        raise OutputExists(
            f"{path} is a URL, where renaming is not atomic; write to a local path and copy it"
        )
    target = Path(path)
    if target.exists() and not overwrite:
        raise OutputExists(f"{target} exists; pass overwrite=True to replace it")
    if target.is_file() or (target.exists() and any(target.iterdir()) and not is_zarr(target)):
        raise OutputExists(
            f"{target} exists and is not a Zarr directory; overwrite=True will not delete it: move it"
        )
    return target


def is_zarr(path: Path) -> bool:
    """Return whether a directory is the root of a Zarr store."""
    return any((path / mark).exists() for mark in MARKS)


@contextlib.contextmanager
def _complete(target: Path) -> Iterator[Path]:
    """Yield a path beside the target; put it in the target's place if nothing was raised."""
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        yield partial
        _replace(target, partial)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _replace(target: Path, partial: Path) -> None:
    """Swap by renaming: the new store may be a view of the old one."""
    if not target.exists():
        partial.rename(target)
        return
    old = partial.with_suffix(".old")
    target.rename(old)
    partial.rename(target)
    shutil.rmtree(old)


def _progress(wanted: bool) -> contextlib.AbstractContextManager:
    if not wanted:
        return contextlib.nullcontext()
    from dask.diagnostics import ProgressBar

    return ProgressBar(minimum=SLOW)


def encodable(ds: xr.Dataset) -> xr.Dataset:
    """Return the Dataset with nothing in ``attrs`` or ``encoding`` that would break or bend a write.

    NaN becomes the fill value of floats, so that GDAL knows what is missing.
    """
    ds = plain_coordinates(text_names(ds))
    text = [k for k, v in ds.variables.items() if v.dtype.kind == "U"]
    ds = ds.assign({k: ds[k].astype(object) for k in text})  # Zarr v3 has no fixed-width text
    for name, var in ds.variables.items():
        mapping = var.encoding.get("grid_mapping", var.attrs.get("grid_mapping"))
        fill = {"_FillValue": var.dtype.type(np.nan)} if var.dtype.kind == "f" else {}
        var.encoding = fill if name in ds.data_vars else {"_FillValue": None}
        if mapping in ds.variables:
            var.encoding["grid_mapping"] = mapping
        var.attrs = {k: v for k, v in var.attrs.items() if k not in ENCODED}
    return _evenly_chunked(ds)


def _evenly_chunked(ds: xr.Dataset) -> xr.Dataset:
    """Zarr chunks have one size; dask chunks need not."""
    for name, var in ds.variables.items():
        if var.chunks is not None:
            sizes = {d: max(c) for d, c in zip(var.dims, var.chunks, strict=True)}
            ds[name] = ds[name].chunk(sizes)
    return ds
