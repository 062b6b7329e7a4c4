"""Skill from any subset of predictors: of one model, or of anything else that scores sites.

Whoever scores sites is a :class:`Predictor`: a masked model, the same network with imputed values, an
oracle, a baseline. All of them get the same sites, labels and subsets, and the same table comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import xarray as xr

from geomiam.data.predictors import bind
from geomiam.data.sites.labels import read_labels
from geomiam.errors import SelectionError
from geomiam.evaluation.masked import Masked
from geomiam.metrics import METRICS, measure
from geomiam.model.model import Model
from geomiam.model.saved_model import as_model
from geomiam.progress import progress_bar, with_progress
from geomiam.schema.schema import Schema
from geomiam.tokens.layout import Layout
from geomiam.tokens.select import Selector, visible_tokens
from geomiam.training.fingerprint import warn_if_trained_on

Using = Selector | Sequence[Selector] | None
Subsets = str | Sequence[Using] | Mapping[str, Using]
Chosen = Mapping[str, list[Selector] | None]
KINDS = ("unimodal", "pairs", "leave-one-out", "every", "variables", "all")
ON_PROBABILITIES = ("boyce", "cor", "brier", "log_loss", "calibration_slope")
"""Metrics that judge the number itself; the others compare sites and take logits, which never saturate."""


@runtime_checkable
class Predictor(Protocol):
    """Whatever scores sites from a part of their predictors.

    Two attributes are optional. ``schema`` says what the modalities are; without it,
    :func:`geomiam.evaluate` wants ``schema=``. ``probability(scores)`` turns scores into
    probabilities; without it, scores are log-odds.
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
            What may be seen; default everything.

        Returns
        -------
        numpy.ndarray
            ``(n, S)`` on the logit scale, higher = more likely present; NaN = no answer.
        """
        ...


def as_predictor(
    model: Model | Predictor | str | Path, species: Sequence[str] | None = None
) -> Predictor:
    """Return a model as a :class:`Predictor`, of some species if you like; a predictor as it is.

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
    metrics: Sequence[str] = ("auc",),
    schema: Schema | None = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """Score a model on sites, seeing one subset of the predictors after another.

    Parameters
    ----------
    model : Model, path or Predictor
        A model or the path of one, or anything with ``species`` and ``scores(sites, using=...)``, such as
        :class:`geomiam.Imputed` or :class:`geomiam.Oracle`.
    sites : xarray.Dataset
        With ``presence(site, species)``; sites that the model was not trained on.
    subsets : str, sequence or mapping
        ``"unimodal"``, ``"pairs"``, ``"leave-one-out"``, ``"every"`` (all 2^M − 1), ``"variables"``
        (one at a time), ``"all"``, joined by ``+``; or selectors, each one subset, named by a mapping
        if you like: ``{"one year": "landsat[time=2018]", "all": None}``.
    metrics : sequence of str
        Of ``geomiam.metrics.METRICS``. Metrics that compare sites get logits, those that judge the
        number get probabilities.
    schema : Schema, optional
        The modalities, for a predictor that has no ``schema``.
    progress : bool, optional
        Show progress bars; default: on a terminal or in a notebook.

    Returns
    -------
    xarray.Dataset
        Per metric, ``auc(subset, species)``, NaN where a species cannot be scored (one class only),
        ``mean_auc(subset)`` over the others and ``unscored_auc(subset)``, their number;
        ``sites(subset)``: how many had anything to predict from. The coordinate
        ``shows(subset, modality)`` is the share of a modality's tokens that a subset shows, 0 to 1.
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
        If the model was trained on some of the sites; their scores are too good.
    """
    model = as_model(model) if isinstance(model, (str, Path)) else model
    labels, names = read_labels(sites)
    check_metrics(metrics)
    if isinstance(model, Model):
        warn_if_trained_on(model.about, sites)
    facts = _schema(model, sites, schema)
    chosen = name_subsets(facts, subsets)
    table = score(
        labels,
        subset_scores(model, sites, chosen),
        names,
        metrics=metrics,
        probability=getattr(as_predictor(model), "probability", None),
        shows=shown_share(facts, chosen),
    )
    return table.assign_attrs(model_id=model.id) if isinstance(model, Model) else table


def subset_scores(
    model: Model | Predictor, sites: xr.Dataset, subsets: Chosen
) -> dict[str, np.ndarray]:
    """Score sites from each subset: ``(n, S)`` per subset, species in the order of the sites' labels.

    Raises
    ------
    SelectionError
        If a species is unknown.
    """
    names = [str(s) for s in sites["species"].values]
    if isinstance(model, Model):
        model.species_index(names)  # unknown names are told with the nearest ones
    predictor = as_predictor(model, names)
    index = _positions(predictor, names)
    named = progress_bar(subsets.items(), desc="subsets", unit="subset", leave=False)
    return {n: np.asarray(predictor.scores(sites, using=u))[:, index] for n, u in named}


