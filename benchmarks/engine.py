"""What an exact explanation costs, in predictions: ratios within one run.

    python benchmarks/engine.py --json out/bench/engine.json

The naive way substitutes mask tokens and runs one full pass for each of the 2^G coalitions. Against it:
token fusion with hidden tokens collapsed, and group fusion with shared summaries. Medians of interleaved
repetitions on one thread; untrained weights, whose values do not change the cost.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from geomiam.inference.coalitions import shapley_weights
from geomiam.inference.engine import predict_block, shapley_block
from geomiam.networks.model import Model
from geomiam.networks.network import NetworkConfig
from geomiam.schema import Schema
from geomiam.tokens.blocks import encode
from geomiam.tokens.scaler import fit_scaler
from geomiam.tokens.select import players


def make(fusion: str, *, groups: int, tokens: int, width: int, species: int):
    """Return a model of one scalar per token, and a block without gaps."""
    per = tokens // groups
    schema = Schema.from_dict(
        {
            "modalities": {
                f"m{g}": {"variables": {f"v{g}_{i}": {} for i in range(per)}} for g in range(groups)
            }
        }
    )
    rng = np.random.default_rng(0)
    arrays = {v: rng.normal(size=64).astype(np.float32) for v in schema.variables}
    scaler = fit_scaler(arrays, schema)
    depth, inner = (4, 0) if fusion == "token" else (2, 3)
    config = NetworkConfig(fusion=fusion, width=width, depth=depth, inner=inner)  # type: ignore[arg-type]
    torch.manual_seed(0)
    model = Model.untrained(
        schema, scaler=scaler, species=[f"s{i}" for i in range(species)], config=config
    )
    return model, encode(arrays, layout=model.layout, scaler=scaler)


def naive(model: Model, block, masks: np.ndarray) -> np.ndarray:
    """Every coalition by one full pass over all tokens, hidden ones replaced by the mask token."""
    network, values = model.network.eval(), [torch.as_tensor(v) for v in block.values]
    observed = torch.as_tensor(block.observed)
    total = 0
    with torch.inference_mode():
        for number, weight in enumerate(shapley_weights(len(masks))):
            members = [i for i in range(len(masks)) if number >> i & 1]
            shown = torch.as_tensor(
                np.any(masks[members], axis=0) if members else np.zeros(masks.shape[1], bool)
            )
            (member,) = network.members
            tokens = member.tokenizers(values, observed & shown)
            answer = torch.sigmoid(
                network.head(member.activate(member.fusion.plain(tokens, observed & shown)))
            )
            total = total + torch.as_tensor(weight, dtype=torch.float32)[:, None] * answer[:, None]
    return total.numpy()


def main() -> None:
    """Run, print and write the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, default=Path("out/bench/engine.json"))
    parser.add_argument("--groups", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--species", type=int, default=20)
    parser.add_argument("--repeat", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    sizes = {
        "groups": args.groups,
        "tokens": args.tokens,
        "width": args.width,
        "species": args.species,
    }
    (token, block), (group, _) = make("token", **sizes), make("group", **sizes)
    masks = np.stack(list(players(token.layout).values()))
    shown, index = np.ones(token.layout.size, bool), np.arange(args.species)
    ways = {
        "naive": lambda: naive(token, block, masks),
        "token": lambda: shapley_block(token, block, players=masks, species=index)[0],
        "group": lambda: shapley_block(group, block, players=masks, species=index)[0],
        "token_predict": lambda: predict_block(token, block, shown=shown, species=index),
        "group_predict": lambda: predict_block(group, block, shown=shown, species=index),
    }
    exact = float(np.abs(ways["naive"]() - ways["token"]()).max())
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(args.repeat):
        for name, run in ways.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    median = {name: statistics.median(s) for name, s in seconds.items()}
    report = {
        "sizes": sizes,
        "milliseconds_per_cell": {n: 1e3 * s / len(block) for n, s in median.items()},
        "speed_up_over_naive": {n: median["naive"] / median[n] for n in ("token", "group")},
        "explanation_in_predictions": {
            n: median[n] / median[f"{n}_predict"] for n in ("token", "group")
        },
        "largest_difference_token_to_naive": exact,
        "seconds": seconds,
    }
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(report, indent=1), encoding="utf-8")
    print(json.dumps({k: v for k, v in report.items() if k != "seconds"}, indent=1))


if __name__ == "__main__":
    main()
