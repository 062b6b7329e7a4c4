"""One writer per map."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from geomiam.errors import ResumeRefused


@contextmanager
def only_writer(path: str) -> Iterator[None]:
    """Keep other processes of this machine from writing the same map meanwhile.

    The lock is the system's, on a hidden file beside the map: a writer that is killed leaves none behind.

    Raises
    ------
    ResumeRefused
        If another process is writing there.
    """
    try:
        import fcntl
    except ImportError:  # Windows has no such locks
        yield
        return
    file = Path(path).with_name(f".{Path(path).name}.lock")
    file.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(file, os.O_RDWR | os.O_CREAT)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ResumeRefused(
                f"another writer is at work on {path}: wait until it is done, or write elsewhere"
            ) from None
        try:
            yield
        finally:
            file.unlink(missing_ok=True)
    finally:
        os.close(handle)
