"""Predictions, exact explanations and training on a GPU: cells and sites a second, beside the peak of the device.

    geomiam-bench gpu --json out/bench/gpu.json

Each part runs in a separate process with a limit of seconds. A part that fails or takes too long is recorded as
such, the others are measured, and the file is written after each part. Seconds are wall-clock seconds until the
device has finished, medians of interleaved runs. Without a GPU the command reports this and ends;
``--device cpu --tiny`` tries the command. ``python -m geomiam_bench.gpu`` is the same command, without the imports of
the others.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from geomiam_bench.gpu_parts import PARTS, TINY, Sizes, of_sizes
from geomiam_bench.options import Json
from geomiam_bench.results import as_text, write_json

TOO_LATE = 10.0
"""Seconds that a part needs at least, for its imports; with fewer it is not started."""


def name_of(device: torch.device) -> str:
    """Return the name of the device."""
    return torch.cuda.get_device_name() if device.type == "cuda" else device.type


def run_part(name: str, arguments: list[str], *, seconds: float) -> dict[str, Any]:
    """Return the results of a part from a separate process, or the reason why there are none."""
    command = [sys.executable, "-m", "geomiam_bench.gpu", "--part", name, *arguments]
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return {"error": f"stopped after {seconds:.0f} s"}
    if process.returncode:
        return {"error": "\n".join(process.stderr.strip().splitlines()[-5:])}
    return json.loads(process.stdout.splitlines()[-1])


def measure(out: Path, device: torch.device, *, tiny: bool, seconds: float) -> dict[str, Any]:
    """Measure all parts in at most so many seconds; write the results after each part."""
    end = time.monotonic() + seconds
    arguments = ["--device", device.type, *(["--tiny"] if tiny else [])]
    results: dict[str, Any] = {
        "device": name_of(device),
        "torch": torch.__version__,
        "sizes": of_sizes(TINY if tiny else Sizes()),
        "seconds": {},
    }
    for name, part in PARTS.items():
        start = time.monotonic()
        left = end - start
        if left < TOO_LATE:
            results[name] = {"error": f"not started: {seconds:.0f} s are over"}
        else:
            results[name] = run_part(name, arguments, seconds=min(left, part.seconds))
        results["seconds"][name] = round(time.monotonic() - start, 1)
        write_json(out, results)
    return results


def main(
    out: Json = Path("out/bench/gpu.json"),
    device: Annotated[str, typer.Option(help="Default: a GPU; cpu tries the command out.")] = "",
    seconds: Annotated[float, typer.Option(help="Limit of all parts together.")] = 480.0,
    tiny: Annotated[bool, typer.Option("--tiny", help="Sizes of a trial.")] = False,
    part: Annotated[str, typer.Option(hidden=True, help="Measure one part and print it.")] = "",
) -> None:
    """Measure predictions, exact explanations and training on a GPU, in at most eight minutes."""
    device = device or ("cuda" if torch.cuda.is_available() else "")
    if not device:
        print("there is no GPU, so nothing was measured")
        return
    if part:
        sizes = TINY if tiny else Sizes()
        print(json.dumps(PARTS[part].measure(torch.device(device), sizes)))
        return
    print(as_text(measure(out, torch.device(device), tiny=tiny, seconds=seconds)))


if __name__ == "__main__":
    typer.run(main)
