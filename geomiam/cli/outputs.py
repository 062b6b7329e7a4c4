"""Outputs of the command line: reserved before any work; tables for people or programs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from geomiam.cli.messages import say
from geomiam.errors import GeomiamError
from geomiam.outputs.check import check_output, locked_output
from geomiam.outputs.kinds import PICTURE, Kind
from geomiam.outputs.write import check_picture

if TYPE_CHECKING:
    import pandas as pd


_LOCKS: ContextVar[ExitStack | None] = ContextVar("locks", default=None)


def with_locks(verb: Callable[..., None]) -> Callable[..., None]:
    """Return a verb that holds the locks of its outputs until it ends."""

    @functools.wraps(verb)
    def call(**values: Any) -> None:
        with ExitStack() as locks:
            token = _LOCKS.set(locks)
            try:
                verb(**values)
            finally:
                _LOCKS.reset(token)

    return call


def reserve(path: str | Path, overwrite: bool, *, kind: Kind, inputs: Iterable[Any] = ()) -> Path:
    """Return the real path of an output, and lock it until the verb ends."""
    inputs = tuple(inputs)
    if kind is PICTURE:
        check_picture(path, overwrite, inputs=inputs)
    locks = _LOCKS.get()
    if locks is None:
        return check_output(path, overwrite, kind=kind, inputs=inputs)
    return locks.enter_context(locked_output(path, overwrite, kind=kind, inputs=inputs))


def reserve_pair(
    out: Path | None,
    figure: Path | None,
    overwrite: bool,
    *,
    kind: Kind,
    inputs: Sequence[Path | str | None],
) -> None:
    """Lock a store and a picture that a verb writes, each if requested."""
    if out:
        reserve(out, overwrite, kind=kind, inputs=[*inputs, figure])
    if figure:
        reserve(figure, overwrite, kind=PICTURE, inputs=[*inputs, out])


@dataclass(frozen=True)
class TableFlags:
    """Format of a table that a verb prints."""

    as_json: Annotated[
        bool, typer.Option("--json", help="Print the table as JSON: a list of rows.")
    ] = False
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the table as CSV.")] = False

    def __post_init__(self) -> None:
        if self.as_json and self.as_csv:
            raise GeomiamError(
                "--json and --csv both set the format of the table; pass one of them"
            )

    @property
    def for_programs(self) -> bool:
        """Whether nothing but the table is printed."""
        return self.as_json or self.as_csv

    def say(self, table: pd.DataFrame, text: str) -> None:
        """Print a table as JSON, with null for NaN, or as CSV; otherwise the text."""
        if self.as_json:
            say(table.to_json(orient="records", force_ascii=False, indent=1, double_precision=15))
        elif self.as_csv:
            say(table.to_csv(index=False, lineterminator="\n").rstrip("\n"))
        else:
            say(text)

    def say_paths(self, *paths: Path | None) -> None:
        """Print the files that were written, unless the output is for programs."""
        for path in paths:
            if path and not self.for_programs:
                say(f"→ {path}")
