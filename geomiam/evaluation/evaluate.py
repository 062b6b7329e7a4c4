"""Skill of a model or another predictor from subsets of the predictors.

A :class:`Predictor` scores sites: a masked model, the same network with imputed values, an oracle, a
baseline. All of them are scored on the same sites, labels and subsets and give the same table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import xarray as xr

from geomiam.data.predictors import bind
from geomiam.data.sites.table import read_labels
from geomiam.errors import SelectionError
from geomiam.evaluation.subsets import Chosen, Subsets, Using, name_subsets, shown_share
from geomiam.inference.predict import predict
from geomiam.metrics.registry import (
    ON_PROBABILITIES,
    Metrics,
    as_metrics,
    long_name,
    measure,
    measure_one_by_one,
)
from geomiam.model.model import Model
from geomiam.model.saved_model import as_model
from geomiam.progress import progress_bar, with_progress
from geomiam.schema.schema import Schema
from geomiam.tokens.select import Selector
from geomiam.training.provenance import warn_if_trained_on


@runtime_checkable
class Predictor(Protocol):
    """An object that scores sites from a subset of their predictors.

    Two attributes are optional. ``schema`` has the modalities; without it, :func:`geomiam.evaluate`
    requires ``schema=``. ``probability(scores)`` returns probabilities; without it, scores are log-odds.
    """

    @property
    def species(self) -> Sequence[str]:
        """Names of the species, in the order of the scores."""
        ...

    def scores(self, sites: xr.Dataset, *, using: Using = None) -> np.ndarray:
        """Score sites.

        Parameters
        ----------
        sites : xarray.Dataset
            Predictors ``(site, *own dims)``; NaN = missing.
        using : selector or sequence of selectors, optional
            Predictors to use; default all.

        Returns
        -------
        numpy.ndarray
            ``(n, S)`` on the logit scale, higher = more likely present; NaN = no prediction.
        """
        ...


@dataclass(frozen=True, eq=False)
class Masked:
    """A trained model as a :class:`~geomiam.evaluation.evaluate.Predictor`: predictors outside the subset are hidden.

    Scores are logits, or log-shares for a softmax model, whose logits compare species but not sites.
    """

    model: Model
    names: Sequence[str] | None = None
    """Species to score; default all of the model's."""

    @property
    def species(self) -> tuple[str, ...]:
        """Names of the species, in the order of the scores."""
        return tuple(self.model.species if self.names is None else self.names)

    @property
    def schema(self) -> Schema:
        """Schema of the model."""
        return self.model.schema

    def scores(
        self, sites: xr.Dataset, *, using: Selector | Sequence[Selector] | None = None
    ) -> np.ndarray:
        """Score sites ``(n, S)``; NaN where nothing of the subset is observed."""
        shares = self.model.link == "softmax"
        species = None if shares else self.species
        maps = predict(sites, self.model, using=using, species=species, scale="logit")
        logits = maps["suitability"].transpose("site", "species").values
        if not shares:
            return logits
        from scipy.special import log_softmax

        return log_softmax(logits, axis=-1)[:, self.model.species_index(self.species)]

    def probability(self, scores: np.ndarray) -> np.ndarray:
        """Return probabilities of the same shape as the scores."""
        return to_probability(self.model, scores)


def to_probability(model: Model, scores: np.ndarray) -> np.ndarray:
    """Return scores of :class:`Masked` as probabilities, by the model's link."""
    import torch

    if model.link == "softmax":
        return np.exp(scores)
    return model.probability(torch.as_tensor(scores)).numpy()


def as_predictor(
    model: Model | Predictor | str | Path, species: Sequence[str] | None = None
) -> Predictor:
    """Return a model as a :class:`Predictor` of all or some species; a predictor is returned unchanged.

    A path is read with :func:`geomiam.load_model`.
    """
    model = as_model(model) if isinstance(model, (str, Path)) else model
    return Masked(model, species) if isinstance(model, Model) else model


