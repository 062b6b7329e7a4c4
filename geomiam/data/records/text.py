"""Text with separators: its dialect, its encoding, and its missing values."""

from __future__ import annotations

import codecs
import re
from typing import IO, Any

import pandas as pd

from geomiam.errors import OccurrenceError

MISSING = (
    *("", "NA", "N/A", "n/a", "#N/A", "#N/A N/A", "<NA>", "NaN", "nan", "-nan", "-NaN"),
    *("null", "NULL", "None", "#NA", "1.#QNAN", "-1.#QNAN", "1.#IND", "-1.#IND"),
)
"""Texts that stand for a missing value."""
CODES = ("countrycode", "country_code", "iso2", "iso_a2", "publishingcountry")
"""Columns of two-letter codes of countries, in which NA is Namibia."""


def read_text(
    source: IO[bytes] | str, *, head: bytes | None, name: str, encoding: str | None = None
) -> pd.DataFrame:
    """Return text, or that at a URL, as a table; ``name`` is that of the file in messages.

    The separator, the quoting and the decimal mark are detected in the first bytes ``head``; None stands for commas.
    Raises OccurrenceError if the text is no table, or has another encoding.
    """
    check_encoding(encoding)
    options: dict[str, Any] = {"low_memory": False, "encoding": encoding or "utf-8-sig"}
    if head is not None:
        options |= dialect(head, encoding=encoding) | missing_values(head, encoding=encoding)
    try:
        return pd.read_csv(source, **options)
    except UnicodeDecodeError as error:
        raise OccurrenceError(
            f"{name} cannot be read as {encoding or 'UTF-8'} ({str(error).strip()}): read it with "
            "gm.read_records(path, encoding='cp1252') if it is from Windows, or with another encoding"
        ) from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeError) as error:
        sep = options.get("sep", ",")
        raise OccurrenceError(
            f"{name} cannot be read as text separated by {sep!r} ({str(error).strip()}): read it "
            "with pd.read_csv(..., sep=..., encoding=...) and pass the table"
        ) from None


def check_encoding(encoding: str | None) -> None:
    """Refuse the name of an encoding that Python does not have."""
    try:
        codecs.lookup(encoding or "utf-8")
    except LookupError:
        raise OccurrenceError(
            f"encoding={encoding!r} is unknown; use for example 'utf-8', 'cp1252' or 'latin-1'"
        ) from None


def _first_lines(head: bytes, encoding: str | None) -> tuple[str, str]:
    text = head.decode(encoding or "utf-8", errors="replace").removeprefix("\ufeff")
    header, _, rows = text.partition("\n")
    return header.rstrip("\r"), rows


def dialect(head: bytes, *, encoding: str | None = None) -> dict[str, Any]:
    """Return the separator, quoting and decimal mark, as detected in the first lines of a file."""
    header, rows = _first_lines(head, encoding)
    sep = max(",;\t", key=header.count)
    if sep == "\t" and '"' not in header:  # GBIF does not quote: a quotation mark is text
        ends = {} if "\r" in header + rows else {"lineterminator": "\n"}
        return {"sep": sep, "quoting": 3, **ends}
    comma = sep == ";" and re.search(r";-?\d+,\d", rows) and not re.search(r";-?\d+\.\d", rows)
    return {"sep": sep, "decimal": "," if comma else "."}


def missing_values(head: bytes, *, encoding: str | None = None) -> dict[str, Any]:
    """Return the missing values of each column, if a column has codes of countries."""
    header, _ = _first_lines(head, encoding)
    sep = dialect(head, encoding=encoding)["sep"]
    columns = [c.strip().strip('"') for c in header.split(sep)]
    if not set(map(str.lower, columns)) & set(CODES) or len(set(columns)) < len(columns):
        return {}
    return missing_by_column(columns)


def missing_by_column(columns: list[Any], *, names: list[str] | None = None) -> dict[str, Any]:
    """Return options of ``pandas.read_csv``: in codes of countries, only blank text is missing."""
    names = names or [str(c) for c in columns]
    values = {c: [""] if n.lower() in CODES else list(MISSING) for c, n in zip(columns, names)}
    return {"na_values": values, "keep_default_na": False}
