"""The cost of planning: tasks and seconds against Sentinel-2 scenes of a day, items, links of static STAC catalogs, and
cells of a lazy map.

    geomiam-bench planning --json out/bench/planning.json

No pixel is read: the items have the size and the metadata of Sentinel-2 tiles, but no files. odc-stac plans
the same load in the same chunks for comparison. Seconds are CPU time, since other work may share the machine;
a slope is that of log seconds or log tasks on log size, 1 for linear growth.
"""

from __future__ import annotations

import datetime as dt
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import dask.array as da
import numpy as np
import odc.geo.xr  # noqa: F401
import typer
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Transformer

import geomiam as gm
from geomiam.maps.memory import peak_memory
from geomiam.sources.scenes.mosaic import CHUNK
from geomiam_bench.options import Json
from geomiam_bench.results import as_text, write_json
from geomiam_bench.shapley import make

BANDS = ("blue", "green", "red", "nir", "swir16", "swir22")
ASSETS = {
    **{"coastal": 60, "blue": 10, "green": 10, "red": 10, "rededge1": 20, "rededge2": 20},
    **{"rededge3": 20, "nir": 10, "nir08": 20, "nir09": 60, "swir16": 20, "swir22": 20, "scl": 20},
}
"""Metres of a pixel by asset, of all assets of an item that are rasters."""
WIDTH, STEP = 109_800, 99_960
"""Metres of a tile, and from one tile to the next."""
CORNER, CRS = (300_000, 5_600_040), "EPSG:32631"
START = dt.date(2020, 1, 1)
SIDES = (1, 2, 3, 5)
DATES = (4, 40, 400, 4000)
CELLS = (10**6, 10**7, 10**8, 10**9)
LINKS = (1000, 10_000, 100_000)
COUNTRY = (5, 146)
"""Tiles along each side of a country, and dates of a year."""


def item(col: int, row: int, day: dt.date) -> dict[str, Any]:
    """Return an item of a tile, without files."""
    left, top = CORNER[0] + col * STEP, CORNER[1] - row * STEP
    to_degrees = Transformer.from_crs(CRS, "EPSG:4326", always_xy=True)
    lon, lat = to_degrees.transform([left, left + WIDTH], [top - WIDTH, top])
    west, south, east, north = min(lon), min(lat), max(lon), max(lat)
    name = f"S2B_T31U{chr(65 + col)}{chr(65 + row)}_{day:%Y%m%d}T105031_L2A"
    root = f"https://e84-earth-search-sentinel-data.s3.us-west-2.amazonaws.com/{name}"
    assets = {
        key: {
            "href": f"{root}/{key}.tif",
            "type": "image/tiff; application=geotiff; profile=cloud-optimized",
            "gsd": size,
            "eo:bands": [{"name": key, "common_name": key}],
            "proj:shape": [WIDTH // size] * 2,
            "proj:transform": [size, 0, left, 0, -size, top],
            "raster:bands": [{"nodata": 0, "data_type": "uint16", "scale": 1e-4, "offset": -0.1}],
        }
        for key, size in ASSETS.items()
    }
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    extensions = ("projection/v1.1.0", "eo/v1.1.0", "raster/v1.1.0")
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [
            f"https://stac-extensions.github.io/{x}/schema.json" for x in extensions
        ],
        "id": name,
        "collection": "sentinel-2-c1-l2a",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": [west, south, east, north],
        "properties": {
            "datetime": f"{day}T10:50:31.024Z",
            "created": f"{day}T18:00:00Z",
            "proj:epsg": 32631,
            "eo:cloud_cover": 30.0,
            "s2:processing_baseline": "05.11",
            "s2:generation_time": f"{day}T16:00:00Z",
            "s2:high_proba_clouds_percentage": 20.0,
        },
        "links": [],
        "assets": assets,
    }


def stream(side: int, dates: int) -> Iterator[dict[str, Any]]:
    """Yield the items of a square of tiles, every second day."""
    for number in range(dates):
        day = START + dt.timedelta(days=2 * number)
        yield from (item(c, r, day) for r in range(side) for c in range(side))


def items(side: int, dates: int) -> list[dict[str, Any]]:
    """Return the items of a square of tiles, every second day."""
    return list(stream(side, dates))


def grid_of(side: int, size: int) -> GeoBox:
    """Return the grid of a square of tiles with cells of some metres."""
    n = (WIDTH + (side - 1) * STEP) // size
    return GeoBox((n, n), Affine(size, 0, CORNER[0], 0, -size, CORNER[1]), CRS)


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """Return the result of a call, and its CPU seconds."""
    start = time.process_time()
    result = call()
    return result, time.process_time() - start


def tasks(ds: xr.Dataset) -> int:
    """Return the number of tasks of the variables of a Dataset, each counted once."""
    graphs = [v.data.__dask_graph__() for v in ds.data_vars.values()]
    return len(set().union(*(g.keys() for g in graphs)))


def read(side: int, scenes: list[dict[str, Any]], size: int, composite: str | None = None) -> Any:
    """Return Sentinel-2 on the grid of a square of tiles, lazily."""
    grid = grid_of(side, size)
    return gm.sentinel2(
        grid, "2020", bands=BANDS, source=scenes, composite=composite, progress=False
    )