def score(
    labels: np.ndarray,
    scores: Mapping[str, np.ndarray],
    species: Sequence[str],
    *,
    metrics: Sequence[str] = ("auc",),
    probability: Callable[[np.ndarray], np.ndarray] | None = None,
    shows: xr.DataArray | None = None,
) -> xr.Dataset:
    """Return the table of :func:`evaluate` from labels ``(n, S)`` and scores ``(n, S)`` per subset.

    Parameters
    ----------
    probability : callable, optional
        Scores → probabilities; default: the logistic function.
    shows : xarray.DataArray, optional
        From :func:`shown_share`.
    """
    table = xr.Dataset(coords={"subset": list(scores), "species": list(species)})
    on_scores = [m for m in check_metrics(metrics) if m not in ON_PROBABILITIES]
    on_chances = [m for m in check_metrics(metrics) if m in ON_PROBABILITIES]
    measured = [
        measure(labels, s, on_scores) | measure(labels, (probability or _logistic)(s), on_chances)
        for s in scores.values()
    ]
    for name in check_metrics(metrics):
        table = table.assign(_columns(name, np.stack([m[name] for m in measured])))
    answered = [int(np.isfinite(s).any(1).sum()) for s in scores.values()]
    table["sites"] = ("subset", answered, {"long_name": "sites with anything to predict from"})
    return table if shows is None else table.assign_coords(shows=shows)


def shown_share(schema: Schema, subsets: Chosen) -> xr.DataArray:
    """Share of each modality's tokens that each subset shows, ``(subset, modality)``, in [0, 1]."""
    layout = Layout.of(schema)
    starts = np.cumsum(layout.sizes) - layout.sizes
    shown = np.stack([visible_tokens(layout, u) for u in subsets.values()]).astype(float)
    return xr.DataArray(
        np.add.reduceat(shown, starts, axis=1) / layout.sizes,
        dims=("subset", "modality"),
        coords={"subset": list(subsets), "modality": list(schema.modalities)},
        attrs={"long_name": "share of the modality's tokens that the subset shows"},
    )


def check_metrics(metrics: Sequence[str]) -> Sequence[str]:
    """Return the names of metrics.

    Raises
    ------
    SelectionError
        If one is unknown.
    """
    metrics = [metrics] if isinstance(metrics, str) else list(metrics)
    if unknown := [m for m in metrics if m not in METRICS]:
        raise SelectionError(f"no metric {unknown}; choose from {', '.join(METRICS)}")
    return metrics


def name_subsets(schema: Schema, subsets: Subsets) -> dict[str, list[Selector] | None]:
    """Return the subsets by name; None is everything.

    Raises
    ------
    SelectionError
        If a kind of subset is unknown.
    """
    if isinstance(subsets, Mapping):
        return {str(k): listed(v) for k, v in subsets.items()}
    if not isinstance(subsets, str):
        return {_name(s): listed(s) for s in subsets}
    found: dict[str, list[Selector] | None] = {}
    for kind in subsets.split("+"):
        found |= _of_kind(kind.strip(), schema)
    if not found:
        raise SelectionError(
            f"'{subsets}' is no subset of the one modality {list(schema.modalities)}"
        )
    return found


def _of_kind(kind: str, schema: Schema) -> dict[str, list[Selector] | None]:
    modalities = list(schema.modalities)
    sizes = {"unimodal": [1], "pairs": [2], "leave-one-out": [len(modalities) - 1]}
    sizes |= {"every": list(range(1, len(modalities)))}
    everything: dict[str, list[Selector] | None] = {"all": None}
    if kind == "all":
        return everything
    if kind == "variables":
        return {v: [v] for v in schema.variables}
    if kind not in sizes:
        raise SelectionError(
            f"'{kind}' is no kind of subset; join some of {', '.join(KINDS)} with '+'"
        )
    found = everything if kind == "every" else {}
    some = [c for size in sizes[kind] for c in combinations(modalities, size) if c]
    return {**{"+".join(c): list(c) for c in some}, **found}


def listed(subset: Using) -> list[Selector] | None:
    """Return a subset as a list of selectors; None is everything."""
    if subset is None:
        return None
    return [subset] if isinstance(subset, (str, Mapping)) else list(subset)


def _name(subset: Using) -> str:
    chosen = listed(subset)
    if chosen is None:
        return "all"
    return "+".join(s if isinstance(s, str) else str(dict(s)) for s in chosen)


def _columns(name: str, values: np.ndarray) -> dict[str, Any]:
    """One metric ``(subsets, S)``, its mean over species and the number of species without."""
    known = ~np.isnan(values)
    mean = np.where(known, values, 0).sum(1) / np.maximum(known.sum(1), 1)
    said = LONG_NAMES.get(name, name.replace("_", " "))
    missing = {"long_name": f"species without a value of {said}"}
    return {
        name: (("subset", "species"), values, {"long_name": said}),
        f"mean_{name}": (
            "subset",
            np.where(known.any(1), mean, np.nan),
            {"long_name": f"mean over species of {said}"},
        ),
        f"unscored_{name}": ("subset", (~known).sum(1), missing),
    }


LONG_NAMES = {
    "auc": "area under the ROC curve",
    "auc_prg": "area under the precision-recall-gain curve",
    "tss": "true skill statistic",
    "boyce": "continuous Boyce index",
    "cor": "correlation with presence",
    "brier": "Brier score",
}


def _schema(model: Model | Predictor, sites: xr.Dataset, given: Schema | None) -> Schema:
    schema = given or getattr(model, "schema", None)
    if schema is None:
        raise SelectionError(
            f"{type(model).__name__} does not say what its modalities are: pass schema=..."
        )
    return schema if schema.bound else bind(schema, sites)


def _positions(predictor: Predictor, names: Sequence[str]) -> list[int]:
    where = {str(s): i for i, s in enumerate(predictor.species)}
    if lost := [s for s in names if s not in where]:
        raise SelectionError(
            f"{type(predictor).__name__} does not know {len(lost)} of {len(names)} species "
            f"({', '.join(lost[:3])}); leave them out with sites.sel(species=[...])"
        )
    return [where[s] for s in names]


def _logistic(scores: np.ndarray) -> np.ndarray:
    from scipy.special import expit

    return expit(scores)
