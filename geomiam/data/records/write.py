"""Tables of records on disk: Parquet, which keeps the origin and the counts, or CSV."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from geomiam._version import __version__
from geomiam.errors import OutputRefused
from geomiam.outputs.check import locked_output
from geomiam.outputs.kinds import RECORDS
from geomiam.outputs.write import atomic_path

SUFFIXES = (".parquet", ".csv")


def check_suffix(path: str | Path) -> None:
    """Refuse a name that is neither Parquet nor CSV.

    Raises
    ------
    OutputRefused
        With the suffixes that are supported.
    """
    if not str(path).lower().endswith(SUFFIXES):
        raise OutputRefused(
            f"{Path(path).name} has no suffix of a table of records; use records.parquet, which keeps the DOI and the "
            "counts, or records.csv"
        )


def write_records(records: pd.DataFrame, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write records as Parquet or CSV; the file appears at its path only when complete.

    Raises
    ------
    OutputRefused
        If the suffix is not supported, pyarrow is not installed, or the path has another file.
    OutputExists
        If the path exists and ``overwrite`` is False.
    """
    check_suffix(path)
    table = records.copy(deep=False)
    table.attrs = {**records.attrs, "geomiam": __version__}
    with locked_output(path, overwrite, kind=RECORDS) as target, atomic_path(target) as partial:
        if target.suffix.lower() == ".csv":
            table.to_csv(partial, index=False, lineterminator="\n")
        else:
            _to_parquet(table, partial)
    return target


def _to_parquet(table: pd.DataFrame, path: Path) -> None:
    """Write Parquet; columns of mixed types become text."""
    for name in table.columns:
        if table[name].dtype == object:
            table[name] = table[name].astype("string")
    try:
        table.to_parquet(path, index=False)
    except ImportError:
        raise OutputRefused(
            "Parquet needs pyarrow: pip install 'geomiam[vector]', or write records.csv"
        ) from None
