"""The gain from pre-training where labels are few.

    geomiam-bench pretraining FOLDER --json out/bench/pretraining.json \
        --figure out/bench/pretraining.png

Swiss trees (NCEAS region SWI: 10,000 random places without labels, a survey of 30 species) and French
breeding birds (20 species; the cells of Europe without labels). Blocks of the survey are held out;
places without labels that lie in them are not looked at either. On 100, 300 and more of the other
surveyed sites: a linear probe on the pre-trained network against one on a network with random
weights, and fine-tuning, with a fresh head or the probe's, against training from scratch with the
same settings. Mean AUC on the held-out blocks, over the species that have ten presences there, from
every subset of the modalities; nothing is chosen on those blocks.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
import typer
import xarray as xr

import geomiam as gm
from geomiam.data.sites.draw import random_cells
from geomiam.geo.crs import crs_of
from geomiam.geo.lengths import as_text
from geomiam.model.model import Model
from geomiam.splits import hold_out, site_coordinates, spatial_blocks
from geomiam.splits.reading import places_of
from geomiam_bench import birds, readers
from geomiam_bench.options import Figure, Json, listed
from geomiam_bench.readers.disdat import disdat_schema
from geomiam_bench.results import write_json

LABELS = (100, 300, 1000)
MOST_TESTED, MOST_UNLABELLED = 3000, 5000
FEWEST = 10
"""Presences of a species on held-out sites, with fewer of which its AUC is mostly noise."""

NETWORK = gm.NetworkConfig(width=64, heads=4, depth=1, inner=1, frequencies=16, sigma=0.1)
FITTING = gm.TrainingConfig(
    loss="weighted-bce",
    epochs=40,
    batch=32,
    lr=1e-3,
    warmup=50,
    holdout=0,
    keep="last",
    accelerator="cpu",
    epoch_steps=1,
)
MASKING = gm.masking.MIAM(per_sample=True)
COLOURS = {
    "from scratch": "#3a3a3a",
    "fine-tuned": "#7fc4bf",
    "probed, then fine-tuned": "#1b7f79",
    "probe, pre-trained": "#c8553d",
    "probe, random weights": "#e8b3a5",
}
PAIRS = {
    "probe": ("probe, pre-trained", "probe, random weights"),
    "fit": ("fine-tuned", "from scratch"),
    "fit from the probe": ("probed, then fine-tuned", "from scratch"),
}


@dataclass(frozen=True)
class Case:
    """Places without labels, a survey, and the side of the blocks."""

    unlabelled: xr.Dataset
    survey: xr.Dataset
    schema: gm.Schema
    block: str


def swiss_trees(root: Path) -> Case:
    """Return the random background of SWI and its survey."""
    training, survey = readers.disdat(root / "disdat", "SWI", background="random")
    background = (training["presence"] == 0).all("species").values
    schema = disdat_schema(root / "disdat", "SWI")
    side = as_text(places_of(survey, None).span().max() / 8)
    return Case(training.isel(site=background).drop_vars("presence"), survey, schema, side)


def french_birds(root: Path) -> Case:
    """Return the cells of Europe and the second period of the survey."""
    folder = root / "maps" / "france_birds"
    cube = gm.open_cube(folder / "europe_50km.zarr", chunks=None).load()
    records = pd.read_parquet(folder / "sites.parquet")
    records = records[records["period"] == birds.PERIOD]
    species = [c for c in records if "_" in c and c[0].isupper()]
    schema = gm.infer_schema(cube, kinds=birds.KINDS)
    cells, _ = random_cells(cube, n=None, rng=np.random.default_rng(0))
    return Case(cells, gm.sample(cube, records, species=species, thin=False), schema, "100 km")


CASES: dict[str, Callable[[Path], Case]] = {
    "Swiss trees": swiss_trees,
    "French birds": french_birds,
}


@dataclass(frozen=True)
class Split:
    """One draw of held-out blocks."""

    unlabelled: xr.Dataset
    pool: xr.Dataset
    test: xr.Dataset

    @classmethod
    def of(cls, case: Case, rng: np.random.Generator) -> Split:
        """Hold out about 30 % of the survey in blocks, from the places without labels too."""
        coordinates = [site_coordinates(s) for s in (case.survey, case.unlabelled)]
        crs = crs_of(case.survey)
        blocks = spatial_blocks(np.concatenate(coordinates), size=case.block, crs=crs)
        survey_blocks, unlabelled_blocks = np.split(blocks, [len(coordinates[0])])
        labels = case.survey["presence"].transpose("site", "species").values
        is_test = hold_out(labels, survey_blocks, share=0.3, rng=rng)
        free = np.flatnonzero(~np.isin(unlabelled_blocks, survey_blocks[is_test]))
        pool, test = (rng.permutation(np.flatnonzero(side)) for side in (~is_test, is_test))
        test = test[:MOST_TESTED]
        survey = case.survey.isel(species=(labels[test] == 1).sum(0) >= FEWEST)
        unlabelled_sites = case.unlabelled.isel(site=rng.permutation(free)[:MOST_UNLABELLED])
        return cls(unlabelled_sites, survey.isel(site=pool), survey.isel(site=test))


def untrained(like: Model, seed: int) -> Model:
    """Return the same network with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Model.untrained(like.schema, scaler=like.scaler, species=(), config=like.config)


