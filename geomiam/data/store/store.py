"""Reading and writing cubes, sites and maps as Zarr v3."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import xarray as xr
from zarr.abc.store import Store

from geomiam.checks.files import reason, refusing
from geomiam.checks.sizes import check_metadata, check_zarr
from geomiam.data.dataset import TABLES, as_dataset, open_advice, promote_crs
from geomiam.data.grid.grid import geobox, restore, spatial_dims
from geomiam.data.kinds import mark_classes
from geomiam.data.store.chunk_reader import ZarrReader, guarded_store
from geomiam.data.store.encoding import chunk_sizes, encodable
from geomiam.data.values import as_float
from geomiam.errors import GridError, InputNotFound, UnreadableFile
from geomiam.geo.crs import CRS_NAME, as_crs, crs_coordinate
from geomiam.outputs.check import check_output, locked_output
from geomiam.outputs.kinds import CUBE, MARK, Kind
from geomiam.outputs.paths import check_names, expand, is_remote
from geomiam.outputs.write import atomic_path
from geomiam.progress import dask_progress, with_progress

Chunks = Mapping[str, int] | Literal["auto"] | None
AS_STORED: Mapping[str, int] = MappingProxyType({})  # dask chunks as large as those of the store
MARKS = ("zarr.json", ".zgroup", ".zattrs")
"""Files of which any makes a folder the root of a Zarr store."""


def as_cube(
    source: str | Path | Store | xr.Dataset | xr.DataTree,
    *,
    chunks: Chunks = AS_STORED,
    crs: Any = None,
) -> xr.Dataset:
    """Return a store, Dataset or DataTree as one float32 Dataset; see :func:`geomiam.open_cube`."""
    from odc.geo.xr import assign_crs

    data = open_zarr(source, chunks=chunks) if isinstance(source, (str, Path, Store)) else source
    ds = promote_crs(as_dataset(data))
    if data is source and chunks:
        ds = ds.chunk(_chunks(chunks, ds.sizes))
    place = set(
        spatial_dims(ds)
    )  # other variables, such as bounds of coordinates, are not converted
    grid_variables = {k: v for k, v in ds.data_vars.items() if place <= set(v.dims)}
    ds = ds.assign({k: as_float(mark_classes(v)) for k, v in grid_variables.items()})
    if crs is not None:
        old = crs_coordinate(ds)
        ds = ds.drop_vars(old) if old else ds.copy(deep=False)
        ds.attrs = {k: v for k, v in ds.attrs.items() if k != "crs"}
        for var in ds.data_vars.values():
            var.encoding.pop("grid_mapping", None)
        ds = assign_crs(ds, as_crs(crs, "crs="), old or CRS_NAME)
    geobox(ds)
    return restore(ds, ds)


def open_zarr(path: str | Path | Store, *, chunks: Chunks = AS_STORED) -> Any:
    """Open a store lazily: a Dataset with variables sorted by name, or a DataTree if it has groups.

    Raises InputNotFound when there is no Zarr store, and UnreadableFile for a damaged one.
    """
    store: Any = path if isinstance(path, Store) else expand(path)
    damage_message = f"the Zarr store {path} is damaged; write it again"
    level, nested = _checked_layout(path, store, damage_message)
    may_list = isinstance(path, Store) or not is_remote(path)
    options: dict[str, Any] = {
        "engine": ZarrReader,
        # the arrays of a local folder can be listed
        "consolidated": False if may_list else None,
        "decode_coords": "all",
    }
    with warnings.catch_warnings(), refusing(UnreadableFile, damage_message):
        warnings.simplefilter("ignore", RuntimeWarning)  # a remote store that is not consolidated
        dask_chunks: Any = dict(chunks) if isinstance(chunks, Mapping) else chunks
        if isinstance(chunks, Mapping) and chunks:  # names of dims are compared with the metadata
            groups = xr.open_groups(store, **options).values()
            dask_chunks = _chunks(chunks, {d: n for g in groups for d, n in g.sizes.items()})
        if nested:
            return xr.open_datatree(store, chunks=dask_chunks, **options).map_over_datasets(_read)
        ds = _read(xr.open_dataset(store, chunks=dask_chunks, group=level, **options))
        if level is not None:  # conventions of GeoZarr describe one store, and are no netCDF types
            ds.attrs = {
                k: v for k, v in ds.attrs.items() if ":" not in k and k != "zarr_conventions"
            }
        return ds


def _checked_layout(
    path: str | Path | Store, store: str | Store, damage_message: str
) -> tuple[str | None, bool]:
    """Return the group to open, if not the root, and whether groups make a tree; refuse damaged stores."""
    import zarr

    if isinstance(store, str):
        check_metadata(store)
    try:
        group = zarr.open_group(guarded_store(store), mode="r")
        level = _finest(group)  # of a map with several resolutions
        nested = level is None and any(True for _ in group.groups())
    except FileNotFoundError as error:
        raise _not_found(path, store) from error
    except Exception as error:  # zarr raises any exception for invalid metadata
        raise UnreadableFile(f"{damage_message}, or is no Zarr store: {reason(error)}") from error
    is_url = not isinstance(path, Store) and is_remote(path)
    if is_url and not any(True for _ in group.members()):
        raise GridError(
            f"the arrays of the Zarr group at {path} cannot be listed: it has no consolidated metadata, and its "
            "server lists no folders; consolidate it with zarr.consolidate_metadata, or copy it to a local folder"
        )
    with refusing(UnreadableFile, damage_message):
        for level_group in (group, *(g for _, g in group.groups() if nested)):
            check_zarr(level_group, location=str(path))
    return level, nested


def _not_found(path: str | Path | Store, store: str | Store) -> InputNotFound:
    """Return the error for a path or store without a Zarr group."""
    if isinstance(store, str) and Path(store).is_file() and Path(store).suffix != ".zip":
        call = open_advice(store)
        if Path(store).suffix.lower() in TABLES:
            return InputNotFound(f"{path} is a table of points, not a cube: {call}")
        call = call if "gm.open_cube" not in call else f"xr.open_dataset({store!r})"
        return InputNotFound(
            f"{path} is a file, not a Zarr store: open it, such as by ds = {call}, and pass "
            "gm.open_cube(ds), or gm.open_cube(ds, crs='EPSG:4326') if the file has no CRS"
        )
    if isinstance(store, str) and not is_remote(store) and not Path(store).exists():
        return InputNotFound(f"there is no file or folder at {path}; correct the path")
    return InputNotFound(
        f"no Zarr group at {path}; write one with geomiam.write_cube(ds, path), "
        "or open other formats with xarray and pass the Dataset"
    )


def _read(ds: xr.Dataset) -> xr.Dataset:
    """Return a Dataset with sorted variables, text as numpy's, and without the mark of the output."""
    # Directories have no order.
    ds = ds.drop_vars(ds.data_vars).assign({k: ds[k] for k in sorted(map(str, ds.data_vars))})
    ds.attrs.pop(MARK, None)
    text = [k for k in ds.indexes if ds[k].dtype.kind == "T"]
    return ds.assign_coords({k: np.array(ds[k].values.tolist(), dtype=str) for k in text})


