"""Choose the settings of the NCEAS benchmark from spatial blocks of its training records.

    geomiam-bench disdat-settings FOLDER [--regions AWT,NSW,SA,SWI] [--json out.json]

Every candidate is cross-validated in every region: five folds of whole blocks, scored on the records
of the fold left out against the target-group background of that fold. The survey is never opened.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

import geomiam as gm
from geomiam.masking import named
from geomiam_bench.disdat import KAPPA, NETWORK, PER_SAMPLE, TRAINING, Plan, Region
from geomiam_bench.options import Json, listed
from geomiam_bench.results import write_json

CANDIDATES: dict[str, dict[str, dict]] = {
    "as it is": {},
    "group fusion alone": {"network": {"fusion": "group"}},
    "sum fusion alone": {"network": {"fusion": "sum"}},
    "token fusion, depth 2": {"network": {"fusion": "token", "depth": 2}},
    "2 members": {"network": {"members": 2}},
    "10 members": {"network": {"members": 10}},
    "one mask per batch": {"masking": {"per_sample": False}},
    "kappa 10": {"masking": {"kappa": 10}},
    "kappa 40": {"masking": {"kappa": 40}},
    "15 % held out": {"training": {"holdout": 0.15}},
    "species weigh the same": {"training": {"evenness": 1.0}},
    "30 epochs": {"training": {"epochs": 30}},
    "100 epochs": {"training": {"epochs": 100}},
    "width 128": {"network": {"width": 128}},
    "depth 2": {"network": {"depth": 2}},
    "a block inside groups": {"network": {"inner": 1}},
    "dropout 0.3": {"network": {"dropout": 0.3}},
    "weight decay 0.1": {"training": {"weight_decay": 0.1}},
    "sigma 0.03": {"network": {"sigma": 0.03}},
    "sigma 0.3": {"network": {"sigma": 0.3}},
}
"""Settings that each candidate changes."""


def cross_validate(region: Region, changes: dict[str, dict], *, rng: int) -> dict:
    """Return the mean AUC over species per subset, from out-of-fold predictions."""
    training = {"block": region.block, **changes.get("training", {})}
    table = gm.cross_validate(
        region.training,
        region.schema,
        splits=gm.splits.SpatialBlocks(5, size=region.block, rng=rng),
        network=NETWORK.model_copy(update=changes.get("network", {})),
        training=TRAINING.model_copy(update=training),
        fit_options={
            "masking": named(
                "miam", **{"per_sample": PER_SAMPLE, "kappa": KAPPA, **changes.get("masking", {})}
            )
        },
        rng=rng,
    )
    return table["mean_auc"].to_series().to_dict()


def main(
    folder: Annotated[Path, typer.Argument(help="Folder as 'disdat' reads.")],
    regions: Annotated[str, typer.Option(help="Regions, separated by commas.")] = "AWT,NSW,SA,SWI",
    only: Annotated[str, typer.Option(help="Candidates, separated by ';'; default: all.")] = "",
    seed: int = 0,
    out: Json = Path("out/bench/disdat_settings.json"),
) -> None:
    """Cross-validate candidate settings on the training records of 'disdat'."""
    plan, results = Plan(subsets="unimodal+all"), {}
    places = [Region.read(folder, n, plan) for n in listed(regions)]
    for name in listed(only, separator=";") or CANDIDATES:
        start = time.perf_counter()
        scores = {r.name: cross_validate(r, CANDIDATES[name], rng=seed) for r in places}
        auc_by_region = {r: s["all"] for r, s in scores.items()}
        subsets = float(np.mean([np.mean(list(s.values())) for s in scores.values()]))
        results[name] = {"subsets": scores, "seconds": round(time.perf_counter() - start)}
        row = "  ".join(f"{r} {v:.3f}" for r, v in auc_by_region.items())
        mean = np.mean(list(auc_by_region.values()))
        print(f"{name:26s} {row}  all {mean:.4f}  subsets {subsets:.4f}", flush=True)
        write_json(out, results)
