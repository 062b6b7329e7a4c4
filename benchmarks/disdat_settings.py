"""Choose the settings of the NCEAS benchmark from spatial blocks of its training records.

    python benchmarks/disdat_settings.py FOLDER [--regions AWT,NSW,SA,SWI] [--json out.json]

Every candidate is cross-validated in every region: five folds of whole blocks, scored on the records
of the fold left out against the target-group background of that fold. The survey is never opened.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

import geomiam as gm
from geomiam.evaluation.disdat import NETWORK, TRAINING, Plan, Region

CANDIDATES: dict[str, tuple[dict, dict]] = {
    "as it is": ({}, {}),
    "one member": ({"members": 1}, {}),
    "species weigh the same": ({}, {"evenness": 1.0}),
    "keeps the best epoch": ({}, {"keep": "best", "epochs": 80}),
    "30 epochs": ({}, {"epochs": 30}),
    "width 128": ({"width": 128}, {}),
    "depth 2": ({"depth": 2}, {}),
    "a block inside groups": ({"inner": 1}, {}),
    "token fusion, depth 2": ({"fusion": "token", "depth": 2}, {}),
    "dropout 0.3": ({"dropout": 0.3}, {}),
    "weight decay 0.1": ({}, {"weight_decay": 0.1}),
    "sigma 0.03": ({"sigma": 0.03}, {}),
    "sigma 0.3": ({"sigma": 0.3}, {}),
}


def cross_validate(region: Region, network: dict, training: dict, *, rng: int) -> dict:
    """Mean AUC over species per subset, from out-of-fold predictions."""
    table = gm.cross_evaluate(
        region.training,
        region.schema,
        folds=5,
        block=region.block,
        rng=rng,
        network=NETWORK.model_copy(update=network),
        training=TRAINING.model_copy(update={"block": region.block, **training}),
    )
    return table["mean_auc"].to_series().to_dict()


def main() -> None:
    """Run the candidates and print their means."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--regions", default="AWT,NSW,SA,SWI")
    parser.add_argument("--only", help="candidates, separated by ';'")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=Path("out/bench/disdat_settings.json"))
    args = parser.parse_args()
    names = args.only.split(";") if args.only else list(CANDIDATES)
    plan, found = Plan(subsets="unimodal+all"), {}
    places = [Region.read(args.folder, n, plan) for n in args.regions.split(",")]
    for name in names:
        started = time.perf_counter()
        scores = {r.name: cross_validate(r, *CANDIDATES[name], rng=args.seed) for r in places}
        every = {r: s["all"] for r, s in scores.items()}
        subsets = float(np.mean([np.mean(list(s.values())) for s in scores.values()]))
        found[name] = {"subsets": scores, "seconds": round(time.perf_counter() - started)}
        row = "  ".join(f"{r} {v:.3f}" for r, v in every.items())
        mean = np.mean(list(every.values()))
        print(f"{name:26s} {row}  all {mean:.4f}  subsets {subsets:.4f}", flush=True)
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
