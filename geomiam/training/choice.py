"""Spatial validation of a fit that trains on all sites, and the choice of its members by it.

Models of the same settings are trained without a fold of spatial blocks and predict that fold. The
predictions of all folds give the validation AUC; those of each kind of member show which mean of
logits is best.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import torch

from geomiam.metrics import auc_within_folds, threshold
from geomiam.metrics.thresholds import KINDS
from geomiam.model.decision import thresholds_entry
from geomiam.model.model import LINKS

MOST_NUMBERS = 20_000_000
"""Limit of the predictions of one kind of member in memory; beyond it fewer sites are predicted."""

Predict = Callable[[str, int, np.ndarray], np.ndarray]
"""Kind of member, fold, positions ``(v,)`` among the predicted sites → logits ``(subsets, v, S)`` of these sites."""


@dataclass(frozen=True)
class Folds:
    """Spatial folds, and the predictions of each kind of member for the sites that it did not train on."""

    labels: np.ndarray
    """``(n, S)`` of the sites that are predicted; 1, 0, NaN."""
    blocks: np.ndarray
    """Spatial block of each of them ``(n,)``."""
    fold: np.ndarray
    """Fold of each of them ``(n,)``."""
    logits: dict[str, np.ndarray] = field(default_factory=dict)
    """Per kind ``(subsets, n, S)``; NaN = not predicted. The last subset has all predictors."""

    def run(self, kinds: Sequence[str], predict: Predict) -> None:
        """Train and predict all folds with every kind of member."""
        for kind in kinds:
            for number in range(self.fold.max() + 1):
                rows = np.flatnonzero(self.fold == number)
                logits = predict(kind, number, rows)
                if kind not in self.logits:
                    shape = (len(logits), *self.labels.shape)
                    self.logits[kind] = np.full(shape, np.nan, np.float32)
                self.logits[kind][:, rows] = logits

    def mean(self, kinds: Sequence[str]) -> np.ndarray:
        """Mean logits ``(subsets, n, S)`` of kinds of members."""
        return np.mean([self.logits[k] for k in kinds], 0)

    def skill(self, kinds: Sequence[str]) -> tuple[float, np.ndarray]:
        """Mean AUC over species with everything visible, and what each block adds to it ``(b,)``."""
        return auc_by_block(self.labels, self.mean(kinds)[-1], self.blocks, self.fold)

    def validated(self) -> np.ndarray:
        """Presences of each species that are predicted by a model that did not train on them ``(S,)``."""
        return (self.labels == 1).sum(0)


def predicted_sites(held_out: Sequence[np.ndarray], numbers: int) -> np.ndarray:
    """Return the held-out sites to predict ``(v,)``, each of which gets ``numbers`` predictions.

    Beyond the limit of memory it is every second, third, … site.
    """
    rows = np.flatnonzero(np.any(held_out, axis=0))
    return rows[:: scored_step(len(rows), numbers)]


def scored_step(sites: int, numbers: int) -> int:
    """Return the step between the sites to predict, each of which gets ``numbers`` predictions."""
    return max(1, -(-sites * numbers // MOST_NUMBERS))


def choose(folds: Folds) -> tuple[tuple[str, ...], dict[str, float | None]]:
    """Return the kinds of members whose mean logits are used, and the AUC of every mix.

    The one-standard-error rule (Breiman et al. 1984), with the largest mix in place of the simplest
    model, since a mean over more members has less variance: of the mixes that the best one does not
    exceed by more than the standard error of the difference over spatial blocks, the one of most kinds;
    of several such, the one with the highest AUC. Where no species can be scored, these are all kinds,
    and the AUC are None.
    """
    kinds = list(folds.logits)
    mixes = [m for size in range(1, len(kinds) + 1) for m in combinations(kinds, size)]
    skills = {m: folds.skill(m) for m in mixes}
    best = max(skills.values(), key=lambda skill: skill[0])
    level = [m for m in mixes if not _is_better(best, skills[m])]
    best_mix = max(level, key=lambda m: (len(m), skills[m][0]))
    auc_by_mix = {"+".join(m): round(score, 4) for m, (score, _) in skills.items()}
    return best_mix, {m: None if np.isnan(score) else score for m, score in auc_by_mix.items()}


def choice_reason(kinds: Sequence[str], auc_by_mix: Mapping[str, float | None]) -> str:
    """Return why the kinds of members were chosen, from the AUC of every mix that :func:`choose` returns."""
    scores = {mix: auc for mix, auc in auc_by_mix.items() if auc is not None}
    if not scores:
        return "no species can be scored in the folds: all kinds"
    chosen_mix, best = "+".join(kinds), max(scores, key=lambda mix: scores[mix])
    if chosen_mix == best:
        return f"the highest AUC of {len(scores)} mixes, {scores[best]:.3f}"
    return (
        f"AUC {scores[chosen_mix]:.3f}; of {len(scores)} mixes {best} has the highest, {scores[best]:.3f}, and this is "
        "the one of most members within a standard error of the difference"
    )


def _is_better(first: tuple[float, np.ndarray], second: tuple[float, np.ndarray]) -> bool:
    """Return whether an AUC exceeds another by more than a standard error of the difference over blocks."""
    return bool(first[0] - second[0] > np.sqrt(np.sum((first[1] - second[1]) ** 2)))


def auc_by_block(
    labels: np.ndarray, scores: np.ndarray, blocks: np.ndarray, fold: np.ndarray
) -> tuple[float, np.ndarray]:
    """Return the mean AUC over species, and the influence of each block on it ``(b,)``.

    The AUC compares sites within folds, with the weights of :func:`geomiam.metrics.auc_within_folds`.
    The root of the sum of squared influences is a standard error for data that are independent
    between blocks (DeLong et al. 1988, with blocks in place of sites).
    """
    influence, values = np.zeros(len(labels)), []
    for y, z in zip(labels.T, scores.T):
        value, of_species = _auc_of_species(y, z, fold)
        if np.isfinite(value):
            values.append(value)
            influence += of_species
    if not values:
        return float("nan"), np.zeros(int(blocks.max()) + 1)
    return float(np.mean(values)), np.bincount(blocks, influence / len(values))


def _auc_of_species(y: np.ndarray, z: np.ndarray, fold: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the AUC of one species within folds, and the influence of each site on it ``(n,)``."""
    total, weights, influence = 0.0, 0.0, np.zeros(len(y))
    for number in np.unique(fold):
        is_scored = np.isfinite(y) & np.isfinite(z) & (fold == number)
        present, absent = is_scored & (y == 1), is_scored & (y == 0)
        if not (present.any() and absent.any()):
            continue
        above, below = _placements(z[present], z[absent])
        weight = len(above) * len(below) / (len(above) + len(below) + 1)
        total, weights = total + weight * above.mean(), weights + weight
        # Placements of DeLong et al.: the AUC is their mean over presences, and over absences.
        influence[present] = weight * (above - above.mean()) / len(above)
        influence[absent] = weight * (below - below.mean()) / len(below)
    if not weights:
        return float("nan"), influence
    return total / weights, influence / weights


