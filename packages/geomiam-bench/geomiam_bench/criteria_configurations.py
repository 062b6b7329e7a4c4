"""Configurations whose AUC on the surveys of the NCEAS benchmark is stored, and how each is trained again.

Nothing here reads a survey: its AUC comes from results that were scored before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import xarray as xr

from geomiam.baselines.base import PerSpecies, Training, per_species
from geomiam.baselines.registry import BASELINES, fit_baseline
from geomiam.evaluation.evaluate import Masked
from geomiam.masking import named
from geomiam.schema.schema import Schema
from geomiam.training.fit import fit
from geomiam_bench.disdat import KAPPA, NETWORK, PER_SAMPLE, TRAINING
from geomiam_bench.disdat_summary import auc_of_species
from geomiam_bench.readers.disdat import Background, Groups
from geomiam_bench.results import read_json

TREES = 100
"""Trees of a forest, fewer than when the survey was scored."""
PER_SPECIES = "baselines_per_species.parquet"
"""AUC of baselines with all covariates, in the folder of the regions."""

Train = Callable[[xr.Dataset, Schema, int], Any]
"""Sites, schema and seed → a predictor with ``scores(sites)``."""


@dataclass(frozen=True)
class Configuration:
    """A way of training, and where its AUC on the surveys is stored."""

    train: Train
    stored: tuple[str, str]
    """File of results and label in it, or ``(PER_SPECIES, method)``."""
    covariates: str = "published"
    background: Background = "target-group"
    groups: Groups = "original"
    is_network: bool = False


def survey_auc(
    configuration: Configuration, region: str, *, folder: Path, results: Path
) -> dict[str, float]:
    """Return the stored AUC of each species on the survey, mean over seeds."""
    file, label = configuration.stored
    if file == PER_SPECIES:
        kind = "random 10,000" if configuration.background == "random" else "target-group"
        table = pd.read_parquet(folder / file)
        table = table[(table["region"] == region) & (table["method"] == label)]
        table = table[table["background"] == kind]
        return dict(zip(table["species"], table["auc"].astype(float), strict=True))
    run = read_json(results / file)
    if label in run.get("published_species", {}):
        return run["published_species"][label][region]
    return auc_of_species(run, label, region)


def _baseline(name: str, **options: Any) -> Train:
    return lambda sites, schema, seed: fit_baseline(
        name, sites, schema, options=options, rng=seed, progress=False
    )


def _network(
    strategy: str, *, fusion: str = "group+sum", members: int = 2, **options: Any
) -> Train:
    def train(sites: xr.Dataset, schema: Schema, seed: int) -> Masked:
        network = NETWORK.model_copy(update={"fusion": fusion, "members": members})
        masking = named(strategy, per_sample=PER_SAMPLE, **options)
        return Masked(
            fit(sites, schema, masking=masking, network=network, training=TRAINING, rng=seed)
        )

    return train


@dataclass(frozen=True)
class Estimators:
    """One estimator of scikit-learn per species, as a baseline."""

    onehot: ClassVar[bool] = True
    engine: ClassVar[str] = "scikit-learn"
    make: Callable[[int], Any]
    """From a seed."""

    def fit(self, training: Training) -> PerSpecies:
        """Train on a table."""
        return per_species(training, partial(_fit_estimator, make=self.make), n_jobs=1)


def _fit_estimator(table: np.ndarray, labels: np.ndarray, rng: Any, *, make: Any) -> Any:
    estimator = make(int(rng.integers(2**31))).fit(table, labels)
    if hasattr(estimator, "predict_proba"):
        return lambda rows: estimator.predict_proba(rows)[:, 1]
    return estimator.predict


def _estimator(make: Callable[[int], Any]) -> Train:
    def train(sites: xr.Dataset, schema: Schema, seed: int) -> Any:
        BASELINES["estimators"] = Estimators
        try:
            return fit_baseline(
                "estimators", sites, schema, options={"make": make}, rng=seed, progress=False
            )
        finally:
            del BASELINES["estimators"]

    return train


def _logistic(seed: int) -> Any:
    """Logistic regression on the predictors and their squares, classes balanced, C = 0.1."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    return make_pipeline(
        FunctionTransformer(_with_squares),
        LogisticRegression(C=0.1, class_weight="balanced", max_iter=500, random_state=seed),
    )


def _with_squares(table: np.ndarray) -> np.ndarray:
    return np.concatenate([table, table**2], 1)


def _forest(seed: int, *, class_weight: str | None = None) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(TREES, class_weight=class_weight, random_state=seed)


def _regression_forest(seed: int) -> Any:
    """Forest of regression trees: a third of the columns at a split, nodes of five sites are not split."""
    from sklearn.ensemble import RandomForestRegressor

    return RandomForestRegressor(TREES, max_features=1 / 3, min_samples_split=6, random_state=seed)


PUBLISHED, NETWORKS = "published-miam.json", "published-networks.json"
_published = partial(Configuration, groups="published")
_network_of = partial(Configuration, is_network=True)
_all = partial(Configuration, covariates="all")
CONFIGURATIONS: dict[str, Configuration] = {
    "logistic regression": _all(_estimator(_logistic), (PER_SPECIES, "logreg")),
    "logistic regression, random background": _all(
        _estimator(_logistic), (PER_SPECIES, "logreg"), background="random"
    ),
    "boosted trees": Configuration(_baseline("xgboost"), ("skill-xgboost.json", "xgboost")),
    "boosted trees, all covariates": _all(_baseline("xgboost"), (PER_SPECIES, "hgb")),
    "down-sampled forest": _published(
        _baseline("rf", trees=TREES), (PUBLISHED, "Down-sample (published)")
    ),
    "down-sampled forest, all covariates": _all(
        _baseline("rf", trees=TREES), (PER_SPECIES, "rf_down")
    ),
    "equal-sample forest": _published(
        _baseline("rf-equal", trees=TREES // 10), (PUBLISHED, "Equal-sample (published)")
    ),
    "forest": _published(_estimator(_forest), (PUBLISHED, "Default (published)")),
    "regression forest": _published(
        _estimator(_regression_forest), (PUBLISHED, "Regression (published)")
    ),
    "maxent-like": _published(_baseline("maxent-like"), (NETWORKS, "maxent-like"), is_network=True),
    "deepmaxent": _published(_baseline("deepmaxent"), (NETWORKS, "deepmaxent"), is_network=True),
    "sum": _network_of(
        _network("miam", fusion="sum", members=1, kappa=KAPPA), ("fusions.json", "miam (sum)")
    ),
    "group": _network_of(
        _network("miam", fusion="group", members=1, kappa=KAPPA), ("fusions.json", "miam (group)")
    ),
    "group+sum, miam": _network_of(_network("miam"), ("strategies.json", "miam (group+sum)")),
    "group+sum, dropout": _network_of(
        _network("dropout"), ("strategies.json", "dropout (group+sum)")
    ),
    "group+sum, constant": _network_of(
        _network("constant"), ("strategies.json", "constant (group+sum)")
    ),
}
"""Cheap configurations; those of one file were scored on the survey in one run."""
