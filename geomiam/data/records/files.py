"""Reading of occurrence files: text, Parquet, vector files, and Darwin Core archives."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import pandas as pd

from geomiam.checks.files import refusing, regular_file
from geomiam.data.records.archive import MAX_RATIO, META, SMALL_TEXT, Archive, damaged
from geomiam.data.records.cubes import with_cell_centres
from geomiam.data.records.darwin_core import read_archive
from geomiam.data.records.origin import origin_of
from geomiam.data.records.text import read_text
from geomiam.errors import InputNotFound, OccurrenceError
from geomiam.outputs.paths import expand, is_remote

TEXT = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt", ".txt.gz")
PARQUET = (".parquet", ".pq")
VECTOR = (".gpkg", ".geojson", ".shp", ".fgb")
FORMATS = (*TEXT, *PARQUET, *VECTOR, ".zip")
HEAD = 65536
"""Number of bytes of text that are read to determine its separator."""
BESIDE = ("citations.txt", "rights.txt")
"""Text files of an archive that are no tables."""


def read_table(source: Any, *, encoding: str | None = None) -> pd.DataFrame:
    """Return the records of a table, text, Parquet, vector file, zip file, or folder of an unpacked archive.

    The separator of text is the tab, semicolon or comma, whichever is most frequent in the first line.
    GBIF's downloads use tabs and no quotation marks. Parquet with geometries is read with geopandas. The
    cell codes of an occurrence cube become coordinates. ``attrs["origin"]`` has the file, its format, and the source of
    the records, as far as it is recorded.

    Raises InputNotFound if the file does not exist, OccurrenceError for formats that are not supported, for text that is
    not a table, and for damaged archives.
    """
    if isinstance(source, pd.DataFrame):
        return with_cell_centres(source)
    source = expand(source) if isinstance(source, (str, Path)) else source
    table, origin = _read(source, encoding=encoding)
    table = with_cell_centres(table)
    table.attrs["origin"] = {"file": Path(source).name, **origin, **table.attrs.get("origin", {})}
    return table


def _read(source: Any, *, encoding: str | None) -> tuple[pd.DataFrame, dict[str, Any]]:
    name = str(source).lower()
    is_path = isinstance(source, (str, Path))
    if is_path and not is_remote(source):
        if Path(source).is_dir() or Path(source).name == META:
            folder = Path(source) if Path(source).is_dir() else Path(source).parent
            return _read_archive(Archive(folder), encoding=encoding)
        if name.endswith(FORMATS):
            if not Path(source).exists():
                raise InputNotFound(f"there is no file of occurrences at {source}; check the path")
            regular_file(source, error=OccurrenceError)
            if Path(source).name == "occurrence.txt" and (Path(source).parent / META).is_file():
                return _read_archive(Archive(Path(source).parent), encoding=encoding)
            if name.endswith(".zip"):
                return _read_archive(Archive(Path(source)), encoding=encoding)
    if is_path and name.endswith(TEXT):
        return _read_text_file(source, encoding=encoding), {"format": "text"}
    if is_path and name.endswith(PARQUET):
        with refusing(OccurrenceError, damaged(source)):
            return _parquet(source), {"format": "Parquet"}
    if is_path and name.endswith(VECTOR):
        import geopandas

        with refusing(OccurrenceError, damaged(source)):
            return geopandas.read_file(source), {"format": "vector file"}
    raise OccurrenceError(
        "occurrences are a DataFrame, a GeoDataFrame or a path to csv, tsv, txt, zip, parquet or gpkg, "
        f"found {Path(source).name if is_path else type(source).__name__}; "
        "read it with pandas or geopandas and pass the table"
    )


def _read_archive(archive: Archive, *, encoding: str | None) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Read a Darwin Core archive, or the only table of a zip file."""
    origin = origin_of(archive)
    if META in archive.names:
        table = read_archive(archive)
        return table, {"format": "Darwin Core archive", **origin}
    tables = [n for n in archive.names if n.lower().endswith((*TEXT, *PARQUET)) and n not in BESIDE]
    occurrences = [n for n in tables if n.lower() == "occurrence.txt"] or tables
    if len(occurrences) != 1 or not occurrences[0].lower().endswith((".csv", ".tsv", ".txt")):
        raise OccurrenceError(
            f"{archive.name} has no {META} and {len(tables)} tables ({list(archive.names[:8])}), so it is unclear "
            "which one has the records; unpack it and pass the path of that file"
        )
    with refusing(OccurrenceError, damaged(archive.path)):
        with archive.open(occurrences[0]) as stream:
            head = stream.read(HEAD)
        with archive.open(occurrences[0]) as stream:
            table = read_text(stream, head=head, name=occurrences[0], encoding=encoding)
    return table, {"format": "text", **origin}


def _read_text_file(source: str | Path, *, encoding: str | None) -> pd.DataFrame:
    if not Path(source).is_file():  # a URL
        return read_text(str(source), head=None, name=str(source), encoding=encoding)
    with _stream(Path(source)) as stream:
        head = stream.read(HEAD)
    with _stream(Path(source)) as stream:
        return read_text(stream, head=head, name=Path(source).name, encoding=encoding)


@contextmanager
def _stream(path: Path) -> Iterator[IO[bytes]]:
    if path.suffix.lower() != ".gz":
        with path.open("rb") as stream:
            yield stream
        return
    _check_unpacked(path)
    with gzip.open(path, "rb") as unpacked_stream:
        yield cast(IO[bytes], unpacked_stream)


def _check_unpacked(path: Path) -> None:
    """Refuse a gzip file that is damaged, or whose text is so large that it may exceed the memory."""
    size = path.stat().st_size
    max_bytes, total = max(SMALL_TEXT, MAX_RATIO * size), 0
    with refusing(OccurrenceError, damaged(path)), gzip.open(path, "rb") as stream:
        while total <= max_bytes and (part := stream.read(2**20)):
            total += len(part)
    if total > max_bytes:
        raise OccurrenceError(
            f"{path.name} has {size:,} bytes and unpacks to more than {max_bytes:,}, which is not plausible for "
            "a table; unpack it with gunzip, inspect it, and pass the unpacked file"
        )


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
