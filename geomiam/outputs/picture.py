"""Writing of figures."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from geomiam._version import __version__
from geomiam.errors import OutputRefused
from geomiam.outputs.atomic import atomic_path
from geomiam.outputs.check import check_output, locked_output
from geomiam.outputs.kinds import PICTURE

AUTHORED = {"png": "Software", "pdf": "Creator", "svg": "Creator"}
"""Formats, and the metadata field of each for the program: geomiam replaces only its own pictures."""


def check_picture(path: str | Path, overwrite: bool, *, inputs: Iterable[Any] = ()) -> Path:
    """Return the real path of a picture that may be written.

    Raises
    ------
    OutputExists, OutputRefused
        As in :func:`geomiam.outputs.check.check_output`, and for formats other than png, pdf and svg.
    """
    _format(path)
    return check_output(path, overwrite, kind=PICTURE, inputs=inputs)


def save_picture(figure: Any, path: str | Path, *, overwrite: bool = False, dpi: int = 130) -> Path:
    """Write a matplotlib figure atomically.

    Raises
    ------
    OutputExists, OutputRefused, OutputBusy
        As in :func:`geomiam.outputs.check.locked_output`, and for formats other than png, pdf and svg.
    """
    kind = _format(path)
    with locked_output(path, overwrite, kind=PICTURE) as target, atomic_path(target) as partial:
        metadata = {AUTHORED[kind]: f"geomiam {__version__}"}
        figure.savefig(partial, format=kind, dpi=dpi, metadata=metadata)
    return target


def _format(path: str | Path) -> str:
    suffix = Path(path).suffix.lower().removeprefix(".")
    if suffix not in AUTHORED:
        raise OutputRefused(
            f"{path}: the suffix of a picture must be .png, .pdf or .svg, found '.{suffix}'"
        )
    return suffix
