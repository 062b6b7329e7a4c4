"""The section of the performance page on a GPU, from ``gpu.json``."""

from __future__ import annotations

from typing import Any

from geomiam_bench.pages.markdown import table

NAMES = {
    "token fp32": "token fusion, exact",
    "token bf16": "token fusion, exact, bf16",
    "group fp32": "group fusion, exact",
    "group bf16": "group fusion, exact, bf16",
    "token fp32 predict": "token fusion, prediction alone",
    "token bf16 predict": "token fusion, prediction alone, bf16",
    "group fp32 predict": "group fusion, prediction alone",
    "group bf16 predict": "group fusion, prediction alone, bf16",
}


def gpu(results: dict[str, Any]) -> str:
    """Return the costs on a GPU; a part that failed is one sentence with its error."""
    writers = {
        "predictions": lambda part: _predictions(part, results),
        "batches": _batches,
        "feeding": lambda part: _feeding(part, results["sizes"]),
        "training": _training,
        "compiled": _compiled,
    }
    texts = [f"## On a GPU ({results['device']})"]
    for name, write in writers.items():
        if (part := results.get(name)) is None:
            continue
        error = part.get("error")
        texts.append(f"No result of `{name}`: {error.splitlines()[-1]}." if error else write(part))
    return "\n\n".join(texts)


def _predictions(part: dict[str, Any], results: dict[str, Any]) -> str:
    speed, price = part["cells_per_second"], part["price_in_predictions"]
    peak = results.get("products", {})
    rows = []
    for way in NAMES:
        rate = part["operations_per_second"][way]
        limit = peak.get("bf16" if "bf16" in way else "fp32")
        share = f"{rate / limit:.0%}" if limit else ""
        rows.append(
            [NAMES[way], f"{speed[way]:,.0f}", share, f"{price[way]:.1f}" if way in price else ""]
        )
    text = f"The model above, {results['sizes']['rows']:,} cells."
    if "fp32" in peak:
        text += (
            f" The peak is that of a large product in the same run: {peak['fp32'] / 1e12:.0f} · 10¹² operations a "
            f"second in float32, {peak['bf16'] / 1e12:.0f} in bfloat16."
        )
    head = ["", "cells a second", "of the peak", "price in predictions"]
    return text + "\n\n" + table(head, rows)


def _batches(part: dict[str, Any]) -> str:
    sizes = list(part["fp32"])
    rows = [[p, *(f"{part[p][n]:,.0f}" for n in sizes)] for p in ("fp32", "bf16")]
    head = ["cells a second, by cells at a time", *(f"{int(n):,}" for n in sizes)]
    return table(head, rows)


def _feeding(part: dict[str, Any], sizes: dict[str, Any]) -> str:
    copies = ", ".join(f"{n} {b / 1e9:.1f}" for n, b in part["bytes_per_second"].items())
    return (
        f"Copies of {sizes['copy_mib']} MiB to the device, GB a second: {copies}. `gm.predict` from arrays in memory: "
        f"{part['cells_per_second']:,.0f} cells a second."
    )


def _training(part: dict[str, Any]) -> str:
    rows = [
        [f"{r['fusion']} fusion", str(r["batch"]), r["precision"], f"{r['sites_per_second']:,.0f}"]
        for r in part["rows"]
    ]
    return table(["training", "batch", "precision", "sites a second"], rows)


def _compiled(part: dict[str, Any]) -> str:
    return (
        f"With `torch.compile` of the transformer blocks a prediction is "
        f"{part['seconds'] / part['seconds_compiled']:.2f} times as fast; the first call takes "
        f"{part['seconds_of_first_call']:.0f} s."
    )
