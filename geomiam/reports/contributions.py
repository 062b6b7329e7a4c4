"""The section of a report on contributions: Shapley maps, interactions of groups, and limiting groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from geomiam import plot
from geomiam.explain.contributions import limiting
from geomiam.reports import page
from geomiam.reports.evidence import Evidence
from geomiam.reports.page import Section

LABELS = ("group", "species")
EFFECTS = (
    "Red raises and blue lowers the prediction of the cell. The values of all groups and the base value add "
    "up to the prediction."
)
INTERACTIONS = (
    "Mean size over the cells: main effects on the diagonal, interactions of two groups beside it. A large interaction of "
    "two groups may also mean that both have the same information."
)
LIMITING = (
    "The observed group that lowers the prediction most. In pale cells no group lowers it. A group that is not observed is never "
    "the limiting one, so regions with other data are not comparable."
)


def contributions(evidence: Evidence) -> Section:
    """Return Shapley maps, the mean effect of each group, interactions and limiting groups, as far as they are computed."""
    section = Section("contributions", "Contributions of the predictors")
    explanation = evidence.explanation
    if explanation is None:
        return section
    species = evidence.species_of(explanation)
    section.parts += _effects(explanation, species)
    if "interaction" in explanation and "main_effect" in explanation:
        section.parts += _interactions(explanation, species)
    if has_observed_groups(explanation):
        section.parts += _limiting(explanation, species)
    return section


def has_observed_groups(explanation: xr.Dataset) -> bool:
    """Return whether Shapley values state which of their groups are observed in a cell."""
    return (
        "observed" in explanation and "groups" in explanation.attrs and "later" not in explanation
    )


def _effects(explanation: xr.Dataset, species: Sequence[str]) -> list[str]:
    """Return the mean effects in numbers, and the map of each group."""
    cells: Any = [d for d in explanation["shapley"].dims if d not in LABELS]
    effects = np.abs(explanation["shapley"]).mean(cells)
    rows = [
        (str(g), *(page.decimals(effects.sel(group=g, species=s)) for s in species))
        for g in effects["group"].values
    ]
    parts = [page.number_table(["mean |Shapley value|", *species], rows)]
    for name in species:
        figure = plot.shapley(explanation, species=name)[0].figure
        parts.append(page.picture(figure, f"{name}: Shapley value of each group"))
    return [*parts, page.paragraph(EFFECTS, note=True)]


def _interactions(explanation: xr.Dataset, species: Sequence[str]) -> list[str]:
    pictures = []
    for name in species:
        figure = plot.interactions(explanation, species=name).figure
        pictures.append(page.picture(figure, f"{name}: main effects and interactions of groups"))
    note = page.paragraph(INTERACTIONS, note=True)
    return [page.heading("Interactions of groups"), page.grid(pictures), note]


def _limiting(explanation: xr.Dataset, species: Sequence[str]) -> list[str]:
    result = limiting(explanation)
    pictures = []
    for name in species:
        figure = plot.limiting(result, species=name).figure
        pictures.append(page.picture(figure, f"{name}: limiting group of each cell"))
    note = page.paragraph(LIMITING, note=True)
    return [page.heading("Limiting groups"), page.grid(pictures), note]
