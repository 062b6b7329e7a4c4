"""The memory allocator of processes that answer many blocks."""

from __future__ import annotations

import ctypes
import os
from functools import cache

TRIM, PAD, MMAP = -1, -2, -3
"""``M_TRIM_THRESHOLD``, ``M_TOP_PAD`` and ``M_MMAP_THRESHOLD`` of glibc's malloc.h."""
LARGE = 32 * 2**20
"""The largest size that glibc lets its own heap hold; what is larger is mapped anew each time."""


@cache
def keep_freed_memory(*, always: bool = False) -> bool:
    """Let a process keep the memory that a network frees and needs again at once.

    A block makes the same intermediate tensors thousands of times, and what is given back to the system
    in between is faulted in again, page by page. Dask starts its workers with
    ``MALLOC_TRIM_THRESHOLD_``, so that large tables are given back; glibc then never adapts, and a
    worker takes twice the time. Elsewhere it is a twentieth, and nothing is changed unless asked for.

    Parameters
    ----------
    always : bool
        Also where dask has set nothing: in a process that is there to write a map.

    Returns
    -------
    bool
        Whether the allocator was told; other systems' allocators are left alone.
    """
    if not always and "MALLOC_TRIM_THRESHOLD_" not in os.environ:
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return all([mallopt(MMAP, LARGE), mallopt(PAD, LARGE), mallopt(TRIM, 4 * LARGE)])
