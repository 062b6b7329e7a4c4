"""Memory of this process, now and at its peak."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any


def resident() -> int:
    """Return the bytes that this process holds; 0 if the system does not report them."""
    usage = _usage()
    return _status("VmRSS") if usage is None else int(usage.rss)


def peak_memory() -> int:
    """Return the peak memory of this process in bytes.

    psutil reports the peak on Windows only. Linux reports it in ``/proc``; ``getrusage`` would include the
    process that started this one. Without any of them, the current memory is returned.
    """
    usage = _usage()
    if hasattr(usage, "peak_wset"):  # Windows
        return int(usage.peak_wset)
    return _status("VmHWM") or max(resident(), _largest_usage())


def _usage() -> Any:
    """Return the report of psutil; None if psutil is not available, as on Unix without ``resource``."""
    try:
        import psutil
    except ImportError:
        return None
    return psutil.Process().memory_info()


def _status(key: str) -> int:
    """Return a size of Linux's ``/proc/self/status``; 0 elsewhere."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024
    except (OSError, StopIteration, ValueError):
        return 0


def _largest_usage() -> int:
    """Return the peak by ``getrusage``, 0 elsewhere; macOS counts bytes, other systems kilobytes."""
    try:
        import resource
    except ImportError:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
