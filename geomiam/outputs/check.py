"""Checks of output paths, before the work and again before the output replaces an earlier one; one writer each."""

from __future__ import annotations

import contextlib
import os
import threading
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from geomiam.errors import GeomiamError, OutputBusy, OutputExists, OutputRefused
from geomiam.outputs.kinds import CUBE, Kind
from geomiam.outputs.paths import expand, is_remote, real_path

_HELD = threading.local()
STORES = ("zarr.json", ".zgroup", ".zarray", ".zmetadata")
"""Files that make a folder a Zarr group or array."""
LONGEST = 200
"""Largest name in bytes; the names of hidden siblings are longer and must fit into 255."""


def check_output(
    path: str | Path, overwrite: bool, *, kind: Kind = CUBE, inputs: Iterable[Any] = ()
) -> Path:
    """Return the real local path of an output that may be written.

    The path is absolute or relative, with ``~``, or a file URL. ``inputs`` are paths of inputs and of
    other outputs of the same call; None and URLs are ignored.

    Raises
    ------
    OutputExists
        When the path exists and ``overwrite`` is False, or ``path`` is a URL.
    OutputRefused
        When the output overlaps an input or another output, lies inside a store or a model, or
        would replace anything that is not an output of this kind.
    """
    if is_remote(path):
        raise OutputExists(
            f"{path} is a URL, and files at a URL cannot be replaced atomically; write to a local path and copy it"
        )
    if not os.fspath(path):
        raise OutputRefused("the output path is empty; name a file or folder to write")
    target = real_path(path)
    if not target.name:
        raise OutputRefused(f"{target} is the root of a disk; name a folder below it")
    if len(os.fsencode(target.name)) > LONGEST:
        raise OutputRefused(
            f"the name of the output has {len(os.fsencode(target.name))} bytes, over {LONGEST}: "
            f"{target.name[:40]}…; choose a shorter one"
        )
    refuse_overlap(target, inputs)
    _refuse_place(target)
    if target.exists():
        if not overwrite:
            raise OutputExists(f"{target} exists; pass overwrite=True to replace it")
        _refuse_mismatch(target, kind)
    return target


@contextlib.contextmanager
def locked_output(
    path: str | Path, overwrite: bool, *, kind: Kind = CUBE, inputs: Iterable[Any] = ()
) -> Iterator[Path]:
    """Check and lock an output, and yield its real path; OutputBusy when another thread or process writes it."""
    inputs = tuple(inputs)
    target = check_output(path, overwrite, kind=kind, inputs=inputs)
    with output_lock(target):
        yield check_output(target, overwrite, kind=kind, inputs=inputs)


@contextlib.contextmanager
def output_lock(target: Path) -> Iterator[None]:
    """Prevent other threads and processes from writing the same output in this context.

    The lock is a hidden file beside the real path of the output, locked by the operating system, which
    releases the lock of a killed process. The lock can be acquired again in the same thread.

    Raises OutputBusy when another writer has the lock, and OutputRefused when its file cannot be created.
    """
    from filelock import FileLock, Timeout

    locked_targets: set[Path] = _HELD.__dict__.setdefault("targets", set())
    if target in locked_targets:
        yield
        return
    file = target.with_name(f".{target.name}.lock")
    lock = FileLock(file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            # Without system locks, filelock uses the file's existence.
            warnings.simplefilter("ignore")
            lock.acquire(timeout=0)
    except Timeout:
        raise OutputBusy(
            f"another process or thread writes {target}: wait until it has finished, or write elsewhere"
        ) from None
    except OSError as error:
        raise OutputRefused(f"{target} cannot be written ({error}); write elsewhere") from None
    locked_targets.add(target)
    try:
        yield
    finally:
        locked_targets.discard(target)
        with contextlib.suppress(OSError):
            file.unlink()  # before the release, so that no other writer locks a file that disappears
        lock.release()
        if os.name == "nt":  # Windows cannot remove an open file
            with contextlib.suppress(OSError):
                file.unlink()


def refuse_overlap(target: Path, inputs: Iterable[Any]) -> None:
    """Refuse an output that equals, contains or lies inside an input."""
    for input_path in inputs:
        if not isinstance(input_path, (str, Path)) or is_remote(input_path):
            continue
        real = real_path(input_path)
        if within(target, real) or within(real, target):
            raise OutputRefused(
                f"the output {target} overlaps {expand(input_path)}, which the same call reads or writes; "
                "write elsewhere"
            )


def within(path: Path, folder: Path) -> bool:
    """Return whether a path is or lies below a folder; paths are compared on disk, not as text."""
    for part in (path, *path.parents):
        if part == folder:
            return True
        with contextlib.suppress(OSError):
            if part.samefile(folder):
                return True
    return False


def _refuse_place(target: Path) -> None:
    """Refuse an output inside a store or a model, which would make it unreadable, or in a locked folder."""
    for folder in target.parents:
        if any((folder / name).is_file() for name in STORES):
            raise OutputRefused(f"{target} lies inside the Zarr store {folder}; write beside it")
        if (folder / "config.json").is_file() and (folder / "model.safetensors").is_file():
            raise OutputRefused(f"{target} lies inside the model {folder}; write beside it")
    if target.exists():
        return
    parent = next(p for p in target.parents if p.exists())
    if not parent.is_dir():
        raise OutputRefused(
            f"{parent} is a file, so {target} cannot be created; choose another path"
        )
    if not os.access(parent, os.W_OK | os.X_OK):
        raise OutputRefused(
            f"this user has no permission to write to {parent}; choose another folder"
        )


def _refuse_mismatch(target: Path, kind: Kind) -> None:
    """Refuse to replace anything except an output of the same kind."""
    remedy = "overwrite=True will not delete it: move it, or write elsewhere"
    if target.is_dir() != kind.folder or not (target.is_dir() or target.is_file()):
        actual = "not a folder" if kind.folder else "not a regular file"
        actual = "a folder" if target.is_dir() else actual
        raise OutputRefused(f"{target} is {actual}, so it is not a {kind.name}; {remedy}")
    if target.is_dir() and not any(target.iterdir()):
        return
    try:
        reason = kind.mismatch(target)
    except OSError as error:
        raise GeomiamError(f"{target} cannot be read ({error}); {remedy}") from None
    if reason:
        raise OutputRefused(f"{target} {reason}; {remedy}")
