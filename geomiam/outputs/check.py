"""Checks of output paths, before the work and again before the output replaces an earlier one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from geomiam.errors import GeomiamError, OutputExists, OutputRefused
from geomiam.outputs.contents import Kind
from geomiam.outputs.kinds import CUBE
from geomiam.outputs.lock import output_lock
from geomiam.outputs.paths import expand, is_remote, real_path

STORES = ("zarr.json", ".zgroup", ".zarray", ".zmetadata")
"""Files that make a folder a Zarr group or array."""
LONGEST = 200
"""Largest name in bytes; the names of hidden siblings are longer and must fit into 255."""


def check_output(
    path: str | Path, overwrite: bool, *, kind: Kind = CUBE, inputs: Iterable[Any] = ()
) -> Path:
    """Return the real local path of an output that may be written.

    Parameters
    ----------
    path
        Output path: absolute or relative, with ``~``, or a file URL.
    overwrite
        Whether an output of the same kind may be replaced.
    kind
        Kind of the output.
    inputs
        Paths of inputs and of other outputs of the same call; None and URLs are ignored.

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
    target = _checked_path(path)
    refuse_overlap(target, inputs)
    _refuse_inside(target)
    if not target.exists():
        _refuse_parent(target)
    elif not overwrite:
        raise OutputExists(f"{target} exists; pass overwrite=True to replace it")
    else:
        _refuse_mismatch(target, kind)
    return target


@contextlib.contextmanager
def locked_output(
    path: str | Path, overwrite: bool, *, kind: Kind = CUBE, inputs: Iterable[Any] = ()
) -> Iterator[Path]:
    """Check and lock an output, and yield its real path.

    Raises
    ------
    OutputExists, OutputRefused
        As in :func:`check_output`.
    OutputBusy
        When another process or thread writes it.
    """
    inputs = tuple(inputs)
    target = check_output(path, overwrite, kind=kind, inputs=inputs)
    with output_lock(target):
        yield check_output(target, overwrite, kind=kind, inputs=inputs)


def _checked_path(path: str | Path) -> Path:
    """Return the path with links followed; refuse paths without the name of a file or folder."""
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
    return target


def refuse_overlap(target: Path, inputs: Iterable[Any]) -> None:
    """Refuse an output that equals, contains or lies inside an input.

    Raises
    ------
    OutputRefused
        With both paths.
    """
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


def _refuse_inside(target: Path) -> None:
    """Refuse an output inside a store or a model, as it would make that store or model unreadable."""
    for folder in target.parents:
        if any((folder / name).is_file() for name in STORES):
            raise OutputRefused(f"{target} lies inside the Zarr store {folder}; write beside it")
        if (folder / "config.json").is_file() and (folder / "model.safetensors").is_file():
            raise OutputRefused(f"{target} lies inside the model {folder}; write beside it")


def _refuse_parent(target: Path) -> None:
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
        actual = (
            "a folder"
            if target.is_dir()
            else "not a folder"
            if kind.folder
            else "not a regular file"
        )
        raise OutputRefused(f"{target} is {actual}, so it is not a {kind.name}; {remedy}")
    if target.is_dir() and not any(target.iterdir()):
        return
    try:
        reason = kind.mismatch(target)
    except OSError as error:
        raise GeomiamError(f"{target} cannot be read ({error}); {remedy}") from None
    if reason:
        raise OutputRefused(f"{target} {reason}; {remedy}")