def run(name: str, case: Case, seed: int, *, epochs: int, largest_fit: int) -> list[dict]:
    """Return the scores of all methods on one draw of held-out blocks."""
    split = Split.of(case, np.random.default_rng(seed))
    pretraining = gm.TrainingConfig(
        epochs=epochs,
        lr=3e-3,
        warmup=100,
        epoch_steps=1,
        block=case.block,
        accelerator="cpu",
    )
    start = time.perf_counter()
    encoder = gm.pretrain(
        split.unlabelled,
        case.schema,
        network=NETWORK,
        training=pretraining,
        masking=MASKING,
        rng=seed,
    )
    settings = {"case": name, "seed": seed, "pretraining_seconds": time.perf_counter() - start}
    settings |= {
        "unlabelled": split.unlabelled.sizes["site"],
        "tested": split.test.sizes["site"],
        "species": split.test.sizes["species"],
        "r2": encoder.about["validation_r2"]["all"],
    }
    rows = []
    for size_limit in LABELS:
        sites = split.pool.isel(site=slice(size_limit))
        n = sites.sizes["site"]
        for method, model in methods(encoder, sites, seed, fits=n <= largest_fit).items():
            table = gm.evaluate(model, split.test, subsets="every")
            aucs = dict(zip(table["subset"].values.tolist(), table["mean_auc"].values.tolist()))
            rows.append(settings | {"size": size_limit, "labels": n, "method": method, "auc": aucs})
            print(f"{name} {seed} n={n} {method}: {aucs['all']:.3f}", flush=True)
        if n < size_limit:
            break
    return rows


def methods(encoder: Model, sites: xr.Dataset, seed: int, *, fits: bool) -> dict[str, Model]:
    """Return models by method; a probe takes a second, a fit takes minutes."""
    probe_model = gm.evaluation.probe(encoder, sites, loss="weighted-bce")
    probes = {
        "probe, pre-trained": probe_model,
        "probe, random weights": gm.evaluation.probe(
            untrained(encoder, seed), sites, loss="weighted-bce"
        ),
    }
    if not fits:
        return probes
    settings: dict[str, Any] = {"masking": MASKING, "training": FITTING, "rng": seed}
    return probes | {
        "from scratch": gm.fit(sites, encoder.schema, network=NETWORK, **settings),
        "fine-tuned": gm.fit(sites, warm_start=encoder, **settings),
        "probed, then fine-tuned": gm.fit(sites, warm_start=probe_model, **settings),
    }


