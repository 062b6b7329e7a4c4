"""The function of a block that computes the layers of novelty, and the reference sites that it compares with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from geomiam.data.sites.table import read_arrays
from geomiam.errors import LabelError, SelectionError, SettingError
from geomiam.model.model import Model
from geomiam.model.reference import NO_FOLD, Reference
from geomiam.tokens.encode import TokenArrays
from geomiam.tokens.features import (
    COORDINATES,
    feature_values,
    features_of,
    partial_variables,
)
from geomiam.tokens.select import visible_tokens
from geomiam.uncertainty.design import Design
from geomiam.uncertainty.dissimilarity import Dissimilarity
from geomiam.uncertainty.exdet import Extrapolation
from geomiam.uncertainty.options import NoveltyOptions
from geomiam.uncertainty.similarity import Similarity
from geomiam.uncertainty.token_space import MOST_SITES, TokenDissimilarity


@dataclass(frozen=True, eq=False)
class NoveltyBlock:
    """Function of a block: the layers of the measures, ``(n,)`` each."""

    model: Model
    visible: np.ndarray
    """Tokens that are compared ``(t,)``."""
    predictors: Dissimilarity | None = None
    tokens: TokenDissimilarity | None = None
    similarity: Similarity | None = None
    extrapolation: Extrapolation | None = None

    def __call__(self, block: TokenArrays) -> tuple[np.ndarray, ...]:
        values = values_of(block, self.model, self.visible)
        layers: tuple[np.ndarray, ...] = self.tokens(block) if self.tokens else ()
        measures = (self.predictors, self.similarity, self.extrapolation)
        return sum((m(values) for m in measures if m), layers)


def novelty_block(
    model: Model, visible: np.ndarray, reference: xr.Dataset | None, options: NoveltyOptions
) -> NoveltyBlock:
    """Return the function that computes the layers of a block."""
    block = NoveltyBlock(model, visible)
    if options.space == "tokens" and "dissimilarity" in options.measures:
        block = replace(block, tokens=_token_space(model, visible, reference, options))
        if set(options.measures) == {"dissimilarity"}:
            return block
    sites = _reference(model, visible, reference, options)
    features, classes = features_of(model.layout), class_counts(model)
    design = Design.of(features, sites.values, sites.fold, classes=classes, weights={})
    if "dissimilarity" in options.measures and options.space == "predictors":
        weights = _weights(model, options.weights)
        weighted_design = Design.of(
            features, sites.values, sites.fold, classes=classes, weights=weights
        )
        block = replace(block, predictors=Dissimilarity(weighted_design))
    if "mess" in options.measures:
        block = replace(block, similarity=Similarity.of(features, sites.values, classes))
    if "exdet" in options.measures:
        block = replace(block, extrapolation=Extrapolation(design, sites.values, classes))
    return block


def values_of(block: TokenArrays, model: Model, visible: np.ndarray) -> np.ndarray:
    """Return the features ``(n, f)`` of a block."""
    return feature_values(block, model.layout, classes=class_counts(model), visible=visible)


def class_counts(model: Model) -> dict[str, int]:
    """Return the number of classes in training of each categorical variable."""
    return {name: len(codes) for name, codes in model.scaler.classes.items()}


def coordinate_tokens(model: Model) -> np.ndarray:
    """Return which tokens are coordinates ``(t,)``."""
    names = [s.variable.name.lower() in COORDINATES for s in model.layout.spans]
    return np.repeat(names, [s.size for s in model.layout.spans])


def _reference(
    model: Model, visible: np.ndarray, sites: xr.Dataset | None, options: NoveltyOptions
) -> Reference:
    """Return the sites to compare with: those that are passed, or those of the model."""
    if sites is not None:
        tokens = site_tokens(model, sites, visible)
        reference = Reference.of(
            values_of(tokens, model, visible), _folds(options, sites.sizes["site"])
        )
        if not len(reference):
            raise SelectionError(
                "no site of reference= has an observed predictor; pass sites with predictors, such as those "
                "of gm.sample"
            )
        return reference
    if options.folds is not None and model.reference is not None:
        raise SettingError("folds= are those of the sites in reference=: pass reference=sites too")
    return stored_sites(model, visible, call="gm.novelty")


def stored_sites(model: Model, visible: np.ndarray, *, call: str) -> Reference:
    """Return the sites that a model stores, without features that have no ``visible (t,)`` token."""
    if model.reference is None or not len(model.reference):
        raise SelectionError(
            "the model stores no training sites to compare with: an older version of geomiam saved it, it was "
            f"trained with reference_sites=0, or it is an encoder of gm.pretrain. Pass them, {call}(cube, model, reference=sites)"
        )
    if parts := partial_variables(model.layout, visible):
        raise SelectionError(
            f"using= selects parts of {parts}, and the model stores means of whole series and images: pass "
            f"the training sites, {call}(cube, model, using=..., reference=sites)"
        )
    is_visible = np.zeros(model.reference.values.shape[1], bool)
    variables = model.layout.variables_of(visible)
    for entry in features_of(model.layout):
        is_visible[entry.columns] = entry.variable in variables
    return replace(model.reference, values=np.where(is_visible, model.reference.values, np.nan))


def _token_space(
    model: Model, visible: np.ndarray, sites: xr.Dataset | None, options: NoveltyOptions
) -> TokenDissimilarity:
    if sites is None:
        raise SelectionError(
            "space='tokens' passes the training sites through the network, and the model stores only their "
            "means: pass them, gm.novelty(cube, model, reference=sites)"
        )
    tokens, fold = site_tokens(model, sites, visible), _folds(options, sites.sizes["site"])
    rows = random_rows(len(tokens), MOST_SITES)
    return TokenDissimilarity(model, tokens.take(rows), fold[rows], visible)


def random_rows(n: int, limit: int, rng: int | np.random.Generator | None = 0) -> np.ndarray:
    """Return the rows of ``n`` sites in ascending order, or ``limit`` of them that are drawn at random."""
    if n <= limit:
        return np.arange(n)
    return np.sort(np.random.default_rng(rng).choice(n, limit, replace=False))


def site_tokens(model: Model, sites: xr.Dataset, visible: np.ndarray) -> TokenArrays:
    """Return the tokens of the sites that a caller passes as reference, in their order."""
    if not isinstance(sites, xr.Dataset) or "site" not in sites.dims:
        kind = (
            f"dims {tuple(sites.dims)}" if isinstance(sites, xr.Dataset) else type(sites).__name__
        )
        raise SelectionError(
            f"reference= are sites with a dim 'site', found {kind}: read them from a cube "
            "with gm.sample(cube, records)"
        )
    variables = model.layout.variables_of(visible)
    return model.encode(read_arrays(sites, model.schema, variables=variables), limits=True)


def _folds(options: NoveltyOptions, n: int) -> np.ndarray:
    """Return the folds ``(n,)`` of reference sites."""
    if options.folds is None:
        return np.full(n, NO_FOLD)
    folds = np.asarray(options.folds)
    if folds.shape != (n,) or folds.dtype.kind not in "iu":
        raise LabelError(
            f"folds= must have one whole number per site of reference= ({n}), found shape {folds.shape} of "
            f"type {folds.dtype}"
        )
    return folds


def _weights(model: Model, weights: Mapping[str, float] | None) -> dict[str, float]:
    """Return the weight of each variable, from those of variables, modalities or groups."""
    names = list(model.schema.variables)
    if weights is None:
        return dict.fromkeys(names, 1.0)
    by_variable = dict.fromkeys(names, 0.0)
    for name, weight in weights.items():
        if not (np.isfinite(weight) and weight >= 0):
            raise SettingError(f"the weight of '{name}' is {weight}: pass a number of 0 or more")
        for variable in model.layout.variables_of(visible_tokens(model.layout, name)):
            by_variable[variable] = float(weight)
    if not any(by_variable.values()):
        raise SettingError("all weights= are 0, so no distance differs from 0: pass one above 0")
    return by_variable
