"""Darwin Core archives: the tables that meta.xml describes, with events joined to their occurrences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import pandas as pd

from geomiam.checks.files import refusing
from geomiam.checks.xml import local_name, parse_xml
from geomiam.data.records.archive import META, Archive, damaged
from geomiam.data.records.surveys import join_events
from geomiam.data.records.text import check_encoding, missing_by_column
from geomiam.errors import OccurrenceError

MAX_META = 2**22
"""Largest meta.xml in bytes."""
MAX_FIELDS = 2000
"""Largest number of columns of a table."""
IDS = ("eventID", "parentEventID", "occurrenceID")
"""Identifiers, which are text also where they are digits."""
ESCAPES = {"\\t": "\t", "\\n": "\n", "\\r": "\r", "\\r\\n": "\r\n"}


@dataclass(frozen=True)
class TableFile:
    """One table of an archive."""

    kind: str
    """Last part of the row type, such as ``Occurrence``; ``Survey`` for the Humboldt extension."""
    files: tuple[str, ...]
    columns: dict[int, str]
    """Term of each column, by position."""
    defaults: dict[str, str]
    """Terms that have one value in all rows and no column."""
    id_column: int | None
    sep: str
    quote: str
    encoding: str
    header_lines: int

    @classmethod
    def of(cls, element: ElementTree.Element, *, location: str) -> TableFile:
        """Return the table that an element ``core`` or ``extension`` describes.

        Raises
        ------
        OccurrenceError
            If a position is no number, or the table has no file.
        """
        try:
            return cls._of(element)
        except (ValueError, LookupError) as cause:
            raise OccurrenceError(
                f"{META} in {location} does not describe its tables ({cause}); fetch the archive again, or pass "
                "the path of its table of occurrences"
            ) from None

    @classmethod
    def _of(cls, element: ElementTree.Element) -> TableFile:
        parts = [(local_name(e), e) for e in element.iter()]
        fields = [e for name, e in parts if name == "field"][:MAX_FIELDS]
        columns: dict[int, str] = {}
        defaults: dict[str, str] = {}
        for field in fields:
            term = field.get("term", "").rstrip("/").replace("#", "/").rpartition("/")[2]
            if not term or term in columns.values():
                continue
            if (index := field.get("index")) is not None:
                columns.setdefault(_position(index), term)
            elif (value := field.get("default")) is not None:
                defaults[term] = value
        ids = [e.get("index") for name, e in parts if name in ("id", "coreid")]
        sep = element.get("fieldsTerminatedBy", ",")
        sep = ESCAPES.get(sep, sep)
        if len(sep) != 1:
            raise ValueError(f"fieldsTerminatedBy is {sep!r}")
        encoding = element.get("encoding") or "utf-8"
        check_encoding(encoding)
        return cls(
            kind=_kind(element.get("rowType", "")),
            files=tuple((e.text or "").strip() for name, e in parts if name == "location"),
            columns=columns,
            defaults={k: v for k, v in defaults.items() if k not in columns.values()},
            id_column=_position(ids[0]) if ids and ids[0] is not None else None,
            sep=sep,
            quote=element.get("fieldsEnclosedBy", '"')[:1],
            encoding="utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding,
            header_lines=_position(element.get("ignoreHeaderLines") or "0"),
        )


def _position(text: str) -> int:
    number = int(text)
    if not 0 <= number < MAX_FIELDS:
        raise ValueError(f"position {number} is outside 0 to {MAX_FIELDS}")
    return number


def _kind(row_type: str) -> str:
    """Return the last part of a row type; surveys of the Humboldt extension have that of events."""
    last = row_type.rstrip("/").replace("#", "/").rpartition("/")[2]
    return "Survey" if "/eco/" in row_type else last


def read_archive(archive: Archive) -> pd.DataFrame:
    """Return the occurrences of an archive, with the columns of their events, and absences of surveys.

    Terms without any value are left out: an archive of GBIF has more than 200 columns.

    Raises
    ------
    OccurrenceError
        If meta.xml is damaged, or the archive has no occurrences.
    """
    root = parse_xml(
        archive.read(META, max_bytes=MAX_META),
        location=f"{META} in {archive.name}",
        error=OccurrenceError,
    )
    elements = [e for e in root.iter() if local_name(e) in ("core", "extension")]
    tables = [TableFile.of(e, location=archive.name) for e in elements]
    core_kind = next(
        (t.kind for t, e in zip(tables, elements) if local_name(e) == "core"), "nothing"
    )
    occurrences = next((t for t in tables if t.kind == "Occurrence"), None)
    if occurrences is None or core_kind not in ("Occurrence", "Event"):
        kinds = ", ".join(t.kind for t in tables) or "no table"
        raise OccurrenceError(
            f"{archive.name} has {kinds} with the core {core_kind}, and records need a core or an extension "
            "Occurrence: pass an archive of occurrences or of sampling events"
        )
    frame = _read(archive, occurrences)
    if core_kind == "Occurrence":
        return frame.drop(columns="id", errors="ignore").dropna(axis=1, how="all")
    events = _read(archive, next(t for t in tables if t.kind == "Event"))
    surveys = [_read(archive, t) for t in tables if t.kind == "Survey"]
    table = join_events(frame, events, surveys[0] if surveys else None, location=archive.name)
    return table.dropna(axis=1, how="all")


def _read(archive: Archive, table: TableFile) -> pd.DataFrame:
    """Return one table of an archive; the column ``id`` has the identifier of the core, as text."""
    columns = dict(table.columns)
    ids = {} if table.id_column is None else {table.id_column: "id"}
    positions = sorted({*columns, *ids})
    texts = {i: str for i in positions if i in ids or columns.get(i) in IDS}
    frames = []
    for name in table.files:
        options: dict[str, Any] = {
            "sep": table.sep,
            "header": None,
            "skiprows": table.header_lines,
            "usecols": positions,
            "dtype": texts,
            "encoding": table.encoding,
            "low_memory": False,
            **missing_by_column(positions, names=[columns.get(i, "id") for i in positions]),
        }
        quoting = {"quotechar": table.quote} if table.quote else {"quoting": 3}
        with archive.open(name) as stream:
            try:
                frames.append(pd.read_csv(stream, **options, **quoting))
            except pd.errors.EmptyDataError:
                frames.append(pd.DataFrame({i: pd.Series(dtype=object) for i in positions}))
            except (ValueError, pd.errors.ParserError, UnicodeError, OSError) as cause:
                raise OccurrenceError(
                    f"{name} in {archive.name} does not have the form that {META} states "
                    f"({str(cause).strip()[:200]}): fetch the archive again, or pass the path of the table"
                ) from None
            except Exception as cause:  # zipfile and zlib raise errors of several classes
                with refusing(OccurrenceError, damaged(archive.path)):
                    raise cause
    if not frames:
        raise OccurrenceError(
            f"{META} in {archive.name} names no file for {table.kind}; fetch it again"
        )
    frame = pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]
    terms_frame = frame[list(columns)].set_axis(list(columns.values()), axis=1)
    if ids and "id" not in terms_frame:
        terms_frame["id"] = frame[table.id_column]
    return terms_frame.assign(**table.defaults)
