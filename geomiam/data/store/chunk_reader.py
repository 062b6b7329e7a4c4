"""Lazy reading of chunks; a damaged chunk raises an error with the name of its store and variable.

A store is opened by its metadata alone. Its chunks are read later: by a prediction, a sample or a
write, eagerly or by dask. All of these read through the arrays of this module.
"""

from __future__ import annotations

from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.backends.zarr import ZarrBackendEntrypoint
from xarray.core import indexing
from zarr.abc.store import Store
from zarr.storage import LocalStore, ZipStore

from geomiam.checks.files import reason, regular_file
from geomiam.checks.sizes import check_block
from geomiam.errors import SourceError, UnreadableFile
from geomiam.outputs.paths import expand, is_remote


class FolderStore(LocalStore):
    """A local store that reads ordinary files only, because reading a pipe may never end.

    A missing chunk is NaN, but not where the store itself is missing, as on a machine without this disk.
    """

    def _check(self, key: str) -> None:
        path = self.root / key
        if path.is_symlink() or path.exists():
            if not path.is_dir():
                regular_file(path)
        elif not self.root.is_dir():
            raise FileNotFoundError(f"there is no folder {self.root} on this machine")

    async def get(self, key: str, *args: Any, **options: Any) -> Any:
        """Return the bytes of a file, or None where there is none; UnreadableFile for a device or pipe."""
        self._check(key)
        return await super().get(key, *args, **options)

    def get_sync(self, key: str, *args: Any, **options: Any) -> Any:
        """Return the bytes of a file, with the check of :meth:`get`."""
        self._check(key)
        return super().get_sync(key, *args, **options)

    async def get_partial_values(self, prototype: Any, key_ranges: Any) -> Any:
        """Return parts of files, with the check of :meth:`get`."""
        ranges = list(key_ranges)
        for key, _ in ranges:
            self._check(key)
        return await super().get_partial_values(prototype, ranges)


def guarded_store(path: str | Path | Store) -> Any:
    """Return a local folder or zip file as a store that checks files; a URL as text, and a store unchanged.

    Raises UnreadableFile if a member of a zip file is larger than the limit of a chunk.
    """
    if isinstance(path, Store):
        return path
    text = expand(path)
    local = Path(text).absolute()  # workers of a cluster may have another working directory
    if is_remote(text):
        return text
    if local.suffix != ".zip" or not local.is_file():
        return FolderStore(local, read_only=True)
    store = ZipStore(local, mode="r")
    store._sync_open()
    for member in store._zf.infolist():
        check_block(member.file_size, location=f"'{member.filename}' of {path}")
    return store


class StoreChunks(BackendArray):
    """A lazy array of xarray's backend; a chunk that cannot be read raises an error with a message."""

    def __init__(self, array: Any, message: str) -> None:
        self.array, self.message = array, message
        self.shape, self.dtype = array.shape, array.dtype

    def __getitem__(self, key: Any) -> Any:
        """Read the chunks that an indexer of xarray selects; UnreadableFile if this fails."""
        try:
            return indexing.apply_indexer(self.array, key).get_duck_array()
        except SourceError:  # of references, with the file that they lead to
            raise
        except Exception as cause:  # codecs raise any exception for damaged bytes
            place = ", ".join(map(_span, key.tuple))
            raise UnreadableFile(f"{self.message} ([{place}]): {reason(cause)}") from cause


def _span(index: Any) -> str:
    if isinstance(index, slice):
        return ":".join("" if n is None else str(n) for n in (index.start, index.stop))
    numbers = np.atleast_1d(index)
    return f"{numbers.min()}:{numbers.max() + 1}" if numbers.size else "nothing"


def guarded(array: xr.DataArray, message: str) -> xr.DataArray:
    """Return an array, opened lazily without dask, that reads through :class:`StoreChunks`."""
    chunks = StoreChunks(array.variable._data, message)
    return array.copy(data=indexing.LazilyIndexedArray(chunks))


class ZarrReader(ZarrBackendEntrypoint):
    """Backend for the ``engine=`` of xarray that opens stores with these checks."""

    # xarray sets these for its own backends, but only when it looks for one by name
    open_dataset_parameters = tuple(signature(ZarrBackendEntrypoint.open_dataset).parameters)[1:]

    def open_dataset(self, filename_or_obj: Any, **options: Any) -> xr.Dataset:
        """Open a store without groups, lazily."""
        ds = super().open_dataset(guarded_store(filename_or_obj), **options)
        return _guarded_variables(ds, str(filename_or_obj))

    def open_groups_as_dict(self, filename_or_obj: Any, **options: Any) -> dict[str, xr.Dataset]:
        """Open each group of a store, lazily."""
        groups = super().open_groups_as_dict(guarded_store(filename_or_obj), **options)
        return {k: _guarded_variables(ds, f"{filename_or_obj}{k}") for k, ds in groups.items()}


def _guarded_variables(ds: xr.Dataset, store: str) -> xr.Dataset:
    for name, variable in ds.variables.items():
        if name not in ds.indexes:
            address = store.split("?")[0]  # the query of a signed URL contains a secret
            message = (
                f"a chunk of '{name}' of {address} cannot be read: it is damaged or cannot be reached; "
                "write the store again, or copy it again from its source"
            )
            chunks = StoreChunks(variable._data, message)
            variable.data = indexing.LazilyIndexedArray(chunks)
    return ds
