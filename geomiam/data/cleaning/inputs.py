"""The tests of records by name, their inputs and their outcome."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from geomiam.data.cleaning.frame import RecordColumns
from geomiam.data.cleaning.rules import CleaningRules

REFERENCES = {"centroid": "centroids", "capital": "capitals", "institution": "institutions"}
DESCRIPTIONS = {
    "coordinates": "coordinates missing or no degrees",
    "species": "species missing",
    "zero": "longitude or latitude 0, or near 0, 0",
    "equal": "longitude and latitude equal",
    "swapped": "inside the area with longitude and latitude swapped",
    "headquarters": "at the secretariat of GBIF",
    "centroid": "at the centre of a country or province",
    "capital": "at a capital",
    "institution": "at a museum, herbarium, zoo or botanical garden",
    "habitat": "in the sea, or on land for species of the sea",
    "country": "outside the stated country",
    "uncertainty": "coordinate uncertainty above the limit",
    "no_date": "date missing",
    "early": "before the first year",
    "future": "date in the future",
    "basis": "fossil, living specimen or another basis that is left out",
    "cultivated": "cultivated or captive",
    "duplicate": "same species and coordinates as an earlier record",
    "outlier": "far from the other records of the species",
    "environment": "outside the environment of the other records of the species",
}
"""Tests in the order in which they run."""
LAST = ("duplicate", "outlier", "environment")
"""Tests that compare records with each other: only those that pass all earlier tests."""
CELL_CENTRES = ("zero", "equal", "headquarters", "centroid", "capital", "institution", "duplicate")
"""Tests that have no meaning for the centres of cells of an occurrence cube."""


@dataclass(frozen=True)
class Inputs:
    """Records and everything that they are compared with."""

    columns: RecordColumns
    rules: CleaningRules
    cube: xr.Dataset | None
    land: Any
    countries: Any
    references: Mapping[str, pd.DataFrame]
    passed: np.ndarray
    """Whether each record passed the earlier tests ``(row,)``."""


@dataclass(frozen=True)
class Skipped:
    """A test that is not run, and the reason."""

    reason: str


Outcome = tuple[np.ndarray, np.ndarray] | Skipped
"""Whether each record was tested, and whether it is flagged ``(row,)``; or why the test is not run."""
