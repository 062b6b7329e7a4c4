"""Writing of result tables as JSON files."""

from __future__ import annotations

from pathlib import Path

from geomiam.outputs.atomic import write_text
from geomiam.outputs.check import locked_output
from geomiam.outputs.kinds import RESULTS


def save_results(path: str | Path, text: str) -> None:
    """Write a JSON table of results atomically; an earlier table is replaced.

    Raises
    ------
    OutputRefused
        When the path has any other content.
    OutputBusy
        When another process or thread writes to the path.
    """
    with locked_output(path, True, kind=RESULTS) as target:
        write_text(target, text)
