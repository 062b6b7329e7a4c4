"""Reading of occurrence files: text with commas, semicolons or tabs, Parquet, and vector files."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any

import pandas as pd

from geomiam.checks.files import refusing, regular_file
from geomiam.errors import InputNotFound, OccurrenceError
from geomiam.outputs.paths import expand, is_remote

TEXT = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt", ".txt.gz")
PARQUET = (".parquet", ".pq")
VECTOR = (".gpkg", ".geojson", ".shp", ".fgb")
FORMATS = (*TEXT, *PARQUET, *VECTOR)
HEAD = 65536
"""Number of bytes of a text file that are read to determine its separator."""
MAX_RATIO = 200
"""Largest ratio of the text to its gzip file; that of real tables is 3 to 30."""
SMALL_TEXT = 2**26
"""Size of text in bytes that is accepted at any compression ratio."""


def read_table(source: Any) -> pd.DataFrame:
    """Return a DataFrame or GeoDataFrame.

    The separator of text is the tab, semicolon or comma, whichever is most frequent in the first line.
    GBIF's downloads use tabs and no quotation marks. Parquet with geometries is read with geopandas.

    Raises
    ------
    InputNotFound
        If the file does not exist.
    OccurrenceError
        For formats that are not supported, and for text that is not a table.
    """
    if isinstance(source, pd.DataFrame):
        return source
    source = expand(source) if isinstance(source, (str, Path)) else source
    name = str(source).lower()
    if isinstance(source, (str, Path)) and name.endswith(FORMATS) and not is_remote(source):
        if not Path(source).exists():
            raise InputNotFound(f"there is no file of occurrences at {source}; check the path")
        regular_file(source, error=OccurrenceError)
    if name.endswith(TEXT):
        return _read_text(source)
    if name.endswith(PARQUET):
        return _read_parquet(source)
    if name.endswith(VECTOR):
        import geopandas

        with refusing(OccurrenceError, _damaged(source)):
            return geopandas.read_file(source)
    raise OccurrenceError(
        f"occurrences are a DataFrame, a GeoDataFrame or a path to csv, tsv, txt, parquet or gpkg, "
        f"found {Path(source).name if isinstance(source, (str, Path)) else type(source).__name__}; "
        "read it with pandas or geopandas and pass the table"
    )


def _damaged(source: str | Path) -> str:
    name = Path(source).name
    return f"{name} cannot be read; it is damaged, or its format differs from its suffix: fetch it again"


def _read_text(source: str | Path) -> pd.DataFrame:
    options: dict[str, Any] = {"low_memory": False}
    if Path(source).is_file():  # a URL is read as it is
        options |= _dialect(Path(source))
    try:
        return pd.read_csv(source, **options)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        sep = options.get("sep", ",")
        raise OccurrenceError(
            f"{Path(source).name} cannot be read as text separated by {sep!r} ({str(error).strip()}): read it "
            "with pd.read_csv(..., sep=..., encoding=...) and pass the table"
        ) from None


def _dialect(path: Path) -> dict[str, Any]:
    """Return the separator, quoting and decimal mark, as detected in the first lines of a file."""
    if path.suffix.lower() == ".gz":
        _check_unpacked(path)
    with (gzip.open if path.suffix.lower() == ".gz" else open)(path, "rb") as stream:
        head = stream.read(HEAD).decode("utf-8", errors="replace").removeprefix("\ufeff")
    header, _, rows = head.partition("\n")
    sep = max(",;\t", key=header.count)
    if sep == "\t" and '"' not in header:  # GBIF does not quote: a quotation mark is text
        return {"sep": sep, "quoting": 3}
    comma = sep == ";" and re.search(r";-?\d+,\d", rows) and not re.search(r";-?\d+\.\d", rows)
    return {"sep": sep, "decimal": "," if comma else "."}


def _check_unpacked(path: Path) -> None:
    """Refuse a gzip file that is damaged, or whose text is so large that it may exceed the memory."""
    size = path.stat().st_size
    max_bytes, total = max(SMALL_TEXT, MAX_RATIO * size), 0
    with refusing(OccurrenceError, _damaged(path)), gzip.open(path, "rb") as stream:
        while total <= max_bytes and (part := stream.read(2**20)):
            total += len(part)
    if total > max_bytes:
        raise OccurrenceError(
            f"{path.name} has {size:,} bytes and unpacks to more than {max_bytes:,}, which is not plausible for "
            "a table; unpack it with gunzip, inspect it, and pass the unpacked file"
        )


def _read_parquet(source: str | Path) -> pd.DataFrame:
    with refusing(OccurrenceError, _damaged(source)):
        return _parquet(source)


def _parquet(source: str | Path) -> pd.DataFrame:
    if Path(source).is_file() and _has_geometry(Path(source)):
        try:
            import geopandas
        except ImportError:
            raise OccurrenceError(
                f"{Path(source).name} is GeoParquet, which needs geopandas: pip install geopandas"
            ) from None
        return geopandas.read_parquet(source)
    return pd.read_parquet(source)


def _has_geometry(path: Path) -> bool:
    try:
        from pyarrow.parquet import read_schema
    except ImportError:  # pandas then reports the missing package
        return False
    return b"geo" in (read_schema(path).metadata or {})
