"""Tests of single records: coordinates, places, land and country, uncertainty, dates and kinds of records."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from geomiam.data.cleaning.areas import in_country, land_of
from geomiam.data.cleaning.frame import letters
from geomiam.data.cleaning.inputs import REFERENCES, Inputs, Outcome, Skipped
from geomiam.data.grid.grid import geobox
from geomiam.data.records.cells import cells_of
from geomiam.data.records.coordinates import locate
from geomiam.data.records.read import degrees
from geomiam.geo.places import Places

HEADQUARTERS = np.array([[12.58, 55.67]])
"""Longitude and latitude that records have for the secretariat of GBIF in Copenhagen."""
CULTIVATED = ("managed", "cultivated", "captive", "captivecultivated")


def _all(inputs: Inputs, flag: np.ndarray) -> Outcome:
    return np.ones(len(inputs.columns), bool), flag


def coordinates_test(inputs: Inputs) -> Outcome:
    return _all(inputs, ~inputs.columns.valid)


def species_test(inputs: Inputs) -> Outcome:
    if inputs.columns.is_cube:
        return Skipped(
            "rows of an occurrence cube without species count the records of their class"
        )
    return _all(inputs, ~inputs.columns.has_species)


def zero_test(inputs: Inputs) -> Outcome:
    columns = inputs.columns
    near = _near(inputs, np.zeros((1, 2)), inputs.rules.km("zero"))
    return columns.valid, near | (columns.lon % 360 == 0) | (columns.lat == 0)


def equal_test(inputs: Inputs) -> Outcome:
    columns = inputs.columns
    return columns.valid, np.asarray(np.abs(columns.lon) == np.abs(columns.lat))


def swapped_test(inputs: Inputs) -> Outcome:
    if inputs.cube is None:
        return Skipped("pass cube= for the extent of the study area")
    columns, box = inputs.columns, geobox(inputs.cube)
    points = columns.points(np.arange(len(columns)))
    is_inside = (cells_of(points, box) >= 0).all(axis=1)
    swapped_points = replace(
        points, x=points.y, y=np.where(np.abs(points.x) <= 90, points.x, np.nan)
    )
    with np.errstate(invalid="ignore"):
        is_inside_swapped = (cells_of(swapped_points, box) >= 0).all(axis=1)
    has_numbers = np.isfinite(columns.lon) & np.isfinite(columns.lat)
    return np.asarray(has_numbers), np.asarray(~is_inside & is_inside_swapped)


def _near(inputs: Inputs, xy: np.ndarray, km: float) -> np.ndarray:
    """Return whether records lie within a distance of any of the places ``(row,)``."""
    out = np.zeros(len(inputs.columns), bool)
    rows = np.flatnonzero(inputs.columns.valid)
    if len(rows) and len(xy):
        record_places = inputs.columns.places(rows)
        together = Places(np.concatenate([record_places.xy, xy]), True, record_places.crs)
        distance = together.distance_to(np.arange(len(rows), len(together)))
        out[rows] = distance[: len(rows)] <= km
    return out


def headquarters_test(inputs: Inputs) -> Outcome:
    return inputs.columns.valid, _near(inputs, HEADQUARTERS, inputs.rules.km("headquarters"))


def reference_test(name: str) -> Callable[[Inputs], Outcome]:
    key = REFERENCES[name]

    def test(inputs: Inputs) -> Outcome:
        if key not in inputs.references:
            return Skipped(f"pass references= with a table named '{key}'")
        lon, lat = degrees(locate(inputs.references[key], x=None, y=None, crs=None))
        xy = np.stack([lon, lat], 1)
        xy = xy[np.isfinite(xy).all(1) & (np.abs(lat) <= 90)]
        return inputs.columns.valid, _near(inputs, xy, inputs.rules.km(key))

    return test


def habitat_test(inputs: Inputs) -> Outcome:
    if inputs.land is None:
        return Skipped("pass land= for a land mask")
    km = inputs.rules.km("tolerance")
    is_land_species = inputs.rules.habitat == "land"
    on_land = land_of(inputs.land, inputs.cube, km=km if is_land_species else 0.0)
    rows = np.flatnonzero(inputs.columns.valid)
    state = np.full(len(inputs.columns), np.nan)
    state[rows] = on_land(inputs.columns.points(rows))
    return np.isfinite(state), state == (0 if is_land_species else 1)


def country_test(inputs: Inputs) -> Outcome:
    columns = inputs.columns
    if inputs.countries is None or "countryCode" not in columns:
        return Skipped("pass countries=, and records with a column countryCode")
    codes = columns["countryCode"].astype("string").str.strip().str.upper().fillna("").to_numpy(str)
    rows = np.flatnonzero(columns.valid)
    state = np.full(len(columns), np.nan)
    km = inputs.rules.km("tolerance")
    state[rows] = in_country(inputs.countries, columns.points(rows), codes[rows], km=km)
    return np.isfinite(state), state == 0


def uncertainty_test(inputs: Inputs) -> Outcome:
    name = "coordinateUncertaintyInMeters"
    if inputs.rules.uncertainty is None or name not in inputs.columns:
        return Skipped(
            f"pass rules=gm.CleaningRules(uncertainty=...), and records with a column {name}"
        )
    metres = inputs.columns.numbers(name)
    return np.isfinite(metres), metres > 1000 * inputs.rules.km("uncertainty")


def no_date_test(inputs: Inputs) -> Outcome:
    if not inputs.rules.require_date or not inputs.columns.has_dates:
        return Skipped(
            "pass rules=gm.CleaningRules(require_date=True), and records with eventDate or year"
        )
    return _all(inputs, ~np.isfinite(inputs.columns.dates[:, 0]))


def early_test(inputs: Inputs) -> Outcome:
    if inputs.rules.first_year is None or not inputs.columns.has_dates:
        return Skipped(
            "pass rules=gm.CleaningRules(first_year=...), and records with eventDate or year"
        )
    year = inputs.columns.dates[:, 0]
    return np.isfinite(year), year < inputs.rules.first_year


def future_test(inputs: Inputs) -> Outcome:
    if not inputs.columns.has_dates:
        return Skipped("the records have no column eventDate or year")
    return np.isfinite(inputs.columns.dates[:, 0]), inputs.columns.is_after(datetime.date.today())


def basis_test(inputs: Inputs) -> Outcome:
    if "basisOfRecord" not in inputs.columns:
        return Skipped("the records have no column basisOfRecord")
    words = inputs.columns.words("basisOfRecord")
    return words != "", np.isin(words, [letters(b) for b in inputs.rules.basis])


def cultivated_test(inputs: Inputs) -> Outcome:
    names = [n for n in ("establishmentMeans", "degreeOfEstablishment") if n in inputs.columns]
    if not names:
        return Skipped("the records have no column establishmentMeans or degreeOfEstablishment")
    words = np.stack([inputs.columns.words(n) for n in names])
    return np.asarray((words != "").any(axis=0)), np.asarray(np.isin(words, CULTIVATED).any(axis=0))
