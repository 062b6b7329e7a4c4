"""Boosted trees, one model per species, which read missing values as NaN."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np

from geomiam.baselines.base import PerSpecies, Scorer, Training, per_species
from geomiam.errors import SettingError

ENGINES = ("xgboost", "scikit-learn")
MOST_CLASSES = 255
"""Limit of scikit-learn for a categorical column; columns with more classes are read as numbers."""


@dataclass(frozen=True)
class Boosted:
    """Probability of presence if both classes had the same weight."""

    model: Any

    def __call__(self, table: np.ndarray) -> np.ndarray:
        """Table ``(n, p)`` → scores ``(n,)`` in [0, 1]."""
        return self.model.predict_proba(table)[:, 1].astype(np.float64)


@dataclass(frozen=True)
class BoostedTrees:
    """One boosted model per species; presences and absences have the same total weight."""

    onehot: ClassVar[bool] = False
    engine: str = ""
    rounds: int = 200
    rate: float = 0.03
    leaves: int = 8
    n_jobs: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "engine", _engine(self.engine))

    def fit(self, training: Training) -> PerSpecies:
        """Train on a table."""
        codes = training.columns.categorical & (np.nanmax(training.table, 0) < MOST_CLASSES)
        make = _xgboost if self.engine == "xgboost" else _scikit_learn
        fit = partial(make, rounds=self.rounds, rate=self.rate, leaves=self.leaves, codes=codes)
        return per_species(training, fit, n_jobs=self.n_jobs)


def _engine(engine: str) -> str:
    is_installed = find_spec("xgboost") is not None
    if not engine:
        return "xgboost" if is_installed else "scikit-learn"
    if engine not in ENGINES:
        raise SettingError(f"engine={engine!r} is unknown; use one of {ENGINES}")
    if engine == "xgboost" and not is_installed:
        raise SettingError(
            "xgboost is not installed: pip install geomiam[benchmark], or engine='scikit-learn'"
        )
    return engine


def _xgboost(
    table: np.ndarray, labels: np.ndarray, rng: np.random.Generator, **settings: Any
) -> Scorer:
    from xgboost import XGBClassifier

    model = XGBClassifier(
        n_estimators=settings["rounds"],
        learning_rate=settings["rate"],
        max_leaves=settings["leaves"],
        max_depth=0,
        grow_policy="lossguide",
        tree_method="hist",
        scale_pos_weight=float((labels == 0).sum() / (labels == 1).sum()),
        enable_categorical=True,
        feature_types=["c" if code else "q" for code in settings["codes"]],
        n_jobs=1,
        random_state=int(rng.integers(2**31)),
    )
    return Boosted(model.fit(table, labels))


def _scikit_learn(
    table: np.ndarray, labels: np.ndarray, rng: np.random.Generator, **settings: Any
) -> Scorer:
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(
        max_iter=settings["rounds"],
        learning_rate=settings["rate"],
        max_leaf_nodes=settings["leaves"],
        class_weight="balanced",
        categorical_features=settings["codes"],
        early_stopping=False,
        random_state=int(rng.integers(2**31)),
    )
    return Boosted(model.fit(table, labels))
