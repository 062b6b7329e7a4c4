"""Locks that allow one writer per output."""

from __future__ import annotations

import contextlib
import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

from geomiam.errors import OutputBusy, OutputRefused

_HELD = threading.local()


@contextlib.contextmanager
def output_lock(target: Path) -> Iterator[None]:
    """Prevent other threads and processes from writing the same output in this context.

    The lock is a hidden file beside the output, locked by the operating system. The system releases the
    lock of a killed process. The lock can be acquired again in the same thread.

    Parameters
    ----------
    target
        Real path of the output, as :func:`geomiam.outputs.check.check_output` returns it.

    Raises
    ------
    OutputBusy
        When another writer has the lock.
    OutputRefused
        When the lock file cannot be created.
    """
    locked_targets: set[Path] = _HELD.__dict__.setdefault("targets", set())
    if target in locked_targets:
        yield
        return
    with _locked(target):
        locked_targets.add(target)
        try:
            yield
        finally:
            locked_targets.discard(target)


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    file = target.with_name(f".{target.name}.lock")
    lock = FileLock(file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # without system locks, filelock uses the file's existence
            lock.acquire(timeout=0)
    except Timeout:
        raise OutputBusy(
            f"another process or thread writes {target}: wait until it has finished, or write elsewhere"
        ) from None
    except OSError as error:
        raise OutputRefused(f"{target} cannot be written ({error}); write elsewhere") from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            file.unlink()  # before the release, so that no other writer locks a file that disappears
        lock.release()
        if os.name == "nt":  # Windows cannot remove an open file
            with contextlib.suppress(OSError):
                file.unlink()
