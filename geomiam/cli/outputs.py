"""Outputs of the command line: reserved before any work; tables for people or programs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click
import typer

from geomiam.cli.messages import say
from geomiam.errors import GeomiamError
from geomiam.outputs.check import check_output, locked_output
from geomiam.outputs.kinds import PICTURE, Kind
from geomiam.outputs.write import check_picture

if TYPE_CHECKING:
    import pandas as pd


def reserve(path: str | Path, overwrite: bool, *, kind: Kind, inputs: Iterable[Any] = ()) -> Path:
    """Return the real path of an output, and lock it until the command ends."""
    inputs = tuple(inputs)
    if kind is PICTURE:
        check_picture(path, overwrite, inputs=inputs)
    context = click.get_current_context(silent=True)
    if context is None:
        return check_output(path, overwrite, kind=kind, inputs=inputs)
    return context.with_resource(locked_output(path, overwrite, kind=kind, inputs=inputs))


AsJson = Annotated[bool, typer.Option("--json", help="Print the table as JSON: a list of rows.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="Print the table as CSV.")]


def say_table(table: pd.DataFrame, text: str, *, as_json: bool, as_csv: bool) -> None:
    """Print a table as JSON, with null for NaN, or as CSV; otherwise the text."""
    if as_json and as_csv:
        raise GeomiamError("--json and --csv both set the format of the table; pass one of them")
    if as_json:
        say(table.to_json(orient="records", force_ascii=False, indent=1, double_precision=15))
    elif as_csv:
        say(table.to_csv(index=False, lineterminator="\n").rstrip("\n"))
    else:
        say(text)
