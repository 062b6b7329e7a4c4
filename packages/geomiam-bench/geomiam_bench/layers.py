"""Maps with every layer at once on many cells: memory against the promise, windows by other chunks, and three routes.

    geomiam-bench maps --layers 3200 --json out/bench/layers.json

A cube of side × side cells has nine predictors in four groups with gaps as they occur: the sea has no predictor, a soil map
ends at a border, a satellite has clouds, a terrain model ends in the north. One map has suitability, spread, prediction sets, novelty and the
value of information; another has Shapley values and interactions of two groups with their spread. Each is written by one thread in a
separate process, whose peak memory is compared with the plan. Then windows across the borders of blocks are computed in memory, by other chunks,
and with a group that is hidden: set to NaN, left out by ``using=``, and infinite below ``using=``, which hides its tokens in the network.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import odc.geo.xr  # noqa: F401
import xarray as xr

import geomiam as gm
from geomiam.explain.contributions import observed_groups
from geomiam.maps.memory import peak_memory
from geomiam.maps.write import make_map
from geomiam_bench.processes import output_of

MODALITIES = {
    "climate": ("bio1", "bio12", "bio15"),
    "soil": ("clay", "ph"),
    "satellite": ("ndvi", "moisture"),
    "terrain": ("slope", "roughness"),
}
WAVES = 10
"""Waves whose sum is a predictor; their lengths are 20 to 2000 cells."""
CHUNK = 400
"""Cells along the side of a block."""
WINDOWS = 5
SIDE = 45
"""Cells along the side of a window."""
SITES = 600
NEIGHBOURS = 10
MAPS = {"sets": False, "interactions": True}
"""Maps by name, and whether they have Shapley values; these exclude prediction sets."""
HIDDEN = "soil"
"""Group that the three routes hide."""


def waves(block: np.ndarray, seed: int = 0, block_info: Any = None) -> np.ndarray:
    """Return a smooth random field of mean 0 and variance 1 at the positions of a chunk ``(rows, columns)``."""
    (top, bottom), (left, right) = block_info[None]["array-location"]
    y, x = np.arange(top, bottom)[:, None], np.arange(left, right)[None]
    rng = np.random.default_rng(seed)
    field = np.zeros(block.shape)
    for length in np.geomspace(20, 2000, WAVES):
        angle, phase = rng.uniform(0, 2 * np.pi, 2)
        a = 2 * np.pi / length * np.sin(angle) * y + phase
        b = 2 * np.pi / length * np.cos(angle) * x
        field += np.sin(a) * np.cos(b) + np.cos(a) * np.sin(b)
    result: np.ndarray = (field * (2 / WAVES) ** 0.5).astype("f4")
    return result


def field(side: int, seed: int) -> da.Array:
    """Return a lazy field ``(side, side)`` that does not depend on its chunks."""
    zeros = da.zeros((side, side), chunks=CHUNK, dtype="f4")
    return da.map_blocks(waves, zeros, seed=seed, dtype="f4", meta=zeros._meta)


def make_cube(side: int) -> xr.Dataset:
    """Return the lazy cube; about a third of the cells are sea."""
    place = {"y": 70 - 0.01 * np.arange(side), "x": 5 + 0.01 * np.arange(side)}
    land = field(side, 100) > -0.4
    north = da.from_array(place["y"][:, None] > np.quantile(place["y"], 0.85), chunks=(CHUNK, 1))
    gaps = {
        "climate": field(side, 101) > 9,
        "soil": field(side, 102) > 0.6,
        "satellite": field(side, 103) > 0.8,
        "terrain": north,
    }
    layers = {}
    for m, (modality, names) in enumerate(MODALITIES.items()):
        is_observed = land & ~gaps[modality]
        for v, name in enumerate(names):
            values = da.where(is_observed, field(side, 10 * m + v), np.nan).astype("f4")
            layers[name] = (("y", "x"), values.rechunk(CHUNK), {"modality": modality})
    return xr.Dataset(layers, coords=place).odc.assign_crs("EPSG:4326")


def make_model(cube: xr.Dataset) -> gm.Model:
    """Return an ensemble of two members that is fitted and calibrated on random cells; two of three species are one-sided."""
    rng = np.random.default_rng(0)
    rows, columns = rng.integers(0, [[cube.sizes["y"]], [cube.sizes["x"]]], (2, 4 * SITES))
    at = {"y": xr.DataArray(rows, dims="site"), "x": xr.DataArray(columns, dims="site")}
    sites = cube.isel(at).compute()
    has_data = sites.to_dataarray().notnull().any("variable").values
    sites = sites.isel(site=np.flatnonzero(has_data)[: 2 * SITES])
    z = {n: sites[n].fillna(0).values for n in sites.data_vars}
    scores = np.stack(
        [z["bio1"] + z["clay"] * z["ndvi"], z["bio12"] - z["slope"] - 1, z["ph"] + z["bio15"] - 1],
        1,
    )
    labels = (rng.random(scores.shape) < 1 / (1 + np.exp(-2 * scores))).astype("f4")
    sites["presence"] = (("site", "species"), labels)
    sites = sites.assign_coords(species=["oak", "beech", "pine"])
    model = gm.fit(
        sites.isel(site=slice(SITES)),
        network={"fusion": "sum+linear", "members": 2, "width": 16},
        training={"steps": 200},
        validation=False,
        rng=0,
    )
    return gm.calibrate(model, sites.isel(site=slice(SITES, None)))


def options_of(name: str) -> gm.MapOptions:
    """Return the options of a map."""
    if MAPS[name]:
        return gm.MapOptions(order=2, spread=True)
    value = gm.ValueOptions(neighbours=NEIGHBOURS)
    return gm.MapOptions(spread=True, interval=0.9, novelty=True, value_of_information=value)


def write_one(folder: Path, name: str) -> dict[str, Any]:
    """Write one map, and return its size, seconds, and the promised and measured peak memory; run it in a separate process."""
    cube, model = gm.open_cube(folder / "cube.zarr"), gm.load_model(folder / "model")
    arguments: dict[str, Any] = {"shapley": MAPS[name], "options": options_of(name)}
    with dask.config.set(scheduler="threads", num_workers=1):
        plan = gm.plan_map(cube, model, **arguments)
        start = time.process_time()
        report = make_map(cube, model, folder / f"{name}.zarr", progress=False, **arguments)
    return {
        "map": name,
        "cells": plan.cells,
        "predicted": report.cells,
        "blocks": report.blocks,
        "bytes": plan.bytes_of_map,
        "cpu_seconds": round(time.process_time() - start, 1),
        "planned_seconds": round(plan.seconds, 1),
        "promised": plan.peak_per_worker,
        "measured": peak_memory(),
    }


def computed(
    part: xr.Dataset, model: gm.Model, name: str, *, groups: list[str] | None = None, **using: Any
) -> xr.Dataset:
    """Return the layers of a map by the functions that compute them; ``groups`` are those of the value of information."""
    options = options_of(name)
    if MAPS[name]:
        explanation = gm.shapley(part, model, order=2, spread=True, **using)
        return explanation.assign(
            observed=observed_groups(explanation)
        )  # by name, since bits number the groups in use
    maps = gm.predict(part, model, spread=True, interval=options.interval, **using)
    value_options = options.value_of_information
    value = gm.value_of_information(part, model, groups=groups, options=value_options, **using)
    return maps.assign(gm.novelty(part, model, **using).data_vars).assign(value.data_vars)


def windows_of(cube: xr.Dataset) -> Iterator[dict[str, slice]]:
    """Yield windows with land, each over the corner of four blocks."""
    rng = np.random.default_rng(1)
    corners = np.arange(CHUNK, cube.sizes["y"], CHUNK)
    count = 0
    while count < WINDOWS:
        row, column = rng.choice(corners, 2) - rng.integers(5, SIDE - 5, 2)
        window = {"y": slice(row, row + SIDE), "x": slice(column, column + SIDE)}
        if float(cube["bio1"].isel(window).notnull().mean()) > 0.3:
            count += 1
            yield window


def compare(folder: Path) -> dict[str, Any]:
    """Return the largest differences of each layer in windows: of the map, of other chunks, and between three routes."""
    cube, model = gm.open_cube(folder / "cube.zarr"), gm.load_model(folder / "model")
    differences: dict[str, dict[str, float]] = {}
    for name in MAPS:
        written_map = gm.open_cube(folder / f"{name}.zarr")
        if MAPS[name]:
            written_map = written_map.assign(observed=observed_groups(written_map))
        for window in windows_of(cube):
            part = cube.isel(window).compute()
            in_memory = computed(part, model, name)
            hidden = {v: part[v] * np.nan for v in MODALITIES[HIDDEN]}
            other_groups = [m for m in MODALITIES if m != HIDDEN]
            as_nan = computed(part.assign(hidden), model, name, groups=other_groups)
            as_inf = {v: part[v] * np.nan + np.inf for v in MODALITIES[HIDDEN]}
            routes = {
                "map": (written_map.isel(window).compute(), in_memory),
                "chunks": (computed(part.chunk(y=17, x=23), model, name).compute(), in_memory),
                "using": (
                    computed(part, model, name, using=other_groups, groups=other_groups),
                    as_nan,
                ),
                "inf": (
                    computed(
                        part.assign(as_inf), model, name, using=other_groups, groups=other_groups
                    ),
                    as_nan,
                ),
            }
            for route, (first, second) in routes.items():
                for layer, size in largest(first, second).items():
                    of_layer = differences.setdefault(f"{name}: {layer}", {})
                    of_layer[route] = max(size, of_layer.get(route, 0.0))
    settings = {"windows": WINDOWS, "side_of_window": SIDE, "hidden": HIDDEN}
    return {**settings, "largest": differences}


def largest(first: xr.Dataset, second: xr.Dataset) -> dict[str, float]:
    """Return the largest absolute difference of each layer; infinite where only one has a value.

    A group that ``using=`` leaves out has no layer; where it is set to NaN, it has one without effect.
    """
    out = {}
    for layer in (
        str(n) for n in second.data_vars if n in first and {"y", "x"} <= set(second[n].dims)
    ):
        a, b = xr.align(first[layer], second[layer], join="inner", exclude=["y", "x"])
        x, y = (array.transpose(*b.dims).values.astype(float) for array in (a, b))
        has_both = np.isfinite(x) & np.isfinite(y)
        same_gaps = np.array_equal(np.isfinite(x), np.isfinite(y))
        out[layer] = float(np.abs(x - y)[has_both].max(initial=0.0)) if same_gaps else np.inf
    return out


def every_layer(side: int) -> dict[str, Any]:
    """Return memory and differences of maps of side × side cells."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        start = time.process_time()
        with dask.config.set(num_workers=1):
            cube = gm.open_cube(
                gm.write_cube(make_cube(side), folder / "cube.zarr", progress=False)
            )
            make_model(cube).save(folder / "model")
        print(
            f"the cube and the model took {time.process_time() - start:.0f} CPU seconds", flush=True
        )
        runs = []
        for name in MAPS:
            runs.append(output_of("-m", "geomiam_bench", "maps", "--layers-of", f"{folder}:{name}"))
            print(runs[-1], flush=True)
        return {
            "side": side,
            "chunk": CHUNK,
            "neighbours": NEIGHBOURS,
            "runs": runs,
            **compare(folder),
        }
