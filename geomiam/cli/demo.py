"""``geomiam demo``: a first look, without data from the user."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from geomiam.cli.options import Overwrite


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for results.")] = Path(
        "out/demo"
    ),
    overwrite: Overwrite = False,
) -> None:
    """Train on bundled records of a species, map it in the western USA, and explain the map."""
    from geomiam.demo import run

    run(out, overwrite=overwrite)
