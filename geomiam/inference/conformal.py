"""Conformal prediction sets per pattern of observed groups: arrays only.

Split conformal prediction (Vovk, Gammerman & Shafer 2005, Algorithmic Learning in a Random World) with one
quantile per class (Mondrian), per species, and per pattern of observed groups: for the rows of a pattern,
the calibration sites that have these groups are predicted from these groups alone (mask-conditional
validity: Zaffran et al. 2023, ICML, "exact" variant).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np

from geomiam.checks.settings import check_number
from geomiam.errors import SettingError, warn
from geomiam.inference.engine import predict_block
from geomiam.inference.own_observations import own_hidden
from geomiam.inference.slabs import Scale
from geomiam.model.calibration import Calibration
from geomiam.model.model import Model
from geomiam.tokens.encode import TokenArrays

ABSENT, PRESENT = 1, 2
"""Values of a set of one label; 0 is the empty set, 3 has both labels."""
TOLERANCE = 1e-5
"""Scores that differ by less count as equal: matrix products of equal rows may differ in the last bits."""
MOST_CACHED = 1024
"""Patterns whose bounds a process keeps."""
SCORES_AT_ONCE = 2**24
"""Predictions of calibration sites in memory at a time."""
Bounds = tuple[np.ndarray, np.ndarray]
_CACHE: OrderedDict[tuple[Any, ...], Bounds] = OrderedDict()
_LOCK = threading.Lock()


@dataclass(frozen=True)
class PredictionSets:
    """Function of a block that returns the prediction sets ``(n, s)`` of its rows."""

    calibration: Calibration
    groups: np.ndarray
    """Visible tokens of each group ``(G, t)``."""
    species: np.ndarray
    scale: Scale
    level: float

    def __call__(self, model: Model, block: TokenArrays, suitability: np.ndarray) -> np.ndarray:
        """Return float32 ``(n, s)``: 0 to 3, NaN where the suitability is NaN. ``suitability (n, s)`` is on the scale."""
        patterns = observed_groups(block, self.groups)
        sets = self._sets(model, patterns, suitability, np.arange(len(self.species)))
        tokens: Any = {"visible": self.groups, "species": self.species}
        for column, rows, other_groups in own_hidden(model, block, **tokens):
            # A species has the groups that are observed without its own observations.
            of_species = observed_groups(block.take(rows), other_groups)
            scores = suitability[rows][:, [column]]
            sets[rows, column] = self._sets(model, of_species, scores, np.array([column]))[:, 0]
        return sets

    def _sets(
        self, model: Model, patterns: np.ndarray, scores: np.ndarray, columns: np.ndarray
    ) -> np.ndarray:
        """Return the sets ``(n, c)`` of scores of some species, by the pattern of each row ``(n, G)``."""
        sets = np.full(scores.shape, np.nan, np.float32)
        distinct, position = np.unique(patterns, axis=0, return_inverse=True)
        for number, pattern in enumerate(distinct):
            rows = np.flatnonzero(position.ravel() == number)
            lowest, highest = (bound[columns] for bound in self.bounds(model, pattern))
            part = scores[rows]
            labels = ABSENT * (part <= highest) + PRESENT * (part >= lowest)
            sets[rows] = np.where(np.isnan(part), np.nan, labels)
        return sets

    def bounds(self, model: Model, pattern: np.ndarray) -> Bounds:
        """Return :func:`class_bounds` of the rows that have the groups of a pattern ``(G,)``, from a cache."""
        settings = (self.groups.tobytes(), self.species.tobytes(), self.scale, self.level)
        dtypes = frozenset(
            p.dtype for p in model.network.parameters()
        )  # a copy in bf16 has the same id
        key = (self.calibration.digest, model.id, dtypes, settings, pattern.tobytes())
        with _LOCK:
            if key in _CACHE:
                _CACHE.move_to_end(key)
                return _CACHE[key]
        value = self._compute(model, pattern)
        with _LOCK:
            _CACHE[key] = value
            while len(_CACHE) > MOST_CACHED:
                _CACHE.popitem(last=False)
        return value

    def _compute(self, model: Model, pattern: np.ndarray) -> Bounds:
        """Hide in the calibration sites what the pattern lacks, and return the bounds of their predictions."""
        calibration = self.calibration
        has_groups = observed_groups(calibration.block, self.groups)[:, pattern].all(1)
        rows = np.flatnonzero(has_groups)
        part = calibration.block.take(rows)
        visible = self.groups[pattern].any(0)
        step, parts = max(1, SCORES_AT_ONCE // max(len(rows), 1)), []
        for i in range(0, len(self.species), step):
            species = self.species[i : i + step]
            scores = predict_block(model, part, visible=visible, species=species, scale=self.scale)
            tokens: Any = {"visible": self.groups, "species": species}
            for column, own_rows, other_groups in own_hidden(model, part, **tokens):
                of_species = observed_groups(part.take(own_rows), other_groups)
                scores[own_rows[~of_species[:, pattern].all(1)], column] = np.nan
            labels = calibration.labels[np.ix_(rows, species)]
            blocks = calibration.blocks[rows]
            parts.append(class_bounds(scores, labels, level=self.level, blocks=blocks))
        lowest, highest = (np.concatenate(b) for b in zip(*parts))
        return self._lenient(lowest, -1), self._lenient(highest, 1)

    def _lenient(self, bound: np.ndarray, sign: int) -> np.ndarray:
        """Return bounds that are moved by the tolerance, absolute for small logits and relative otherwise."""
        size = np.maximum(1, np.abs(bound)) if self.scale == "logit" else np.abs(bound)
        return bound + sign * TOLERANCE * size


def observed_groups(block: TokenArrays, groups: np.ndarray) -> np.ndarray:
    """Return which groups ``(G, t)`` have an observed token, boolean ``(n, G)``."""
    return np.stack([(block.observed & tokens).any(1) for tokens in groups], 1)


def class_bounds(
    scores: np.ndarray, labels: np.ndarray, *, level: float, blocks: np.ndarray | None = None
) -> Bounds:
    """Return the lowest score of a presence and the highest of an absence ``(s,)`` that are not rejected.

    ``scores (n, s)`` are predictions of calibration sites with ``labels (n, s)``: 1, 0, others are left out. With n₁
    presences the first is their k-th lowest score, k = ⌊(1 − level)(n₁ + 1)⌋, and −∞ for k = 0: a further
    exchangeable presence is below it with probability at most 1 − level. The second mirrors it for absences.
    With ``blocks (n,)`` the further presence is one of a further exchangeable block; see :func:`lower_bound`.
    """
    number = np.arange(len(scores)) if blocks is None else blocks
    lowest, highest = np.empty((2, scores.shape[1]))
    for s in range(scores.shape[1]):
        # Without a score: a group of the pattern has only the observations of the species itself, which are hidden.
        has_score = ~np.isnan(scores[:, s])
        present, absent = has_score & (labels[:, s] == 1), has_score & (labels[:, s] == 0)
        lowest[s] = lower_bound(scores[present, s], number[present], level=level)
        highest[s] = -lower_bound(-scores[absent, s], number[absent], level=level)
    return lowest, highest


def lower_bound(scores: np.ndarray, blocks: np.ndarray, *, level: float) -> float:
    """Return the bound that a score of a further block is below with probability at most 1 − level.

    Each of K blocks has the weight 1 / (K + 1), shared by its scores, and −∞ has the remaining one. The bound is the
    lowest score at which the weights up to it exceed 1 − level (hierarchical conformal prediction: Lee, Barber &
    Willett 2023, arXiv:2306.06342, eq. 5). With one score per block it is that of split conformal prediction.
    """
    _, position, count = np.unique(blocks, return_inverse=True, return_counts=True)
    share = 1 / (len(count) + 1)
    order = np.argsort(scores)
    weights = share + np.cumsum(share / count[position.ravel()[order]])
    # 1e-9: (1 − 0.9) · 10 is slightly below 1 in floating point.
    error = 1 - level + 1e-9
    if share > error:
        return -np.inf
    return float(scores[order[np.searchsorted(weights, error, side="right")]])


def prediction_sets(
    model: Model, groups: np.ndarray, species: np.ndarray, *, scale: Scale, level: float
) -> PredictionSets:
    """Return the function of the prediction sets of a calibrated model; warn of species with few labels."""
    calibration = model.calibration
    if calibration is None:
        raise SettingError(
            f"interval={level!r} needs calibration sites, and this model has none: add sites that it was not fitted "
            "on with model = gm.calibrate(model, sites)"
        )
    check_number(
        "interval",
        level,
        requirement="must lie between 0 and 1",
        accepts=lambda v: 0 < v < 1,
        hint="0.9 is usual",
    )
    fewest = int(np.ceil(1 / (1 - level) - 1 - 1e-9))
    present = calibration.labels[:, species] == 1
    if count := sum(len(np.unique(calibration.blocks[p])) < fewest for p in present.T):
        warn(
            f"{count} of {len(species)} species have presences in fewer than {fewest} blocks of calibration sites (a site "
            f"is a block by itself without blocks=): with interval={level:g} no set excludes the presence of these species"
        )
    return PredictionSets(calibration, groups, species, scale, level)
