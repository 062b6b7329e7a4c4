"""The section "Pre-training" of the benchmark page, from what ``geomiam-bench pretraining`` stored."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from geomiam_bench.pages.markdown import table

PAIRS = {
    "probe": "probe on the encoder − on random weights",
    "fit": "training from the encoder − from nothing",
    "fit from the probe": "training from the encoder and its probe − from nothing",
}
MEASURES = ("all modalities", "mean over subsets")
LEAD = """An encoder is pre-trained on places without labels outside the held-out blocks; then few labelled sites are
used, and other blocks of the same survey score. Differences of mean AUC in points, paired by draw of blocks, ± their
standard deviation over the draws; a difference is bold if every draw has its sign. The survey of Swiss trees (SWI) gives
labels for training here, and the probe's penalty, the same on both sides, was set after a look at one draw of it; nothing
else was chosen by it."""


def pretraining_section(path: Path, pictures: Path) -> str:
    """Table, figure, and in how many cases each way gains."""
    results = json.loads(path.read_text(encoding="utf-8"))
    shutil.copy(path.with_suffix(".png"), pictures / "pretraining.png")
    rows = results["differences"]
    cases = list(dict.fromkeys((r["case"], r["size"]) for r in rows))
    head = ["", "measure", *(f"{case}, {size} sites" for case, size in cases)]
    lines = []
    for pair, label in PAIRS.items():
        for measure in MEASURES:
            pair_rows = {(r["case"], r["size"]): r for r in rows if _is(r, pair, measure)}
            lines.append([label, measure, *(_cell(pair_rows.get(case)) for case in cases)])
    figure = "![AUC against labelled sites](../images/benchmarks/pretraining.png)"
    return "\n\n".join(["## Pre-training", LEAD, table(head, lines), _summary(rows), figure])


def _is(row: dict, pair: str, measure: str) -> bool:
    return (row["pair"], row["measure"]) == (pair, measure)


def _sure(row: dict) -> bool:
    return len({difference > 0 for difference in row["each"]}) == 1


def _cell(row: dict | None) -> str:
    if row is None:
        return ""
    text = f"{100 * row['mean']:+.1f} ± {100 * row['sd']:.1f}"
    return f"**{text}**" if _sure(row) else text


def _summary(rows: list[dict]) -> str:
    """Per way: in how many cases of all modalities it gains or loses in every draw."""
    parts = []
    for pair, label in PAIRS.items():
        pair_rows = [r for r in rows if _is(r, pair, MEASURES[0])]
        gains = sum(_sure(r) and r["mean"] > 0 for r in pair_rows)
        losses = sum(_sure(r) and r["mean"] < 0 for r in pair_rows)
        parts.append(
            f"{label}: gains in every draw in {gains} of {len(pair_rows)} cases, loses in {losses}"
        )
    return "With all modalities: " + "; ".join(parts) + "."
