"""Down-sampled and equal-sample random forests, the strongest forests for presence-only data.

Valavi et al. (2021, Ecography 44:1731, doi:10.1111/ecog.05615): one forest per species, every tree
grown to the end on n presences and n absences or background sites. Down-sampled: each tree draws its
absences from all. Equal-sample: each of ten forests draws them once, and its trees draw from these.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from geomiam.baselines.base import PerSpecies, Scorer, Training, per_species


@dataclass(frozen=True)
class Forest:
    """Mean share of presences in the leaves that a site falls into."""

    trees: tuple[Any, ...]
    """Fitted ``Tree`` objects of scikit-learn."""

    def __call__(self, table: np.ndarray) -> np.ndarray:
        """Table ``(n, p)`` → scores ``(n,)`` in [0, 1]."""
        total = np.zeros(len(table))
        for tree in self.trees:
            total += tree.predict(table)[:, 1]
        return total / len(self.trees)


@dataclass(frozen=True)
class DownSampledForest:
    """One down-sampled forest per species.

    Missing values follow scikit-learn: a split with NaN in training has learned a direction for NaN,
    any other split sends NaN to its larger child.
    """

    onehot: ClassVar[bool] = True
    engine: ClassVar[str] = "scikit-learn"
    trees: int = 1000
    n_jobs: int = 1

    def fit(self, training: Training) -> PerSpecies:
        """Train on a table."""
        return per_species(training, partial(_fit, trees=self.trees), n_jobs=self.n_jobs)


@dataclass(frozen=True)
class EqualSampleForest:
    """Mean of several forests per species, each on as many absences as presences."""

    onehot: ClassVar[bool] = True
    engine: ClassVar[str] = "scikit-learn"
    draws: int = 10
    """Forests, each with other absences."""
    trees: int = 100
    """Trees of one forest."""
    n_jobs: int = 1

    def fit(self, training: Training) -> PerSpecies:
        """Train on a table."""
        fit = partial(_fit_draws, draws=self.draws, trees=self.trees)
        return per_species(training, fit, n_jobs=self.n_jobs)


def _fit_draws(
    table: np.ndarray, labels: np.ndarray, rng: np.random.Generator, *, draws: int, trees: int
) -> Scorer:
    sides = np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)
    size, forests = min(map(len, sides)), []
    for _ in range(draws):
        rows = np.concatenate([rng.choice(side, size, replace=False) for side in sides])
        forests.append(_fit(table[rows], labels[rows], rng, trees=trees))
    return Forest(tuple(tree for forest in forests for tree in forest.trees))


def _fit(table: np.ndarray, labels: np.ndarray, rng: np.random.Generator, *, trees: int) -> Forest:
    from sklearn import config_context
    from sklearn.tree import DecisionTreeClassifier

    sides = np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)
    size = min(map(len, sides))
    truth, fitted_trees = np.repeat([0, 1], size), []
    with config_context(skip_parameter_validation=True):
        for seed in rng.integers(2**31, size=trees):
            rows = np.concatenate([rng.choice(side, size) for side in sides])
            tree = DecisionTreeClassifier(max_features="sqrt", random_state=int(seed))
            fitted_trees.append(tree.fit(table[rows], truth).tree_)
    return Forest(tuple(fitted_trees))
