"""Arrays in temporary files, and rows in parts, for sites whose predictors may be larger than memory.

The operating system keeps the pages of a file in memory while there is space, and drops them when there is
none. A small array in a file is therefore as fast as one in memory. The file has no name, or is deleted when it is
closed, so that nothing remains after a process was interrupted.
"""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from geomiam.errors import MemoryRefused, UnreadableFile
from geomiam.progress import progress_bar

PART = 2**21
"""Most bytes of the rows that are converted at a time: few enough for the cache."""


def row_parts(x: np.ndarray, *, part: int = PART) -> list[slice]:
    """Return slices of the rows of ``(n, …)``, of nearly equal sizes of at most ``part`` bytes."""
    # Slices depend on shape and type only, so that sums are equal to the bit in memory and on disk.
    n, row_bytes = len(x), prod(x.shape[1:]) * x.dtype.itemsize
    edges = np.linspace(0, n, max(1, -(-n * row_bytes // part)) + 1).astype(int)
    return [slice(start, stop) for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist())]


def in_parts(x: np.ndarray, rows: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Yield ``(n, …)`` in parts, without the rows that are False in ``rows (n,)``, with a bar if it takes long."""
    for part in progress_bar(row_parts(x), desc="statistics of predictors", leave=False):
        yield x[part] if rows is None else x[part][rows[part]]


def is_on_disk(array: np.ndarray) -> bool:
    """Return whether an array is in a file."""
    return isinstance(array, np.memmap)


def read_at_random(array: np.memmap) -> None:
    """Let the system read only the requested pages of an array, and none around them."""
    if hasattr(mmap.mmap, "madvise"):  # not on Windows
        pages: Any = array.base  # the map of the file
        pages.madvise(mmap.MADV_RANDOM)


def read_ahead(array: np.memmap, rows: np.ndarray) -> None:
    """Let the system read some rows ``(r,)`` of an array at once, not one page after another."""
    if not hasattr(mmap.mmap, "madvise"):
        return
    pages: Any = array.base
    row_bytes = array.strides[0]
    for start in (rows * row_bytes).tolist():
        page = start - start % mmap.PAGESIZE
        pages.madvise(mmap.MADV_WILLNEED, page, start + row_bytes - page)


def arrays_on_disk(shapes: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
    """Return float32 arrays of zeros by name, in one temporary file, with the errors of :func:`array_on_disk`."""
    # One file, since macOS lets a process open 256 files by default, and each array keeps its file open.
    sizes = [prod(shape) for shape in shapes.values()]
    ends = np.cumsum(sizes)
    values = array_on_disk((sum(sizes),))
    return {
        name: values[end - size : end].reshape(tuple(shape))
        for (name, shape), size, end in zip(shapes.items(), sizes, ends.tolist())
    }


def array_on_disk(shape: Sequence[int], dtype: Any = np.float32) -> np.ndarray:
    """Return an array of zeros in a temporary file.

    Raises MemoryRefused if the disk has too little space, and UnreadableFile without a folder for it.
    """
    size = prod(shape) * np.dtype(dtype).itemsize
    if not size:
        return np.zeros(shape, dtype)
    try:
        folder = tempfile.gettempdir()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise UnreadableFile(
            f"there is no folder for a temporary file of {size / 2**30:,.1f} GiB ({error}): set the environment "
            "variable TMPDIR (on Windows TEMP) to a folder that exists, and start Python again"
        ) from error
    message = (
        f"a temporary file of {size / 2**30:,.1f} GiB is needed and {folder} has {free / 2**30:,.1f} GiB: set the "
        "environment variable TMPDIR (on Windows TEMP) to a folder with more space, or pass fewer sites, "
        "sites.isel(site=slice(None, None, 10))"
    )
    if size > free:
        raise MemoryRefused(message)
    with tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):
            try:  # a full disk would otherwise stop the process at a later write
                os.posix_fallocate(file.fileno(), 0, size)
            except OSError as error:  # some file systems cannot reserve space
                if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                    raise MemoryRefused(message) from error
        return np.memmap(file, dtype, "w+", shape=tuple(shape))
