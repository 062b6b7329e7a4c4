"""What a GPU makes of it: cells a second, share of its own peak, and what exact explanations cost there.

    python -m geomiam_bench.gpu --json out/bench/gpu.json

Seconds of the clock after the device has finished, medians of interleaved runs. Without a GPU it says so and
ends; ``--device cpu`` tries the script out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from geomiam.inference.engine import predict_block, shapley_block
from geomiam.tokens.select import players
from geomiam_bench.shapley import SIZES, make, off, operations


def wait(device: torch.device) -> None:
    """Until everything that was asked for is done."""
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()


def timed(
    todo: dict[str, Callable[[], Any]], device: torch.device, *, repeat: int
) -> dict[str, float]:
    """Median seconds of each, one after the other, again and again."""
    seconds: dict[str, list[float]] = {name: [] for name in todo}
    for _ in range(1 + repeat):  # the first counts not
        for name, run in todo.items():
            wait(device)
            started = time.perf_counter()
            run()
            wait(device)
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(s[1:]) for name, s in seconds.items()}


def ways(device: torch.device, *, rows: int, width: int) -> dict[str, Callable[[], Any]]:
    """Prediction and explanation by both fusions, in both precisions."""
    found: dict[str, Callable[[], Any]] = {}
    for fusion in ("token", "group"):
        model, block = make(fusion, width=width, rows=rows, **SIZES)
        masks = np.stack(list(players(model.layout).values()))
        ask: dict[str, Any] = {"species": np.arange(len(model.species))}
        shown = np.ones(model.layout.size, bool)
        for precision in ("fp32", "bf16"):
            at = model.in_precision(precision).to(device)  # type: ignore[arg-type]
            found[f"{fusion} {precision}"] = lambda m=at, b=block, g=masks, a=ask: shapley_block(
                m, b, players=g, **a
            )[0]
            found[f"{fusion} {precision} predict"] = lambda m=at, b=block, s=shown, a=ask: (
                predict_block(m, b, shown=s, **a)
            )
    return found


def peak(device: torch.device, *, size: int) -> dict[str, float]:
    """Operations a second of a large square product, by precision."""
    found = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        x = torch.randn(size, size, device=device).to(dtype)
        seconds = timed({name: lambda x=x: x @ x}, device, repeat=7)[name]
        found[name] = 2 * size**3 / seconds
    return found


def report(device: torch.device, *, rows: int, width: int, repeat: int) -> dict[str, Any]:
    """Everything at the usual sizes."""
    todo = ways(device, rows=rows, width=width)
    seconds = timed(todo, device, repeat=repeat)
    counted = operations(**SIZES, d=width)
    most = peak(device, size=8192 if device.type != "cpu" else 1024)
    count = {n: counted[n.replace(" fp32", "").replace(" bf16", "")] for n in todo}
    return {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else device.type,
        "sizes": {**SIZES, "width": width, "rows": rows},
        "peak_of_products": most,
        "cells_per_second": {n: rows / s for n, s in seconds.items()},
        "share_of_peak": {
            n: count[n] * rows / s / most["bf16" if "bf16" in n else "fp32"]
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


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, default=Path("out/bench/gpu.json"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "")
    parser.add_argument("--rows", type=int, default=65536)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--repeat", type=int, default=5)
    args = parser.parse_args()
    if not args.device:
        print("no GPU is there, so there is nothing to measure")
        return
    how = {"rows": args.rows, "width": args.width, "repeat": args.repeat}
    found = report(torch.device(args.device), **how)
    print(json.dumps(found, indent=1))
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
