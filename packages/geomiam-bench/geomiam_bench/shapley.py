"""The cost of exact explanations, in predictions, beside the procedure of the papers: ratios within one run.

    geomiam-bench shapley --json out/bench/shapley.json --figure out/bench/shapley.png

The naive procedure is MaskSDM's as written: for each of the 2^G coalitions one full pass over all tokens,
hidden ones replaced by the mask token. It is compared with token fusion, which computes the shared part
of coalitions once, and with group fusion, which computes summaries of groups once, in float32 and bfloat16.
Then groups, tokens, species and the missing share are varied. Repetitions are interleaved, figures are
medians, on one thread. Weights are untrained, because their values do not change the cost. All rows differ,
so no row is encoded once for several cells.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from geomiam.explain.explainer import with_explainer
from geomiam.inference.coalitions import Coalitions
from geomiam.inference.engine import predict_block
from geomiam.inference.shapley_block import amortised_block, shapley_block
from geomiam.inference.terms import members, shapley_weights
from geomiam.model.model import Model
from geomiam.networks.config import NetworkConfig
from geomiam.schema.schema import Schema
from geomiam.tokens.encode import TokenArrays, encode
from geomiam.tokens.scaler import fit_scaler
from geomiam.tokens.select import group_masks
from geomiam_bench.options import Figure, Json
from geomiam_bench.results import as_text, write_json

SIZES = {"groups": 6, "tokens": 64, "species": 20}
SWEEPS = {
    "groups": (2, 4, 6, 8, 10),
    "tokens": (16, 32, 64, 128),
    "species": (20, 200, 2000),
    "missing": (0.0, 0.25, 0.5, 0.75),
}
LAYERS = 4
"""Blocks that a token passes: 4 (token fusion), or 3 in its group and 2 over the summaries."""
FUSIONS = {"token": {"depth": LAYERS}, "group": {"inner": LAYERS - 1, "depth": 2}}


def make(
    fusion: str,
    *,
    groups: int,
    tokens: int,
    species: int,
    width: int,
    rows: int = 64,
    missing: float = 0.0,
) -> tuple[Model, TokenArrays]:
    """Return a model of one scalar per token, and rows of which whole groups are missing."""
    sizes = [len(part) for part in np.array_split(np.arange(tokens), groups)]
    modalities: dict[str, dict] = {
        f"m{g}": {"variables": {f"v{g}_{i}": {} for i in range(n)}} for g, n in enumerate(sizes)
    }
    schema = Schema.from_dict({"modalities": modalities})
    rng = np.random.default_rng(0)
    arrays = {v: rng.normal(size=rows).astype(np.float32) for v in schema.variables}
    scaler = fit_scaler(arrays, schema)
    for modality in schema.modalities.values():
        is_missing = rng.random(rows) < missing
        arrays |= {
            v: np.where(is_missing, np.float32(np.nan), arrays[v]) for v in modality.variables
        }
    torch.manual_seed(0)
    config = NetworkConfig(fusion=fusion, width=width, **FUSIONS.get(fusion, {}))
    names = [f"s{i}" for i in range(species)]
    model = Model.untrained(schema, scaler=scaler, species=names, config=config)
    return model, encode(arrays, layout=model.layout, scaler=scaler)


def naive(model: Model, block: TokenArrays, masks: np.ndarray) -> np.ndarray:
    """Return Shapley values from one full pass per coalition, with the mask token in place of hidden tokens."""
    network: Any = model.network.eval()
    values = [torch.as_tensor(v) for v in block.values]
    member: Any
    (member,) = network.members
    observed = torch.as_tensor(block.observed)
    total: Any = 0
    with torch.inference_mode():
        for coalition, weight in zip(members(len(masks)), shapley_weights(len(masks))):
            visible_tokens = observed & torch.as_tensor((coalition[:, None] & masks).any(0))
            pooled_tokens = member.fusion.plain(
                member.tokenizers(values, visible_tokens), visible_tokens
            )
            probability = torch.sigmoid(network.head(member.activate(pooled_tokens)))
            total = (
                total + torch.as_tensor(weight, dtype=torch.float32)[:, None] * probability[:, None]
            )
    return total.numpy()


def ways(width: int, rows: int, *, slow: bool, **sizes: Any) -> dict[str, Callable[[], Any]]:
    """Return all timed calls by name; the naive procedure only with ``slow``."""
    calls: dict[str, Callable[[], Any]] = {}
    for fusion in FUSIONS:
        model, block = make(fusion, width=width, rows=rows, **sizes)
        masks = np.stack(list(group_masks(model.layout).values()))
        if fusion == "token" and slow:
            calls["naive"] = partial(naive, model, block, masks)
        if fusion == "token":
            calls["token learned"] = partial(approximate, with_explainer(model, width=128), block)
        for precision in ("fp32", "bf16"):
            cast_model = model.in_precision(precision)
            calls[f"{fusion} {precision}"] = partial(explain_all, cast_model, block, masks)
            calls[f"{fusion} {precision} predict"] = partial(predict_all, cast_model, block)
    return calls


def explain_all(
    model: Model, block: TokenArrays, masks: np.ndarray, *, order: int = 1
) -> np.ndarray:
    """Return exact Shapley values of all species, and their interactions for a higher order."""
    coalitions = Coalitions.every(len(masks), order=order)
    species = np.arange(len(model.species))
    return shapley_block(model, block, groups=masks, species=species, coalitions=coalitions).terms


def price_of_pairs(*, rows: int, width: int, repeat: int) -> dict[str, float]:
    """Return the cost of Shapley values with all pairwise interactions, in Shapley values alone."""
    ratios = {}
    for fusion in FUSIONS:
        model, block = make(fusion, width=width, rows=rows, **SIZES)
        masks = np.stack(list(group_masks(model.layout).values()))
        todo: dict[str, Callable[[], Any]] = {
            str(order): partial(explain_all, model, block, masks, order=order) for order in (1, 2)
        }
        seconds = timed(todo, repeat=repeat)
        ratios[fusion] = statistics.median(b / a for a, b in zip(seconds["1"], seconds["2"]))
    return ratios


def approximate(model: Model, block: TokenArrays) -> np.ndarray:
    """Return Shapley values of all species by the learned explainer."""
    visible_tokens = np.ones(model.layout.size, bool)
    return amortised_block(
        model, block, visible=visible_tokens, species=np.arange(len(model.species))
    )[0]


def predict_all(model: Model, block: TokenArrays) -> np.ndarray:
    """Return predictions for all species."""
    visible_tokens = np.ones(model.layout.size, bool)
    return predict_block(
        model, block, visible=visible_tokens, species=np.arange(len(model.species))
    )


def timed(todo: dict[str, Callable[[], Any]], *, repeat: int) -> dict[str, list[float]]:
    """Return the CPU seconds of each call, repeated in turn; other processes do not lengthen them."""
    seconds: dict[str, list[float]] = {name: [] for name in todo}
    for run in todo.values():
        run()
    for _ in range(repeat):
        for name, run in todo.items():
            start = time.process_time()
            run()
            seconds[name].append(time.process_time() - start)
    return seconds


def headline(*, rows: int, width: int, repeat: int) -> dict[str, Any]:
    """Return times and ratios at the usual size, and the differences from the naive values."""
    todo = ways(width, rows, slow=True, **SIZES)
    seconds = timed(todo, repeat=repeat)
    median = {n: statistics.median(s) for n, s in seconds.items()}
    median["token learned predict"] = median["token fp32 predict"]
    exact, group = todo["naive"](), todo["group fp32"]()
    explanations = [n for n in todo if n != "naive" and "predict" not in n]
    operation_counts = operations(**SIZES, d=width)
    count = {n: operation_counts[n.replace(" fp32", "").replace(" bf16", "")] for n in todo}
    peak_rates = peak()
    rate = {n: count[n] / (median[n] / rows) for n in todo}
    return {
        "operations_per_cell": count,
        "peak_of_products": peak_rates,
        "share_of_peak": {
            n: r / peak_rates["bf16" if "bf16" in n else "fp32"] for n, r in rate.items()
        },
        "milliseconds_per_cell": {n: 1e3 * median[n] / rows for n in todo},
        "spread": {n: (max(s) - min(s)) / median[n] for n, s in seconds.items()},
        "times_faster_than_naive": {n: median["naive"] / median[n] for n in explanations},
        "price_in_predictions": {n: median[n] / median[f"{n} predict"] for n in explanations},
        "largest_difference": {
            "token fp32 to naive": off(todo["token fp32"](), exact),
            "token bf16 to naive": off(todo["token bf16"](), exact),
            "group bf16 to fp32": off(todo["group bf16"](), group),
        },
        "largest_value": {"token": float(np.abs(exact).max()), "group": float(np.abs(group).max())},
    }


def operations(groups: int, tokens: int, species: int, d: int) -> dict[str, float]:
    """Return multiplications and additions per cell, without norms, softmax and similar small parts.

    A token in a transformer layer costs 8 d² for queries, keys, values and the output projection,
    16/3 d² for the feed-forward part of 4/3 the width, and 4 d for each token that it attends to.
    """

    def block(n: float, attended_tokensmary_tokens: float) -> float:
        return n * (40 / 3 * d**2 + 4 * attended_tokensmary_tokens * d)

    coalitions, visible_count = (
        2**groups,
        tokens / 2 + 1,
    )  # half of the tokens and one mask, on average
    summary_tokens, head = coalitions * (groups / 2 + 1), coalitions * 2 * d * species
    shared_projections = (
        coalitions * visible_count * 6 * d**2
    )  # projections of the first block are shared
    mean_product = visible_count * 8 / 3 * d**2  # the last product is made of the mean
    inner = (LAYERS - 1) * groups * block(tokens / groups, tokens / groups)
    single_coalition = block(groups + 1, groups + 1) + 4 * (groups + 1) * d**2
    return {
        "naive": coalitions * LAYERS * block(tokens, tokens) + head,
        "token": coalitions * (LAYERS * block(visible_count, visible_count) - mean_product)
        - shared_projections
        + head,
        "token predict": LAYERS * block(tokens, tokens) - tokens * 8 / 3 * d**2,
        "token learned": LAYERS * block(tokens, tokens)
        + groups * 2 * 128 * (d + 128 + species)
        + 2 * 128 * d,
        "group": inner + summary_tokens * (16 / 3 + 4) * d**2 + coalitions * 28 / 3 * d**2 + head,
        "group predict": inner + single_coalition,
    }


def peak() -> dict[str, float]:
    """Return the operations per second of a matrix product of these sizes, by precision."""
    best = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        x, w = torch.randn(2048, 192).to(dtype), torch.randn(384, 192).to(dtype)
        runs = timed({name: partial(products, x, w)}, repeat=7)
        best[name] = 50 * 2 * 2048 * 384 * 192 / min(runs[name])
    return best


def products(x: torch.Tensor, w: torch.Tensor) -> None:
    """Compute 50 products."""
    for _ in range(50):
        torch.nn.functional.linear(x, w)


def off(a: np.ndarray, b: np.ndarray) -> float:
    """Return the largest absolute difference."""
    return float(np.abs(a - b).max())


def growth(*, rows: int, width: int, repeat: int) -> Iterator[dict[str, Any]]:
    """Yield milliseconds per cell in float32, one size varied at a time."""
    for name, values in SWEEPS.items():
        for value in values:
            todo = ways(width, rows, slow=False, **{**SIZES, name: value})
            todo = {n: f for n, f in todo.items() if "bf16" not in n and "learned" not in n}
            if name == "groups" and value > 8:
                del todo["token fp32"]
            for way, seconds in timed(todo, repeat=max(1, repeat // 3)).items():
                cost = 1e3 * statistics.median(seconds) / rows
                yield {"size": name, "value": value, "way": way, "milliseconds_per_cell": cost}


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw one panel for each size."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, len(SWEEPS), figsize=(13, 3.4), sharey=True, layout="constrained")
    colours = {"token fp32": "#d1495b", "group fp32": "#2e6f95"}
    for ax, name in zip(axes, SWEEPS):
        for way, colour in colours.items():
            for style, suffix in (("-", ""), (":", " predict")):
                way_rows = [r for r in rows if r["size"] == name and r["way"] == way + suffix]
                points = [(r["value"], r["milliseconds_per_cell"]) for r in way_rows]
                label = way.replace(" fp32", " fusion") + suffix.replace(" ", ", ")
                ax.plot(*zip(*points), style, color=colour, marker="o", ms=3, label=label)
        ax.set(xlabel={"missing": "share of groups missing"}.get(name, name), yscale="log")
        if name not in ("missing", "groups"):
            ax.set_xscale("log", base=2 if name == "tokens" else 10)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("milliseconds per cell")
    axes[0].legend(fontsize=7, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, dpi=130)


def main(
    out: Json = Path("out/bench/shapley.json"),
    figure: Figure = None,
    rows: Annotated[int, typer.Option(help="Cells of a batch.")] = 64,
    width: int = 192,
    repeat: int = 5,
    only_headline: Annotated[
        bool, typer.Option("--headline", help="Leave out how the cost grows with each size.")
    ] = False,
) -> None:
    """Measure exact explanations in predictions, beside the procedure of the papers."""
    torch.set_num_threads(1)
    settings = {"rows": rows, "width": width, "repeat": repeat}
    results = {"sizes": {**SIZES, "width": width, "rows": rows}, **headline(**settings)}
    results["price_of_pairs"] = price_of_pairs(**settings)
    print(as_text(results))
    if not only_headline:
        results["growth"] = list(growth(**settings))
    write_json(out, results)
    if figure and "growth" in results:
        draw(results["growth"], figure)
