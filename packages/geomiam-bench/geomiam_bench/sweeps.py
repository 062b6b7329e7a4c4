"""The missingness benchmark: strategies, imputations and baselines under the same gaps and errors.

Every method is trained on the same sites, of which a pattern may hide a share. It is scored on
spatial blocks that no method saw, while the test patterns hide a growing share or make it wrong.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from geomiam._version import __version__
from geomiam.baselines.filling import KINDS
from geomiam.baselines.imputation import fit_imputed
from geomiam.baselines.registry import BASELINES, fit_baseline
from geomiam.data.predictors import bind
from geomiam.data.sites.table import read_labels
from geomiam.errors import SelectionError
from geomiam.evaluation.corruption import EFFECTS
from geomiam.evaluation.evaluate import Masked
from geomiam.evaluation.missingness import SHARES, missingness_sweep, named_patterns
from geomiam.evaluation.patterns import PATTERNS, hide
from geomiam.masking import named
from geomiam.networks.config import NetworkConfig
from geomiam.outputs.write import save_results
from geomiam.schema.schema import Schema
from geomiam.splits import site_blocks, spatial_folds
from geomiam.training.config import TrainingConfig
from geomiam.training.fit import fit
from geomiam_bench.disdat import NETWORK as DISDAT_NETWORK

NETWORK = DISDAT_NETWORK.model_copy(update={"members": 4})
TRAINING = TrainingConfig(
    loss="weighted-bce", epochs=300, patience=40, batch=250, lr=3e-3, warmup=100, epoch_steps=1
)
"""Every method stops by its validation blocks, because learning from gaps takes more epochs."""
FOLDS = 4
"""One of these spatial folds is the test."""
STYLES = {kind: "--" for kind in KINDS} | {name: ":" for name in BASELINES}
"""Lines of the figure; strategies are solid."""


@dataclass(frozen=True)
class SweepPlan:
    """The methods to train, and the gaps and errors to add."""

    strategies: Sequence[str] = ("miam", "uniform")
    imputations: Sequence[str] = KINDS
    baselines: Sequence[str] = ("xgboost",)
    patterns: Sequence[str] = tuple(PATTERNS)
    effects: Sequence[str] = ("missing",)
    shares: Sequence[float] = SHARES
    train_pattern: str = "at-random"
    train_share: float = 0.0
    seeds: int = 3
    repeats: int = 2
    network: NetworkConfig = field(default=NETWORK)
    training: TrainingConfig = field(default=TRAINING)

    def __post_init__(self) -> None:
        named_patterns([*self.patterns, self.train_pattern])
        if unknown := [e for e in self.effects if e not in EFFECTS]:
            raise SelectionError(f"no effect {unknown}; choose from {', '.join(EFFECTS)}")
        for name in self.strategies:
            named(name)


def sweeps(sites: xr.Dataset, schema: Schema, plan: SweepPlan) -> Iterator[xr.Dataset]:
    """Train all methods and sweep the gaps; yield the table of each seed, with ``seconds`` in its attributes.

    One of four folds of spatial blocks of ``sites`` is scored, another for each seed. Tables are those of
    :func:`geomiam.evaluation.missingness_sweep`. Effects follow each other along ``pattern``, as in ``belt, noise``.
    """
    schema = bind(schema, sites)
    for seed in range(plan.seeds):
        start = time.perf_counter()
        train, test_sites = split(sites, seed)
        hidden = PATTERNS[plan.train_pattern](train, schema, share=plan.train_share, rng=seed)
        gappy_train = hide(train, hidden, schema)
        predictors = methods(gappy_train, schema, plan, seed=seed)
        tables = [
            missingness_sweep(
                gappy_train,
                test_sites,
                schema,
                predictors=predictors,
                patterns=plan.patterns,
                shares=plan.shares,
                effect=effect,
                repeats=plan.repeats,
                rng=seed,
            ).assign_coords(pattern=[_label(pattern, effect) for pattern in plan.patterns])
            for effect in plan.effects
        ]
        table = xr.concat(tables, "pattern")
        yield table.assign_attrs(seed=seed, seconds=round(time.perf_counter() - start, 1))


def _label(pattern: str, effect: str) -> str:
    return pattern if effect == "missing" else f"{pattern}, {effect}"


def split(sites: xr.Dataset, seed: int) -> tuple[xr.Dataset, xr.Dataset]:
    """Return training sites and test sites, whole spatial blocks on either side."""
    blocks = site_blocks(sites, min_blocks=FOLDS).number
    labels = read_labels(sites)[0]
    fold = spatial_folds(labels, blocks, folds=FOLDS, rng=np.random.default_rng(seed))
    return sites.isel(site=fold != 0), sites.isel(site=fold == 0)


def methods(sites: xr.Dataset, schema: Schema, plan: SweepPlan, *, seed: int) -> dict[str, Any]:
    """Train every method of a plan on sites; predictors by name."""
    options: dict[str, Any] = {
        "network": plan.network,
        "training": plan.training,
        "rng": seed,
    }
    predictors: dict[str, Any] = {
        name: Masked(fit(sites, schema, masking=named(name, per_sample=True), **options))
        for name in plan.strategies
    }
    if plan.imputations:
        imputed_model = fit_imputed(sites, schema, fit_options=options)
        predictors |= {kind: imputed_model.by(kind) for kind in plan.imputations}  # type: ignore[arg-type]
    return predictors | {
        name: fit_baseline(name, sites, schema, rng=seed) for name in plan.baselines
    }


def summary(table: xr.Dataset) -> dict[str, dict[str, list[float]]]:
    """Mean AUC by pattern and predictor, one number per share: over seeds and repeats."""
    score = table["mean_auc"]
    mean = score.mean([d for d in score.dims if d not in ("predictor", "pattern", "share")])
    return {
        str(pattern): {
            str(name): mean.sel(pattern=pattern, predictor=name).values.round(5).tolist()
            for name in mean["predictor"].values
        }
        for pattern in mean["pattern"].values
    }


def write_sweep(path: str | Path, plan: SweepPlan, table: xr.Dataset) -> None:
    """Write settings, summary and the whole table of means as JSON, in one step."""
    settings = asdict(plan)
    settings |= {"network": plan.network.model_dump(), "training": plan.training.model_dump()}
    report = {
        "settings": {**settings, "geomiam": __version__},
        "seconds": table.attrs.get("seconds"),
        "summary": summary(table),
        "table": table.drop_dims("species").to_dict(),
    }
    save_results(path, json.dumps(report, indent=1))
