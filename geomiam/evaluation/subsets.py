"""Skill from any subset of predictors, of one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Protocol

import numpy as np
import xarray as xr

from geomiam.errors import SelectionError
from geomiam.inference.engine import Scale
from geomiam.inference.predict import predict
from geomiam.metrics import auc
from geomiam.networks.model import Model
from geomiam.schema import Schema
from geomiam.tokens.select import Selector
from geomiam.training.table import read_labels

Subsets = (
    str | Sequence[Selector | Sequence[Selector]] | Mapping[str, Selector | Sequence[Selector]]
)
KINDS = ("unimodal", "pairs", "leave-one-out", "every", "all")


def evaluate(model: Model, sites: xr.Dataset, *, subsets: Subsets = "unimodal+all") -> xr.Dataset:
    """Score a model on sites, seeing one subset of the predictors after another.

    Parameters
    ----------
    model : Model
    sites : xarray.Dataset
        With ``presence(site, species)``; sites that the model was not trained on.
    subsets : str, sequence or mapping
        ``"unimodal"``, ``"pairs"``, ``"leave-one-out"``, ``"every"`` (all 2^M − 1), ``"all"``, joined
        by ``+``; or selectors, each one subset, named by a mapping if you like.

    Returns
    -------
    xarray.Dataset
        ``auc(subset, species)``, NaN where a species has one class; ``mean_auc(subset)``;
        ``sites(subset)``: how many had anything to predict from.

    Raises
    ------
    SelectionError
        If a subset names something unknown.
    LabelError
        If the sites have no labels.
    """
    labels, names = read_labels(sites)
    chosen = name_subsets(model.schema, subsets)
    return score(labels, subset_scores(model, sites, chosen), names).assign_attrs(model_id=model.id)


class Predictor(Protocol):
    """Anything that scores sites from a subset of the predictors, like a rival or an imputer."""

    @property
    def species(self) -> Sequence[str]:
        """Names, in the order of the columns of the scores."""

    def scores(self, sites: xr.Dataset, *, using: Sequence[Selector] | None = None) -> np.ndarray:
        """Score the sites ``(n, S)``; higher = more likely present."""


def subset_scores(
    model: Model | Predictor, sites: xr.Dataset, subsets: Mapping[str, list[Selector] | None]
) -> dict[str, np.ndarray]:
    """Predict sites from each subset: ``(n, S)`` per subset, species in the order of the sites' labels.

    On the logit scale, where nothing saturates, except for softmax, whose logits compare species only.
    """
    names = [str(s) for s in sites["species"].values]
    if not isinstance(model, Model):
        order = [list(model.species).index(s) for s in names]
        return {n: model.scores(sites, using=u)[:, order] for n, u in subsets.items()}
    scale: Scale = "probability" if model.link == "softmax" else "logit"
    maps = {
        n: predict(sites, model, using=u, species=names, scale=scale) for n, u in subsets.items()
    }
    return {n: m["suitability"].transpose("site", "species").values for n, m in maps.items()}


def score(
    labels: np.ndarray, scores: Mapping[str, np.ndarray], species: Sequence[str]
) -> xr.Dataset:
    """Return the table of :func:`evaluate` from labels ``(n, S)`` and scores ``(n, S)`` per subset."""
    values = np.stack([auc(labels, s) for s in scores.values()])
    known = ~np.isnan(values)
    mean = np.where(known, values, 0).sum(1) / np.maximum(known.sum(1), 1)
    return xr.Dataset(
        {
            "auc": (("subset", "species"), values, {"long_name": "area under the ROC curve"}),
            "mean_auc": ("subset", np.where(known.any(1), mean, np.nan)),
            "sites": ("subset", [int(np.isfinite(s).any(1).sum()) for s in scores.values()]),
        },
        coords={"subset": list(scores), "species": list(species)},
    )


def name_subsets(schema: Schema, subsets: Subsets) -> dict[str, list[Selector] | None]:
    """Return the subsets by name; None is everything."""
    if isinstance(subsets, Mapping):
        return {str(k): _listed(v) for k, v in subsets.items()}
    if not isinstance(subsets, str):
        return {_name(s): _listed(s) for s in subsets}
    found: dict[str, list[Selector] | None] = {}
    for kind in subsets.split("+"):
        found |= _of_kind(kind.strip(), list(schema.modalities))
    return found


def _of_kind(kind: str, modalities: list[str]) -> dict[str, list[Selector] | None]:
    sizes = {"unimodal": [1], "pairs": [2], "leave-one-out": [len(modalities) - 1]}
    sizes |= {"every": list(range(1, len(modalities)))}
    everything: dict[str, list[Selector] | None] = {"all": None}
    if kind == "all":
        return everything
    if kind not in sizes:
        raise SelectionError(
            f"'{kind}' is no kind of subset; join some of {', '.join(KINDS)} with '+'"
        )
    found = everything if kind == "every" else {}
    some = [c for size in sizes[kind] for c in combinations(modalities, size)]
    return {**{"+".join(c): list(c) for c in some}, **found}


def _listed(subset: Selector | Sequence[Selector]) -> list[Selector]:
    return [subset] if isinstance(subset, (str, Mapping)) else list(subset)


def _name(subset: Selector | Sequence[Selector]) -> str:
    return "+".join(s if isinstance(s, str) else str(dict(s)) for s in _listed(subset))