def _finest(group: Any) -> str | None:
    """Return the group with the full resolution of a GeoZarr store with several resolutions, or None."""
    scales = group.attrs.get("multiscales")
    layout = scales.get("layout") if isinstance(scales, dict) else None
    first = layout[0] if isinstance(layout, list) and layout else None
    asset = first.get("asset") if isinstance(first, dict) else None
    return asset if isinstance(asset, str) and asset in group else None


def _chunks(chunks: Any, sizes: Mapping[Any, int]) -> Any:
    """Return chunks by the dims of the data; ``"auto"`` for all dims is unchanged."""
    if not isinstance(chunks, Mapping):
        return chunks
    return chunk_sizes(chunks, {str(d): n for d, n in sizes.items()}, automatic=512)


@with_progress
def write_cube(
    ds: xr.Dataset | xr.DataTree,
    path: str | Path,
    *,
    overwrite: bool = False,
    chunks: Chunks = None,
    progress: bool | None = None,
) -> Path:
    """Write a cube as Zarr v3; the store appears at its path only when complete.

    Parameters
    ----------
    ds
        The cube; written as float32 with NaN for missing values.
    path
        A local directory.
    overwrite
        Replace an existing cube once the new one is complete.
    chunks
        Chunks on disk in cells, such as ``{"y": 512, "x": 512}``, where y and x stand for the spatial
        dims under any name; default: the chunks of ``ds``.
    progress
        Show a progress bar if writing takes long; default: on a terminal or in a notebook.

    Returns
    -------
    Path
        The store.

    Raises
    ------
    GridError
        When the data have no CRS or no regular grid.
    OutputExists
        When ``path`` exists and ``overwrite`` is False.
    OutputRefused
        When ``path`` lies in another store, or has any content except a cube of geomiam.

    See Also
    --------
    geomiam.open_cube : open it again.

    Examples
    --------
    >>> import tempfile
    >>> import geomiam as gm
    >>> folder = tempfile.mkdtemp()
    >>> path = gm.write_cube(gm.demo.load_cube(), f"{folder}/cube.zarr")
    >>> cube = gm.open_cube(path)
    >>> cube["spatial_ref"].ndim
    0
    """
    check_output(path, overwrite)
    cube = as_cube(ds)
    cube = cube if chunks is None else cube.chunk(_chunks(chunks, cube.sizes))
    return write_zarr(cube, path, overwrite=overwrite)


def write_zarr(
    data: xr.Dataset | xr.DataTree,
    path: str | Path,
    *,
    overwrite: bool = False,
    kind: Kind = CUBE,
) -> Path:
    """Write a Dataset, or a tree with one group per node, as Zarr v3; a temporary sibling is renamed at the end.

    Encodings from the store that it was read from are dropped, so that chunks on disk equal those in
    memory. Raises the same errors as :func:`write_cube`, OutputBusy when another process or thread writes to
    ``path``, and NameRefused when the name of a variable or node cannot be the name of a folder.
    """
    nodes = data.subtree if isinstance(data, xr.DataTree) else [data]
    for node in nodes:
        check_names([*node.variables, *getattr(node, "children", ())])
    with locked_output(path, overwrite, kind=kind) as target:
        with atomic_path(target) as partial, dask_progress("writing"):
            encoded_data: xr.Dataset | xr.DataTree = (
                encodable(data)
                if isinstance(data, xr.Dataset)
                else data.map_over_datasets(encodable)
            )
            encoded_data.attrs = {**encoded_data.attrs, MARK: kind.name}
            encoded_data.to_zarr(partial, mode="w-", zarr_format=3, consolidated=False)
            check_output(target, overwrite, kind=kind)  # the path may have changed during the write
    return target


def is_zarr(path: Path) -> bool:
    """Return whether a directory is the root of a Zarr store."""
    return any((path / mark).exists() for mark in MARKS)
