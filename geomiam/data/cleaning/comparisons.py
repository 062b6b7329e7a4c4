"""Tests that compare records with each other: duplicates and outliers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from geomiam.data.cleaning.inputs import Inputs, Outcome, Skipped
from geomiam.data.cleaning.outliers import (
    continuous_variables,
    environmental_outliers,
    spatial_outliers,
)
from geomiam.data.grid.grid import geobox, spatial_dims
from geomiam.data.records.cells import cells_of
from geomiam.data.sites.cells import read_cells
from geomiam.errors import SelectionError


def duplicate_test(inputs: Inputs) -> Outcome:
    table, columns = inputs.columns.table, inputs.rules.duplicates
    if unknown := [c for c in columns if c not in table]:
        raise SelectionError(
            f"duplicates= names {unknown}, which the records do not have; columns: {list(table.columns)}"
        )
    rows = np.flatnonzero(inputs.passed & inputs.columns.valid)
    flag = np.zeros(len(table), bool)
    keys = table.iloc[rows][["species", "lon", "lat", "presence", *columns]]
    flag[rows] = keys.duplicated().to_numpy()
    return np.isin(np.arange(len(table)), rows), flag


def _groups(inputs: Inputs) -> Iterator[np.ndarray]:
    """Yield the rows of the presences of each species that passed earlier tests."""
    table = inputs.columns.table
    is_presence = (table["presence"] == 1).to_numpy() & inputs.columns.has_species
    rows = np.flatnonzero(inputs.passed & inputs.columns.valid & is_presence)
    for _, index in pd.Series(rows).groupby(table["species"].astype(str).to_numpy()[rows]):
        yield index.to_numpy()


def outlier_test(inputs: Inputs) -> Outcome:
    if inputs.rules.outliers is None:
        return Skipped("pass rules=gm.CleaningRules(outliers='quantile')")
    is_tested, flag = np.zeros((2, len(inputs.columns)), bool)
    for rows in _groups(inputs):
        places = inputs.columns.places(rows)
        is_tested[rows] = len(np.unique(places.xy, axis=0)) >= inputs.rules.outlier_places
        flag[rows] = spatial_outliers(places, inputs.rules)
    return is_tested, flag


def environment_test(inputs: Inputs) -> Outcome:
    if inputs.rules.environment_factor is None or inputs.cube is None:
        return Skipped("pass rules=gm.CleaningRules(environment_factor=5) and cube=")
    dims = spatial_dims(inputs.cube)
    names = continuous_variables(inputs.cube, dims)
    if not names:
        return Skipped("the cube has no continuous variable with one number in each cell")
    is_tested, flag = np.zeros((2, len(inputs.columns)), bool)
    box = geobox(inputs.cube)
    for rows in _groups(inputs):
        cells = cells_of(inputs.columns.points(rows), box)
        on_grid = (cells >= 0).all(axis=1)
        rows, cells = rows[on_grid], cells[on_grid]
        if len(rows) < inputs.rules.outlier_places:
            continue
        sites = read_cells(inputs.cube[names], cells)
        values = np.stack([np.asarray(sites[n].values, float) for n in names], 1)
        is_tested[rows] = np.isfinite(values).any(axis=1)
        flag[rows] = environmental_outliers(values, inputs.rules)
    return is_tested, flag
