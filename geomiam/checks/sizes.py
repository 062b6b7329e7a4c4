"""Checks of sizes that files and catalogs declare, before memory is allocated for them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

from geomiam.checks.files import refusing, regular_file
from geomiam.checks.names import STORE_FILES
from geomiam.errors import GeomiamError, GridError, UnreadableFile

MAX_BLOCK = 2**29
"""Largest block on disk in bytes: a block is decoded as a whole, even for one cell."""
MAX_COORDINATE = 2**28
"""Largest coordinate along one dim in bytes: it is read when a store is opened."""
MAX_CHUNKS = 150_000
"""Largest number of chunks of a cube that is planned or built: each takes half a millisecond."""
CHUNK_SIDE = 512
"""Most rows and columns of a chunk of a cube that is built, unless the caller sets chunks."""
CHUNK_VALUES = 16_000_000
"""Most values of such a chunk: 64 MB of float32, of which a worker holds several at once."""


def check_cells(cells: Sequence[tuple[int, int]], *, remedy: str) -> None:
    """Refuse a cube with more chunks than can be processed.

    ``cells`` has for each variable the number of cells and of values in each cell; ``remedy`` is the
    correction, for the message.
    """
    chunks = sum(max(n // CHUNK_SIDE**2, n * depth // CHUNK_VALUES) + 1 for n, depth in cells)
    if chunks > MAX_CHUNKS:
        raise GridError(
            f"the cube has {max(cells)[0]:,} cells in {len(cells)} variables, which are about {chunks:,} "
            f"chunks, more than {MAX_CHUNKS:,}; {remedy}"
        )


def check_block(size: int, *, location: str, error: type[GeomiamError] = UnreadableFile) -> None:
    """Refuse a block on disk that is too large to be decoded."""
    if size > MAX_BLOCK:
        raise error(
            f"{location} is stored in blocks of {size:,} bytes, more than {MAX_BLOCK:,}, and each is "
            "decoded as a whole; store it in smaller blocks, such as 512 x 512 cells"
        )


def check_array(
    shape: Sequence[int], chunks: Sequence[int] | None, itemsize: int, *, location: str, error: Any
) -> None:
    """Refuse an array with blocks, or a coordinate, that do not fit into memory."""
    if chunks is not None:
        check_block(prod(int(n) for n in chunks) * itemsize, location=location, error=error)
    if len(shape) == 1 and shape[0] * itemsize > MAX_COORDINATE:
        raise error(
            f"{location} declares {shape[0]:,} values along one dim, more than a coordinate may have"
        )


def check_zarr(group: Any, *, location: str, error: type[GeomiamError] = UnreadableFile) -> None:
    """Check the metadata of the arrays of an opened Zarr group: sizes, and that no codec unpickles."""
    for name, array in group.arrays():
        metadata = array.metadata
        for codec in (
            *(getattr(metadata, "filters", None) or ()),
            getattr(metadata, "compressor", None),
        ):
            if getattr(codec, "codec_id", "") == "pickle":
                raise error(
                    f"'{name}' of {location} is stored as pickle, which runs any code when it is read; store it "
                    "with another codec, such as zstd"
                )
        size = getattr(array.dtype, "itemsize", 8) or 8
        place = f"'{name}' of {location}"
        check_array(array.shape, array.chunks, size, location=place, error=error)


def check_metadata(store: str | Path) -> None:
    """Refuse a local store with devices or pipes as metadata: reading them may never end."""
    try:
        with os.scandir(store) as entries:
            folders = sorted(e.path for e in entries if e.is_dir())
    except (OSError, ValueError):
        folders = []
    for folder in (str(store), *folders):
        for name in STORE_FILES:
            file = os.path.join(folder, name)
            if os.path.exists(file):
                regular_file(file, max_bytes=64 * 2**20)


def check_hdf5(path: str | Path, error: type[GeomiamError] = UnreadableFile) -> None:
    """Check the arrays of a NetCDF 4 file, and that none lies in another file.

    Without h5py nothing is checked.
    """
    try:
        import h5py
    except ImportError:
        return
    with refusing(error, f"{path} is damaged; fetch it again"), h5py.File(path, "r") as file:
        for name in file:
            if not isinstance(file.get(name, getlink=True), (h5py.HardLink, h5py.SoftLink)):
                raise error(f"'{name}' of {path} is a link to another file, which is not followed")
            array = file.get(name)
            if not isinstance(array, h5py.Dataset):
                continue
            if array.is_virtual or array.external:
                raise error(f"'{name}' of {path} lies in other files, which are not read; copy it")
            place, size = f"'{name}' of {path}", array.dtype.itemsize
            check_array(array.shape or (), array.chunks, size, location=place, error=error)


def check_raster(file: Any, *, location: str, error: type[GeomiamError] = UnreadableFile) -> None:
    """Check the sizes of the blocks of an opened GeoTIFF."""
    import numpy as np

    by_pixel = file.interleaving and file.interleaving.value == "PIXEL"
    bands = file.count if by_pixel else 1  # bands of a pixel are stored, and decoded, together
    for (rows, cols), dtype in zip(file.block_shapes, file.dtypes, strict=True):
        size = rows * cols * bands * np.dtype(dtype).itemsize
        check_block(size, location=location, error=error)
