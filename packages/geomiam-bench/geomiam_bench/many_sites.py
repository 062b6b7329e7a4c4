"""Memory and seconds of sites with the records of many species, whose labels are never a table in memory.

    geomiam-bench many-sites --json out/bench/many-sites.json

Records of 10 species at each site are sampled on a cube, get background, are written as Zarr, opened lazily and
fitted with a small network and few optimiser steps. Sampling and fitting run in separate processes, whose
peak memory the system reports. Seconds are CPU time of one thread, since other work may share the machine. A
slope is that of the log of a cost on the log of the number of sites, 1 for linear growth.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
import xarray as xr

import geomiam as gm
from geomiam.maps.memory import peak_memory
from geomiam_bench.options import Json
from geomiam_bench.planning import slope
from geomiam_bench.processes import in_process, print_costs
from geomiam_bench.results import as_text, write_json

SITES = (10**4, 10**5, 10**6)
SPECIES = 10_000
RECORDS = 10
"""Records, each of another species, at a site."""
PREDICTORS = 6
BACKGROUND = 10_000
STEPS = 50
COSTS = ("sample_seconds", "fit_seconds", "sample_gib", "fit_gib", "step_ms")

step_times: list[float] = []


@dataclass(frozen=True)
class Timed(gm.masking.Uniform):
    """Uniform masking, which is drawn once in a step, and the CPU time of each draw."""

    def sample(self, n: int, **settings: Any) -> Any:
        step_times.append(time.process_time())
        return super().sample(n, **settings)


def random_cube(cells: int) -> xr.Dataset:
    """Return a square cube of two modalities with at least so many cells."""
    side, rng = int(np.ceil(np.sqrt(cells))), np.random.default_rng(0)
    layers = {
        f"bio{i}": (
            ("lat", "lon"),
            rng.normal(size=(side, side)).astype(np.float32),
            {"modality": ("climate", "soil")[i % 2]},
        )
        for i in range(PREDICTORS)
    }
    coords = {"lat": np.linspace(60, 30, side), "lon": np.linspace(-10, 30, side)}
    return xr.Dataset(layers, coords=coords, attrs={"crs": "EPSG:4326"})


def random_records(cube: xr.Dataset, sites: int, species: int) -> pd.DataFrame:
    """Return records of random species in some cells of a cube."""
    rng, width = np.random.default_rng(1), cube.sizes["lon"]
    cells = np.repeat(rng.permutation(cube["bio0"].size)[:sites], RECORDS)
    names = [f"species {i}" for i in range(species)]
    # Numbers in a row are all different modulo the number of species.
    codes = np.repeat(rng.integers(species, size=sites), RECORDS) + np.tile(
        np.arange(RECORDS) * 7919, sites
    )
    return pd.DataFrame(
        {
            "species": pd.Categorical.from_codes(codes % species, names),
            "lon": cube["lon"].values[cells % width],
            "lat": cube["lat"].values[cells // width],
        }
    )


def print_sampling(sites: int, species: int, path: str) -> None:
    """Sample records, add background, write the sites, and print the costs."""
    cube = random_cube(2 * sites)
    records, start = random_records(cube, sites, species), time.process_time()
    table = gm.add_background(gm.sample(cube, records), cube, n=BACKGROUND, rng=0)
    middle = time.process_time()
    gm.write_sites(table, path)
    seconds = {"sample_seconds": middle - start, "write_seconds": time.process_time() - middle}
    print_costs({**seconds, "sample_gib": peak_memory() / 2**30})


def print_fit(path: str, steps: int) -> None:
    """Fit sites that are opened lazily, and print the costs."""
    import torch

    torch.set_num_threads(1)
    gm.masking.STRATEGIES["timed"] = Timed
    start, sites = time.process_time(), gm.open_sites(path, chunks={})
    gm.fit(sites, network={"fusion": "sum"}, training={"steps": steps}, masking=Timed())
    seconds = time.process_time() - start
    # The last steps are those of the members, which train on all sites.
    step = float(np.median(np.diff(step_times[-steps:])))
    n, species = sites.sizes["site"], sites.sizes["species"]
    print_costs(
        {
            "rows": n,
            "species": species,
            "table_gib": 4 * n * species / 2**30,
            "fit_seconds": seconds,
            "step_ms": 1000 * step,
            "fit_gib": peak_memory() / 2**30,
        }
    )


def run(sizes: Sequence[int] = SITES, *, species: int = SPECIES, steps: int = STEPS) -> dict:
    """Return the costs of each number of sites, and their slopes."""
    rows = []
    for sites in sizes:
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/sites.zarr"
            costs = in_process(print_sampling, sites, species, path)
            bytes_stored = sum(f.stat().st_size for f in Path(path).rglob("*") if f.is_file())
            costs |= in_process(print_fit, path, steps)
        rows.append({"sites": sites, **costs, "store_gib": round(bytes_stored / 2**30, 3)})
    return {
        "records": RECORDS,
        "predictors": PREDICTORS,
        "background": BACKGROUND,
        "steps": steps,
        "sizes": rows,
        "slopes": {cost: slope(rows, "rows", cost) for cost in COSTS},
    }


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes only.")] = False,
    out: Json = Path("out/bench/many-sites.json"),
) -> None:
    """Measure memory and seconds of a fit on many sites of many species."""
    results = run((500, 1000), species=50, steps=10) if quick else run()
    write_json(out, results)
    print(as_text(results))
