"""One writer per output."""

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
def only_writer(target: Path) -> Iterator[None]:
    """Keep other threads and processes from writing the same output meanwhile.

    The lock is a hidden file beside the output, locked by the system: a writer that is killed leaves
    no lock. A function that holds the lock may call another that takes it again.

    Parameters
    ----------
    target
        Real path of the output, as :func:`geomiam.outputs.claim.claim` returns it.

    Raises
    ------
    OutputBusy
        When another writer is at work there.
    OutputRefused
        When the lock file cannot be made.
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
            warnings.simplefilter("ignore")  # a file system without locks: existence is the lock
            lock.acquire(timeout=0)
    except Timeout:
        raise OutputBusy(
            f"another writer is at work on {target}: wait until it is done, or write elsewhere"
        ) from None
    except OSError as error:
        raise OutputRefused(f"{target} cannot be written ({error}); write elsewhere") from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            file.unlink()  # while it is held: who opened it before finds it unlinked, and is refused
        lock.release()
        if os.name == "nt":  # where a file that is open cannot be removed
            with contextlib.suppress(OSError):
                file.unlink()
