"""The memory allocator of processes that predict many blocks of a map."""

from __future__ import annotations

import ctypes
import os
from functools import cache

TRIM, PAD, MMAP = -1, -2, -3
"""``M_TRIM_THRESHOLD``, ``M_TOP_PAD`` and ``M_MMAP_THRESHOLD`` of glibc's malloc.h."""
LARGE = 32 * 2**20
"""The largest block that glibc keeps in its heap. Larger ones are mapped anew for each request."""


@cache
def keep_freed_memory(*, always: bool = False) -> bool:
    """Let a process keep the memory that a network frees and needs again at once.

    The network allocates the same intermediate tensors thousands of times. Memory that is returned to the
    system in between has to be mapped again, page by page. Dask starts its workers with
    ``MALLOC_TRIM_THRESHOLD_``, so that they return the memory of large tables. With this variable glibc
    does not adapt its thresholds, and a worker takes twice the time. In other processes the cost is about 5 %.
    """
    if not always and "MALLOC_TRIM_THRESHOLD_" not in os.environ:
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return all([mallopt(MMAP, LARGE), mallopt(PAD, LARGE), mallopt(TRIM, 4 * LARGE)])
