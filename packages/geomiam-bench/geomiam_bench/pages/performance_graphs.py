"""The section of the performance page on the graphs of lazy calls."""

from __future__ import annotations

from typing import Any

from geomiam_bench.pages.markdown import table


def graphs(results: dict[str, Any]) -> str:
    """Return tasks per block, planning seconds and memory of every lazy call, with slopes."""
    rows = []
    for name, sizes in results["calls"].items():
        largest, slopes = sizes[-1], results["slopes"][name]
        rows.append(
            [
                f"`gm.{name.split(',')[0]}`{name[len(name.split(',')[0]) :]}",
                f"{largest['cells']:,}",
                f"{largest['blocks']:,}",
                f"{largest['tasks'] / largest['blocks']:.1f}",
                f"{largest['seconds']:.2f}",
                f"{largest['bytes'] / 2**20:.1f}",
                *(f"{slopes[k]:.2f}" for k in ("tasks", "seconds", "bytes")),
            ]
        )
    head = ["call", "cells", "blocks", "tasks per block", "CPU seconds", "MiB"]
    head += ["slope of tasks", "of seconds", "of MiB"]
    return "\n\n".join(
        [
            "### Graphs of lazy calls",
            f"`geomiam-bench graphs`: {results['variables']} variables in chunks of {results['chunk']:,} × "
            f"{results['chunk']:,}; Sentinel-2 has six bands of one day. The table has the largest size. Slopes are those "
            "of the logarithms on the logarithm of the cells, from 10⁶ cells on: 1 is linear growth, 0 is none.",
            table(head, rows),
            "Tasks per block are constant. Seconds and memory grow more slowly than the cells, because dask describes a "
            "layer of blocks once until it is computed. `gm.write_map` does not build this graph: it takes one block after another.",
            "![Tasks, seconds and memory of the graph of each call, against cells](../images/benchmarks/graphs.png)",
        ]
    )
