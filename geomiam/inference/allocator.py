"""The memory allocator of dask's workers."""

from __future__ import annotations

import ctypes
import os
from functools import cache

TRIM, MMAP = -1, -3
"""``M_TRIM_THRESHOLD`` and ``M_MMAP_THRESHOLD`` of glibc's malloc.h."""
LARGE = 32 * 2**20
"""The largest size that glibc lets its own heap hold; what is larger is mapped anew each time."""


@cache
def keep_freed_memory() -> bool:
    """Let a worker keep the memory that a network frees and needs again at once.

    Dask starts its workers with ``MALLOC_TRIM_THRESHOLD_``, so that large tables are given back to the
    system. It also stops glibc from adapting to a block, which makes the same intermediate tensors
    thousands of times: each is then mapped anew and faulted in page by page, and a worker takes twice
    the time. Where the variable is not set, nothing is changed.

    Returns
    -------
    bool
        Whether the allocator was told; other systems' allocators are left alone.
    """
    if "MALLOC_TRIM_THRESHOLD_" not in os.environ:
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return bool(mallopt(MMAP, LARGE) and mallopt(TRIM, 4 * LARGE))
