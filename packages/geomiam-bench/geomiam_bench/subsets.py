"""Judge ways of training by every subset of the modalities: the mean, the worst, and the cost of a further one.

    geomiam-bench subsets FOLDER --json out/bench/subsets.json [--sets AWT,NSW] [--only "4 masks"]

Each set is cut into three folds of whole spatial blocks. A model is trained without each fold and predicts it
from every subset of the modalities. Of disdat, only the training records are read and scored.
Results are written after every training of the folds; a run that was stopped goes on.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
import xarray as xr

import geomiam as gm
from geomiam._version import __version__
from geomiam.data.sites.table import read_labels
from geomiam.errors import SelectionError
from geomiam.evaluation.evaluate import subset_scores
from geomiam.evaluation.subsets import name_subsets
from geomiam.masking import named
from geomiam.splits import site_blocks, spatial_folds
from geomiam_bench.defaults_data import bryce_canyon, french_birds, neotropics, records_of
from geomiam_bench.disdat import KAPPA, NETWORK, TRAINING
from geomiam_bench.options import Json, listed
from geomiam_bench.results import continued, write_json

FOLDS = 3
RARE = 10
"""Presences and absences of a species of a survey that is scored."""
MEMBERS = {"members": 2}
"""One group and one sum member."""
CANDIDATES: dict[str, dict[str, Any]] = {
    "one mask": {},
    "4 masks": {"training": {"masks_per_step": 4}},
    "one mask per site": {"masking": {"name": "miam", "per_sample": True}},
    "a quarter complete": {"training": {"complete": 0.25}},
    "nothing hidden": {"masking": {"name": "constant", "share": 0.0}},
    "dropout": {"masking": {"name": "dropout"}},
    "dirichlet": {"masking": {"name": "dirichlet"}},
    "opm": {"masking": {"name": "opm"}},
}
"""Settings that each candidate changes; the first is MIAM as in the other benchmarks."""


@dataclass(frozen=True)
class Judged:
    """Sites, and the settings of :func:`geomiam.fit` that the candidates change."""

    sites: xr.Dataset
    training: gm.TrainingConfig | None
    """Settings that are used unchanged; None: the rule of the default fit."""
    masking: dict[str, Any]


def records(folder: Path, region: str) -> Judged:
    """Return training records of a region, with the settings of ``disdat``."""
    masking = {"name": "miam", "kappa": KAPPA, "per_sample": True}
    return Judged(records_of(folder, region), TRAINING, masking)


def survey(folder: Path, read: Callable[[Path], xr.Dataset]) -> Judged:
    """Return the sites of a survey, with the steps and the masking of the default fit."""
    sites = read(folder)
    labels = read_labels(sites)[0]
    often = ((labels == 1).sum(0) >= RARE) & ((labels == 0).sum(0) >= RARE)
    return Judged(sites.isel(species=often), None, {"name": "miam"})


SETS: dict[str, Callable[[Path], Judged]] = {
    "AWT": partial(records, region="AWT"),
    "NSW": partial(records, region="NSW"),
    "French birds": partial(survey, read=french_birds),
    "Bryce Canyon plants": partial(survey, read=bryce_canyon),
    "neotropical plants": partial(survey, read=neotropics),
}


def judge(case: Judged, changes: Mapping[str, Any], *, seed: int) -> dict[str, Any]:
    """Return the AUC of each species from every subset, and the seconds of the three trainings."""
    schema, (labels, _) = gm.infer_schema(case.sites), read_labels(case.sites)
    subsets = name_subsets(schema, "every")
    blocks = site_blocks(case.sites, min_blocks=2 * FOLDS).number
    fold = spatial_folds(labels, blocks, folds=FOLDS, rng=np.random.default_rng(0))
    scores = {name: np.full(labels.shape, np.nan) for name in subsets}
    seconds = 0.0
    for number in range(FOLDS):
        start = time.process_time()
        model = gm.fit(
            case.sites.isel(site=fold != number),
            schema,
            rng=FOLDS * seed + number,
            **_settings(case, changes),
        )
        seconds += time.process_time() - start
        test = case.sites.isel(site=fold == number)
        for name, values in subset_scores(model, test, subsets).items():
            scores[name][fold == number] = values
    auc = {k: gm.metrics.auc_within_folds(labels, z, fold).round(5) for k, z in scores.items()}
    return {
        "sites": len(labels),
        "modalities": list(schema.modalities),
        "seconds": round(seconds, 1),
        "auc": {k: [None if np.isnan(x) else float(x) for x in v] for k, v in auc.items()},
    }


def _settings(case: Judged, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of :func:`geomiam.fit` for one candidate."""
    training = changes.get("training", {})
    if case.training:
        training = case.training.model_copy(update=training)
    per_sample = {k: v for k, v in case.masking.items() if k == "per_sample"}
    masking = {**per_sample, **changes["masking"]} if "masking" in changes else case.masking
    return {
        "network": NETWORK.model_copy(update=MEMBERS),
        "training": training,
        "masking": named(**masking),
        "validation": False,  # every record outside the fold trains, and no members are chosen
    }


def main(
    folder: Annotated[Path, typer.Argument(help="Folder with maps/ and disdat/.")],
    out: Json = Path("out/bench/subsets.json"),
    sets: Annotated[str, typer.Option(help="Sets, separated by commas.")] = ",".join(SETS),
    only: Annotated[str, typer.Option(help="Candidates, separated by ';'; default: all.")] = "",
    seeds: Annotated[int, typer.Option(help="Trainings of each candidate.")] = 2,
) -> None:
    """Judge ways of training by every subset of the modalities, on folds of the training records."""
    warnings.simplefilter("ignore")
    names, candidates = listed(sets), listed(only, separator=";") or tuple(CANDIDATES)
    for unknown in [n for n in names if n not in SETS] + [
        c for c in candidates if c not in CANDIDATES
    ]:
        options = ", ".join([*SETS, *CANDIDATES])
        raise SelectionError(f"no set or candidate {unknown!r}; choose from {options}")
    settings = {"geomiam": __version__, "folds": FOLDS, "network": NETWORK.model_dump() | MEMBERS}
    run = continued(out, settings) or {"settings": settings, "rows": []}
    finished_runs = {(r["set"], r["candidate"], r["seed"]) for r in run["rows"]}
    for seed in range(seeds):
        for name in names:
            case = SETS[name](folder)
            for candidate in candidates:
                if (name, candidate, seed) in finished_runs:
                    continue
                row = judge(case, CANDIDATES[candidate], seed=seed)
                run["rows"].append({"set": name, "candidate": candidate, "seed": seed, **row})
                write_json(out, run)
                means = {k: np.nanmean(np.array(v, float)) for k, v in row["auc"].items()}
                text = f"all {means['all']:.4f}  mean {np.mean(list(means.values())):.4f}"
                print(f"{name} {candidate} {seed}: {text}  {row['seconds']:.0f} s", flush=True)
