"""Tables on the command line: aligned for people, or as JSON or CSV for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from geomiam.cli.messages import say
from geomiam.errors import GeomiamError

if TYPE_CHECKING:
    import pandas as pd

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
