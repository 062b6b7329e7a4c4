"""Atomic writes: an output appears at its path when complete, and replaces an earlier one."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a hidden path beside the target, and rename it to the target if no exception is raised."""
    hidden = f".{target.name}.{uuid.uuid4().hex[:8]}.partial"
    partial = target.with_name(hidden)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        replace(target, partial)
    finally:
        remove(partial)


def replace(target: Path, partial: Path) -> None:
    """Replace a target by renaming; the old one is removed last, as the new store may have read from it."""
    if not target.is_dir():
        os.replace(partial, target)
        return
    old = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.old")
    target.rename(old)
    try:
        partial.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder if it exists; the target of a link is not removed."""
    if path.is_symlink() or path.is_file():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)


def copy_mode(model: Path, path: Path) -> None:
    """Copy the mode of a file that was created with the user's umask.

    This is needed because safetensors creates files that only their owner can read.
    """
    path.chmod(stat.S_IMODE(model.stat().st_mode))


def write_text(path: Path, text: str) -> None:
    """Write a small file atomically; a link at this path is replaced, not followed."""
    with atomic_path(path) as partial, open(partial, "x", encoding="utf-8") as file:
        file.write(text)
