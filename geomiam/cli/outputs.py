"""Reserve outputs before any work, until the command ends."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from geomiam.outputs.check import check_output, locked_output
from geomiam.outputs.kinds import PICTURE, Kind
from geomiam.outputs.write import check_picture


def reserve(path: str | Path, overwrite: bool, *, kind: Kind, inputs: Iterable[Any] = ()) -> Path:
    """Return the real path of an output, and lock it until the command ends."""
    inputs = tuple(inputs)
    if kind is PICTURE:
        check_picture(path, overwrite, inputs=inputs)
    context = click.get_current_context(silent=True)
    if context is None:
        return check_output(path, overwrite, kind=kind, inputs=inputs)
    return context.with_resource(locked_output(path, overwrite, kind=kind, inputs=inputs))
