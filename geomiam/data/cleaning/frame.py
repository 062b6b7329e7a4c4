"""Columns of records that the tests read."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from geomiam.data.records.coordinates import Points
from geomiam.data.records.cubes import EFFORT
from geomiam.data.records.read import STANDARD, read_records
from geomiam.errors import CRSAssumed, OccurrenceError, warn
from geomiam.geo.places import Places

DATE = r"^\s*(\d{4})(?:-(\d{1,2}))?(?:-(\d{1,2}))?"
"""Start of a date or of a range of dates by ISO 8601."""


def standard_records(records: pd.DataFrame | str | Path) -> pd.DataFrame:
    """Return records with ``species``, ``lon``, ``lat`` and ``presence``, read if necessary.

    Raises OccurrenceError if coordinates have no CRS and are not degrees; warns CRSAssumed if they count as degrees.
    """
    table = _table_of(records)
    if "lon" in table:
        return table.reset_index(drop=True)
    xy = table[["x", "y"]].to_numpy(float)
    if not (np.abs(xy[np.isfinite(xy).all(1)]) <= [360, 90]).all():
        raise OccurrenceError(
            "the coordinates x and y have no CRS and are not degrees: read them with "
            "gm.read_records(path, crs='EPSG:...')"
        )
    warn("the coordinates x and y have no CRS and are taken as degrees", CRSAssumed)
    return table.rename(columns={"x": "lon", "y": "lat"}).reset_index(drop=True)


def _table_of(records: pd.DataFrame | str | Path) -> pd.DataFrame:
    if isinstance(records, pd.DataFrame) and set(STANDARD) <= set(records.columns):
        table = pd.DataFrame(records)
        table.attrs = dict(records.attrs)  # the constructor leaves them out
        return table
    return read_records(records)


def letters(value: Any) -> str:
    """Return the letters of a text in lower case, without blanks and marks."""
    return re.sub("[^a-z]", "", str(value).lower())


@dataclass(frozen=True)
class RecordColumns:
    """The columns of a table of records, by their Darwin Core names in any case."""

    table: pd.DataFrame

    @cached_property
    def _names(self) -> dict[str, str]:
        return {str(c).lower(): c for c in reversed(self.table.columns)}

    def __contains__(self, name: str) -> bool:
        return name.lower() in self._names

    def __getitem__(self, name: str) -> pd.Series:
        return self.table[self._names[name.lower()]]

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def lon(self) -> np.ndarray:
        """Longitudes in degrees ``(row,)``."""
        return self.table["lon"].to_numpy(float, na_value=np.nan)

    @cached_property
    def lat(self) -> np.ndarray:
        """Latitudes in degrees ``(row,)``."""
        return self.table["lat"].to_numpy(float, na_value=np.nan)

    @cached_property
    def valid(self) -> np.ndarray:
        """Whether coordinates exist and are degrees ``(row,)``."""
        with np.errstate(invalid="ignore"):
            return (np.abs(self.lat) <= 90) & (self.lon >= -180) & (self.lon <= 360)

    @cached_property
    def has_species(self) -> np.ndarray:
        """Whether the species is stated ``(row,)``."""
        return np.asarray(self.table["species"].notna())

    @property
    def is_cube(self) -> bool:
        """Whether the records are those of an occurrence cube, at the centres of cells."""
        return EFFORT in self.table

    def points(self, rows: np.ndarray) -> Points:
        """Return the coordinates at rows."""
        return Points(self.lon[rows], self.lat[rows], "EPSG:4326", ("lon", "lat"))

    def places(self, rows: np.ndarray) -> Places:
        """Return the places at rows, for distances in km."""
        return Places(np.stack([self.lon[rows], self.lat[rows]], 1), True, "EPSG:4326")

    def numbers(self, name: str) -> np.ndarray:
        """Return a column as numbers; text is missing."""
        return pd.to_numeric(self[name], errors="coerce").to_numpy(float, na_value=np.nan)

    def words(self, name: str) -> np.ndarray:
        """Return a column as lower-case letters only, such as ``fossilspecimen`` ``(row,)``."""
        return self[name].map(letters, na_action="ignore").fillna("").to_numpy(str)

    @cached_property
    def dates(self) -> np.ndarray:
        """First year, month and day of each record ``(row, 3)``; NaN where unknown."""
        out = np.full((len(self), 3), np.nan)
        column = next((n for n in ("eventDate", "date", "observed_on") if n in self), None)
        if column is not None:
            text = self[column].astype("string")
            out = text.str.extract(DATE).astype("float64").to_numpy(float, na_value=np.nan)
        for k, name in enumerate(("year", "month", "day")):
            if name in self:
                column_values = self.numbers(name)
                out[:, k] = np.where(np.isfinite(column_values), column_values, out[:, k])
        return out

    @property
    def has_dates(self) -> bool:
        """Whether a column has dates or years."""
        return any(n in self for n in ("eventDate", "date", "observed_on", "year"))

    def is_after(self, day: datetime.date) -> np.ndarray:
        """Return whether records are later than a day ``(row,)``; unknown parts of a date are the first."""
        year, month, date = self.dates.T
        number = 10_000 * year + 100 * np.nan_to_num(month, nan=1) + np.nan_to_num(date, nan=1)
        return number > 10_000 * day.year + 100 * day.month + day.day
