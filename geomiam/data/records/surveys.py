"""Surveys: occurrences take the place and date of their event, and its scope makes absences.

The Humboldt extension (TDWG 2024, http://rs.tdwg.org/eco/terms/) states which taxa an event looked for. Where every
detected organism of that scope was reported, a species of the scope without a record was not detected: an absence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from geomiam.data.records.columns import species_column
from geomiam.errors import OccurrenceError

INFERRED = "absenceInferred"
"""Column that marks absences that follow from the scope of a survey."""
PARENT = "parentEventID"
LOCATION = (
    *("decimalLatitude", "decimalLongitude", "geodeticDatum", "coordinateUncertaintyInMeters"),
    *("countryCode", "eventDate", "year", "month", "day"),
)
"""Terms of a parent event that hold for its child events too."""
RANKS = ("kingdom", "phylum", "class", "order", "family", "subfamily", "tribe", "genus", "species")
SCOPES = ("targetTaxonomicScope", "excludedTaxonomicScope", "absentTaxa")
FLAGS = ("isTaxonomicScopeFullyReported", "isAbsenceReported")
MAX_ABSENCES = 20_000_000
"""Largest number of absences that are inferred."""
MAX_GENERATIONS = 12
"""Largest depth of nested events."""


def join_events(
    occurrences: pd.DataFrame, events: pd.DataFrame, surveys: pd.DataFrame | None, *, location: str
) -> pd.DataFrame:
    """Return occurrences with the columns of their events, followed by the absences of surveys.

    All tables have the identifier of the event in ``id``. ``surveys`` is the Humboldt extension, whose terms may also be
    columns of ``events``; ``location`` is the archive in messages. Raises OccurrenceError if tables have no identifiers,
    or absences are too many.
    """
    for name, table in (("Occurrence", occurrences), ("Event", events)):
        if "id" not in table:
            raise OccurrenceError(
                f"meta.xml in {location} states no id for {name}, so events and occurrences cannot be event_values; "
                "correct it, or pass the table of occurrences"
            )
    events = events.drop_duplicates("id").set_index("id")
    events = _inherit(events)
    records = _fill(occurrences, events)
    scopes = _scopes(events, surveys)
    if scopes.empty:
        return records.drop(columns="id")
    absences = _absences(records, events, scopes, location=location)
    if "occurrenceStatus" in records:
        records["occurrenceStatus"] = records["occurrenceStatus"].fillna("PRESENT")
    else:
        records["occurrenceStatus"] = "PRESENT"
    rows = _fill(absences.assign(occurrenceStatus="ABSENT", **{INFERRED: True}), events)
    out = pd.concat([records.assign(**{INFERRED: False}), rows], ignore_index=True)
    return out.drop(columns="id")


def _parents(events: pd.DataFrame) -> pd.Series:
    """Return the parent of each event, by identifier; missing where there is none or it is the event."""
    if PARENT not in events:
        return pd.Series(np.nan, index=events.index, dtype=object)
    parents = events[PARENT].astype(object)
    return parents.where(parents.isin(events.index) & (parents != events.index))


def _inherit(events: pd.DataFrame) -> pd.DataFrame:
    """Fill place and date of child events from their parents."""
    parents, events = _parents(events), events.copy()
    names = [n for n in LOCATION if n in events]
    for _ in range(MAX_GENERATIONS):
        open_rows = events[names].isna().any(axis=1) & parents.notna()
        if not open_rows.any():
            break
        above = events[names].reindex(parents[open_rows]).set_axis(events.index[open_rows])
        before = int(events[names].isna().sum().sum())
        events[names] = events[names].fillna(above)
        if int(events[names].isna().sum().sum()) == before:
            break
    return events


def _fill(rows: pd.DataFrame, events: pd.DataFrame) -> pd.DataFrame:
    """Return rows with the columns of their events; values of the rows take precedence."""
    columns = [c for c in events.columns if c not in (*SCOPES, *FLAGS)]
    event_values = events[columns].reindex(rows["id"]).set_axis(rows.index)
    out = rows.copy()
    for name in columns:
        out[name] = (
            out[name].where(out[name].notna(), event_values[name])
            if name in out
            else event_values[name]
        )
    if "eventID" not in out:
        out["eventID"] = out["id"]
    return out


def _scopes(events: pd.DataFrame, surveys: pd.DataFrame | None) -> pd.DataFrame:
    """Return the taxonomic scope of each event that has one; index: identifier of the event."""
    scopes = events[[t for t in (*SCOPES, *FLAGS) if t in events]]
    if (
        surveys is not None and "id" in surveys
    ):  # an event may have several rows, one for each scope
        extension = surveys[surveys["id"].isin(events.index)].set_index("id")
        extension = extension[[t for t in (*SCOPES, *FLAGS) if t in extension]]
        scopes = pd.concat([extension, scopes[~scopes.index.isin(extension.index)]])
    scopes = scopes.reindex(columns=[*SCOPES, *FLAGS]).astype(object)
    is_full = _is_true(scopes[FLAGS[0]]) & scopes[SCOPES[0]].notna()
    has_absent = scopes["absentTaxa"].notna() & ~_is_false(scopes[FLAGS[1]])
    scopes = scopes.assign(full=is_full, absent=has_absent)
    return scopes[is_full | has_absent]


def _is_true(column: pd.Series) -> pd.Series:
    return column.map(lambda v: str(v).strip().lower() in ("true", "1", "yes", "1.0"))


def _is_false(column: pd.Series) -> pd.Series:
    return column.map(lambda v: str(v).strip().lower() in ("false", "0", "no", "0.0"))


def _list(value: Any) -> tuple[str, ...]:
    """Return the names in a list that is separated by vertical bars."""
    if not isinstance(value, str):
        return ()
    return tuple(n for part in re.split(r"[|;]", value) if (n := " ".join(part.split())))


def _key(name: Any) -> str:
    return " ".join(str(name).split()).casefold()


def _lineages(records: pd.DataFrame, species: str) -> dict[str, set[str]]:
    """Return the names of the taxa that contain each species, in lower case, with its name."""
    ranks = [r for r in RANKS if r in records]
    taxa = records[[species, *[r for r in ranks if r != species]]].dropna(subset=species)
    lineages: dict[str, set[str]] = {}
    for row in taxa.drop_duplicates().itertuples(index=False, name=None):
        names = {_key(v) for v in row if isinstance(v, str)}
        binomial = _key(" ".join(str(row[0]).split()[:2]))
        lineages.setdefault(str(row[0]), set()).update(names, {binomial})
    return lineages


def _members(names: Iterable[str], lineages: dict[str, set[str]]) -> list[str]:
    """Return the species within taxa; a species name without any record is one too."""
    out: dict[str, None] = {}
    for name in names:
        inside = [s for s, lineage in lineages.items() if _key(name) in lineage]
        if not inside and len(name.split()) > 1:
            inside = [name]
        out.update(dict.fromkeys(inside))
    return list(out)


def _absences(
    records: pd.DataFrame, events: pd.DataFrame, scopes: pd.DataFrame, *, location: str
) -> pd.DataFrame:
    """Return event (``id``) and species of the absences that scopes imply, without those recorded."""
    species = species_column(records)
    if species is None:
        raise OccurrenceError(
            f"the occurrences in {location} have no column of species, such as scientificName; "
            f"found columns {list(records.columns)}"
        )
    lineages = _lineages(records, species)
    pairs = list(_pairs(scopes, lineages))
    count = sum(len(ids) * len(names) for ids, names in pairs)
    if count > MAX_ABSENCES:
        raise OccurrenceError(
            f"the surveys in {location} imply {count:,} absences, more than {MAX_ABSENCES:,}: split the archive by "
            "events or by taxa"
        )
    products = [
        pd.DataFrame({"id": np.repeat(ids, len(names)), species: list(names) * len(ids)})
        for ids, names in pairs
    ]
    if not products:
        return pd.DataFrame({"id": [], species: []})
    absences = pd.concat(products, ignore_index=True).drop_duplicates()
    observed = _observed(records[["id", species]].dropna(), _parents(events))
    is_observed = pd.MultiIndex.from_frame(absences).isin(pd.MultiIndex.from_frame(observed))
    absences = absences[~is_observed]
    taxonomy = [r for r in RANKS if r in records and r != species]
    return absences.merge(
        records[[species, *taxonomy]].drop_duplicates(species), on=species, how="left"
    )


def _pairs(
    scopes: pd.DataFrame, lineages: dict[str, set[str]]
) -> Iterator[tuple[np.ndarray, list[str]]]:
    """Yield the events that share a scope, and the species of that scope."""
    full = scopes[scopes["full"]].copy()
    full["excludedTaxonomicScope"] = full["excludedTaxonomicScope"].map(
        lambda v: v if isinstance(v, str) else ""
    )
    for (target, exclusion), rows in full.groupby(list(SCOPES[:2])):
        outside = set(_members(_list(exclusion), lineages))
        names = [s for s in _members(_list(target), lineages) if s not in outside]
        if names:
            yield rows.index.to_numpy(), names
    for absent, rows in scopes[scopes["absent"]].groupby("absentTaxa"):
        if names := _members(_list(absent), lineages):
            yield rows.index.to_numpy(), names


def _observed(pairs: pd.DataFrame, parents: pd.Series) -> pd.DataFrame:
    """Return event and species of records, also for all events that contain the event of the record."""
    levels, level = [pairs], pairs
    for _ in range(MAX_GENERATIONS):
        level = level.assign(id=level["id"].map(parents)).dropna(subset="id").drop_duplicates()
        if level.empty:
            break
        levels.append(level)
    return pd.concat(levels, ignore_index=True)
