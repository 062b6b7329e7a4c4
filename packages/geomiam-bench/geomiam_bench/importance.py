"""The error of sampled Shapley values of a score: Latin squares against plain Monte Carlo.

    geomiam-bench importance --out out/bench

A small model is trained on the bundled records of a banana slug and judged by its AUC on blocks of 100 km
that it never saw. All coalitions of its variables are evaluated once, which gives the exact values; the
samples then look their coalitions up in that table, so hundreds of repetitions cost seconds. Every
sample counts as evaluations what it would have evaluated by itself.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
import xarray as xr
from scipy.stats import t

import geomiam as gm
from geomiam.demo import load_cube, load_schema, network, sample_records, training
from geomiam.demo import load_records as records
from geomiam.explain.sampling import Value, exact, steps
from geomiam.explain.skill_game import skill_game
from geomiam.splits import site_blocks, spatial_folds
from geomiam_bench.results import as_text, write_json

KINDS: dict[str, dict[str, Any]] = {
    "plain Monte Carlo": {"method": "uniform"},
    "Latin squares, cyclic (MaskSDM)": {"rows": "cyclic"},
    "Latin squares, independent": {"rows": "independent"},
    "Latin squares, antithetic": {"rows": "antithetic"},
}
SIZES = [4, 6, 8, 12, 16, 24, 32, 48]
"""Latin squares."""


def train() -> tuple[gm.Model, xr.Dataset]:
    """Return the demo's model, trained without a fifth of the blocks, and the sites of that fifth."""
    sites = sample_records(load_cube(), records())
    blocks = site_blocks(sites, "100 km").number
    folds = spatial_folds(sites["presence"].values, blocks, folds=5, rng=np.random.default_rng(0))
    model = gm.fit(
        sites.isel(site=folds != 0), load_schema(), network=network(), training=training(), rng=0
    )
    return model, sites.isel(site=folds == 0)


def look_up(values: np.ndarray, groups: int) -> Value:
    """Return a game that reads its values from a table ``(2^n, S)``."""
    return lambda coalitions: values[coalitions @ (1 << np.arange(groups))]


def converge(value: Value, groups: int, *, repeats: int) -> xr.Dataset:
    """Return the errors of repeated samples of every kind and size, and the coverage of their intervals."""
    truth = exact(value, groups).values
    shape = (len(KINDS), len(SIZES), repeats)
    names = ("evaluations", "error", "standard_error", "covered")
    measures = {name: np.empty(shape) for name in names}
    for i, options in enumerate(KINDS.values()):
        for seed in range(repeats):
            for k, e in enumerate(steps(value, groups, at=SIZES, rng=seed, **options)):
                off = np.abs(e.values - truth)
                half = t.ppf(0.975, e.replicates - 1) * e.standard_error
                results = (e.evaluations, off.mean(), e.standard_error.mean(), (off <= half).mean())
                for name, result in zip(names, results):
                    measures[name][i, k, seed] = result
    dims = ("kind", "size", "repeat")
    runs = xr.Dataset(
        {n: (dims, v) for n, v in measures.items()}, {"kind": list(KINDS), "size": SIZES}
    )
    return runs.assign_attrs(metric="auc", exact=2**groups)


def report(runs: xr.Dataset, table: xr.Dataset, seconds: dict[str, float]) -> dict:
    """Return the results of the runs as plain numbers."""
    mean = runs.mean("repeat")
    rmse = (runs["error"] ** 2).mean("repeat") ** 0.5
    return {
        "players": dict(zip(table["group"].values.tolist(), table["mean_shapley"].values.tolist())),
        "auc": float(table["mean_full_value"]),
        "sites": table.attrs["sites"],
        "squares": SIZES,
        "kinds": {
            str(kind): {n: mean[n].sel(kind=kind).values.round(5).tolist() for n in mean}
            | {"rms_of_mean_error": rmse.sel(kind=kind).values.round(5).tolist()}
            for kind in runs["kind"].values
        },
        "seconds": seconds,
    }


def main(
    out: Annotated[Path, typer.Option(help="Folder of results and figures.")] = Path("out/bench"),
    repeats: Annotated[int, typer.Option(help="Samples of each kind and size.")] = 100,
) -> None:
    """Compare sampled Shapley values of a score with the exact ones, on bundled data."""
    import matplotlib

    matplotlib.use("Agg")
    out.mkdir(parents=True, exist_ok=True)
    clock, seconds = time.perf_counter(), {}

    def lap(step: str) -> None:
        nonlocal clock
        seconds[step], clock = round(time.perf_counter() - clock, 1), time.perf_counter()

    model, sites = train()
    lap("train")
    game = skill_game(model, sites, groups="variables")
    n = len(game.groups)
    coalitions = (np.arange(2**n)[:, None] >> np.arange(n)) & 1 == 1
    value = look_up(game(coalitions)[:, -1:], n)
    lap("all coalitions")
    runs = converge(value, n, repeats=repeats)
    lap("samples")
    table = gm.explain.importance(
        model,
        sites,
        groups="variables",
        options=gm.explain.ImportanceOptions(method="latin", samples=24),
    )
    lap("importance from 24 squares")
    for name, figure in {
        "importance": gm.plot.importance(table).figure,
        "importance-convergence": gm.plot.convergence(runs).figure,
    }.items():
        figure.savefig(out / f"{name}.png", dpi=130)  # type: ignore[union-attr]
    results = report(runs, table, seconds)
    write_json(out / "importance.json", results)
    print(as_text(results))
