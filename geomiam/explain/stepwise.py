"""Forward selection of groups at inference: the small set of predictors that reaches the skill of all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from geomiam.checks.settings import check_number
from geomiam.errors import SettingError
from geomiam.explain.skill_game import Groups, SkillGame, skill_game
from geomiam.metrics.registry import long_name
from geomiam.model.model import Model
from geomiam.model.saved_model import as_model
from geomiam.progress import progress_bar, with_progress
from geomiam.training.provenance import warn_if_trained_on

LESS_IS_BETTER = ("brier", "log_loss")
"""Metrics whose smaller values are better."""


@with_progress
def stepwise(
    model: Model | str | Path,
    sites: xr.Dataset,
    *,
    groups: Groups = None,
    metric: str = "auc",
    tolerance: float = 0.01,
    test: xr.Dataset | None = None,
    zones: Any = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """Add groups of predictors one after another, each time the one that raises the skill most.

    The model is not trained again: it predicts from each set of groups by hiding the others, so the
    G (G + 1) / 2 sets cost as many predictions. The order is that of a greedy search, which may miss the
    best set of a given size; :func:`geomiam.evaluate` with ``subsets="every"`` compares all sets.

    Parameters
    ----------
    model : Model or path
    sites : xarray.Dataset
        With ``presence(site, species)``, on which groups are chosen: validation sites, not those that
        trained the model.
    groups : {"modalities", "variables"} or mapping of name to selectors, optional
        As for :func:`geomiam.explain.importance`; default: the groups of the model's schema.
    metric : str
        Of ``geomiam.metrics.METRICS``, mean over species, one that has a value where all predictions are
        equal.
    tolerance : float
        Largest loss of skill, against all groups, of the set that counts as enough.
    test : xarray.Dataset, optional
        Further sites. The sets that ``sites`` chose are scored on them: scores on the sites of the choice
        are too high, above all with few sites.
    zones : array of str or numbers, optional
        Zone of each of ``sites`` ``(site,)``: groups are chosen separately in each zone. ``test`` sites score the
        sets of all zones.
    progress : bool, optional
        Show progress bars; default: on a terminal or in a notebook.

    Returns
    -------
    xarray.Dataset
        Step 0 shows nothing to the model, and each further step one group more. ``added(step)``: the group;
        ``score(step)``: the metric, mean over species; ``gain(step)``: its change;
        ``species_score(step, species)``; ``candidate_score(step, group)``: scores of all groups that could
        be added; ``test_score(step)``, with ``test``. Attributes: ``enough``, the first step within
        ``tolerance`` of all groups, and ``groups`` (JSON list), the groups up to it. With ``zones`` all variables have
        the dim ``zone``, and ``enough(zone)``, ``groups(zone)`` and ``sites(zone)`` are variables.

    Raises
    ------
    SelectionError, LabelError, MissingVariable, VariableMismatch
        As :func:`geomiam.explain.importance`.
    SettingError
        If ``tolerance`` is negative, or ``zones`` do not have one value per site.

    Warns
    -----
    TrainedOnTheseSites
        If the model was trained on some of the sites.

    See Also
    --------
    geomiam.plot.stepwise : plot the table.

    Examples
    --------
    >>> table = gm.explain.stepwise(model, sites)
    >>> table.sizes["step"] == 1 + len(model.schema.groups)
    True
    >>> by_zone = gm.explain.stepwise(model, sites, zones=sites["landcover"])
    >>> by_zone["groups"].dims
    ('zone',)
    """
    check_number(
        "tolerance",
        tolerance,
        requirement="must be at least 0",
        accepts=lambda x: x >= 0,
        hint="0.01 accepts a loss of a hundredth",
    )
    model = as_model(model)
    warn_if_trained_on(model.about, sites)
    if test is not None:
        warn_if_trained_on(model.about, test)
    settings: dict[str, Any] = {
        "groups": groups,
        "metric": metric,
        "tolerance": tolerance,
        "test": test,
    }
    if zones is None:
        return _stepwise(model, sites, **settings)
    parts = {
        label: _stepwise(model, sites.isel(site=rows), **settings)
        for label, rows in _rows_by_zone(zones, sites.sizes["site"]).items()
    }
    return _joined(parts)


def _stepwise(
    model: Model,
    sites: xr.Dataset,
    *,
    groups: Groups,
    metric: str,
    tolerance: float,
    test: xr.Dataset | None,
) -> xr.Dataset:
    """Return the table of :func:`stepwise` of sites without zones."""
    game = skill_game(model, sites, groups=groups, metric=metric)
    # Every comparison below is of sign · skill, where more is better.
    sign = -1 if metric in LESS_IS_BETTER else 1
    order, scores, candidates = _forward(game, sign)
    names = [str(s) for s in sites["species"].values]
    table = _table(game, names, order, scores, candidates)
    if test is not None:
        test_scores = skill_game(model, test, groups=groups, metric=metric)(_sets(order))[:, -1]
        text = {"long_name": f"mean over species of {long_name(metric)}, on the test sites"}
        table["test_score"] = ("step", test_scores, text)
    is_enough = sign * (scores[-1, -1] - scores[:, -1]) <= tolerance
    enough = int(np.argmax(is_enough))
    chosen_groups = [game.names[g] for g in order[:enough]]
    return table.assign_attrs(
        enough=enough,
        groups=json.dumps(chosen_groups),
        metric=metric,
        tolerance=float(tolerance),
        sites=len(game.block),
        model_id=model.id,
    )


def _rows_by_zone(zones: Any, count: int) -> dict[str, np.ndarray]:
    """Return the sites ``(n,)`` of each zone; sites with NaN are in none."""
    values = np.asarray(zones)
    if values.shape != (count,):
        raise SettingError(
            f"zones= must have one value per site ({count:,}), found the shape {values.shape}; read the zones of "
            "sites with gm.sample"
        )
    is_in = np.isfinite(values) if values.dtype.kind == "f" else np.ones(count, bool)
    rows, names = {}, _meanings(zones)
    for zone in np.unique(values[is_in]):
        label = f"{zone:g}" if values.dtype.kind in "iuf" else str(zone)
        rows[names.get(label, label)] = np.flatnonzero(is_in & (values == zone))
    return rows


def _meanings(zones: Any) -> dict[str, str]:
    """Return the names of classes by their numbers as text, from the CF attributes."""
    attrs = getattr(zones, "attrs", {})
    if "flag_meanings" not in attrs:
        return {}
    numbers = [f"{float(v):g}" for v in np.atleast_1d(attrs["flag_values"])]
    return dict(zip(numbers, str(attrs["flag_meanings"]).split()))


def _joined(parts: dict[str, xr.Dataset]) -> xr.Dataset:
    """Return the tables of zones with the dim ``zone``."""
    variables = ("enough", "groups", "sites")
    tables = [
        t.assign({k: t.attrs[k] for k in variables}).drop_attrs(deep=False) for t in parts.values()
    ]
    first = next(iter(parts.values()))
    attrs = {k: v for k, v in first.attrs.items() if k not in variables}
    index = xr.DataArray(list(parts), dims="zone", name="zone")
    return xr.concat(tables, index).assign_attrs(attrs)


def _forward(game: SkillGame, sign: int) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Return the order of the groups, scores ``(G + 1, S + 1)`` by step, and those of candidates ``(G + 1, G)``."""
    count = len(game.names)
    order: list[int] = []
    scores = [game(np.zeros((1, count), bool))[0]]
    candidates = np.full((count + 1, count), np.nan)
    with progress_bar(total=count * (count + 1) // 2, desc="sets", leave=False) as bar:
        for step in range(1, count + 1):
            remaining_groups = [g for g in range(count) if g not in order]
            sets = np.zeros((len(remaining_groups), count), bool)
            sets[:, order] = True
            sets[np.arange(len(remaining_groups)), remaining_groups] = True
            values = game(sets)
            best = int(np.argmax(sign * values[:, -1]))
            candidates[step, remaining_groups] = values[:, -1]
            order.append(remaining_groups[best])
            scores.append(values[best])
            bar.update(len(remaining_groups))
    return order, np.stack(scores), candidates


def _sets(order: list[int]) -> np.ndarray:
    """Return the sets of groups ``(G + 1, G)`` by step."""
    rank = np.argsort(order)
    return rank < np.arange(len(order) + 1)[:, None]


def _table(
    game: SkillGame,
    species: list[str],
    order: list[int],
    scores: np.ndarray,
    candidates: np.ndarray,
) -> xr.Dataset:
    """Return the steps with their labels."""
    by_species = np.full((len(scores), len(species)), np.nan)
    by_species[:, game.scored] = scores[:, :-1]
    metric, mean = long_name(game.metric), scores[:, -1]
    return xr.Dataset(
        {
            "added": ("step", ["", *(game.names[g] for g in order)]),
            "score": ("step", mean, {"long_name": f"mean over species of {metric}"}),
            "gain": (
                "step",
                np.append(np.nan, np.diff(mean)),
                {"long_name": f"change of {metric}"},
            ),
            "species_score": (("step", "species"), by_species, {"long_name": metric}),
            "candidate_score": (("step", "group"), candidates, {"long_name": metric}),
        },
        coords={"step": np.arange(len(scores)), "group": list(game.names), "species": species},
    )
