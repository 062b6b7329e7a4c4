"""Atomic writes: an output appears at its path when complete, and replaces an earlier one. Files and pictures."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from geomiam._version import __version__
from geomiam.errors import OutputRefused
from geomiam.outputs.check import check_output, locked_output
from geomiam.outputs.kinds import PICTURE, RESULTS

AUTHORED = {"png": "Software", "pdf": "Creator", "svg": "Creator"}
"""Formats, and the metadata field of each for the program: geomiam replaces only pictures that it wrote."""


@contextlib.contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a hidden path beside the target, and rename it to the target if no exception is raised."""
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
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
    """Copy the mode of a file that was created with the user's umask."""
    # safetensors creates files that only their owner can read.
    path.chmod(stat.S_IMODE(model.stat().st_mode))


def write_text(path: Path, text: str) -> None:
    """Write a small file atomically; a link at this path is replaced, not followed."""
    with atomic_path(path) as partial, open(partial, "x", encoding="utf-8") as file:
        file.write(text)


def save_results(path: str | Path, text: str) -> None:
    """Write a JSON table of results atomically; an earlier table is replaced, any other content refused."""
    with locked_output(path, True, kind=RESULTS) as target:
        write_text(target, text)


def check_picture(path: str | Path, overwrite: bool, *, inputs: Iterable[Any] = ()) -> Path:
    """Return the real path of a png, pdf or svg that may be written; raises the same errors as ``check_output``."""
    _format(path)
    return check_output(path, overwrite, kind=PICTURE, inputs=inputs)


def save_picture(figure: Any, path: str | Path, *, overwrite: bool = False, dpi: int = 130) -> Path:
    """Write a matplotlib figure atomically; raises the same errors as ``locked_output``."""
    kind = _format(path)
    with locked_output(path, overwrite, kind=PICTURE) as target, atomic_path(target) as partial:
        metadata = {AUTHORED[kind]: f"geomiam {__version__}"}
        figure.draw_without_rendering()  # the first layout of a map with a legend beside it cuts labels off
        figure.savefig(partial, format=kind, dpi=dpi, metadata=metadata)
    return target


def _format(path: str | Path) -> str:
    suffix = Path(path).suffix.lower().removeprefix(".")
    if suffix not in AUTHORED:
        raise OutputRefused(
            f"{path}: the suffix of a picture must be .png, .pdf or .svg, found '.{suffix}'"
        )
    return suffix
