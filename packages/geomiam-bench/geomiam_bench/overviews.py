"""Bytes, CPU time and values of coarse cells that are read from overviews, beside those at full resolution.

    geomiam-bench overviews --json out/bench/overviews.json

One scene of Sentinel-2 with made-up surfaces and clouds is written as GeoTIFFs with averaged overviews, and
read onto coarse grids. Bytes are those that the process reads from files (Linux).
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import rasterio
import typer
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from scipy.ndimage import gaussian_filter

import geomiam as gm
from geomiam_bench.options import Json
from geomiam_bench.planning import CORNER, CRS, START, item
from geomiam_bench.results import as_text, write_json

SIDE = 4096
"""Pixels of 10 m along the scene."""
SIZES = {"red": 10, "nir": 10, "swir16": 20, "scl": 20}
CELLS = (100, 1000)
"""Metres."""
CLOUDS, WIDTH = 0.2, 60
"""Share of clouds, and the pixels of 10 m over which they vary."""
FACTORS = (2, 4, 8, 16, 32, 64)


def field(side: int, width: float, rng: np.random.Generator) -> np.ndarray:
    """Return a smooth random field with a standard deviation of 1."""
    noise = gaussian_filter(rng.normal(size=(side, side)).astype("float32"), width, mode="wrap")
    return noise / noise.std()


def surfaces(side: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return digital numbers of bands and the scene classification, all in their own pixels."""
    clouds = field(side // 2, WIDTH / 2, rng)
    values = {"scl": np.where(clouds > np.quantile(clouds, 1 - CLOUDS), 9, 4).astype("uint8")}
    for band in ("red", "nir", "swir16"):
        n = side * 10 // SIZES[band]
        ground = 0.2 + 0.05 * field(n, 20, rng) + 0.03 * rng.normal(size=(n, n))
        cloud = values["scl"].repeat(n * 2 // side, 0).repeat(n * 2 // side, 1) == 9
        reflectance = np.where(cloud, 0.8, ground.clip(0.01, 0.6))
        values[band] = np.round(reflectance * 1e4 + 1000).astype("uint16")
    return values


def write_scene(folder: Path, side: int) -> dict[str, Any]:
    """Write the files of a scene, and return its item."""
    scene = item(0, 0, START)
    scene["assets"] = {k: a for k, a in scene["assets"].items() if k in SIZES}
    for key, values in surfaces(side, np.random.default_rng(0)).items():
        size = SIZES[key]
        place = Affine(size, 0, CORNER[0], 0, -size, CORNER[1])
        path = folder / f"{key}.tif"
        profile = {"driver": "GTiff", "count": 1, "dtype": values.dtype, "nodata": 0, "tiled": True}
        blocks = {"blockxsize": 512, "blockysize": 512, "compress": "deflate", "predictor": 2}
        n = len(values)
        with rasterio.open(
            path, "w", **profile, **blocks, height=n, width=n, crs=CRS, transform=place
        ) as file:
            file.write(values, 1)
            method = Resampling.nearest if key == "scl" else Resampling.average
            file.build_overviews(FACTORS, method)
        scene["assets"][key] |= {
            "href": str(path), "proj:shape": [n, n], "proj:transform": list(place)[:6],
        }  # fmt: skip
    return scene


def read(scene: dict[str, Any], cell: int, side: int, **settings: Any) -> dict[str, Any]:
    """Read the scene onto cells of some metres; return values, clear shares, bytes and CPU seconds."""
    n = side * 10 // cell
    grid = GeoBox((n, n), Affine(cell, 0, CORNER[0], 0, -cell, CORNER[1]), CRS)
    bands = [b for b in SIZES if b != "scl"]
    options = gm.sources.SceneOptions(**settings)
    ds = gm.sentinel2(grid, "2020", bands=bands, source=[scene], options=options, progress=False)
    process = psutil.Process()
    before, start = process.io_counters().read_chars, time.process_time()
    ds = ds.compute(scheduler="synchronous")
    seconds = time.process_time() - start
    megabytes = (process.io_counters().read_chars - before) / 1e6
    values = np.stack([ds[b][0].values for b in bands])
    return {
        "values": values,
        "megabytes": megabytes,
        "seconds": seconds,
        "notes": ds.attrs["notes"],
    }


def compared(scene: dict[str, Any], cell: int, side: int, mask: str | None) -> dict[str, Any]:
    """Return the costs and values of one grid, at full resolution and from overviews."""
    full = read(scene, cell, side, mask=mask)
    coarse = read(scene, cell, side, mask=mask, overviews=True)
    first, second = full["values"], coarse["values"]
    difference = (first - second)[np.isfinite(first) & np.isfinite(second)]
    return {
        "cell": cell,
        "mask": mask,
        "notes": coarse["notes"],
        **{k: {"full": full[k], "overviews": coarse[k]} for k in ("megabytes", "seconds")},
        "cells_with_data": {"full": np.isfinite(first[0]).mean(), "overviews": np.isfinite(second[0]).mean()},
        "rmse": float(np.sqrt(np.mean(difference**2))),
        "largest_difference": float(np.abs(difference).max()),
        "spread_of_cells": float(np.nanstd(first[0])),
    }  # fmt: skip


def run(side: int = SIDE) -> dict[str, Any]:
    """Return the costs and values of all grids."""
    with tempfile.TemporaryDirectory() as folder:
        scene = write_scene(Path(folder), side)
        read(scene, 1000, side)  # imports are no reading
        rows = [compared(scene, c, side, mask) for mask in ("auto", None) for c in CELLS]
    return {"pixels": side, "clouds": CLOUDS, "bands": len(SIZES) - 1, "rows": rows}


def main(
    quick: Annotated[bool, typer.Option("--quick", help="A small scene only.")] = False,
    out: Json = Path("out/bench/overviews.json"),
) -> None:
    """Measure what overviews save where cells are coarse, and by how much values differ."""
    results = run(1024) if quick else run()
    write_json(out, results)
    print(as_text(results))
