"""Mosaics: one dask task for each day and chunk of the grid, which reads the scenes under the chunk.

A task reads its scenes one after another and keeps the mosaic and one scene, so that neither its memory
nor the number of tasks grows with the scenes of a day. Parallel work is over days and chunks, of which
there are far more than threads. A task per file would only add tasks that wait for each other, since
all files under a chunk are needed for its mask. Where a cloud or an earlier scene hides a chunk, its
files are not read.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import dask.array as da
import numpy as np
from dask.highlevelgraph import HighLevelGraph
from odc.geo.geobox import GeoBox

from geomiam.data.grid.warp import WINDOW, tile_side, warp
from geomiam.sources.scenes.asset_reader import SceneFiles
from geomiam.sources.scenes.pixels import NAN, SceneSettings, combined
from geomiam.sources.scenes.windows import Cells, PlacedScene, Window, pixels_under

CHUNK = 1024
"""Most rows and columns of a chunk."""
COLUMN = 2**31
"""Most bytes of all dates of a chunk, which a median, or a store with all dates in one chunk, requires."""

Failures = frozenset[tuple[int, str]]


@dataclass(frozen=True, eq=False)
class Layer:
    """Scenes of one lattice under a chunk, latest processing first, and the cells that they touch."""

    scenes: tuple[SceneFiles, ...]
    cells: Cells  # of the chunk


@dataclass(frozen=True, eq=False)
class ChunkOfDay:
    """What the task of a day and chunk needs."""

    grid: GeoBox
    layers: tuple[Layer, ...]


def chunk_side(bands: int, dates: int) -> int:
    """Return the rows and columns of chunks of which so many dates are in memory together."""
    side = int((COLUMN / (4 * (bands + 1) * max(dates, 1))) ** 0.5)
    return min(CHUNK, max(16, side // 16 * 16))


def mosaics(
    days: Sequence[Sequence[Window]], grid: GeoBox, *, side: int, settings: SceneSettings
) -> tuple[list[Any], Any]:
    """Return each band and the clear share ``(day, y, x)``, and the number of failed files ``(day, asset)``.

    All are dask arrays; failed files are counted for each band and for the mask.
    """
    axes = [_pieces(n, side) for n in grid.shape.yx]
    boxes = {(i, j): grid[r, c] for i, r in enumerate(axes[0]) for j, c in enumerate(axes[1])}
    name, assets = f"scenes-{uuid.uuid4().hex}", settings.assets
    tasks: dict[Any, Any] = {}
    failures: dict[Any, Any] = {}
    for number, day in enumerate(days):
        of_day = _tasks(day, boxes, axes, settings=settings)
        tasks |= {(name, number, *at): task for at, task in of_day.items()}
        keys = [(name, number, *at) for at, task in of_day.items() if task[0] is not _empty]
        lost_counts = tuple(sum(b in p.scene.lost for w in day for p in w.scenes) for b in assets)
        failures[f"failed-{name}", number, 0] = (_count_failures, keys, assets, lost_counts)
    sizes = [tuple(s.stop - s.start for s in axis) for axis in axes]
    single = (1,) * len(days)
    graph: Any = HighLevelGraph.from_collections(name, tasks)
    results: Any = da.Array(graph, name, (single, *sizes), meta=np.empty((0, 0, 0), object))
    meta = np.empty((0, 0, 0), "float32")
    planes = [
        results.map_blocks(_plane, number=i, dtype="float32", meta=meta)
        for i in range(len(settings.bands) + 1)
    ]
    graph = HighLevelGraph.from_collections(f"failed-{name}", failures, dependencies=[results])
    return planes, da.Array(graph, f"failed-{name}", (single, (len(assets),)), dtype="int16")


def _tasks(
    day: Sequence[Window],
    boxes: Mapping[tuple[int, int], GeoBox],
    axes: Sequence[Sequence[slice]],
    *,
    settings: SceneSettings,
) -> dict[tuple[int, int], Any]:
    """Return the task of each chunk on one day."""
    layers = layers_of_chunks(day, axes, items=settings.loading.loader is not None)
    mosaic = partial(mosaic_chunk, settings=settings)
    tasks: dict[tuple[int, int], Any] = {}
    for at, box in boxes.items():
        if at in layers:
            tasks[at] = (mosaic, ChunkOfDay(box, tuple(layers[at])))
        else:
            tasks[at] = (_empty, len(settings.bands) + 1, *box.shape.yx)
    return tasks


def _pieces(size: int, side: int) -> list[slice]:
    return [slice(i, min(i + side, size)) for i in range(0, size, side)]


def layers_of_chunks(
    day: Sequence[Window], axes: Sequence[Sequence[slice]], *, items: bool
) -> dict[tuple[int, int], list[Layer]]:
    """Return the layers of each chunk of the grid with scenes of a day."""
    layers: dict[tuple[int, int], list[Layer]] = {}
    numbers = itertools.count()
    for window in day:
        scenes: dict[tuple[int, int], list[tuple[SceneFiles, Cells]]] = {}
        for placed_scene in window.scenes:
            files = files_of(placed_scene, next(numbers), items=items)
            for at, cells in _chunks_under(placed_scene, axes):
                scenes.setdefault(at, []).append((files, cells))
        for at, parts in scenes.items():
            layer = Layer(tuple(f for f, _ in parts), _hull([c for _, c in parts]))
            layers.setdefault(at, []).append(layer)
    return layers


def files_of(placed_scene: PlacedScene, number: int, *, items: bool) -> SceneFiles:
    """Return what a task needs of a scene; its item only for the loader of a user."""
    scene, place = placed_scene.scene, placed_scene.place
    files = {b: f for b, f in scene.files.items() if b not in scene.lost}
    scales = {b: (r.scale, r.offset) for b, r in scene.rules.items() if b in files}
    item = scene.item if items else None
    return SceneFiles(scene.id, number, place.box, place.overview, files, scales, item)


def _chunks_under(
    placed_scene: PlacedScene, axes: Sequence[Sequence[slice]]
) -> list[tuple[tuple[int, int], Cells]]:
    """Return the chunks that a scene touches, with the cells of each."""
    spans: list[list[tuple[int, slice]]] = []
    for cells, pieces in zip(placed_scene.place.cells, axes, strict=True):
        side = pieces[0].stop
        spans.append([])
        for i in range(cells.start // side, -(-cells.stop // side)):
            start = pieces[i].start
            low, high = max(cells.start, start), min(cells.stop, pieces[i].stop)
            spans[-1].append((i, slice(low - start, high - start)))
    return [((i, j), (r, c)) for (i, r), (j, c) in itertools.product(*spans)]


def _hull(parts: Sequence[Cells]) -> Cells:
    rows, cols = (
        slice(min(s.start for s in axis), max(s.stop for s in axis))
        for axis in zip(*parts, strict=True)
    )
    return rows, cols


# tasks ----------------------------------------------------------------------------------------------


def mosaic_chunk(chunk: ChunkOfDay, *, settings: SceneSettings) -> tuple[np.ndarray, Failures]:
    """Return the scenes of one day on a chunk ``(band + 1, y, x)``, and the files that failed.

    The last plane is the clear share of a cell.
    """
    best = np.full((len(settings.bands) + 1, *chunk.grid.shape), NAN, dtype="float32")
    failures: set[tuple[int, str]] = set()
    for layer in chunk.layers:
        planes, more_failures = _layer(layer, chunk.grid[layer.cells], settings)
        failures |= more_failures
        _add(best[(slice(None), *layer.cells)], planes)
    np.nan_to_num(best[-1], copy=False)
    return best, frozenset(failures)


def _add(best: np.ndarray, planes: np.ndarray) -> None:
    """Add a layer: where scenes of two UTM zones overlap, a cell has the values of the clearer scene."""
    clearer = planes[-1] > best[-1]
    first, second = np.where(clearer, planes, best), np.where(clearer, best, planes)
    best[...] = np.where(np.isnan(first), second, first)


def _layer(
    layer: Layer, grid: GeoBox, settings: SceneSettings
) -> tuple[np.ndarray, set[tuple[int, str]]]:
    """Return the scenes of one lattice on a part of the grid.

    Where many pixels are under a cell, they are read in tiles, so that memory is bounded.
    """
    lattice, overview = layer.scenes[0].box, layer.scenes[0].overview
    box, is_aligned = pixels_under(lattice, grid)
    if is_aligned:
        return combined(layer.scenes, box, settings)
    out = np.full((len(settings.bands) + 1, *grid.shape), NAN, dtype="float32")
    failures: set[tuple[int, str]] = set()
    side = tile_side(box, grid, window=WINDOW // overview)  # the mask is read at full resolution
    for rows, cols in itertools.product(*(_pieces(n, side) for n in grid.shape.yx)):
        tile = grid[rows, cols]
        box, _ = pixels_under(lattice, tile)
        planes, more_failures = combined(layer.scenes, box, settings)
        failures |= more_failures
        out[:, rows, cols] = _resampled(planes, box, tile, method=settings.resample)
    return out, failures


def _resampled(planes: np.ndarray, box: GeoBox, grid: GeoBox, *, method: str) -> np.ndarray:
    values = warp(planes[:-1], box, dst=grid, resampling=method, name="reflectance")
    clear = warp(planes[-1:], box, dst=grid, resampling="average", name="clear share")
    return np.concatenate([values, np.nan_to_num(clear)], axis=0)


def _empty(planes: int, height: int, width: int) -> tuple[np.ndarray, Failures]:
    """Return a chunk without scenes; all cells of a plane share their memory."""
    values = np.full((planes, 1, 1), NAN, dtype="float32")
    values[-1] = 0
    return np.broadcast_to(values, (planes, height, width)), frozenset()


def _plane(result: tuple[np.ndarray, Failures], *, number: int) -> np.ndarray:
    """Return one plane ``(1, y, x)``, a copy, so that the memory of the mosaic can be released."""
    return np.array(result[0][number : number + 1])


def _count_failures(
    results: Sequence[tuple[np.ndarray, Failures]], assets: Sequence[str], counts: Sequence[int]
) -> np.ndarray:
    """Return the failed files of a day by asset ``(1, asset)``, each once, added to those of the metadata."""
    pairs = frozenset().union(*(failures for _, failures in results))
    totals = [n + sum(band == asset for _, band in pairs) for asset, n in zip(assets, counts)]
    return np.array([totals], dtype="int16")
