"""Memory that this process holds and has held."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any


def resident() -> int:
    """Return the bytes that this process holds now; 0 where the system does not report them."""
    usage = _usage()
    return _status("VmRSS") if usage is None else int(usage.rss)


def peak_memory() -> int:
    """Return the most bytes that this process has held.

    psutil reports the peak on Windows only. Linux has it in ``/proc``; ``getrusage`` would count the
    process that started this one as well. Where no system call reports a peak, it is what is held now.
    """
    usage = _usage()
    if hasattr(usage, "peak_wset"):  # Windows
        return int(usage.peak_wset)
    return _status("VmHWM") or max(resident(), _largest_usage())


def _usage() -> Any:
    """Return what psutil reports; None where psutil cannot run, as on Unix without ``resource``."""
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
    """Return the peak that Unix reports, 0 elsewhere; macOS counts bytes, other systems kilobytes."""
    try:
        import resource
    except ImportError:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
