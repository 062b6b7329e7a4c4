"""Maxent by elapid, one model per species.

Phillips, Anderson & Schapire (2006), doi:10.1016/j.ecolmodel.2005.03.026; elapid (Anderson 2023,
doi:10.21105/joss.04930) fits it as a penalised logistic regression, as maxnet does (Phillips et al.
2017, doi:10.1111/ecog.03049).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np

from geomiam.baselines.base import PerSpecies, Scorer, Training, per_species
from geomiam.errors import SettingError


@dataclass(frozen=True)
class Fitted:
    """Complementary log-log of the relative intensity; a missing predictor has its median."""

    model: Any
    medians: np.ndarray
    """``(p,)``, of the training sites of the species."""

    def __call__(self, table: np.ndarray) -> np.ndarray:
        """Table ``(n, p)`` → scores ``(n,)`` in [0, 1]."""
        without_gaps = np.where(np.isnan(table), self.medians, table)
        return np.asarray(self.model.predict(without_gaps), np.float64)


@dataclass(frozen=True)
class Maxent:
    """Maxent with linear, quadratic and hinge features; values are clamped to the training range.

    Maxent has no missing values: the median of the training sites replaces them, in training too.
    """

    onehot: ClassVar[bool] = True
    engine: ClassVar[str] = "elapid"
    features: str = "linear,quadratic,hinge"
    """Names separated by commas; also ``product`` and ``threshold``."""
    beta: float = 1.0
    """Multiplier of the regularisation."""
    n_jobs: int = 1

    def __post_init__(self) -> None:
        if find_spec("elapid") is None:
            raise SettingError("elapid is not installed: pip install geomiam[maxent]")

    def fit(self, training: Training) -> PerSpecies:
        """Train on a table."""
        names = [name.strip() for name in self.features.split(",")]
        fit = partial(_fit, features=names, beta=self.beta)
        return per_species(training, fit, n_jobs=self.n_jobs)


def _fit(
    table: np.ndarray,
    labels: np.ndarray,
    rng: np.random.Generator,
    *,
    features: list[str],
    beta: float,
) -> Scorer:
    from elapid import MaxentModel

    observed = np.isfinite(table).any(0)
    medians = np.zeros(table.shape[1])
    medians[observed] = np.nanmedian(table[:, observed], 0)
    # The solver is that of scikit-learn: glmnet, where it is installed, differs in the last digits.
    model = MaxentModel(
        feature_types=features,
        beta_multiplier=beta,
        use_sklearn=True,
        n_cpus=1,
        random_state=int(rng.integers(2**31)),
    )
    model.fit(np.where(np.isnan(table), medians, table), labels)
    return Fitted(model, medians)
