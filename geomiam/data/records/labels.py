"""Occurrence records: the species of each row, and whether it is a presence or an absence."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from geomiam.data.records.columns import species_column
from geomiam.data.records.coordinates import check_columns, numbers
from geomiam.errors import NamesJoined, OccurrenceError, warn

STATUS, COUNT = "occurrencestatus", "individualcount"
"""Darwin Core terms that record absences, in lower case."""
STATUSES = {
    **dict.fromkeys(("present", "common", "rare", "irregular", "uncommon"), 1.0),
    **dict.fromkeys(("absent", "excluded", "extinct"), 0.0),
    "doubtful": np.nan,
}
"""Vocabulary of occurrenceStatus; ``doubtful`` counts as not surveyed."""
LABELS = ("true", "false", "yes", "no", "presence", "absence", "na")
"""Text that is a label and not the name of a species."""
SHOWN = 5
"""Largest number of names that a message lists."""


@dataclass(frozen=True)
class Records:
    """Species and labels of the rows of a table."""

    codes: np.ndarray
    """Index of the species of each row of a long table, ``(row,)``; -1 for none."""
    values: np.ndarray
    """1, 0, or NaN for not surveyed: ``(row,)`` for long, ``(row, species)`` for wide tables."""
    names: np.ndarray
    """Names of the species, ``(species,)``."""
    absences: int = 0
    """Number of rows of a long table that are absences by Darwin Core terms."""

    @property
    def wide(self) -> bool:
        """Whether there is one column per species."""
        return self.values.ndim == 2


def labels_of(
    table: pd.DataFrame, *, species: str | Sequence[str], presence: str = "presence"
) -> Records:
    """Return the records of a long or a wide table.

    Raises OccurrenceError if a column is missing or has no valid labels. Warns NamesJoined if names differ by case or
    blanks only, and are joined to one species.
    """
    if not isinstance(species, str):
        if not len(species):
            raise OccurrenceError(
                "species=[] has no column: pass one column for each species, or the column of species names"
            )
        check_columns(table, species, setting="species=")
        return _wide(table, list(species))

    if species == "species" and (name := species_column(table)) is not None:
        species = name
    if species not in table.columns:
        raise OccurrenceError(
            f"no species column '{species}'; found columns {list(table.columns)}: pass species=..., "
            "species=[...] with one column per species, or table.assign(species='Quercus ilex')"
        )
    check_columns(table, [species], setting="species=")
    if presence != "presence" or presence in table.columns:
        check_columns(table, [presence], setting="presence=")
    if presence not in table.columns and _is_one_species(table[species], species):
        return _wide(table, [species])
    codes, names = species_of(table[species])
    if presence in table.columns:
        return Records(codes, to_presence(table, presence), names)
    values = _darwin_core(table)
    return Records(codes, values, names, absences=int((values == 0).sum()))


def _wide(table: pd.DataFrame, species: list[str]) -> Records:
    """Return the records of a table with one column per species; columns of equal names are merged by maximum."""
    columns = np.stack([to_presence(table, n) for n in species], axis=1)
    codes, names = join_names(pd.Series([str(s) for s in species]), keep_order=True)
    presence = np.full((len(table), len(names)), np.nan, dtype="float32")
    for column, code in zip(columns.T, codes):
        presence[:, code] = np.fmax(presence[:, code], column)
    return Records(np.zeros(len(table), int), presence, names)


def _is_one_species(column: pd.Series, name: str) -> bool:
    """Return whether a column has labels of the species in its name, and not names of species.

    Raises
    ------
    OccurrenceError
        When its numbers may be labels of one species or codes of several species.
    """
    if column.dropna().empty:
        return False
    if column.dtype.kind not in "biuf":
        return _holds_labels(column, name)
    values = column.dropna().astype(float)
    if not (values == 0).any() and not (name != "species" and (values == 1).all()):
        return False  # codes of species, such as GBIF's taxonKey, are never 0
    if name != "species" and values.isin([0, 1]).all():
        return True
    raise OccurrenceError(
        f"column '{name}' has numbers from {values.min():g} to {values.max():g}, and 0 is among them: pass "
        f'species=["{name}"] if they are labels or counts of that one species, or '
        f"table.assign({name}=table['{name}'].astype(str)) if they are codes of species"
    )


def _holds_labels(column: pd.Series, name: str) -> bool:
    """Return whether the text of a column consists of labels, such as PRESENT and ABSENT."""
    words = set(column.dropna().astype(str).str.strip().str.lower())
    if name != "species" and words <= set(STATUSES):
        return True
    if words <= {*STATUSES, *LABELS}:
        raise OccurrenceError(
            f"column '{name}' has {sorted(words)}, which are labels and not names of species: convert them "
            f'to 1 and 0 and pass species=["{name}"], or pass the column of species names'
        )
    return False


def species_of(column: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Return the species of each row ``(row,)``, -1 for none, and the sorted names ``(species,)``."""
    if column.dtype.kind == "f" and (column.dropna() % 1 == 0).all():  # integer codes and NaN
        column = column.astype("Int64")
    text = column.astype("object").where(column.notna(), None)
    return join_names(text.map(str, na_action="ignore"))


