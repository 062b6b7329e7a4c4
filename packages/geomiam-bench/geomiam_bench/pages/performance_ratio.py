"""The section of the performance page on the share of the model in the time of a map."""

from __future__ import annotations

from statistics import median
from typing import Any

from geomiam_bench.pages.markdown import table


def map_ratio(results: dict[str, Any]) -> str:
    """Return the CPU time of maps against that of the bare model."""
    rows = []
    for name, r in results.items():
        bare, map_seconds = median(r["bare"]), median(r["map"])
        rows.append(
            [
                name,
                f"{r['cells']:,}",
                f"{r['cells'] // r['blocks']:,}",
                f"{1e6 * bare / r['cells']:.1f}",
                f"{1e6 * (map_seconds - bare) / r['cells']:.1f}",
                f"{r['ratio']:.3f} ({r['least']:.3f} to {r['largest']:.3f})",
            ]
        )
    head = ["model", "cells", "cells of a block", "µs per cell: model", "all else", "ratio"]
    repetitions = len(next(iter(results.values()))["bare"])
    return "\n\n".join(
        [
            "### The bare model and the map",
            "`geomiam-bench map-ratio`: CPU seconds of the model alone, on encoded cells in memory, over those of the map "
            "from Zarr to Zarr, which also reads, encodes and writes. Medians and range of "
            f"{repetitions} interleaved repetitions in one process with one thread:",
            table(head, rows),
            "*All else* has a part per block, a part per cell, and a part per map. Larger blocks and larger maps have a higher "
            "ratio. Only a model of few operations per cell is faster than reading, encoding and writing.",
        ]
    )
