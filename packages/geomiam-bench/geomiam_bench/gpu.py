"""Predictions and exact explanations on a GPU: cells a second, share of its peak, and their cost.

    geomiam-bench gpu --json out/bench/gpu.json

Seconds are wall-clock seconds until the device has finished, medians of interleaved runs. Without a GPU the
command reports this and ends; ``--device cpu`` tests the command.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from geomiam.tokens.select import group_masks
from geomiam_bench.options import Json
from geomiam_bench.results import as_text, write_json
from geomiam_bench.shapley import SIZES, explain_all, make, off, operations, predict_all


def wait(device: torch.device) -> None:
    """Wait until the device has finished all requested work."""
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()


def timed(
    todo: dict[str, Callable[[], Any]], device: torch.device, *, repeat: int
) -> dict[str, float]:
    """Return the median seconds of each call; the calls are repeated in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in todo}
    for _ in range(1 + repeat):  # the first run compiles kernels and is not counted
        for name, run in todo.items():
            wait(device)
            start = time.perf_counter()
            run()
            wait(device)
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(s[1:]) for name, s in seconds.items()}


def ways(device: torch.device, *, rows: int, width: int) -> dict[str, Callable[[], Any]]:
    """Return prediction and explanation with both fusions, in both precisions, by name."""
    calls: dict[str, Callable[[], Any]] = {}
    for fusion in ("token", "group"):
        model, block = make(fusion, width=width, rows=rows, **SIZES)
        masks = np.stack(list(group_masks(model.layout).values()))
        for precision in ("fp32", "bf16"):
            cast_model = model.in_precision(precision).to(device)
            calls[f"{fusion} {precision}"] = partial(explain_all, cast_model, block, masks)
            calls[f"{fusion} {precision} predict"] = partial(predict_all, cast_model, block)
    return calls


def peak(device: torch.device, *, size: int) -> dict[str, float]:
    """Return the operations a second of a large square product, by precision."""
    rates = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        x = torch.randn(size, size, device=device).to(dtype)
        seconds = timed({name: partial(torch.matmul, x, x)}, device, repeat=7)[name]
        rates[name] = 2 * size**3 / seconds
    return rates


def report(device: torch.device, *, rows: int, width: int, repeat: int) -> dict[str, Any]:
    """Return all measurements at the usual sizes."""
    todo = ways(device, rows=rows, width=width)
    seconds = timed(todo, device, repeat=repeat)
    operation_counts = operations(**SIZES, d=width)
    peak_rates = peak(device, size=8192 if device.type != "cpu" else 1024)
    count = {n: operation_counts[n.replace(" fp32", "").replace(" bf16", "")] for n in todo}
    return {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else device.type,
        "sizes": {**SIZES, "width": width, "rows": rows},
        "peak_of_products": peak_rates,
        "cells_per_second": {n: rows / s for n, s in seconds.items()},
        "share_of_peak": {
            n: count[n] * rows / s / peak_rates["bf16" if "bf16" in n else "fp32"]
            for n, s in seconds.items()
        },
        "price_in_predictions": {
            n: seconds[n] / seconds[f"{n} predict"] for n in todo if "predict" not in n
        },
        "largest_difference": {
            f"{f} bf16 to fp32": off(todo[f"{f} bf16"](), todo[f"{f} fp32"]())
            for f in ("token", "group")
        },
    }


def main(
    out: Json = Path("out/bench/gpu.json"),
    device: Annotated[str, typer.Option(help="Default: a GPU; cpu tries the command out.")] = "",
    rows: Annotated[int, typer.Option(help="Cells of a batch.")] = 65536,
    width: int = 192,
    repeat: int = 5,
) -> None:
    """Measure predictions and exact explanations on a GPU, as a share of its peak."""
    device = device or ("cuda" if torch.cuda.is_available() else "")
    if not device:
        print("there is no GPU, so nothing was measured")
        return
    results = report(torch.device(device), rows=rows, width=width, repeat=repeat)
    print(as_text(results))
    write_json(out, results)
