"""Try hostile inputs: ``python -m tools.hostile --count 200 --seed 1 [--family models …]``.

The status is 1 if one does damage or gives a wrong result, or 1 % or more end in an unclear error.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import sys
import warnings
from importlib import import_module

import numpy as np

from .run import run, table

FAMILIES = ("models", "catalogs", "pt_files", "commands", "rasters", "stac")
"""Modules here with ``inputs(rng, count)``; one that is not there is left out."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="inputs of each family")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--family", action="append", choices=FAMILIES)
    arguments = parser.parse_args()
    return judge(arguments.family or FAMILIES, arguments.count, arguments.seed)


def judge(families: tuple[str, ...] | list[str], count: int, seed: int) -> int:
    """Run, print the table, and return the status."""
    prepare()
    warnings.simplefilter("ignore")
    results = []
    for number, family in enumerate(FAMILIES):
        if family in families and (module := _module(family)):
            results += run(module.inputs(np.random.default_rng([seed, number]), count))
    print(table(results))
    outcomes = [outcome for _, outcome, _ in results]
    unclear = outcomes.count("unclear") / max(len(outcomes), 1)
    return int("damage" in outcomes or "wrong" in outcomes or unclear >= 0.01)


def prepare() -> None:
    """Import what the inputs need once, before processes are forked."""
    import torch

    for name in ("maps.write", "model.saved_model", "training.fit", "sources.build", "cli.app"):
        import_module(f"geomiam.{name}")
    for name in ("odc.geo.xr", "dask.array", "h5netcdf", "rioxarray", "scipy.io", "zarr.storage"):
        import_module(name)
    torch.set_num_threads(1)


def _module(family: str):
    try:
        return import_module(f".{family}", __package__)
    except ModuleNotFoundError as error:
        if error.name and error.name.endswith(family):
            print(f"no inputs for {family}")
            return None
        raise


if __name__ == "__main__":
    sys.exit(main())