def join_names(column: pd.Series, *, keep_order: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Join names that differ by case, blanks or Unicode form; the most frequent spelling is the name.

    Returns the index of the name of each row, -1 for none or blank, and the names ``(species,)``, sorted unless
    ``keep_order``. Warns NamesJoined with the spellings.
    """
    tidy_names = {n: _tidy(n) or None for n in column.dropna().unique()}
    tidy = column.map(tidy_names, na_action="ignore").astype("object")
    spellings = pd.DataFrame({"raw": column, "tidy": tidy}).dropna(subset="tidy")
    spellings["key"] = spellings["tidy"].str.casefold()
    counts = spellings.value_counts().rename("n").reset_index()
    counts = counts.sort_values(["n", "tidy"], ascending=[False, True], kind="stable")
    name_of = counts.drop_duplicates("key").set_index("key")["tidy"]
    _warn_joined(counts.groupby("key")["raw"].agg(list), name_of)
    names = tidy.str.casefold().map(name_of, na_action="ignore") if len(name_of) else tidy
    codes, labels = pd.factorize(names.astype("object"), sort=not keep_order)
    return codes, np.array([str(n) for n in labels])


def _tidy(name: str) -> str:
    return " ".join(unicodedata.normalize("NFC", name).split())


def _warn_joined(spellings: pd.Series, name_of: pd.Series) -> None:
    spellings_of = {name_of[key]: raw for key, raw in spellings.items() if len(raw) > 1}
    if not spellings_of:
        return
    examples = "; ".join(f"'{name}' = {raw}" for name, raw in list(spellings_of.items())[:SHOWN])
    remainder = f"; and {len(spellings_of) - SHOWN} more" if len(spellings_of) > SHOWN else ""
    warn(
        f"{len(spellings_of)} species have several spellings that differ by case or blanks and are joined: {examples}{remainder}",
        NamesJoined,
    )


def to_presence(table: pd.DataFrame, name: str) -> np.ndarray:
    """Return a column of 1, 0, counts, or PRESENT and ABSENT as 1, 0 and NaN ``(row,)`` float32.

    Raises
    ------
    OccurrenceError
        When it has other text or negative numbers.
    """
    if table[name].dtype.kind not in "biufcmM" and not _numeric_text(table[name]):
        return _of_status(table[name], name)
    values = numbers(table, name)
    if (values < 0).any():
        raise OccurrenceError(
            f"column '{name}' has negative values, down to {np.nanmin(values):g}; expected 1, 0, "
            f"counts, or NaN for not surveyed: table['{name}'].where(table['{name}'] >= 0)"
        )
    return np.where(np.isnan(values), np.nan, values > 0).astype("float32")


def _numeric_text(column: pd.Series) -> bool:
    return bool(pd.to_numeric(column, errors="coerce").notna().equals(column.notna()))


def _of_status(column: pd.Series, name: str) -> np.ndarray:
    text = column.map(lambda v: str(v).strip().lower(), na_action="ignore")
    if unknown := sorted(set(text.dropna()) - {*STATUSES, ""})[:SHOWN]:
        raise OccurrenceError(
            f"column '{name}' has text such as {unknown}; expected 1, 0, counts, or the terms of "
            f"occurrenceStatus, {sorted(STATUSES)}: convert it, as in table['{name}'] == 'yes'"
        )
    return text.map(STATUSES).to_numpy(dtype="float32", na_value=np.nan)


def _darwin_core(table: pd.DataFrame) -> np.ndarray:
    """Return 1 per row, or 0 where occurrenceStatus or individualCount records an absence ``(row,)``."""
    columns = {str(c).lower(): str(c) for c in reversed(table.columns)}
    values: np.ndarray = np.ones(len(table), dtype="float32")
    if STATUS in columns:
        status = table[columns[STATUS]]
        blank = status.isna() | (status.astype(str).str.strip() == "")
        values = np.where(blank, 1, to_presence(table, columns[STATUS])).astype("float32")
    if COUNT in columns:
        count = pd.to_numeric(table[columns[COUNT]], errors="coerce")
        values[np.asarray(count == 0)] = 0
    return values
