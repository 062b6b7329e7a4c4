"""Excluded records: the reasons, their counts, and the warnings that report them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np

from geomiam.data.records.cells import cells_of
from geomiam.data.records.coordinates import Points
from geomiam.data.records.diagnosis import explain_outside
from geomiam.errors import OccurrenceError, OccurrencesLeftOut, RecordsMerged, warn

REASONS = {
    "no_coordinates": "without coordinates",
    "outside_grid": "outside the grid",
    "swapped": "outside the grid, but inside with x and y swapped",
    "no_species": "without a species",
    "empty_cell": "on cells where no predictor is observed",
    "required": "on cells that lack a required predictor or are masked",
}
"""Descriptions of the reasons for which a record is excluded."""
ROWS = 5
"""Largest number of rows that a message lists."""


def reasons_of(points: Points, box: Any, cells: np.ndarray) -> np.ndarray:
    """Return the reason why each point cannot be used ``(point,)``; ``""`` if it can be used.

    Raises
    ------
    OccurrenceError
        If no row has coordinates, or more than half of the points lie outside the grid.
    """
    has_coordinates = np.isfinite(points.x) & np.isfinite(points.y)
    outside = has_coordinates & (cells < 0).any(axis=1)
    if not has_coordinates.any():
        raise OccurrenceError(
            f"none of the {len(has_coordinates)} rows has coordinates in {points.names}; pass x=, y="
        )
    if outside.sum() * 2 > has_coordinates.sum():
        raise OccurrenceError(
            explain_outside(points, box, outside=int(outside.sum()), of=int(has_coordinates.sum()))
        )
    inside_if_swapped = (cells_of(replace(points, x=points.y, y=points.x), box) >= 0).all(axis=1)
    reasons = [~has_coordinates, outside & inside_if_swapped, outside]
    return np.select(reasons, ["no_coordinates", "swapped", "outside_grid"], "").astype("<U14")


def report_left_out(reason: np.ndarray, hint: str) -> str:
    """Warn of excluded records, and return their counts as JSON.

    Raises
    ------
    OccurrenceError
        If no record can be used.
    """
    counts = {k: int((reason == k).sum()) for k in REASONS}
    parts = [f"{n} {REASONS[k]}{_rows(reason, k)}" for k, n in counts.items() if n]
    text = ", ".join(parts) + hint
    if not (reason == "").any():
        raise OccurrenceError(f"no occurrence of {len(reason)} can be used: {text}")
    if text:
        warn(f"of {len(reason)} occurrences left out: {text}", OccurrencesLeftOut)
    return json.dumps(counts)


def warn_merged(record_count: int, site_count: int) -> None:
    """Warn of records that are merged with another record."""
    warn(
        f"{record_count:,} records have the same cell and species as another record and are merged, so that "
        f"{site_count:,} sites remain; thin=False keeps all records",
        RecordsMerged,
    )


def _rows(reason: np.ndarray, name: str) -> str:
    """Return the numbers of the first rows with swapped coordinates, so that the user can correct them."""
    if name != "swapped":
        return ""
    rows = np.flatnonzero(reason == name)
    return f" (rows {', '.join(map(str, rows[:ROWS]))}{', …' if len(rows) > ROWS else ''})"
