"""The cost of a training step against the papers' step: ratios within one run.

    geomiam-bench training --json out/bench/training.json --figure out/bench/training.png

The papers' way computes every token and puts a mask token in place of the hidden ones (MaskSDM):
forward, loss, backward, optimizer, with PyTorch's transformer layers. Against it, with as many
blocks and weights: token fusion and group fusion of geomiam, which compute what is visible. Medians
of interleaved repetitions on one thread, at several hidden shares; ``uniform`` is the mean over them,
as the published masking draws them, and ``miam`` draws the masks of MIAM, of which half is hidden.
``fits`` are CPU seconds of whole fits with default settings; see :mod:`geomiam_bench.fit_cost`.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, cast

import numpy as np
import torch
import typer
from schedulefree import AdamWScheduleFree
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from geomiam.masking import MIAM, hide
from geomiam.masking.scores import Balance
from geomiam.networks.config import NetworkConfig
from geomiam.networks.network import Network
from geomiam.schema.schema import Schema
from geomiam.tokens.layout import Layout
from geomiam_bench.fit_cost import seconds_of_fits
from geomiam_bench.options import Figure, Json
from geomiam_bench.results import as_text, read_json, write_json

SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Midpoints of five equal parts of [0, 1]."""


@dataclass(frozen=True)
class Run:
    """Sizes of the networks and of a batch, and how often every step is repeated."""

    batch: int
    width: int
    depth: int
    tokens: int
    modalities: int
    species: int
    bf16: bool
    repeat: int