@with_progress
def evaluate(
    model: Model | Predictor | str | Path,
    sites: xr.Dataset,
    *,
    subsets: Subsets = "unimodal+all",
    metrics: Metrics = ("auc",),
    schema: Schema | None = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """Score a model on sites, from each of several subsets of the predictors.

    Parameters
    ----------
    model : Model, path or Predictor
        A model or the path of one, or anything with ``species`` and ``scores(sites, using=...)``, such as
        :class:`geomiam.baselines.Imputed` or :class:`geomiam.baselines.Oracle`.
    sites : xarray.Dataset
        With ``presence(site, species)``; sites that the model was not trained on.
    subsets : str, sequence or mapping
        ``"unimodal"``, ``"pairs"``, ``"leave-one-out"``, ``"every"`` (all 2^M − 1), ``"variables"``
        (one at a time), ``"all"``, joined by ``+``; or selectors, one per subset, which a mapping
        can name: ``{"one year": "landsat[time=2018]", "all": None}``.
    metrics : str, callable or sequence of these
        Names of ``geomiam.metrics.METRICS``, or functions of the labels ``(n,)`` and the probabilities
        ``(n,)`` of one species, such as those of scikit-learn. Named metrics that compare sites get
        logits, all others get probabilities.
    schema : Schema, optional
        Modalities, for a predictor without the attribute ``schema``.
    progress : bool, optional
        Show progress bars; default: on a terminal or in a notebook.

    Returns
    -------
    xarray.Dataset
        Per metric, ``auc(subset, species)``, NaN where a species cannot be scored (one class only),
        ``mean_auc(subset)`` over the others and ``unscored_auc(subset)``, the number of species
        without a score; ``sites(subset)``: number of sites with any predictor observed. The coordinate
        ``shows(subset, modality)`` is the share of a modality's tokens in a subset, 0 to 1.
        ``table["auc"].to_dataframe()`` is tidy.

    Raises
    ------
    SelectionError
        If a subset, a metric or a species of the sites is unknown.
    LabelError
        If the sites have no labels.

    Warns
    -----
    TrainedOnTheseSites
        If the model was trained on some of the sites, which makes their scores too high.

    See Also
    --------
    geomiam.cross_validate : train and score on spatial folds.
    geomiam.plot.subsets : plot the table.
    geomiam.metrics.measure : metrics of your labels and scores.

    Examples
    --------
    >>> import geomiam as gm
    >>> test = sites.isel(site=slice(None, None, 2))  # sites that did not train, in practice
    >>> table = gm.evaluate(model, test, metrics=["auc", "boyce"])
    >>> table["auc"].dims
    ('subset', 'species')
    """
    model = as_model(model) if isinstance(model, (str, Path)) else model
    labels, names = read_labels(sites)
    as_metrics(metrics)
    if isinstance(model, Model):
        warn_if_trained_on(model.about, sites)
    bound_schema = _schema(model, sites, schema)
    named_subsets = name_subsets(bound_schema, subsets)
    table = score(
        labels,
        subset_scores(model, sites, named_subsets),
        names,
        metrics=metrics,
        probability=getattr(as_predictor(model), "probability", None),
        shows=shown_share(bound_schema, named_subsets),
    )
    return table.assign_attrs(model_id=model.id) if isinstance(model, Model) else table


def subset_scores(
    model: Model | Predictor, sites: xr.Dataset, subsets: Chosen
) -> dict[str, np.ndarray]:
    """Score sites from each subset: ``(n, S)`` per subset, species in the order of the sites' labels."""
    names = [str(s) for s in sites["species"].values]
    if isinstance(model, Model):
        model.species_index(names)  # the error lists similar names
    predictor = as_predictor(model, names)
    index = _positions(predictor, names)
    bar = progress_bar(subsets.items(), desc="subsets", unit="subset", leave=False)
    return {n: np.asarray(predictor.scores(sites, using=u))[:, index] for n, u in bar}


def score(
    labels: np.ndarray,
    scores: Mapping[str, np.ndarray],
    species: Sequence[str],
    *,
    metrics: Metrics = ("auc",),
    probability: Callable[[np.ndarray], np.ndarray] | None = None,
    shows: xr.DataArray | None = None,
    fold: np.ndarray | None = None,
) -> xr.Dataset:
    """Return the table of :func:`evaluate` from labels ``(n, S)`` and scores ``(n, S)`` per subset.

    ``fold`` ``(n,)``: of out-of-fold predictions, as for :func:`geomiam.metrics.measure`.
    """
    from scipy.special import expit

    table = xr.Dataset(coords={"subset": list(scores), "species": list(species)})
    functions = as_metrics(metrics)
    by_name = [m for m, function in functions.items() if function is None]
    on_scores = [m for m in by_name if m not in ON_PROBABILITIES]
    on_probabilities = [m for m in by_name if m in ON_PROBABILITIES]
    rows = []
    for s in scores.values():
        p = (probability or expit)(s)
        row = measure(labels, s, on_scores, fold=fold) | measure(labels, p, on_probabilities)
        for name, function in functions.items():
            if function is not None:
                row[name] = measure_one_by_one(function, labels, p)
        rows.append(row)
    for name in functions:
        table = table.assign(_columns(name, np.stack([row[name] for row in rows])))
    site_counts = [int(np.isfinite(s).any(1).sum()) for s in scores.values()]
    table["sites"] = ("subset", site_counts, {"long_name": "sites with any predictor observed"})
    return table if shows is None else table.assign_coords(shows=shows)


def _columns(name: str, values: np.ndarray) -> dict[str, Any]:
    """Return a metric ``(subsets, S)``, its mean over species and the number of species without a value."""
    is_scored = ~np.isnan(values)
    mean = np.where(is_scored, values, 0).sum(1) / np.maximum(is_scored.sum(1), 1)
    text = long_name(name)
    missing = {"long_name": f"species without a value of {text}"}
    return {
        name: (("subset", "species"), values, {"long_name": text}),
        f"mean_{name}": (
            "subset",
            np.where(is_scored.any(1), mean, np.nan),
            {"long_name": f"mean over species of {text}"},
        ),
        f"unscored_{name}": ("subset", (~is_scored).sum(1), missing),
    }


def _schema(model: Model | Predictor, sites: xr.Dataset, schema_argument: Schema | None) -> Schema:
    schema = schema_argument or getattr(model, "schema", None)
    if schema is None:
        raise SelectionError(f"{type(model).__name__} has no schema: pass schema=...")
    return schema if schema.bound else bind(schema, sites)


def _positions(predictor: Predictor, names: Sequence[str]) -> list[int]:
    positions = {str(s): i for i, s in enumerate(predictor.species)}
    if unknown_species := [s for s in names if s not in positions]:
        raise SelectionError(
            f"{type(predictor).__name__} lacks {len(unknown_species)} of {len(names)} species "
            f"({', '.join(unknown_species[:3])}); leave them out with sites.sel(species=[...])"
        )
    return [positions[s] for s in names]
