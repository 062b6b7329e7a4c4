"""Tables of results as JSON files."""

from __future__ import annotations

from pathlib import Path

from geomiam.outputs.claim import claimed
from geomiam.outputs.kinds import RESULTS
from geomiam.outputs.place import write_text


def save_results(path: str | Path, text: str) -> None:
    """Write a JSON table of results in one step; an earlier one is replaced.

    Raises
    ------
    OutputRefused
        When anything but a table of results of geomiam is there.
    OutputBusy
        When another writer is at work there.
    """
    with claimed(path, True, kind=RESULTS) as target:
        write_text(target, text)
