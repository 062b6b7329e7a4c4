"""Comparison of whole systems on the same sites, blocks and gaps.

Every system of :mod:`geomiam_bench.comparison.systems` is trained on the same training sites and stops
early by the same validation blocks; only trees and the default fit train on those blocks too. All are
scored on sites that no system has seen: with every modality alone, without each modality, with all, and
with a growing share of gaps. Seconds are processor seconds, because other processes do not lengthen them.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr

from geomiam.baselines.base import Baseline
from geomiam.baselines.recipes import Recipe
from geomiam.data.predictors import bind
from geomiam.data.sites.table import read_labels
from geomiam.evaluation.evaluate import Masked, subset_scores
from geomiam.evaluation.missingness import SHARES, missingness_sweep, named_patterns
from geomiam.evaluation.subsets import Chosen, name_subsets
from geomiam.metrics import auc
from geomiam.networks.config import NetworkConfig
from geomiam.schema.schema import Schema
from geomiam.splits import hold_out_blocks
from geomiam.training.config import TrainingConfig
from geomiam_bench.comparison.systems import SYSTEMS, system
from geomiam_bench.sweeps import split

NETWORK = NetworkConfig(width=64, heads=4, depth=1, inner=1, frequencies=16, sigma=0.1, dropout=0.1)
TRAINING = TrainingConfig(
    loss="weighted-bce", epochs=150, patience=25, batch=250, lr=3e-3, warmup=100, epoch_steps=1
)
"""One small network and one training for all systems and data; neither was tuned for a system."""
SUBSETS = "unimodal+leave-one-out+all"


@dataclass(frozen=True)
class SystemPlan:
    """The systems to train, and the settings of training and scoring."""

    systems: Sequence[str] = tuple(SYSTEMS)
    seeds: int = 3
    patterns: Sequence[str] = ("at-random", "by-modality")
    shares: Sequence[float] = SHARES
    repeats: int = 2
    timings: int = 7
    network: NetworkConfig = field(default=NETWORK)
    training: TrainingConfig = field(default=TRAINING)

    def __post_init__(self) -> None:
        named_patterns(self.patterns)
        for name in self.systems:
            if not system(name).baseline:
                system(name).options(network=self.network, training=self.training)


@dataclass(frozen=True, eq=False)
class Round:
    """Sites for training, for early stopping and for scoring, the same for every system."""

    seed: int
    train: xr.Dataset
    validation: np.ndarray
    """Boolean per training site."""
    test: xr.Dataset


@dataclass(frozen=True, eq=False)
class Data:
    """Sites to compare systems on; without test sites, spatial blocks of them are the test."""

    sites: xr.Dataset
    schema: Schema
    test: xr.Dataset | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "schema", bind(self.schema, self.sites))

    @cached_property
    def subsets(self) -> Chosen:
        """Visible modalities: each alone, all but one, all."""
        return name_subsets(self.schema, SUBSETS)

    def round(self, seed: int, plan: SystemPlan) -> Round:
        """Return the sites of a seed."""
        train, test = (self.sites, self.test) if self.test is not None else split(self.sites, seed)
        validates = hold_out_blocks(train, share=plan.training.holdout, rng=seed)
        return Round(seed, train, validates, test)

    def facts(self) -> dict[str, Any]:
        """Return the properties that identify these data, as plain types."""
        return {
            "sites": self.sites.sizes["site"],
            "tested": "blocks" if self.test is None else self.test.sizes["site"],
            "species": [str(s) for s in self.sites["species"].values],
            "modalities": {m.name: list(m.variables) for m in self.schema.modalities.values()},
        }


def chosen(data: Data, plan: SystemPlan) -> list[Recipe]:
    """Return the systems of a plan that differ on these data."""
    return [s for name in plan.systems if (s := system(name)).differs(data.schema)]


def compare(
    data: Data, plan: SystemPlan, *, previous_results: Mapping[tuple[str, int], dict] | None = None
) -> Iterator[dict]:
    """Train and score the systems of a plan, one after another, seed by seed.

    ``previous_results`` by ``(system, seed)`` are not computed again. Yields ``system``, ``seed``, ``seconds`` of training,
    ``parameters``, ``epochs`` kept, ``scores``: per subset one AUC per species (None where it cannot be scored), and
    ``sweep``: per pattern one mean AUC per share.
    """
    stored_results = previous_results or {}
    for seed in range(plan.seeds):
        sites: Round | None = None
        for recipe in chosen(data, plan):
            if (recipe.name, seed) in stored_results:
                yield stored_results[recipe.name, seed]
                continue
            sites = sites or data.round(seed, plan)
            yield _result(recipe, sites, data, plan)


def _result(recipe: Recipe, sites: Round, data: Data, plan: SystemPlan) -> dict:
    predictor, seconds = trained(recipe, sites, data.schema, plan)
    sweep = missingness_sweep(
        sites.train,
        sites.test,
        data.schema,
        predictors={recipe.name: predictor},
        patterns=plan.patterns,
        shares=plan.shares,
        repeats=plan.repeats,
        rng=sites.seed,
    )["mean_auc"].mean("repeat")
    return {
        "system": recipe.name,
        "seed": sites.seed,
        "seconds": round(seconds, 2),
        "parameters": parameters(predictor),
        "epochs": best_epochs(predictor),
        "scores": subset_auc(predictor, sites.test, data),
        "sweep": {p: _plain(sweep.sel(pattern=p).values[0]) for p in plan.patterns},
    }


def trained(
    recipe: Recipe, sites: Round, schema: Schema, plan: SystemPlan
) -> tuple[Masked | Baseline, float]:
    """Return a system trained on the sites of a round, and the processor seconds of its training."""
    start = time.process_time()
    predictor = recipe.fit(
        sites.train,
        schema,
        network=plan.network,
        training=plan.training,
        validation=sites.validation,
        rng=sites.seed,
    )
    return predictor, time.process_time() - start


def parameters(predictor: Masked | Baseline) -> int | None:
    """Return the number of learned weights; None for trees."""
    if isinstance(predictor, Baseline):
        return None
    return sum(p.numel() for p in predictor.model.network.parameters())


def best_epochs(predictor: Masked | Baseline) -> list[int] | None:
    """Return the epochs whose weights were kept, one per member; None for trees."""
    return None if isinstance(predictor, Baseline) else predictor.model.about.get("best_epochs")


def subset_auc(predictor: Masked | Baseline, test: xr.Dataset, data: Data) -> dict[str, list]:
    """Return the AUC of each species from each subset, on the sites where the subset is observed.

    Some systems predict where nothing is observed and some do not, so all are scored on the same sites.
    """
    labels, scores = read_labels(test)[0], subset_scores(predictor, test, data.subsets)
    auc_by_subset = {}
    for name, system_scores in scores.items():
        labels_in_subset = np.where(
            observed(test, data.schema, data.subsets[name])[:, None], labels, np.nan
        )
        auc_by_subset[name] = _plain(auc(labels_in_subset, system_scores))
    return auc_by_subset


def observed(sites: xr.Dataset, schema: Schema, modalities: Collection | None) -> np.ndarray:
    """Return whether any variable of the modalities is observed ``(site,)``; None = all modalities."""
    names = list(schema.modalities) if modalities is None else modalities
    variables = [v for m in names for v in schema.modalities[m].variables]
    finite = [np.isfinite(sites[v].transpose("site", ...).values) for v in variables]
    return np.any([s.reshape(len(s), -1).any(1) for s in finite], 0)


def _plain(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(v) else round(float(v), 5) for v in values]
