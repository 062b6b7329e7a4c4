"""CPU seconds of the bare model over those of a map from Zarr to Zarr, for fast and slow models.

    geomiam-bench map-ratio --json out/bench/map-ratio.json

Both run in one process with one thread, in turn. The bare model predicts encoded cells that are in memory. The map also
reads, encodes, writes, compares five blocks with the training range and computes the fingerprint of the input.
CPU time hardly depends on other work on the machine.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import dask
import numpy as np
import torch
import typer

import geomiam as gm
from geomiam.inference.engine import predict_block
from geomiam.maps.write import make_map
from geomiam.tokens.encode import encode
from geomiam_bench.maps import random_cube
from geomiam_bench.options import Json
from geomiam_bench.results import as_text, write_json
from geomiam_bench.shapley import make


@dataclass(frozen=True)
class Configuration:
    """A model, and a map of ``2 × columns`` blocks of ``side × side`` cells."""

    fusion: str
    sizes: dict[str, int]
    side: int
    columns: int = 4


CONFIGURATIONS = {
    "sum, 6 tokens": Configuration(
        "sum", {"groups": 3, "tokens": 6, "width": 32, "species": 1}, 256
    ),
    "group, 6 tokens": Configuration(
        "group", {"groups": 3, "tokens": 6, "width": 16, "species": 1}, 128
    ),
    "sum, 6 tokens, 32 blocks": Configuration(
        "sum", {"groups": 3, "tokens": 6, "width": 32, "species": 1}, 256, columns=16
    ),
    "group, 6 tokens, 32 blocks": Configuration(
        "group", {"groups": 3, "tokens": 6, "width": 16, "species": 1}, 128, columns=16
    ),
    "group, 24 tokens": Configuration(
        "group", {"groups": 6, "tokens": 24, "width": 96, "species": 4}, 64, columns=2
    ),
}
"""Blocks are smaller for slower models, so that every configuration takes seconds."""


def cpu_seconds(call: Callable[[], Any]) -> float:
    """Return the CPU seconds, of user and system, of all threads of this process."""
    start = time.process_time()
    call()
    return time.process_time() - start


def measure(configuration: Configuration, folder: Path, repeat: int) -> dict[str, Any]:
    """Return the CPU seconds of interleaved repetitions, and their ratios."""
    side, columns = configuration.side, configuration.columns
    model, _ = make(configuration.fusion, **configuration.sizes)
    model.network.eval()
    names = list(model.schema.variables)
    cube = random_cube(names, 2 * side, columns * side, chunk=side)
    cube = gm.open_cube(gm.write_cube(cube, folder / "cube.zarr", overwrite=True, progress=False))
    rows = {str(v): a.values.ravel() for v, a in cube.compute().data_vars.items()}
    block = encode(rows, layout=model.layout, scaler=model.scaler)
    visible_tokens, species = np.ones(model.layout.size, bool), np.arange(len(model.species))
    options: dict[str, Any] = {"options": gm.MapOptions(resume=False), "overwrite": True}

    def bare() -> None:
        predict_block(model, block, visible=visible_tokens, species=species)

    def write() -> None:
        with dask.config.set(scheduler="threads", num_workers=1):
            make_map(cube, model, folder / "map.zarr", progress=False, **options)

    write()  # imports
    bare()
    seconds = [(cpu_seconds(bare), cpu_seconds(write)) for _ in range(repeat)]
    ratios = [b / w for b, w in seconds]
    return {
        "cells": 2 * columns * side**2,
        "blocks": 2 * columns,
        "bare": [round(b, 3) for b, _ in seconds],
        "map": [round(w, 3) for _, w in seconds],
        "ratio": statistics.median(ratios),
        "least": min(ratios),
        "largest": max(ratios),
    }


def main(
    repeat: Annotated[int, typer.Option(help="Interleaved repetitions.")] = 5,
    out: Json = Path("out/bench/map-ratio.json"),
) -> None:
    """Measure CPU seconds of maps from Zarr to Zarr against those of the bare model."""
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    for name, configuration in CONFIGURATIONS.items():
        with tempfile.TemporaryDirectory() as folder:
            results[name] = measure(configuration, Path(folder), repeat)
        write_json(out, results)
        print(as_text(results[name]), flush=True)