class Paper(nn.Module):
    """Mask-token substitution and all tokens computed, by PyTorch's layers."""

    def __init__(self, like: Network, config: NetworkConfig):
        super().__init__()
        d = config.width
        self.tokenizers = cast(nn.Module, like.members[0].tokenizers)
        self.mask = nn.Parameter(torch.empty(d).uniform_(-(d**-0.5), d**-0.5))
        layer = nn.TransformerEncoderLayer(
            d, config.heads, d * 4 // 3, config.dropout, batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, config.depth, enable_nested_tensor=False)
        self.head = nn.Sequential(nn.LayerNorm(d), nn.ReLU(), nn.Linear(d, like.head.out_features))

    def forward(self, values: list[Tensor], visible: Tensor) -> Tensor:
        tokens = torch.where(visible[..., None], self.tokenizers(values, visible), self.mask)
        return self.head(self.blocks(tokens).mean(1))


class Step:
    """One training step of a network: forward, loss, backward, optimizer."""

    def __init__(self, network: nn.Module, bf16: bool):
        self.network = network.train()
        self.optimizer = AdamWScheduleFree(network.parameters(), lr=1e-3, weight_decay=0.01)
        self.optimizer.train()
        self.weights = sum(p.numel() for p in network.parameters())
        self.bf16 = bf16

    def seconds(self, values: list[Tensor], visible: Tensor, labels: Tensor) -> float:
        """Run the step and return its seconds."""
        start = time.perf_counter()
        half = torch.autocast("cpu", torch.bfloat16) if self.bf16 else contextlib.nullcontext()
        with half:
            logits = self.network(values, visible)
        loss = binary_cross_entropy_with_logits(logits.float(), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return time.perf_counter() - start


def sizes_of(tokens: int, modalities: int) -> list[int]:
    """Return the number of tokens per modality, as even as possible."""
    return [len(part) for part in np.array_split(np.arange(tokens), modalities)]


def steps(run: Run, sizes: list[int]) -> dict[str, Step]:
    """Return a step of each of the three networks, which have equal sizes."""
    schema = Schema.from_dict(
        {
            "modalities": {
                f"m{g}": {"variables": {f"v{g}_{i}": {} for i in range(k)}}
                for g, k in enumerate(sizes)
            }
        }
    )

    def network(**fusion) -> tuple[Network, NetworkConfig]:
        torch.manual_seed(0)
        config = NetworkConfig(width=run.width, **fusion)
        layout = Layout.of(schema)
        return Network(config, layout=layout, classes={}, species=run.species), config

    token = {"fusion": "token", "depth": run.depth}
    networks = {
        "paper": Paper(*network(**token)),
        "token": network(**token)[0],
        "group": network(fusion="group", depth=run.depth - 1, inner=1)[0],
    }
    return {name: Step(n, run.bf16) for name, n in networks.items()}


def masks(run: Run, sizes: list[int], rng: np.random.Generator) -> dict:
    """Return visible tokens ``(n, t)`` at every hidden share and as MIAM draws them."""
    balance = Balance.neutral(len(sizes))
    p: dict[float | str, np.ndarray] = {share: np.full((1, len(sizes)), share) for share in SHARES}
    p |= {"miam": MIAM().sample(1, sizes=sizes, balance=balance, rng=rng)}
    hidden_masks = {k: hide(v, n=run.batch, sizes=sizes, rng=rng) for k, v in p.items()}
    return {k: torch.as_tensor(~h) for k, h in hidden_masks.items()}


def measure(run: Run) -> dict:
    """Return the seconds of every network and mask, pairs interleaved."""
    sizes, rng = sizes_of(run.tokens, run.modalities), np.random.default_rng(0)
    ways = steps(run, sizes)
    values = [torch.randn(run.batch, k, 1) for k in sizes]
    labels = (torch.rand(run.batch, run.species) < 0.1).float()
    step_seconds: dict[str, dict] = {name: {k: [] for k in (*SHARES, "miam")} for name in ways}
    for repeat in range(-1, run.repeat):  # the first one warms up
        for kind, visible in masks(run, sizes, rng).items():
            for name, step in ways.items():
                seconds = step.seconds(values, visible, labels)
                if repeat >= 0:
                    step_seconds[name][kind].append(seconds)
    return {"weights": {n: s.weights for n, s in ways.items()}, "seconds": step_seconds}


def ratios(seconds: dict[str, dict]) -> dict[str, dict]:
    """Return median and quartiles of the ratio of the paper's seconds to a network's, pair by pair."""
    spread = {}
    for name in ("token", "group"):
        pairs = {k: np.divide(seconds["paper"][k], v) for k, v in seconds[name].items()}
        total_seconds = [np.sum([seconds[n][s] for s in SHARES], 0) for n in ("paper", name)]
        pairs["uniform"] = total_seconds[0] / total_seconds[1]
        # Draws of MIAM differ in what they hide, so their ratio is that of the sums.
        total = sum(seconds["paper"]["miam"]) / sum(seconds[name]["miam"])
        spread[name] = {
            str(k): dict(zip(("low", "median", "high"), np.percentile(v, (25, 50, 75)).tolist()))
            for k, v in pairs.items()
        }
        spread[name]["miam"]["of_sums"] = total
    return spread


def draw(report: dict, path: Path) -> None:
    """Draw the speed-up against the hidden share."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 3.5), layout="constrained")
    for name, rows in report["speed_up_over_paper"].items():
        low, middle, high = ([rows[str(s)][k] for s in SHARES] for k in ("low", "median", "high"))
        (line,) = axes.plot(SHARES, middle, "o-", label=f"{name} fusion")
        axes.fill_between(SHARES, low, high, alpha=0.2, color=line.get_color())
    axes.axhline(1, color="gray", lw=0.8)
    axes.set(xlabel="share of tokens hidden", ylabel="steps for one of the papers' steps")
    axes.set_ylim(bottom=0)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def main(
    out: Json = Path("out/bench/training.json"),
    figure: Figure = None,
    batch: int = 250,
    width: int = 192,
    depth: int = 4,
    tokens: int = 64,
    modalities: int = 6,
    species: int = 20,
    repeat: int = 5,
    bf16: Annotated[bool, typer.Option("--bf16", help="All ways in bfloat16 autocast.")] = False,
    fits: Annotated[int, typer.Option(help="Default fits of each size.")] = 1,
    fits_only: Annotated[
        bool, typer.Option("--fits-only", help="Measure the fits; keep the steps in the file.")
    ] = False,
) -> None:
    """Compare a training step with the step of the papers, and measure the cost of default fits."""
    torch.set_num_threads(1)
    if fits_only:
        write_json(out, {**read_json(out), "fits": seconds_of_fits(repeat=fits)})
        return
    run = Run(batch, width, depth, tokens, modalities, species, bf16, repeat)
    measurement = measure(run)
    seconds = measurement["seconds"]
    results = {
        "sizes": {k: v for k, v in asdict(run).items() if k != "repeat"},
        "weights": measurement["weights"],
        "speed_up_over_paper": ratios(seconds),
        "median_seconds": {
            n: {str(k): statistics.median(s) for k, s in v.items()} for n, v in seconds.items()
        },
        "seconds": {n: {str(k): s for k, s in v.items()} for n, v in seconds.items()},
        "fits": seconds_of_fits(repeat=fits),
    }
    write_json(out, results)
    print(as_text({k: v for k, v in results.items() if k != "seconds"}))
    if figure:
        draw(results, figure)
