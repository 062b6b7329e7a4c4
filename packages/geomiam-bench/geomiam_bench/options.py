"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[Path, typer.Option("--json", help="Results.")]
Figure = Annotated[Path | None, typer.Option(help="Picture to write, e.g. out.png.")]
Names = Annotated[str, typer.Option(help="Names, separated by commas.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier output.")]


def listed(text: str, *, separator: str = ",") -> tuple[str, ...]:
    """Return the names in a text."""
    return tuple(name.strip() for name in text.split(separator) if name.strip())
