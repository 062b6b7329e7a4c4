"""What each predictor is worth to a model: Shapley values of its skill on labelled sites."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr

from geomiam.data.sites.table import SiteTable
from geomiam.errors import LabelError, SelectionError
from geomiam.evaluation.evaluate import LONG_NAMES, ON_PROBABILITIES, check_metrics
from geomiam.explain import sampling
from geomiam.explain.shapley import MOST_GROUPS
from geomiam.inference.engine import coalition_block
from geomiam.metrics import METRICS
from geomiam.model.model import Model
from geomiam.model.saved_model import as_model
from geomiam.progress import progress_bar, with_progress
from geomiam.tokens.blocks import Block
from geomiam.tokens.layout import Layout
from geomiam.tokens.select import Selector, group_masks

Method = Literal["exact", "latin", "uniform"]
Groups = str | None | Mapping[str, Selector | Sequence[Selector]]

SCORES_AT_ONCE = 2**28
"""Bytes of scores held at a time; decides how many coalitions share one pass over the sites."""


@with_progress
def importance(
    model: Model | str | Path,
    sites: xr.Dataset,
    *,
    groups: Groups = None,
    metric: str = "auc",
    method: Method = "exact",
    samples: int = 24,
    rows: sampling.Rows = "independent",
    rng: int | np.random.Generator | None = 0,
    progress: bool | None = None,
) -> xr.Dataset:
    """Share a model's skill among its predictors, by Shapley values (MaskSDM, Zbinden et al.).

    The game: v(S) is the metric of the predictions on all sites when the model sees the predictors
    in the coalition S only. Where S shows nothing of a site, the model answers with its base value,
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
    >>> table = gm.importance(model, sites)
    >>> total = table["mean_base_value"] + table["mean_shapley"].sum()
    >>> bool(abs(total - table["mean_full_value"]) < 1e-6)
    True
    """
    model = as_model(model)
    _affordable(len(_groups(model.layout, groups)), method)
    game = skill_game(model, sites, groups=groups, metric=metric)
    estimate = _estimate(game, method=method, samples=samples, rows=rows, rng=rng)
    table = _table(estimate, game, [str(s) for s in sites["species"].values])
    facts: dict[str, Any] = {"metric": metric, "method": method, "model_id": model.id}
    if method != "exact":
        facts["samples"] = samples
    if method == "latin":
        facts["rows"] = rows
    return table.assign_attrs(facts)


@dataclass(frozen=True, eq=False)
class SkillGame:
    """Coalitions of predictors → skill, from :func:`skill_game`; its rules are told there."""

    model: Model
    block: Block
    """Sites with anything to predict from, ``n`` rows."""
    labels: np.ndarray
    """``(n, S)``, of species that can be scored."""
    names: tuple[str, ...]
    """Of the G groups."""
    groups: np.ndarray
    """Boolean ``(G, t)``, disjoint."""
    metric: str
    species: np.ndarray
    """Positions ``(S,)`` in the model."""
    scored: np.ndarray
    """Boolean, which species of the sites the S are."""

    def __call__(self, coalitions: np.ndarray) -> np.ndarray:
        """Skill ``(c, S + 1)`` of coalitions ``(c, G)``; the last column is the mean over species."""
        visible = (coalitions[:, :, None] & self.groups).any(1)
        measure = METRICS[self.metric]
        skill = np.stack([measure(self.labels, s) for part in self._scores(visible) for s in part])
        return np.column_stack([skill, skill.mean(1)])

    def _scores(self, visible: np.ndarray) -> Iterator[np.ndarray]:
        """Scores ``(c, n, S)`` of as many coalitions ``(c, t)`` at a time as fit into memory."""
        asked = len(self.model.species) if self._shares else len(self.species)
        step = max(1, SCORES_AT_ONCE // (4 * asked * max(1, len(self.block))))
        for start in range(0, len(visible), step):
            yield self._answers(visible[start : start + step])

    def _answers(self, visible: np.ndarray) -> np.ndarray:
        if not self._shares:
            scale: Any = "probability" if self.metric in ON_PROBABILITIES else "logit"
            return coalition_block(
                self.model, self.block, visible=visible, species=self.species, scale=scale
            )
        from scipy.special import log_softmax  # a softmax model's logits compare species, not sites

        every = np.arange(len(self.model.species))
        logits = coalition_block(
            self.model, self.block, visible=visible, species=every, scale="logit"
        )
        return log_softmax(logits, axis=-1)[..., self.species]

    @property
    def _shares(self) -> bool:
        return self.model.link == "softmax" and self.metric not in ON_PROBABILITIES


def skill_game(
    model: Model, sites: xr.Dataset, *, groups: Groups = None, metric: str = "auc"
) -> SkillGame:
    """Return the game that :func:`importance` plays, for samples and tables of your own.

    Parameters
    ----------
    model, sites, groups, metric
        As there.

    Returns
    -------
    SkillGame
        Boolean coalitions ``(c, G)`` → skill ``(c, S + 1)`` of the S species that have presences and
        absences, and their mean; see :mod:`geomiam.explain.sampling`.

    Raises
    ------
    SelectionError, LabelError, MissingVariable, VariableMismatch
        As there.
    """
    named = _groups(model.layout, groups)
    _refuse_without_ties(metric)
    masks = np.stack(list(named.values()))
    needed = model.layout.variables_of(np.bitwise_or.reduce(masks))
    table = SiteTable.read(sites, model.schema, variables=needed)
    index = model.species_index(table.species)
    block, rows = _seen(model.encode(table.arrays), masks)
    labels = table.labels[rows]
    scored = _scorable(labels, of=len(table))
    facts = {"metric": metric, "species": index[scored], "scored": scored}
    return SkillGame(model, block, labels[:, scored], tuple(named), masks, **facts)


def _seen(block: Block, groups: np.ndarray) -> tuple[Block, np.ndarray]:
    """The rows that have anything of any group, and their numbers."""
    rows = np.flatnonzero((block.observed & groups.any(0)).any(1))
    return Block(tuple(v[rows] for v in block.values), block.observed[rows]), rows


def _scorable(labels: np.ndarray, *, of: int) -> np.ndarray:
    """Which species ``(S,)`` have both classes."""
    scored = np.logical_and((labels == 1).any(0), (labels == 0).any(0))
    if not scored.any():
        raise LabelError(
            f"none of {len(scored)} species has both presences and absences at the {len(labels):,} "
            f"of {of:,} sites with anything observed, so no skill can be told; add absences with "
            "gm.add_background(sites, cube)"
        )
    return scored


def _estimate(
    game: SkillGame, *, method: Method, samples: int, rows: sampling.Rows, rng: Any
) -> sampling.Estimate:
    n = len(game.groups)
    if method == "exact":
        looks = 2**n
    else:
        count = sampling.replicates(n, method=method, samples=samples, rows=rows)
        looks = 2 + (2 * n * count if method == "uniform" else n * (n - 1) * samples)
    with progress_bar(total=looks, desc="coalitions", leave=False) as bar:
        memo = sampling.Memo(game, bar=bar)
        if method == "exact":
            return sampling.exact(memo, n)
        return sampling.sample(memo, n, method=method, samples=samples, rows=rows, rng=rng)


def _groups(layout: Layout, chosen: Groups) -> dict[str, np.ndarray]:
    """Tokens ``(t,)`` per group."""
    if not isinstance(chosen, str):
        return group_masks(layout, chosen)
    if chosen not in ("modalities", "variables"):
        raise SelectionError(
            f"groups={chosen!r} is neither modalities nor variables; name groups with "
            "groups={'name': selector, ...}"
        )
    named: dict[str, np.ndarray] = {}
    for span in layout.spans:
        name = span.modality if chosen == "modalities" else span.variable.name
        tokens = named.setdefault(name, np.zeros(layout.size, bool))
        tokens[span.start : span.start + span.size] = True
    return named


def _affordable(count: int, method: str) -> None:
    if method == "exact" and count > MOST_GROUPS:
        raise SelectionError(
            f"{count} groups mean 2^{count} = {2**count:,} coalitions, each a prediction of all "
            f"sites; sample them with gm.importance(..., method='latin'), or join groups to at most "
            f"{MOST_GROUPS} with groups={{'name': [...]}}"
        )


def _refuse_without_ties(metric: str) -> None:
    """v(∅), of predictions that are all equal, must have a value."""
    check_metrics([metric])
    labels, equal = np.array([[1.0], [0.0], [0.0]]), np.full((3, 1), 0.5)
    able = [m for m, measure in METRICS.items() if np.isfinite(measure(labels, equal)).all()]
    if metric not in able:
        raise SelectionError(
            f"'{metric}' has no value where all predictions are equal, as they are without any "
            f"predictor; choose from {', '.join(able)}"
        )


def _table(found: sampling.Estimate, game: SkillGame, species: list[str]) -> xr.Dataset:
    """Columns of species and, last, of their mean → variables with names."""
    said = LONG_NAMES.get(game.metric, game.metric.replace("_", " "))
    columns = {
        "shapley": (found.values, "mean_shapley", f"Shapley value: contribution to the {said}"),
        "species_standard_error": (
            found.standard_error,
            "standard_error",
            "standard error of the Shapley value, of the choice of coalitions",
        ),
        "base_value": (found.base, "mean_base_value", f"{said} without any predictor"),
        "full_value": (found.full, "mean_full_value", f"{said} with every group"),
    }
    table = xr.Dataset(coords={"group": list(game.names), "species": species})
    for name, (values, of_mean, text) in columns.items():
        dims = ("group",) if values.ndim == 2 else ()
        every = np.full((*values.shape[:-1], len(species)), np.nan)
        every[..., game.scored] = values[..., :-1]
        table[name] = ((*dims, "species"), every, {"long_name": text})
        mean = {"long_name": f"{text}, of the mean over species"}
        table[of_mean] = (dims, values[..., -1], mean)
    return table.assign_attrs(
        evaluations=found.evaluations,
        replicates=found.replicates,
        sites=len(game.block),
        scored_species=int(game.scored.sum()),
    )
