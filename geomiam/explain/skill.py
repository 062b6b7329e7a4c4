"""Importance of predictors: Shapley values of a model's skill on labelled sites."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr

from geomiam.errors import SelectionError
from geomiam.explain import sampling
from geomiam.explain.shapley_values import MOST_GROUPS
from geomiam.explain.skill_game import Groups, SkillGame, masks_of_groups, skill_game
from geomiam.metrics.registry import long_name
from geomiam.model.model import Model
from geomiam.model.saved_model import as_model
from geomiam.progress import progress_bar, with_progress

Method = Literal["exact", "latin", "uniform"]


@dataclass(frozen=True, kw_only=True)
class ImportanceOptions:
    """Options of :func:`geomiam.explain.importance`.

    Parameters
    ----------
    method : {"exact", "latin", "uniform"}
        ``"exact"`` evaluates all 2^G coalitions of up to 12 groups; ``"latin"`` stratified orders
        from Latin squares, G·(G − 1) evaluations each; ``"uniform"`` plain Monte Carlo of the same
        cost, for comparison.
    samples : int
        Latin squares, 24 in MaskSDM. With fewer than a dozen (two dozen antithetic ones) the
        intervals of skewed contributions cover less than their nominal share.
    rows : {"independent", "antithetic", "cyclic"}
        How the squares are drawn; ``"cyclic"`` as published.
        See :func:`geomiam.explain.sampling.sample`.
    rng : int, numpy.random.Generator or None
        Draws the squares or orders.

    Examples
    --------
    >>> gm.explain.ImportanceOptions(method="latin", samples=32).rows
    'independent'
    """

    method: Method = "exact"
    samples: int = 24
    rows: sampling.Rows = "independent"
    rng: int | np.random.Generator | None = 0


@with_progress
def importance(
    model: Model | str | Path,
    sites: xr.Dataset,
    *,
    groups: Groups = None,
    metric: str = "auc",
    options: ImportanceOptions | None = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """Share a model's skill among its predictors, by Shapley values (MaskSDM, Zbinden et al.).

    The game: v(S) is the metric of the predictions on all sites from the predictors in the
    coalition S only. Where S shows nothing of a site, the model predicts its base value,
    the same at all such sites, so v(∅) of the AUC is 0.5. Sites where no group has anything
    observed are left out of every coalition, as in :func:`geomiam.evaluate`, whose table of all
    predictors v(all) therefore equals.

    Parameters
    ----------
    model : Model or path
    sites : xarray.Dataset
        With ``presence(site, species)``; sites that the model was not trained on. Their predictors
        are read into memory.
    groups : {"modalities", "variables"} or mapping of name to selectors, optional
        Groups of predictors that share the skill; default: the groups of the model's schema. Predictors
        that a mapping does not name become the group ``rest``.
    metric : str
        Of ``geomiam.metrics.METRICS``, one that has a value where all predictions are equal. Of the
        Brier score and the log loss less is better, so there a helpful predictor has a negative value.
    options : ImportanceOptions, optional
        The method with its ``samples``, ``rows`` and ``rng``; see
        :class:`geomiam.explain.ImportanceOptions`.
    progress : bool, optional
        Show progress bars; default: on a terminal or in a notebook.

    Returns
    -------
    xarray.Dataset
        ``shapley(group, species)``, ``base_value(species)`` = v(∅) and ``full_value(species)`` =
        v(all), NaN for a species with presences or absences only; ``mean_shapley(group)``,
        ``mean_base_value`` and ``mean_full_value``: of the mean over the other species, their number
        in the attribute ``scored_species``. Except for ``"uniform"``, base value + sum of the values
        = full value. ``standard_error(group)`` is that of ``mean_shapley``,
        ``species_standard_error(group, species)`` that of ``shapley``: of the choice of coalitions,
        not of the sites; 0 for ``"exact"``. Attributes: ``evaluations``, coalitions evaluated, none
        twice; ``replicates`` independent ones behind the error, so a 95 % interval is the value
        ± t(0.975, replicates − 1) standard errors; ``sites``.

    Raises
    ------
    SelectionError
        If groups overlap or name something unknown, are too many for ``"exact"``, or if the metric
        is unknown or has no value for equal predictions.
    LabelError
        If no species has both presences and absences.
    MissingVariable, VariableMismatch
        As :func:`geomiam.predict`.
    ValueError
        If there is no such method or kind of rows, or too few samples; see ``samples``.

    See Also
    --------
    geomiam.shapley : explain predictions instead of the skill.
    geomiam.plot.importance : plot the table.

    Examples
    --------
    >>> table = gm.explain.importance(model, sites)
    >>> total = table["mean_base_value"] + table["mean_shapley"].sum()
    >>> bool(abs(total - table["mean_full_value"]) < 1e-6)
    True
    """
    options, model = options or ImportanceOptions(), as_model(model)
    _affordable(len(masks_of_groups(model.layout, groups)), options.method)
    game = skill_game(model, sites, groups=groups, metric=metric)
    table = _table(_estimate(game, options), game, [str(s) for s in sites["species"].values])
    attributes: dict[str, Any] = {"metric": metric, "method": options.method, "model_id": model.id}
    if options.method != "exact":
        attributes["samples"] = options.samples
    if options.method == "latin":
        attributes["rows"] = options.rows
    return table.assign_attrs(attributes)


def _estimate(game: SkillGame, options: ImportanceOptions) -> sampling.Estimate:
    n, method, samples, rows = len(game.groups), options.method, options.samples, options.rows
    if method == "exact":
        evaluations = 2**n
    else:
        count = sampling.replicates(n, method=method, samples=samples, rows=rows)
        evaluations = 2 + (2 * n * count if method == "uniform" else n * (n - 1) * samples)
    with progress_bar(total=evaluations, desc="coalitions", leave=False) as bar:
        memo = sampling.Memo(game, bar=bar)
        if method == "exact":
            return sampling.exact(memo, n)
        return sampling.sample(memo, n, method=method, samples=samples, rows=rows, rng=options.rng)


def _affordable(count: int, method: str) -> None:
    if method == "exact" and count > MOST_GROUPS:
        raise SelectionError(
            f"{count} groups mean 2^{count} = {2**count:,} coalitions, each a prediction of all "
            f"sites; sample them with gm.explain.ImportanceOptions(method='latin'), or join groups to at most "
            f"{MOST_GROUPS} with groups={{'name': [...]}}"
        )


def _table(estimate: sampling.Estimate, game: SkillGame, species: list[str]) -> xr.Dataset:
    """Return the estimate as a table; its last column is the mean over species."""
    metric = long_name(game.metric)
    columns = {
        "shapley": (
            estimate.values,
            "mean_shapley",
            f"Shapley value: contribution to the {metric}",
        ),
        "species_standard_error": (
            estimate.standard_error,
            "standard_error",
            "standard error of the Shapley value, of the choice of coalitions",
        ),
        "base_value": (estimate.base, "mean_base_value", f"{metric} without any predictor"),
        "full_value": (estimate.full, "mean_full_value", f"{metric} with every group"),
    }
    table = xr.Dataset(coords={"group": list(game.names), "species": species})
    for name, (values, of_mean, text) in columns.items():
        dims = ("group",) if values.ndim == 2 else ()
        by_species = np.full((*values.shape[:-1], len(species)), np.nan)
        by_species[..., game.scored] = values[..., :-1]
        table[name] = ((*dims, "species"), by_species, {"long_name": text})
        mean = {"long_name": f"{text}, of the mean over species"}
        table[of_mean] = (dims, values[..., -1], mean)
    return table.assign_attrs(
        evaluations=estimate.evaluations,
        replicates=estimate.replicates,
        sites=len(game.block),
        scored_species=int(game.scored.sum()),
    )
