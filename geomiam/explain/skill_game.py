"""The game behind importance: coalitions of groups and the skill of the model from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from geomiam.at_once import GAME_SCORES
from geomiam.data.sites.table import SiteTable
from geomiam.errors import LabelError, SelectionError
from geomiam.inference.engine import coalition_block
from geomiam.labels import as_table
from geomiam.metrics.registry import METRICS, ON_PROBABILITIES, as_metrics
from geomiam.model.model import Model
from geomiam.tokens.encode import TokenArrays
from geomiam.tokens.layout import Layout
from geomiam.tokens.select import Selector, group_masks

Groups = str | None | Mapping[str, Selector | Sequence[Selector]]


@dataclass(frozen=True, eq=False)
class SkillGame:
    """Coalitions of predictors → skill; see :func:`skill_game`."""

    model: Model
    block: TokenArrays
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
        # The mean over species is a game too: Shapley values are linear in the game.
        return np.column_stack([skill, skill.mean(1)])

    def _scores(self, visible: np.ndarray) -> Iterator[np.ndarray]:
        """Scores ``(c, n, S)`` of as many coalitions ``(c, t)`` at a time as fit into memory."""
        scored_species = len(self.model.species) if self._shares else len(self.species)
        step = max(1, GAME_SCORES // (4 * scored_species * max(1, len(self.block))))
        for start in range(0, len(visible), step):
            yield self._predictions(visible[start : start + step])

    def _predictions(self, visible: np.ndarray) -> np.ndarray:
        if not self._shares:
            scale: Any = "probability" if self.metric in ON_PROBABILITIES else "logit"
            return coalition_block(
                self.model, self.block, visible=visible, species=self.species, scale=scale
            )
        from scipy.special import log_softmax  # a softmax model's logits compare species, not sites

        all_species = np.arange(len(self.model.species))
        logits = coalition_block(
            self.model, self.block, visible=visible, species=all_species, scale="logit"
        )
        return log_softmax(logits, axis=-1)[..., self.species]

    @property
    def _shares(self) -> bool:
        return self.model.link == "softmax" and self.metric not in ON_PROBABILITIES


def skill_game(
    model: Model, sites: xr.Dataset, *, groups: Groups = None, metric: str = "auc"
) -> SkillGame:
    """Return the game of :func:`geomiam.explain.importance`."""
    groups_by_name = masks_of_groups(model.layout, groups)
    _refuse_without_ties(metric)
    masks = np.stack(list(groups_by_name.values()))
    variables = model.layout.variables_of(np.bitwise_or.reduce(masks))
    table = SiteTable.read(sites, model.schema, variables=variables)
    index = model.species_index(table.species)
    block, rows = _seen(model.encode(table.arrays), masks)
    labels = as_table(table.labels)[rows]
    is_scored = _scorable(labels, of=len(table))
    selection = {"metric": metric, "species": index[is_scored], "scored": is_scored}
    return SkillGame(model, block, labels[:, is_scored], tuple(groups_by_name), masks, **selection)


def _seen(block: TokenArrays, groups: np.ndarray) -> tuple[TokenArrays, np.ndarray]:
    """Return the rows where any group is observed, and their numbers."""
    rows = np.flatnonzero((block.observed & groups.any(0)).any(1))
    return block.take(rows), rows


def _scorable(labels: np.ndarray, *, of: int) -> np.ndarray:
    """Return which species ``(S,)`` have both classes."""
    has_both_classes = np.logical_and((labels == 1).any(0), (labels == 0).any(0))
    if not has_both_classes.any():
        raise LabelError(
            f"none of {len(has_both_classes)} species has both presences and absences at the {len(labels):,} "
            f"of {of:,} sites with anything observed, so no skill can be computed; add absences with "
            "gm.add_background(sites, cube)"
        )
    return has_both_classes


def masks_of_groups(layout: Layout, selection: Groups) -> dict[str, np.ndarray]:
    """Return the tokens ``(t,)`` of each group."""
    if not isinstance(selection, str):
        return group_masks(layout, selection)
    if selection not in ("modalities", "variables"):
        raise SelectionError(
            f"groups={selection!r} is neither modalities nor variables; name groups with "
            "groups={'name': selector, ...}"
        )
    tokens_by_group: dict[str, np.ndarray] = {}
    for span in layout.spans:
        name = span.modality if selection == "modalities" else span.variable.name
        tokens = tokens_by_group.setdefault(name, np.zeros(layout.size, bool))
        tokens[span.start : span.start + span.size] = True
    return tokens_by_group


def _refuse_without_ties(metric: str) -> None:
    """Raise if the metric has no value for equal predictions, as those of v(∅) are."""
    as_metrics(metric)
    labels, equal = np.array([[1.0], [0.0], [0.0]]), np.full((3, 1), 0.5)
    able = [m for m, measure in METRICS.items() if np.isfinite(measure(labels, equal)).all()]
    if metric not in able:
        raise SelectionError(
            f"'{metric}' has no value where all predictions are equal, as they are without any "
            f"predictor; choose from {', '.join(able)}"
        )
