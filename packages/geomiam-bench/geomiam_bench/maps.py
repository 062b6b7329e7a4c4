"""The cost of a map beside its model: Zarr to Zarr against the bare model, workers, memory, a real map.

    geomiam-bench maps --json out/bench/maps.json --figure out/bench/maps.png

Repetitions are interleaved and medians are taken, because other work may share the machine; the load is
in the results. The real map reads the human footprint of Europe, if ``--data`` contains it, trains a small
model of the places of plant records, and runs ``geomiam predict`` from start to end.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import dask
import dask.array as da
import numpy as np
import odc.geo.xr  # noqa: F401
import rioxarray  # noqa: F401
import torch
import typer
import xarray as xr

import geomiam as gm
from geomiam.inference.engine import predict_block
from geomiam.maps.memory import peak_memory
from geomiam.maps.write import make_map
from geomiam.tokens.encode import encode
from geomiam_bench.layers import every_layer, write_one
from geomiam_bench.options import Figure, Json
from geomiam_bench.processes import output_of
from geomiam_bench.results import as_text, write_json
from geomiam_bench.shapley import make


def random_cube(names: list[str], ny: int, nx: int, *, chunk: int) -> xr.Dataset:
    """Return a lazy cube of random numbers, three in ten missing."""
    place = {"y": 60 - 0.001 * np.arange(ny), "x": 5 + 0.001 * np.arange(nx)}
    layers = {}
    for i, name in enumerate(names):
        rng = da.random.default_rng(i)
        values = rng.normal(size=(ny, nx), chunks=chunk).astype("f4")
        layers[name] = (
            ("y", "x"),
            da.where(rng.random((ny, nx), chunks=chunk) < 0.3, np.nan, values),
        )
    return xr.Dataset(layers, coords=place).odc.assign_crs("EPSG:4326")


def bare(model, cube: xr.Dataset) -> None:
    """Time the model alone, on the cells in memory."""
    rows = {v: cube[v].values.ravel() for v in model.schema.variables}
    block = encode(rows, layout=model.layout, scaler=model.scaler)
    visible_tokens, species = np.ones(model.layout.size, bool), np.arange(len(model.species))
    start = time.perf_counter()
    predict_block(model, block, visible=visible_tokens, species=species)
    TIMES.setdefault("bare model", []).append(time.perf_counter() - start)


TIMES: dict[str, list[float]] = {}


def timed(name: str, work: Callable[[], object]) -> None:
    """Run a call and store its seconds."""
    start = time.perf_counter()
    work()
    TIMES.setdefault(name, []).append(time.perf_counter() - start)


def speed(folder: Path, *, chunk: int, repeat: int) -> dict:
    """Return the seconds from Zarr to Zarr with one or two threads or processes, and of the bare model."""
    from distributed import Client, LocalCluster

    model, _ = make("group", groups=6, tokens=24, width=96, species=4)
    model.network.eval()
    random_layers = random_cube(list(model.schema.variables), 2 * chunk, 4 * chunk, chunk=chunk)
    cube = gm.open_cube(gm.write_cube(random_layers, folder / "cube.zarr", progress=False))
    cube_in_memory = cube.compute()

    def write(threads: int = 1, client=None) -> None:
        with dask.config.set(scheduler="threads", num_workers=threads):
            out = folder / "map.zarr"
            make_map(
                cube,
                model,
                out,
                client=client,
                options=gm.MapOptions(resume=False),
                overwrite=True,
                progress=False,
            )

    def cluster(workers: int) -> LocalCluster:
        return LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None)

    TIMES.clear()
    write()
    bare(model, cube_in_memory)
    TIMES.clear()
    for _ in range(
        repeat
    ):  # before a cluster exists, because its scheduler would share the process
        bare(model, cube_in_memory)
        timed("1 thread", write)
        timed("2 threads", lambda: write(2))
    with cluster(1) as single, cluster(2) as pair, Client(single) as a, Client(pair) as b:
        write(client=a)  # workers import what they need
        write(client=b)
        for _ in range(repeat):
            timed("1 process", lambda: write(client=a))
            timed("2 processes", lambda: write(client=b))
    median = {k: statistics.median(v) for k, v in TIMES.items()}
    return {
        "cells": 8 * chunk**2,
        "seconds": {k: [round(t, 3) for t in v] for k, v in TIMES.items()},
        "map against bare model": median["bare model"] / median["1 thread"],
        "2 threads against 1": median["1 thread"] / median["2 threads"],
        "2 processes against 1": median["1 process"] / median["2 processes"],
    }


def memory_of(side: int) -> dict:
    """Return planned and measured peak memory of a map of side × side cells; run it in a separate process."""
    model, _ = make("group", groups=4, tokens=8, width=16, species=20)
    cube = random_cube(list(model.schema.variables), side, side, chunk=256)
    cube = cube.where((cube["x"] * 1000).astype(int) % 50 == 0)  # reading and writing weigh
    with tempfile.TemporaryDirectory() as folder, dask.config.set(num_workers=2):
        planned_bytes = gm.plan_map(cube, model).peak_per_worker
        make_map(cube, model, Path(folder) / "map.zarr", progress=False)
    return {"cells": side**2, "promised": planned_bytes, "measured": peak_memory()}


def memory(sides: tuple[int, ...]) -> list[dict]:
    """Return the peak memory of maps of growing size."""
    return [output_of("-m", "geomiam_bench", "maps", "--memory-of", str(side)) for side in sides]


def train_real(data: Path, folder: Path) -> xr.Dataset:
    """Train a small model of the places of plant records; write the model and the cube."""
    import pandas as pd

    source_cube = xr.open_zarr(data / "human_footprint_europe.zarr", consolidated=False, chunks={})
    footprint = source_cube.rename(lat="y", lon="x")
    cube = gm.open_cube(footprint, crs="EPSG:4326")
    for name in cube.data_vars:
        cube[name].attrs["modality"] = str(name)
    gm.write_cube(cube, folder / "cube.zarr", chunks={"y": 512, "x": 512}, progress=False)
    cube = gm.open_cube(folder / "cube.zarr", chunks=None)
    table = pd.read_parquet(data / "presence_only_sample.parquet").assign(species="any plant")
    sites = gm.sample(cube, table[["species", "lon", "lat"]])
    sites = gm.add_background(sites, cube, n=1000, rng=0)
    network = gm.NetworkConfig(width=32, heads=2, depth=1, inner=0, frequencies=8)
    model = gm.fit(sites.load(), network=network, training=gm.TrainingConfig(epochs=20), rng=0)
    model.save(folder / "model")
    return cube


def real(data: Path, folder: Path) -> dict:
    """Map Europe from the human footprint by ``geomiam predict``."""
    cube = train_real(data, folder)
    run = [sys.executable, "-c", "from geomiam.cli import main; main()", "predict"]
    run += [str(folder / "model"), str(folder / "cube.zarr")]
    plan = subprocess.run([*run, "--plan"], capture_output=True, text=True, check=True).stdout
    start = time.perf_counter()
    command = [*run, "--out", str(folder / "map.zarr")]
    console_text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    seconds = time.perf_counter() - start
    written_map = xr.open_zarr(folder / "map.zarr", consolidated=False)
    with_data = cube[list(cube.data_vars)].to_array().notnull().any("variable")
    has_prediction = written_map["suitability"].notnull().any("species")
    return {
        "cells": int(with_data.size),
        "cells with data": int(with_data.sum()),
        "predicted exactly where there are data": bool((with_data == has_prediction).all()),
        "seconds from start to end": round(seconds, 1),
        "plan": plan.strip().splitlines(),
        "report": re.sub(r"→.*", "", console_text.strip()),
        "overview": overview(folder),
    }


def overview(folder: Path) -> dict:
    """Follow the recipe of docs/howto/large-maps.md: a GeoTIFF with overviews that a viewer opens at once."""
    import rasterio
    from rasterio.enums import Resampling

    start = time.perf_counter()
    written_map = xr.open_zarr(folder / "map.zarr", consolidated=False, decode_coords="all")
    layer, tif = written_map["suitability"].isel(species=0), folder / "map.tif"
    raster_options = {"tiled": True, "compress": "deflate", "windowed": True, "bigtiff": "if_safer"}
    layer.rio.to_raster(tif, **raster_options)
    with rasterio.open(tif, "r+") as raster:
        raster.build_overviews([2, 4, 8, 16], Resampling.average)
    write_seconds = time.perf_counter() - start
    with rasterio.open(tif) as raster:
        levels = raster.overviews(1)
        start = time.perf_counter()
        small = raster.read(1, out_shape=(raster.height // 16, raster.width // 16))
        read_seconds = time.perf_counter() - start
        levels_agree = np.array_equal(raster.read(1), layer.values, equal_nan=True)
    return {
        "levels": levels,
        "seconds to write": round(write_seconds, 2),
        "seconds to read the coarsest": round(read_seconds, 4),
        "finite cells of the coarsest": int(np.isfinite(small).sum()),
        "full level equals the map": bool(levels_agree),
    }


def draw(results: dict, path: Path) -> None:
    """Draw the seconds of each configuration, and memory against size."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    seconds = results["speed"]["seconds"]
    left.boxplot(list(seconds.values()), tick_labels=list(seconds), orientation="horizontal")
    left.set(
        xlabel="seconds", title=f"{results['speed']['cells']:,} cells, Zarr to Zarr", xlim=(0, None)
    )
    cells = [m["cells"] for m in results["memory"]]
    for name in ("promised", "measured"):
        right.plot(cells, [m[name] / 2**20 for m in results["memory"]], "o-", label=name)
    right.set(
        xscale="log", xlabel="cells of the map", ylabel="peak MiB", title="Memory", ylim=(0, None)
    )
    right.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def main(
    out: Json = Path("out/bench/maps.json"),
    figure: Figure = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder with human_footprint_europe.zarr, for a real map.")
    ] = None,
    chunk: Annotated[int, typer.Option(help="Cells along the side of a dask chunk.")] = 128,
    repeat: int = 3,
    layers: Annotated[
        int,
        typer.Option(
            help="Side of a map with every layer, such as 3200; nothing else is measured."
        ),
    ] = 0,
    memory_of_side: Annotated[int, typer.Option("--memory-of", hidden=True)] = 0,
    layers_of: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Measure maps from Zarr to Zarr: seconds against the bare model, workers, memory, and every layer at once."""
    torch.set_num_threads(1)
    if layers_of:
        folder_of_layers, _, name = layers_of.rpartition(":")
        print(json.dumps(write_one(Path(folder_of_layers), name)))
        return
    if layers:
        of_layers = every_layer(layers)
        write_json(out, of_layers)
        print(as_text(of_layers))
        return
    if memory_of_side:
        print(json.dumps(memory_of(memory_of_side)))
        return
    results: dict = {"cores": os.cpu_count(), "load at the start": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory() as folder:
        results["speed"] = speed(Path(folder), chunk=chunk, repeat=repeat)
        results["load after speed"] = os.getloadavg()[0]
        results["memory"] = memory((512, 1024, 1619, 3238))
        shutil.rmtree(folder)
        Path(folder).mkdir()
        results["real"] = real(data, Path(folder)) if data else None
    write_json(out, results)
    print(as_text(results))
    if figure:
        draw(results, figure)
