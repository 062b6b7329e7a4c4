"""Skill by the number of species whose observations a model gets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from geomiam.checks.settings import check_count
from geomiam.data.sites.table import read_arrays, read_labels
from geomiam.errors import SelectionError
from geomiam.evaluation.evaluate import Predictor, as_predictor, score, subset_scores
from geomiam.geo.dims import SITE
from geomiam.metrics.registry import Metrics
from geomiam.model.model import Model
from geomiam.model.saved_model import as_model
from geomiam.progress import progress_bar, with_progress
from geomiam.schema.schema import Schema
from geomiam.training.provenance import warn_if_trained_on


@with_progress
def community(
    model: Model | str | Path,
    sites: xr.Dataset,
    *,
    observed: Sequence[int] = (0, 5, 20),
    draws: int = 3,
    metrics: Metrics = ("auc",),
    rng: int | np.random.Generator | None = 0,
    progress: bool | None = None,
) -> xr.Dataset:
    """Score a model on sites where a few other species are observed, drawn at random at each site.

    Parameters
    ----------
    model : Model or path
        Trained on sites with a community, see :func:`geomiam.add_community`.
    sites : xarray.Dataset
        With ``presence(site, species)`` and the variables of the community; sites that the model was not
        trained on.
    observed : sequence of int
        Numbers of observed species. Every species is predicted from this number of others, or from all
        others if fewer were surveyed at the site. 0 hides the community.
    draws : int
        How often the observed species are drawn; metrics are means over the draws.
    metrics : str, callable or sequence of these
        As :func:`geomiam.evaluate`.
    rng : int, numpy.random.Generator or None
        Draws an order of the species at each site. A larger number adds species to those of a smaller one.
    progress : bool, optional
        Show progress bars; default: on a terminal or in a notebook.

    Returns
    -------
    xarray.Dataset
        The table of :func:`geomiam.evaluate`, with the dim ``observed`` in place of ``subset``:
        ``auc(observed, species)``, ``mean_auc(observed)``.

    Raises
    ------
    SelectionError
        If the model has no community, or ``observed`` or ``draws`` is out of range.
    LabelError
        If the sites have no labels.

    See Also
    --------
    geomiam.add_community : the variables of the community.
    geomiam.evaluate : skill from the modalities, among them the whole community.

    References
    ----------
    Abdelwahed et al. (2025), CISO, arXiv:2508.06704, for the protocol.

    Examples
    --------
    >>> train = gm.add_community(sites)
    >>> settings = {"steps": 20, "loss": "bce"}
    >>> small = gm.fit(train, training=settings, validation=False)
    >>> table = gm.evaluation.community(small, train, observed=[0, 2], draws=1)
    >>> table["auc"].dims
    ('observed', 'species')
    """
    model = as_model(model)
    check_count("draws", draws, minimum=1, hint="observed species are drawn so often")
    for number in observed:
        check_count("observed", number, minimum=0, hint="it is a number of species")
    labels, names = read_labels(sites)
    warn_if_trained_on(model.about, sites)
    seeds = np.random.default_rng(rng).integers(2**31, size=draws)
    tables = []
    for seed in progress_bar(seeds, desc="draws", unit="draw", leave=False):
        scores = {
            str(k): scores_with(model, sites, model.schema, observed=k, seed=int(seed))
            for k in observed
        }
        probability = getattr(as_predictor(model), "probability", None)
        tables.append(score(labels, scores, names, metrics=metrics, probability=probability))
    mean = xr.concat(tables, "draw").mean("draw", keep_attrs=True).rename(subset="observed")
    return mean.assign_coords(observed=[int(k) for k in observed]).assign_attrs(model_id=model.id)


def scores_with(
    model: Model | Predictor, sites: xr.Dataset, schema: Schema, *, observed: int, seed: int
) -> np.ndarray:
    """Return scores ``(n, S)`` of each species from ``observed`` other species, drawn at each site.

    The predictor must not use the observation of a species for its own score.
    """
    variables = [v for v in schema.variables.values() if v.species is not None]
    if not variables:
        raise SelectionError(
            "the model has no observations of species among its predictors; train it on "
            "gm.add_community(sites)"
        )
    names = [v.name for v in variables]
    arrays = read_arrays(sites, schema, variables=names)
    values = np.stack([arrays[n] for n in names], 1)
    key = np.random.default_rng(seed).random(values.shape)
    rank = np.where(np.isfinite(values), key, np.inf).argsort(1).argsort(1)
    is_shown = rank < observed
    scores = _scores(model, sites, names, np.where(is_shown, values, np.nan))
    if not is_shown.any():
        return scores
    # A species that is among the observed ones gets one further species in its place, since its own
    # observation is hidden.
    one_more = _scores(model, sites, names, np.where(rank <= observed, values, np.nan))
    position = {str(v.species): i for i, v in enumerate(variables)}
    for column, species in enumerate(sites["species"].values):
        if (number := position.get(str(species))) is not None:
            rows = is_shown[:, number]
            scores[rows, column] = one_more[rows, column]
    return scores


def _scores(
    model: Model | Predictor, sites: xr.Dataset, names: Sequence[str], values: np.ndarray
) -> np.ndarray:
    """Return scores ``(n, S)`` where the variables have ``values (n, V)``."""
    arrays = {n: (SITE, values[:, i], sites[n].attrs) for i, n in enumerate(names) if n in sites}
    return subset_scores(model, sites.assign(arrays), {"all": None})["all"]
