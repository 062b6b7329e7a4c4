"""The NCEAS benchmark: masked models and their baselines on independent surveys, by one call.

Everything is trained on presence records and their background; the survey is looked at once, when a
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
from geomiam.data.sites.labels import read_labels
from geomiam.evaluation.evaluate import subset_scores
from geomiam.evaluation.subsets import Subsets, name_subsets
from geomiam.geo.lengths import as_text
from geomiam.masking import Constant, Strategy, named
from geomiam.metrics import METRICS
from geomiam.model.model import Model
from geomiam.networks.config import NetworkConfig
from geomiam.outputs.results import save_results
from geomiam.schema.schema import Schema
from geomiam.splits.reading import places_of
from geomiam.training.config import TrainingConfig
from geomiam.training.fit import fit
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
LEFT_OUT = "nsw30"
"""Has two training records; published means are usually over the other species."""


@dataclass(frozen=True)
class Plan:
    """What to run: every combination of strategies and fusions, the oracle and the baselines."""

    regions: Sequence[str] = ()
    background: Background = "target-group"
    groups: Groups = "published"
    strategies: Sequence[str] = ("miam",)
    fusions: Sequence[str] = ("group+sum",)
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
    """One region, ready to train on; its survey waits."""

    name: str
    training: xr.Dataset
    survey: xr.Dataset
    schema: Schema
    columns: dict[str, Any]
    block: str
    """Side of the validation blocks, such as ``"100 km"``."""

    @classmethod
    def read(cls, folder: str | Path, name: str, plan: Plan) -> Region:
        """Read a region as the plan wants it."""
        training, survey = disdat(folder, name, background=plan.background, groups=plan.groups)
        schema = bind(disdat_schema(folder, name, covariates=plan.covariates), training)  # type: ignore[arg-type]
        side = float(np.sqrt(places_of(training, None).span().prod())) / BLOCKS
        return cls(
            name, training, survey, schema, name_subsets(schema, plan.subsets), as_text(side)
        )


@dataclass(frozen=True)
class Entry:
    """One predictor to train and score: what it is, and its seed."""

    kind: str
    name: str
    seed: int
    fusion: str | None = None

    @property
    def label(self) -> str:
        """What tables call it."""
        return f"{self.name} ({self.fusion})" if self.fusion else self.name


def entries(plan: Plan) -> list[Entry]:
    """Return every predictor that a plan trains in a region."""
    made = []
    for seed in range(plan.seeds):
        made += [Entry("baseline", name, seed) for name in plan.baselines]
        for fusion in plan.fusions:
            made += [Entry("strategy", name, seed, fusion) for name in plan.strategies]
            made += [Entry("oracle", "oracle", seed, fusion)] * plan.oracle
    return made


def benchmark(folder: str | Path, plan: Plan, *, done: Mapping | None = None) -> Iterator[dict]:
    """Train and score the plan, one predictor after another.

    Parameters
    ----------
    folder : path
        In the layout of :func:`geomiam_bench.readers.disdat`.
    plan : Plan
    done : mapping, optional
        Results of an interrupted run, by ``(region, label, seed)``; they are not trained again.

    Yields
    ------
    dict
        ``region``, ``label``, ``kind``, ``fusion``, ``seed``, ``engine``, ``seconds`` and ``scores``: per subset,
        per metric, one value per species (None where a species cannot be scored).

    Raises
    ------
    OccurrenceError
        If a region is not in the folder.
    """
    finished = done or {}
    for name in plan.regions or regions(folder):
        region = Region.read(folder, name, plan)
        for entry in entries(plan):
            key = (name, entry.label, entry.seed)
            yield finished[key] if key in finished else _run(region, entry, plan)


def _run(region: Region, entry: Entry, plan: Plan) -> dict:
    started = time.perf_counter()
    predicted, engine = _predict(region, entry, plan)
    labels, species = read_labels(region.survey)
    scores = {column: _score(labels, z) for column, z in predicted.items()}
    facts = asdict(entry) | {"region": region.name, "label": entry.label, "engine": engine}
    facts["species"] = list(species)
    return facts | {"seconds": round(time.perf_counter() - started, 2), "scores": scores}


def _predict(region: Region, entry: Entry, plan: Plan) -> tuple[dict[str, np.ndarray], str]:
    """Scores ``(n, S)`` of the survey per subset, from what saw training records only, and by whom."""
    if entry.kind == "baseline":
        baseline = fit_baseline(entry.name, region.training, region.schema, rng=entry.seed)
        return subset_scores(baseline, region.survey, region.columns), baseline.engine
    if entry.kind == "oracle":
        models = {name: _oracle(region, entry, plan, u) for name, u in region.columns.items()}
        return models, "geomiam"
    model = _fit(region, entry, plan, masking=_masking(entry.name, plan))
    return subset_scores(model, region.survey, region.columns), "geomiam"


def _masking(name: str, plan: Plan) -> Strategy:
    own = {"kappa": plan.kappa} if name == "miam" else {}
    return named(name, per_sample=PER_SAMPLE, **own)


def _oracle(region: Region, entry: Entry, plan: Plan, using: Any) -> np.ndarray:
    """A model of its own for one subset, trained on that subset with nothing hidden."""
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


def _score(labels: np.ndarray, predicted: np.ndarray) -> dict[str, list[float | None]]:
    found = {name: METRICS[name](labels, predicted) for name in METRIC_NAMES}
    return {n: [None if np.isnan(v) else round(float(v), 5) for v in x] for n, x in found.items()}


def write_results(path: str | Path, plan: Plan, results: Sequence[dict]) -> None:
    """Write settings, results and their summary as JSON, in one step."""
    whole = {
        "settings": settings_of(plan),
        "seconds": round(sum(r["seconds"] for r in results), 1),
        "summary": summarise(results),
        "published": PUBLISHED,
        "results": list(results),
    }
    save_results(path, json.dumps(whole, indent=1))


def settings_of(plan: Plan) -> dict:
    """Everything that a result depends on, as plain types."""
    own = {f.name: getattr(plan, f.name) for f in fields(plan)}
    own |= {"network": plan.network.model_dump(), "training": plan.training.model_dump()}
    return own | {"per_sample": PER_SAMPLE, "geomiam": __version__}


def summarise(results: Sequence[dict]) -> dict[str, dict]:
    """Mean AUC per predictor and region, over subsets, and over the species of all regions."""
    labels = dict.fromkeys(r["label"] for r in results)
    return {label: _summary([r for r in results if r["label"] == label]) for label in labels}


def _summary(results: Sequence[dict]) -> dict:
    frames: dict[str, list[dict]] = {}
    for result in results:
        frames.setdefault(result["region"], []).append(result)
    per_region = {name: _region_summary(rows) for name, rows in frames.items()}
    every = np.concatenate([r["species_auc"] for r in per_region.values()])
    names = np.concatenate([rows[0]["species"] for rows in frames.values()])
    return {
        "regions": {
            n: {k: v for k, v in r.items() if k != "species_auc"} for n, r in per_region.items()
        },
        "mean_over_species": _mean(every),
        "mean_without_nsw30": _mean(every[names != LEFT_OUT]),
        "mean_over_regions": _mean(np.array([r["all"] for r in per_region.values()])),
        "species": int(np.isfinite(every).sum()),
    }


def _region_summary(rows: Sequence[dict]) -> dict:
    """Means over species; seeds are averaged per species first."""
    tables = {
        column: np.array([_floats(r["scores"][column]["auc"]) for r in rows])
        for column in rows[0]["scores"]
    }
    means = {column: _mean(t.mean(0)) for column, t in tables.items()}
    seeds = [_mean(row) for row in tables["all"]]
    return {
        "all": means["all"],
        "seeds": seeds,
        "subsets": means,
        "mean_over_subsets": _mean(np.array(list(means.values()))),
        "auc_prg_median": float(
            np.nanmedian([_floats(r["scores"]["all"]["auc_prg"]) for r in rows])
        ),
        "cor": _mean(np.array([_floats(r["scores"]["all"]["cor"]) for r in rows])),
        "seconds": [r["seconds"] for r in rows],
        "species_auc": tables["all"].mean(0),
    }


def _floats(values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if v is None else v for v in values], float)


def _mean(values: np.ndarray) -> float:
    known = np.asarray(values)[np.isfinite(values)]
    return round(float(known.mean()), 5) if known.size else float("nan")


PUBLISHED = {
    "target-group": [
        {
            "method": "random forest, equal-sample",
            "regions": {
                "AWT": 0.701,
                "CAN": 0.717,
                "NSW": 0.756,
                "NZ": 0.746,
                "SA": 0.809,
                "SWI": 0.846,
            },
            "mean_of_225_species": 0.759,
            "source": "Valavi et al. 2021, doi:10.1111/ecog.05615, per-species files",
        },
        {
            "method": "random forest, down-sampled",
            "regions": {
                "AWT": 0.687,
                "CAN": 0.717,
                "NSW": 0.757,
                "NZ": 0.744,
                "SA": 0.806,
                "SWI": 0.847,
            },
            "mean_of_225_species": 0.756,
            "source": "Valavi et al. 2021, doi:10.1111/ecog.05615, per-species files",
        },
        {
            "method": "DeepMaxent",
            "mean": 0.768,
            "source": "Ryckewaert et al., arXiv:2412.19217, abstract of HAL hal-05446820",
        },
        {
            "method": "Maxent",
            "mean": 0.760,
            "source": "Ryckewaert et al., arXiv:2412.19217, abstract of HAL hal-05446820",
        },
    ],
    "random": [
        {
            "method": m,
            "mean_of_226_species": v,
            "source": "Dinnage & Warren 2026, doi:10.32942/X2VQ10, abstract",
        }
        for m, v in {
            "MaxNet": 0.732,
            "random forest, down-sampled": 0.727,
            "boosted regression trees": 0.724,
            "GAM": 0.717,
        }.items()
    ],
}
"""Means as published, on other covariates or species where the source says so."""