def _placements(present: np.ndarray, absent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the shares of absences below each presence and of presences above each absence.

    Ties count half.
    """
    above = _share_below(present, absent)
    return above, 1 - _share_below(absent, present)


def _share_below(values: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Return the share of ``thresholds`` below each value."""
    ascending_values = np.sort(thresholds)
    first, last = (np.searchsorted(ascending_values, values, side) for side in ("left", "right"))
    return (first + last) / (2 * len(thresholds))


def scores_by_subset(folds: Folds, kinds: Sequence[str], names: Sequence[str]) -> Mapping[str, Any]:
    """Return the mean AUC of the mix by subset of modalities; None where no species can be scored."""
    values = {}
    for name, logits in zip(names, folds.mean(kinds)):
        auc_by_species = auc_within_folds(folds.labels, logits, folds.fold)
        values[name] = (
            float(np.nanmean(auc_by_species)) if np.isfinite(auc_by_species).any() else None
        )
    return values


def thresholds_by_kind(
    labels: np.ndarray, logits: np.ndarray, *, link: str, place: str
) -> dict[str, Any]:
    """Return the thresholds of validation predictions ``(v, S)`` as JSON types, as a model stores them."""
    scores = LINKS[link](torch.as_tensor(logits)).numpy()
    by_kind: dict[str, np.ndarray] = {k: threshold(labels, scores, kind=k) for k in KINDS}
    return thresholds_entry(by_kind, source=f"validation predictions of the fit on {place}")