def by_odc(side: int, scenes: list[dict[str, Any]], size: int) -> Any:
    """Return the same bands and the scene classification by odc-stac, lazily, without masks."""
    import odc.stac
    import pystac

    return odc.stac.load(
        [pystac.Item.from_dict(i) for i in scenes],
        bands=[*BANDS, "scl"],
        geobox=grid_of(side, size),
        chunks={"x": CHUNK, "y": CHUNK},
        groupby="solar_day",
    )


def of_tiles(sides: Sequence[int]) -> list[dict[str, Any]]:
    """Return tasks and seconds against the tiles of one day, on cells of 10 m."""
    rows = []
    for side in sides:
        scenes = items(side, 1)
        ds, seconds = timed(partial(read, side, scenes, 10))
        odc, odc_seconds = timed(partial(by_odc, side, scenes, 10))
        row = {"tiles": side**2, "tasks": tasks(ds), "seconds": seconds}
        rows.append({**row, "odc_tasks": tasks(odc), "odc_seconds": odc_seconds})
    return rows


def of_items(dates: Sequence[int]) -> list[dict[str, Any]]:
    """Return the seconds and memory of a plan against its items, of 25 tiles on cells of 100 m.

    Items are made while they are read, as those of a search are, and the seconds of making them are
    subtracted. Memory is the growth of the largest resident memory of the process, of ascending sizes.
    """
    rows = []
    for count in dates:
        _, making = timed(partial(deque, stream(5, count), maxlen=0))
        settings: Any = {"bands": BANDS, "source": stream(5, count), "progress": False}
        grid: Any = grid_of(5, 100)
        before = peak_memory()
        plan, seconds = timed(partial(gm.plan_sentinel2, grid, ("2020", "2045"), **settings))
        row = {"items": len(plan.scenes), "seconds": seconds - making}
        row["ms_per_item"] = 1000 * row["seconds"] / row["items"]
        rows.append({**row, "megabytes": (peak_memory() - before) / 1e6})
        del plan
    return rows


def of_cells(counts: Sequence[int]) -> list[dict[str, Any]]:
    """Return tasks and seconds of a lazy prediction against cells, in chunks of 1,024 × 1,024."""
    model, _ = make("group", groups=4, tokens=8, width=32, species=2)
    rows = []
    for cells in counts:
        n = round(cells**0.5)
        layer = da.zeros((n, n), chunks=CHUNK, dtype="f4")
        place = {"y": 60 - 1e-4 * np.arange(n), "x": 5 + 1e-4 * np.arange(n)}
        layers = {str(v): (("y", "x"), layer) for v in model.schema.variables}
        cube = xr.Dataset(layers, coords=place).odc.assign_crs("EPSG:4326")
        maps, seconds = timed(partial(gm.predict, cube, model))
        rows.append({"cells": n * n, "tasks": tasks(maps), "seconds": seconds})
    return rows


def of_country(side: int, dates: int) -> dict[str, Any]:
    """Return the cost of one call for a year over a country: monthly medians on cells of 20 m."""
    scenes = items(side, dates)
    ds, seconds = timed(partial(read, side, scenes, 20, "1MS"))
    size = {"tiles": side**2, "dates": dates, "cells": grid_of(side, 20).shape.x ** 2}
    return {**size, "tasks": tasks(ds), "seconds": seconds}


def slope(rows: Sequence[dict[str, Any]], x: str, y: str) -> float:
    """Return the slope of the logarithms."""
    sizes, costs = (np.log([row[k] for row in rows]) for k in (x, y))
    return round(float(np.polyfit(sizes, costs, 1)[0]), 3)


def run(
    sides: Sequence[int] = SIDES,
    dates: Sequence[int] = DATES,
    cells: Sequence[int] = CELLS,
    country: tuple[int, int] = COUNTRY,
    links: Sequence[int] = LINKS,
) -> dict[str, Any]:
    """Return tasks and seconds against tiles, items, cells and links of static catalogs, with slopes."""
    from geomiam_bench import static_catalogs

    read(1, items(1, 1), 100)  # imports are not planning
    by_odc(1, items(1, 1), 100)
    results = {"tiles": of_tiles(sides), "items": of_items(dates), "cells": of_cells(cells)}
    pairs = [("tiles", "tasks"), ("tiles", "odc_tasks"), ("items", "seconds"), ("cells", "tasks")]
    slopes = {f"{y} on {x}": slope(results[x], x, y) for x, y in pairs}
    single_rows = {"country": of_country(*country), "static": static_catalogs.run(links)}
    return {"bands": len(BANDS), **results, **single_rows, "slopes": slopes}


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes only.")] = False,
    out: Json = Path("out/bench/planning.json"),
) -> None:
    """Count the tasks and seconds of plans against scenes, items, links of static catalogs and cells."""
    small: Any = ((1, 2), (1, 2), (10**6, 4 * 10**6), (1, 3), (100, 1000))
    results = run(*small) if quick else run()
    write_json(out, results)
    print(as_text(results))
