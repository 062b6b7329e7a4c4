"""The section on maps with every layer at once: memory, seconds, and differences between ways of computing them."""

from __future__ import annotations

from typing import Any

from geomiam_bench.pages.markdown import table

MAPS = {
    "sets": "suitability, spread, prediction sets, novelty, value of information",
    "interactions": "suitability, Shapley values, interactions of two groups, their spread",
}
ROUTES = {
    "map": "stored map",
    "chunks": "chunks of 17 × 23",
    "using": "left out by `using=`",
    "inf": "infinite and left out",
}


def layers_section(results: dict[str, Any]) -> str:
    """Return memory and seconds of each map, and the largest differences of its layers."""
    runs = [
        [
            MAPS[r["map"]],
            f"{r['cells']:,}",
            f"{r['predicted']:,}",
            f"{r['bytes'] / 1e9:.2f} GB",
            f"{r['promised'] / 2**20:,.0f}",
            f"{r['measured'] / 2**20:,.0f}",
            f"{r['cpu_seconds']:,.0f}",
            f"{1e6 * r['cpu_seconds'] / r['cells']:.0f}",
        ]
        for r in results["runs"]
    ]
    head = [
        "layers",
        "cells",
        "with data",
        "size",
        "promised MiB",
        "measured MiB",
        "CPU seconds",
        "µs a cell",
    ]
    differences = [
        [
            name.partition(": ")[2].replace("_", " "),
            MAPS_SHORT[name.partition(":")[0]],
            *map(_number, sizes),
        ]
        for name, of_layer in results["largest"].items()
        for sizes in [[of_layer[route] for route in ROUTES if route in of_layer]]
    ]
    return "\n\n".join(
        [
            "### Every layer at once",
            f"`geomiam-bench maps --layers {results['side']}`: nine predictors in four groups on {results['side']:,} × "
            f"{results['side']:,} cells, with sea and with gaps as those of soil maps, clouds and terrain models; three species, two members, "
            f"blocks of {results['chunk']} × {results['chunk']} cells, one thread, {results['neighbours']} neighbours for the value of information.",
            table(head, runs),
            f"The largest differences in {results['windows']} windows of {results['side_of_window']} × {results['side_of_window']} cells over the corners of "
            f"blocks, each against the window computed in memory; the last two columns hide {results['hidden']} and are compared with the "
            "data in which it is NaN:",
            table(["layer", "map", *ROUTES.values()], differences),
        ]
    )


MAPS_SHORT = {"sets": "first", "interactions": "second"}


def _number(value: float) -> str:
    return "0" if value == 0 else f"{value:.0e}"
