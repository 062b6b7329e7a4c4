"""The graphs of every lazy call: tasks, planning seconds and memory against the cells of a map.

    geomiam-bench graphs --json out/bench/graphs.json --figure out/bench/graphs.png

No pixel is read. Cubes are lazy zeros, GeoTIFFs are sparse files, and scenes are items without files. Seconds are
CPU time of the second of two calls. Memory is what Python holds for the lazy result. A slope is that of
the logarithms, 1 for linear growth.
"""

from __future__ import annotations

import tempfile
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import dask.array as da
import numpy as np
import odc.geo.xr  # noqa: F401
import rasterio
import typer
import xarray as xr
import yaml
from affine import Affine
from odc.geo.geobox import GeoBox

import geomiam as gm
from geomiam_bench import planning
from geomiam_bench.options import Figure, Json
from geomiam_bench.results import as_text, write_json

CHUNK = 1024
VARIABLES = [f"v{i}" for i in range(8)]
SIDES = (1_000, 3_162, 10_000, 31_623)
"""Cells along y and x of a map: 10⁶ to 10⁹ cells."""
SCENES = ((1, 100), (1, 30), (1, 10), (3, 10))
"""Tiles along y and x of a day of Sentinel-2, and metres of a cell: 10⁶ to 10⁹ cells."""
Call = Callable[[], xr.Dataset]


def small_model() -> gm.Model:
    """Return a model with two members and reference sites, trained for a moment."""
    rng = np.random.default_rng(0)
    layers = {
        v: ("site", rng.normal(size=200), {"modality": f"m{i // 2}"})
        for i, v in enumerate(VARIABLES)
    }
    labels = ("site", "species"), rng.integers(0, 2, (200, 2)).astype("f4")
    place = {"x": ("site", rng.uniform(5, 9, 200)), "y": ("site", rng.uniform(50, 54, 200))}
    sites = xr.Dataset(layers, {**place, "species": ["a", "b"]}, {"crs": "EPSG:4326"})
    network = {"fusion": "group+sum", "members": 2, "width": 16}
    training = {"steps": 5}
    sites = sites.assign(presence=labels).astype("f4")
    return gm.fit(sites, network=network, training=training, validation=False, progress=False)


def lazy_cube(side: int) -> xr.Dataset:
    """Return a cube of side × side zeros."""
    layer = da.zeros((side, side), chunks=CHUNK, dtype="f4")
    place = {"y": 60 - 1e-4 * np.arange(side), "x": 5 + 1e-4 * np.arange(side)}
    layers = {v: (("y", "x"), layer, {"modality": f"m{i // 2}"}) for i, v in enumerate(VARIABLES)}
    return xr.Dataset(layers, coords=place).odc.assign_crs("EPSG:4326")


def sparse_rasters(folder: Path, side: int) -> tuple[Path, GeoBox]:
    """Write GeoTIFFs without tiles and a catalog of them; return it and the grid, of the same cells."""
    transform = Affine(100, 0, 2_000_000, 0, -100, 5_000_000)
    options = {"tiled": True, "blockxsize": 512, "blockysize": 512, "sparse_ok": True}
    place = {"width": side, "height": side, "crs": "EPSG:3035", "transform": transform}
    folder.mkdir()
    for name in VARIABLES:
        kind = {"count": 1, "dtype": "float32", "nodata": -9999}
        with rasterio.open(folder / f"{name}.tif", "w", driver="GTiff", **place, **kind, **options):
            pass
    modality = {"from": "files", "variables": {v: {} for v in VARIABLES}}
    text = {
        "name": "sparse",
        "sources": {"files": {"path": "{variable}.tif"}},
        "modalities": {"m": modality},
    }
    path = folder / "catalog.yaml"
    path.write_text(yaml.safe_dump(text, sort_keys=False), encoding="utf-8")
    return path, GeoBox((side, side), transform, "EPSG:3035")


def calls(folder: Path, sides: Sequence[int], scenes: Sequence[tuple[int, int]]) -> Iterator[Any]:
    """Yield the name of each lazy call, its cells, and the call."""
    model = small_model()
    build = gm.sources.BuildOptions(chunks={"y": CHUNK, "x": CHUNK})
    for side in sides:
        cube = lazy_cube(side)
        catalog, grid = sparse_rasters(folder / str(side), side)
        by_name: dict[str, Call] = {
            "predict": partial(gm.predict, cube, model),
            "predict, spread": partial(gm.predict, cube, model, spread=True),
            "shapley": partial(gm.shapley, cube, model),
            "novelty": partial(gm.novelty, cube, model),
            "build_cube": partial(gm.build_cube, catalog, grid, options=build),
        }
        yield from ((name, side**2, call) for name, call in by_name.items())
    for tiles, size in scenes:
        items = planning.items(tiles, 1)
        cells = planning.grid_of(tiles, size).shape.x ** 2
        yield "sentinel2", cells, partial(planning.read, tiles, items, size)


def cost(call: Call) -> dict[str, Any]:
    """Return tasks, blocks, CPU seconds and bytes of a lazy call."""
    call()  # imports and caches are not planning
    ds, seconds = planning.timed(call)
    tracemalloc.start()
    result = call()
    held_bytes = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    lazy = ds[[n for n, v in ds.data_vars.items() if v.chunks]]  # base values are computed
    layer = max(result.data_vars.values(), key=lambda v: v.ndim)
    blocks = len(layer.chunksizes["y"]) * len(layer.chunksizes["x"])
    return {
        "blocks": blocks,
        "tasks": planning.tasks(lazy),
        "seconds": round(seconds, 4),
        "bytes": held_bytes,
    }


def run(sides: Sequence[int] = SIDES, scenes: Sequence[tuple[int, int]] = SCENES) -> dict[str, Any]:
    """Return the costs of every call at every size, and the slopes on cells."""
    rows: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, cells, call in calls(Path(folder), sides, scenes):
            rows.setdefault(name, []).append({"cells": cells, **cost(call)})
    slopes = {
        name: {y: planning.slope(of_call, "cells", y) for y in ("tasks", "seconds", "bytes")}
        for name, of_call in rows.items()
    }
    return {"chunk": CHUNK, "variables": len(VARIABLES), "calls": rows, "slopes": slopes}


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw tasks, seconds and memory of each call against cells."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
    titles = {"tasks": "Tasks", "seconds": "CPU seconds of planning", "bytes": "MiB of the graph"}
    for ax, (quantity, title) in zip(axes, titles.items()):
        for (name, rows), marker in zip(results["calls"].items(), "osv^Dx"):
            factor = 2**-20 if quantity == "bytes" else 1
            values = [row[quantity] * factor for row in rows]
            ax.plot([row["cells"] for row in rows], values, f"{marker}-", label=name, ms=4)
        ax.set(xscale="log", yscale="log", xlabel="cells", title=title)
    axes[0].legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes only.")] = False,
    out: Json = Path("out/bench/graphs.json"),
    figure: Figure = None,
) -> None:
    """Count the tasks, seconds and bytes of the graph of every lazy call against cells."""
    results = run((100, 300), ((1, 1000), (1, 500))) if quick else run()
    write_json(out, results)
    print(as_text(results))
    if figure:
        draw(results, figure)
