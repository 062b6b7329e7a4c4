"""The NCEAS benchmark: masked models and their baselines on independent surveys, by one call.

Everything is trained on presence records and their background; the survey is opened only when a
trained predictor is scored. Settings come from spatial blocks of the training records
(``geomiam-bench disdat-settings``) and are the same in every region.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from geomiam._version import __version__
from geomiam.baselines.oracle import part
from geomiam.baselines.registry import fit_baseline
from geomiam.data.predictors import bind
from geomiam.data.sites.table import read_labels
from geomiam.evaluation.evaluate import subset_scores
from geomiam.evaluation.subsets import Subsets, name_subsets
from geomiam.geo.lengths import as_text
from geomiam.masking import Constant, Strategy, named
from geomiam.metrics import METRICS
from geomiam.model.model import Model
from geomiam.networks.config import NetworkConfig
from geomiam.outputs.write import save_results
from geomiam.schema.schema import Schema
from geomiam.splits.reading import places_of
from geomiam.training.config import TrainingConfig
from geomiam.training.fit import fit
from geomiam_bench.disdat_summary import summarise
from geomiam_bench.published import MEANS
from geomiam_bench.readers.disdat import Background, Groups, disdat, disdat_schema, regions

NETWORK = NetworkConfig(
    fusion="group+sum",
    members=6,
    width=64,
    heads=4,
    depth=1,
    inner=0,
    frequencies=16,
    sigma=0.1,
    dropout=0.1,
)

TRAINING = TrainingConfig(
    loss="maxent",
    epochs=60,
    batch=250,
    lr=3e-3,
    warmup=100,
    keep="last",
    holdout=0,
    epoch_steps=1,
)
"""One configuration for all regions; every record trains."""

PER_SAMPLE = True
"""Masks are drawn for every site, not once per batch: better on a few thousand sites."""

KAPPA = 20.0
"""MIAM's κ, chosen like the rest; 10 as published."""

METRIC_NAMES = ("auc", "auc_prg", "cor")

BLOCKS = 10
"""Validation blocks along the side of a square of the region's extent."""


@dataclass(frozen=True)
class Plan:
    """The predictors to train: strategies with fusions, the default of ``gm.fit``, the oracle and the baselines."""

    regions: Sequence[str] = ()
    background: Background = "target-group"
    groups: Groups = "published"
    strategies: Sequence[str] = ("miam",)
    fusions: Sequence[str] = ("group+sum",)
    default: bool = False
    oracle: bool = False
    baselines: Sequence[str] = ("rf",)
    seeds: int = 3
    subsets: Subsets = "unimodal+leave-one-out+all"
    covariates: str = "published"
    kappa: float = KAPPA
    network: NetworkConfig = field(default=NETWORK)
    training: TrainingConfig = field(default=TRAINING)


@dataclass(frozen=True)
class Region:
    """One region: training sites, survey and schema."""

    name: str
    training: xr.Dataset
    survey: xr.Dataset
    schema: Schema
    columns: dict[str, Any]
    block: str
    """Side of the validation blocks, such as ``"100 km"``."""

    @classmethod
    def read(cls, folder: str | Path, name: str, plan: Plan) -> Region:
        """Read a region with the background, groups and covariates of a plan."""
        training, survey = disdat(folder, name, background=plan.background, groups=plan.groups)
        schema = bind(disdat_schema(folder, name, covariates=plan.covariates), training)  # type: ignore[arg-type]
        side = float(np.sqrt(places_of(training, None).span().prod())) / BLOCKS
        return cls(
            name, training, survey, schema, name_subsets(schema, plan.subsets), as_text(side)
        )


@dataclass(frozen=True)
class Entry:
    """One predictor to train and score, with its seed."""

    kind: str
    name: str
    seed: int
    fusion: str | None = None

    @property
    def label(self) -> str:
        """The name in tables."""
        return f"{self.name} ({self.fusion})" if self.fusion else self.name


def entries(plan: Plan) -> list[Entry]:
    """Return every predictor that a plan trains in a region."""
    predictor_list = []
    for seed in range(plan.seeds):
        predictor_list += [Entry("baseline", name, seed) for name in plan.baselines]
        predictor_list += [Entry("default", "gm.fit(sites)", seed)] * plan.default
        for fusion in plan.fusions:
            predictor_list += [Entry("strategy", name, seed, fusion) for name in plan.strategies]
            predictor_list += [Entry("oracle", "oracle", seed, fusion)] * plan.oracle
    return predictor_list


