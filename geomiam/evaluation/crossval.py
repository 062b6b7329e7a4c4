"""Spatial cross-validation: every site is predicted by a model that never saw its block."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from geomiam.cube.predictors import bind
from geomiam.evaluation.subsets import Subsets, name_subsets, score, subset_scores
from geomiam.schema import Schema
from geomiam.training.fit import fit
from geomiam.training.splits import site_coordinates, spatial_blocks, spatial_folds
from geomiam.training.table import read_labels


def cross_evaluate(
    sites: xr.Dataset,
    schema: Schema,
    *,
    subsets: Subsets = "unimodal+all",
    folds: int = 5,
    block: float = 1.0,
    rng: int = 0,
    **options: Any,
) -> xr.Dataset:
    """Train once per fold of spatial blocks and score the predictions of all folds together.

    Parameters
    ----------
    sites : xarray.Dataset
        With ``presence(site, species)``.
    schema : Schema
    subsets : str, sequence or mapping
        As :func:`geomiam.evaluate`.
    folds : int
    block : float
        Side of a block in CRS units.
    rng : int
        Seeds the folds and every training.
    **options
        Of :func:`geomiam.fit`.

    Returns
    -------
    xarray.Dataset
        As :func:`geomiam.evaluate`, from out-of-fold predictions; ``fold(site)`` says which.

    Raises
    ------
    LabelError, GridError
        If there are too few blocks, or the sites have no coordinates.
    """
    labels, names = read_labels(sites)
    chosen = name_subsets(bind(schema, sites), subsets)
    blocks = spatial_blocks(site_coordinates(sites), size=block)
    fold = spatial_folds(labels, blocks, folds=folds, rng=np.random.default_rng(rng))
    scores = {name: np.full(labels.shape, np.nan, np.float32) for name in chosen}
    for number in range(folds):
        inside = fold == number
        model = fit(sites.isel(site=~inside), schema, rng=rng, **options)
        for name, values in subset_scores(model, sites.isel(site=inside), chosen).items():
            scores[name][inside] = values
    return score(labels, scores, names).assign(fold=("site", fold))
