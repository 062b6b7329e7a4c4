"""Putting a complete output in its place, and removing the one that it replaces."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def complete(target: Path) -> Iterator[Path]:
    """Yield a hidden path beside the target; put it in the target's place if nothing was raised."""
    hidden = f".{target.name}.{uuid.uuid4().hex[:8]}.partial"
    partial = target.with_name(hidden)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        replace(target, partial)
    finally:
        remove(partial)


def replace(target: Path, partial: Path) -> None:
    """Swap by renaming: a new store may be a view of the old one."""
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
    """Remove a file, a link or a folder where there is one; what a link leads to stays."""
    if path.is_symlink() or path.is_file():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)


def copy_mode(model: Path, path: Path) -> None:
    """Give a file the mode of another that was made under the user's umask.

    safetensors makes its files readable for their owner alone.
    """
    path.chmod(stat.S_IMODE(model.stat().st_mode))


def write_text(path: Path, text: str) -> None:
    """Write a small file in one step; what a link of that name leads to stays."""
    with complete(path) as partial, open(partial, "x", encoding="utf-8") as file:
        file.write(text)