def benchmark(
    folder: str | Path, plan: Plan, *, previous_results: Mapping | None = None
) -> Iterator[dict]:
    """Train and score the plan, one predictor after another, on regions as :func:`geomiam_bench.readers.disdat` reads them.

    ``previous_results`` by ``(region, label, seed)`` are not computed again. Yields ``region``, ``label``, ``kind``,
    ``fusion``, ``seed``, ``engine``, ``seconds`` and ``scores``: per subset, per metric, one value per species (None where
    a species cannot be scored).
    """
    stored_results = previous_results or {}
    for name in plan.regions or regions(folder):
        region = Region.read(folder, name, plan)
        for entry in entries(plan):
            key = (name, entry.label, entry.seed)
            yield stored_results[key] if key in stored_results else _run(region, entry, plan)


def _run(region: Region, entry: Entry, plan: Plan) -> dict:
    start = time.perf_counter()
    scores_by_subset, engine = _predict(region, entry, plan)
    labels, species = read_labels(region.survey)
    scores = {column: _score(labels, z) for column, z in scores_by_subset.items()}
    result = asdict(entry) | {"region": region.name, "label": entry.label, "engine": engine}
    result |= {"species": list(species), "sites": _site_counts(labels)}
    return result | {"seconds": round(time.perf_counter() - start, 2), "scores": scores}


def _predict(region: Region, entry: Entry, plan: Plan) -> tuple[dict[str, np.ndarray], str]:
    """Scores ``(n, S)`` of the survey per subset, from what saw training records only, and by whom."""
    if entry.kind == "baseline":
        baseline = fit_baseline(entry.name, region.training, region.schema, rng=entry.seed)
        return subset_scores(baseline, region.survey, region.columns), baseline.engine
    if entry.kind == "oracle":
        models = {name: _oracle(region, entry, plan, u) for name, u in region.columns.items()}
        return models, "geomiam"
    if entry.kind == "default":
        model = fit(region.training, region.schema, rng=entry.seed)
    else:
        model = _fit(region, entry, plan, masking=_masking(entry.name, plan))
    return subset_scores(model, region.survey, region.columns), "geomiam"


def _masking(name: str, plan: Plan) -> Strategy:
    options = {"kappa": plan.kappa} if name == "miam" else {}
    return named(name, per_sample=PER_SAMPLE, **options)


def _oracle(region: Region, entry: Entry, plan: Plan, using: Any) -> np.ndarray:
    """A separate model for one subset, trained on that subset with nothing hidden."""
    training, schema = part(region.training, region.schema, using)
    alone = replace(region, training=training, schema=schema)
    model = _fit(alone, entry, plan, masking=Constant(0.0))
    return subset_scores(model, region.survey, {"own": using})["own"]


def _fit(region: Region, entry: Entry, plan: Plan, *, masking: Any) -> Model:
    return fit(
        region.training,
        region.schema,
        masking=masking,
        network=plan.network.model_copy(update={"fusion": entry.fusion}),
        training=plan.training.model_copy(update={"block": region.block}),
        rng=entry.seed,
    )


def _score(labels: np.ndarray, predictions: np.ndarray) -> dict[str, list[float | None]]:
    values_by_metric = {name: METRICS[name](labels, predictions) for name in METRIC_NAMES}
    return {
        n: [None if np.isnan(v) else round(float(v), 5) for v in x]
        for n, x in values_by_metric.items()
    }


def _site_counts(labels: np.ndarray) -> dict[str, list[int]]:
    """Number of surveyed sites with and without each species; AUC is uncertain by them."""
    return {
        "presence": (labels == 1).sum(0).tolist(),
        "absence": (labels == 0).sum(0).tolist(),
    }


def write_results(
    path: str | Path,
    plan: Plan,
    results: Sequence[dict],
    *,
    published_species: Mapping[str, dict] | None = None,
) -> None:
    """Write settings, results and their summary as JSON, in one step, beside published AUC per species."""
    report = {
        "settings": settings_of(plan),
        "seconds": round(sum(r["seconds"] for r in results), 1),
        "summary": summarise(results),
        "published": MEANS,
        "published_species": published_species or {},
        "results": list(results),
    }
    save_results(path, json.dumps(report, indent=1))


def settings_of(plan: Plan) -> dict:
    """Everything that a result depends on, as plain types."""
    values = {f.name: getattr(plan, f.name) for f in fields(plan)}
    values |= {"network": plan.network.model_dump(), "training": plan.training.model_dump()}
    return values | {"per_sample": PER_SAMPLE, "geomiam": __version__}