def tidy(rows: list[dict]) -> pd.DataFrame:
    """Return one row per case, seed, labels and method: AUC from all, and mean over all subsets."""
    frame = pd.DataFrame(rows)
    frame["all modalities"] = [a["all"] for a in frame["auc"]]
    frame["mean over subsets"] = [float(np.nanmean(list(a.values()))) for a in frame["auc"]]
    return frame


def differences(frame: pd.DataFrame) -> list[dict]:
    """Return paired differences per case and number of labels: mean, deviation, and one per seed."""
    rows = []
    for measure in ("all modalities", "mean over subsets"):
        for (case, size), part in frame.groupby(["case", "size"], sort=False):
            wide = part.pivot(index="seed", columns="method", values=measure)
            for pair, (first, second) in PAIRS.items():
                if not {first, second} <= set(wide):
                    continue
                gain = wide[first] - wide[second]
                rows.append(
                    {"case": case, "size": size, "measure": measure, "pair": pair}
                    | {"mean": gain.mean(), "sd": gain.std(), "each": gain.tolist()}
                )
    return rows


def draw(frame: pd.DataFrame, path: Path) -> None:
    """AUC against labels, one panel per case and measure; thin lines are seeds."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    cases = list(frame["case"].unique())
    figure, axes = plt.subplots(2, len(cases), figsize=(4.2 * len(cases), 6.4), sharex="col")
    for row, measure in zip(axes.reshape(2, -1), ("all modalities", "mean over subsets")):
        for axis, case in zip(row, cases):
            part = frame[frame["case"] == case]
            for method, colour in COLOURS.items():
                wide = part[part["method"] == method].pivot(
                    index="size", columns="seed", values=measure
                )
                axis.plot(wide.index, wide, color=colour, lw=0.6, alpha=0.6)
                axis.plot(wide.index, wide.mean(1), "o-", color=colour, lw=2, ms=4, label=method)
            axis.set(xscale="log", title=f"{case}: {measure}")
            axis.set_xticks(LABELS)
            axis.get_xaxis().set_major_formatter("{x:.0f}")
            axis.minorticks_off()
            axis.spines[["top", "right"]].set_visible(False)
    for axis in axes.reshape(2, -1)[:, 0]:
        axis.set_ylabel("mean AUC on held-out blocks")
    for axis in axes.reshape(2, -1)[-1]:
        axis.set_xlabel("labelled sites, at most")
    axes.flat[0].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main(
    data: Annotated[Path, typer.Argument(help="Folder with disdat/ and maps/france_birds/.")],
    out: Json = Path("out/bench/pretraining.json"),
    figure: Figure = None,
    seeds: int = 3,
    epochs: Annotated[int, typer.Option(help="Epochs of pre-training.")] = 20,
    largest_fit: Annotated[
        int, typer.Option("--fitted", help="Most sites for fits; probes take more.")
    ] = 1000,
    cases: Annotated[str, typer.Option(help="Cases, separated by commas.")] = ",".join(CASES),
) -> None:
    """Compare pre-trained networks with networks from scratch, where labels are few."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message=".*have presences or absences only")
    rows: list[dict] = []
    data_of = {name: CASES[name](data) for name in listed(cases)}
    for seed in range(seeds):
        for name, case in data_of.items():
            rows += run(name, case, seed, epochs=epochs, largest_fit=largest_fit)
            write(out, rows, epochs=epochs, figure=figure)


def write(out: Path, rows: list[dict], *, epochs: int, figure: Path | None) -> None:
    """Write the results and the figure so far."""
    frame = tidy(rows)
    results: dict[str, Any] = {"network": NETWORK.model_dump(), "rows": rows}
    results["training"] = FITTING.model_dump()
    results |= {"pretraining_epochs": epochs, "differences": differences(frame)}
    write_json(out, results)
    if figure:
        draw(frame, figure)
