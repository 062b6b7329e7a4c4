"""Spatial cross-validation: every site is predicted by a model that never saw its block."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from geomiam.cube.predictors import bind
from geomiam.evaluation.subsets import Subsets, name_subsets, score, subset_scores
from geomiam.lengths import Length
from geomiam.schema import Schema
from geomiam.training.fit import fit
from geomiam.training.splits import site_blocks, spatial_folds
from geomiam.training.table import read_labels


def cross_evaluate(
    sites: xr.Dataset,
    schema: Schema,
    *,
    subsets: Subsets = "unimodal+all",
    folds: int = 5,
    block: Length | None = None,
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
    block : float or str, optional
        Side of a block: km, or text such as ``"100 km"``. Default: from the data, as
        :func:`geomiam.splits.site_blocks`.
    rng : int
        Seeds the folds and every training.
    **options
        Of :func:`geomiam.fit`.

    Returns
    -------
    xarray.Dataset
        As :func:`geomiam.evaluate`, from out-of-fold predictions; ``fold(site)`` is the fold of each site.
        Attributes ``block_km``, ``block_count`` and ``block_reason`` describe the spatial blocks.

    Raises
    ------
    LabelError, GridError
        If there are too few places for the folds, the sites have no coordinates, or blocks are nearly
        single places.
    """
    labels, names = read_labels(sites)
    chosen = name_subsets(bind(schema, sites), subsets)
    blocks = site_blocks(sites, block, least=folds)
    fold = spatial_folds(labels, blocks.number, folds=folds, rng=np.random.default_rng(rng))
    scores = {name: np.full(labels.shape, np.nan, np.float32) for name in chosen}
    for number in range(folds):
        inside = fold == number
        model = fit(sites.isel(site=~inside), schema, rng=rng, **options)
        for name, values in subset_scores(model, sites.isel(site=inside), chosen).items():
            scores[name][inside] = values
    table = score(labels, scores, names).assign(fold=("site", fold))
    return table.assign_attrs(
        block_km=blocks.km, block_count=blocks.count, block_reason=blocks.reason
    )
