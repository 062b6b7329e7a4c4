"""The sections of a report on uncertainty and novelty, from the layers that the map has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from geomiam import plot
from geomiam.explain.mean_value import mean_value
from geomiam.plot.canvas import one_species
from geomiam.reports import page
from geomiam.reports.evidence import Evidence
from geomiam.reports.page import Section

SETS = ("present", "absent", "both", "neither")
SPREAD = (
    "The spread is the standard deviation of the prediction over the members of the ensemble; colours fade to grey where "
    "it is large. There the prediction depends on the kind of network, its seed and its sites. All members share the "
    "records with their bias and the predictors, so a small spread is no small error."
)
SETS_TEXT = (
    "A set lists the labels that a cell may have. Of the places where the species is present, at most {error} have a set "
    "without 'present', if the calibration sites are a random sample of such places. {absences} 'Both': the predictors of "
    "the cell leave both labels possible. 'Neither': both are unlikely at this level."
)
SURVEY = "The same holds for absences."
BACKGROUND = "The calibration sites have background in place of absences: 'absent' means like the background."
NOVELTY = (
    "A cell is compared with the training sites in the predictors that it has. Outside its range, a predictor has a value "
    "that no training site has. Outside the area of applicability, no training site is as near as training sites usually "
    "are to each other; ExDet compares the correlation of the predictors instead. New cells are extrapolations, whose error "
    "the scores of this report do not measure."
)

VALUE = (
    "Groups of predictors that cells lack. Value: the mean change of the prediction that is expected if the group were observed; "
    "gain: the same over all cells, also those that have the group. The group is drawn from the training sites that are most "
    "similar in the other predictors. A change is no gain of skill, and the values of two groups do not add up."
)


def uncertainty(evidence: Evidence) -> Section:
    """Return maps of the spread over ensemble members and of prediction sets, each if the map has it."""
    section = Section("uncertainty", "Uncertainty")
    if evidence.maps is None:
        return section
    species = evidence.species_of(evidence.maps)
    if species and "spread" in evidence.maps:
        section.parts += _spread(evidence.maps, species)
    if species and "prediction_set" in evidence.maps:
        section.parts += _sets(evidence, evidence.maps, species)
    return section


def _spread(maps: xr.Dataset, species: Sequence[str]) -> list[str]:
    """Return the spread in numbers and maps."""
    rows, pictures = [], []
    for name in species:
        values = one_species(maps["spread"], name).values
        values = values[np.isfinite(values)]
        numbers = np.quantile(values, [0.5, 0.9]) if values.size else [np.nan, np.nan]
        rows.append((name, *(f"{v:.3f}" if np.isfinite(v) else "no value" for v in numbers)))
        figure = plot.bivariate(maps, species=name).figure
        pictures.append(page.picture(figure, f"{name}: suitability, grey where members disagree"))
    head = ["spread over ensemble members", "median of the cells", "90 % of the cells below"]
    title = page.heading("Disagreement of the ensemble members")
    note = page.paragraph(SPREAD, note=True)
    return [title, page.number_table(head, rows), page.grid(pictures), note]


def _sets(evidence: Evidence, maps: xr.Dataset, species: Sequence[str]) -> list[str]:
    """Return the share of the cells of each prediction set, and maps."""
    level = float(maps["prediction_set"].attrs["level"])
    codes = dict(zip(SETS, (2, 1, 3, 0)))
    rows, pictures = [], []
    for name in species:
        values = one_species(maps["prediction_set"], name).values
        values = values[np.isfinite(values)]
        shares = [f"{(values == c).mean():.1%}" if values.size else "" for c in codes.values()]
        rows.append((name, *shares))
        figure = plot.prediction_sets(maps, species=name).figure
        pictures.append(page.picture(figure, f"{name}: prediction sets of level {level:.0%}"))
    head = ["share of the cells", *SETS]
    parts = [page.heading(f"Prediction sets of level {level:.0%}"), page.number_table(head, rows)]
    absences = BACKGROUND if evidence.entry("calibration").get("background") else SURVEY
    text = SETS_TEXT.format(error=f"{1 - level:.0%}", absences=absences)
    return [*parts, page.grid(pictures), page.paragraph(text, note=True)]


def novelty(evidence: Evidence) -> Section:
    """Return where the cells differ from the training sites, if the map has layers of :func:`geomiam.novelty`."""
    section = Section("novelty", "Novelty of the cells")
    shares = evidence.novelty()
    if evidence.maps is None or not shares:
        return section
    rows = [(title, f"{share:.1%}") for title, share in shares.items()]
    section.parts.append(page.number_table(["", "share of the cells"], rows))
    if {"mess", "most_dissimilar"} <= set(evidence.maps.data_vars):
        figure = plot.novelty(evidence.maps).figure
        caption = (
            "Predictor outside its training range; dark grey: none is, but their combination is new"
        )
        section.parts.append(page.picture(figure, caption))
    section.parts.append(page.paragraph(NOVELTY, note=True))
    return section


def value(evidence: Evidence) -> Section:
    """Return which missing groups would change the prediction, if the map has layers of :func:`geomiam.value_of_information`."""
    section = Section("value", "Value of missing data")
    maps = evidence.maps
    if maps is None or not {"value_of_information", "missing_groups"} <= set(maps.data_vars):
        return section
    if not maps["value_of_information"].notnull().any():
        return section
    of_species = "species" in maps["value_of_information"].dims
    for name in evidence.species_of(maps) if of_species else [None]:
        part = maps.sel(species=name) if of_species else maps
        table = mean_value(part[["value_of_information", "missing_groups"]])
        columns = ("lacking", "value", "gain")
        rows = [
            (str(g), *(page.decimals(table[c].sel(group=g)) for c in columns))
            for g in table["group"].values
        ]
        head = [name or "set of species", "share of the cells that lack it", "value", "gain"]
        figure = plot.value_of_information(part, species=name).figure
        caption = f"{name or 'Set of species'}: missing group whose observation would change the prediction most"
        section.parts += [page.number_table(head, rows), page.picture(figure, caption)]
    section.parts.append(page.paragraph(VALUE, note=True))
    return section
