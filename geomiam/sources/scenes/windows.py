"""Windows: the scenes of one day on one lattice, and the cells of the grid under each of them.

Scenes are read and masked on their lattice, then resampled to the grid. A lattice is a CRS, a pixel
size and the position of the pixel corners. All tiles of one UTM zone have the same lattice, so that
they are combined pixel by pixel.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from odc.geo.geobox import GeoBox

from geomiam.data.grid.grid import same_grid
from geomiam.data.grid.source_windows import sample
from geomiam.geo.longitude import unwrapped
from geomiam.sources.scenes.overviews import COARSE, COARSEST, coarser
from geomiam.sources.scenes.scene import Scene
from geomiam.sources.scenes.scene_grid import key_of
from geomiam.sources.stac.extent import extent_of_grid, to_degrees, wrapped

Cells = tuple[slice, slice]
CELLS = 1
"""Cells of the grid around a scene that are included, so that the clear share is correct at its edge."""
KERNEL = 8
"""Pixels around a window; the widest kernel of resampling (lanczos) reaches three."""


@dataclass(frozen=True, eq=False)
class Place:
    """The place of a scene's grid: it is computed once for all scenes of a tile."""

    box: GeoBox  # of the overview that is read
    overview: int  # pixels along a pixel of the overview; 1 for full resolution
    cells: Cells  # rows and columns of the grid that the scene touches
    lattice: tuple[Any, ...]
    longitude: float  # of its centre
    area: float  # under the grid, in units of its CRS


@dataclass(frozen=True, eq=False)
class PlacedScene:
    """A scene and its place."""

    scene: Scene
    place: Place


@dataclass(frozen=True, eq=False)
class Window:
    """Scenes of one day on one lattice, latest processing first."""

    day: str
    part: str  # of the day: the label that separates its scenes, such as the orbit; or empty
    scenes: tuple[PlacedScene, ...]


def windows(
    scenes: Iterable[Scene], grid: GeoBox, *, split: str = "", overview: int = 1
) -> list[Window]:
    """Return windows by day and lattice, and by the label ``split``, in order of time.

    ``overview`` is the largest number of pixels along a pixel of an overview. Scenes without a grid, or that do not overlap the grid of the request, are dropped. In a window the
    latest processing is first.
    """
    groups: dict[tuple[tuple[str, str], tuple[Any, ...]], list[PlacedScene]] = {}
    places: dict[Any, Place | None] = {}
    west, _, east, _ = extent_of_grid(grid)
    middle = wrapped((west + (east if east >= west else east + 360.0)) / 2)
    for scene in scenes:
        if scene.box is None:
            continue
        at = key_of(scene.box)
        if at not in places:
            pixels = overview_step(scene.box, grid, largest=overview)
            places[at] = _place(scene.box, grid, middle, pixels)
        if place := places[at]:
            step = (_solar_day(scene, place), scene.labels.get(split, ""))
            groups.setdefault((step, place.lattice), []).append(PlacedScene(scene, place))
    by_day = [Window(*step, _by_processing(group)) for (step, _), group in groups.items()]
    starts: dict[tuple[str, str], pd.Timestamp] = {}
    for window in by_day:
        start, step = window.scenes[0].scene.time, (window.day, window.part)
        starts[step] = min(start, starts.get(step, start))
    return sorted(by_day, key=lambda w: _order(w, starts[w.day, w.part]))


def _order(window: Window, start: pd.Timestamp) -> tuple[Any, ...]:
    """Return the order of windows: by step in time, then by the time of their first scenes."""
    first = window.scenes[0]
    return window.day, start, window.part, first.scene.time, str(first.place.box.crs)


def _by_processing(group: Sequence[PlacedScene]) -> tuple[PlacedScene, ...]:
    """Return scenes by processing, latest first; then by time; then by id."""
    scenes = sorted(group, key=lambda p: p.scene.id, reverse=True)
    scenes = sorted(scenes, key=lambda p: p.scene.time)
    return tuple(sorted(scenes, key=lambda p: p.scene.processed, reverse=True))


def overview_step(scene: GeoBox, grid: GeoBox, *, largest: int) -> int:
    """Return the pixels along a pixel of the overview to read: a power of two, 1 for full resolution.

    It depends on the size of a cell at the centre of the scene, not on the extent of the grid.
    """
    if largest == 1:
        return 1
    rows, cols = (n // 2 for n in scene.shape.yx)
    centre = scene[rows : rows + COARSEST, cols : cols + COARSEST]
    spans = zip(centre.shape.yx, _spans(grid, centre), strict=True)
    pixels = min(n / max(high - low, 1e-9) for n, (low, high) in spans)
    return 1 if pixels <= COARSE else min(largest, 2 ** math.floor(math.log2(pixels / 2)))


def _place(box: GeoBox, grid: GeoBox, middle: float, overview: int) -> Place | None:
    """Return the place of a scene's grid, None if it does not overlap the grid of the request."""
    if overview > 1:
        box = coarser(box, overview)
    cells = _under(grid, box, pad=CELLS)
    if cells is None or _under(grid, box, pad=0) is None:
        return None
    a = box.affine
    corner = (round((a.c / a.a) % 1, 3) % 1, round((a.f / a.e) % 1, 3) % 1)
    lattice = (str(box.crs), round(a.a, 6), round(a.e, 6), corner)
    x, y = a * (box.shape.x / 2, box.shape.y / 2)
    lon, _ = to_degrees(box, x, y)
    # scenes on both sides of the antimeridian are dated relative to one longitude
    longitude = wrapped(float(lon[0]), middle) if lon.size else middle
    inside = shared_pixels(pixels_under(box, grid[cells])[0], box)
    pixels = 0 if inside is None else math.prod(s.stop - s.start for s in inside)
    return Place(box, overview, cells, lattice, longitude, pixels * abs(a.a * a.e))


def _solar_day(scene: Scene, place: Place) -> str:
    """Return the date of a scene in solar time, which is the same for all scenes of a pass."""
    return str((scene.time + pd.Timedelta(hours=place.longitude / 15)).date())


def pixels_under(lattice: GeoBox, part: GeoBox) -> tuple[GeoBox, bool]:
    """Return the pixels of a lattice under a part of the grid, without the margin by which masks grow.

    The second value is whether the part is a part of the lattice, so that no pixel is resampled.
    ``lattice`` is the grid of any scene on it.
    """
    if (offset := _offset(lattice, part)) is not None:
        return _cut(lattice, offset, part.shape.yx), True
    spans = []
    for low, high in _spans(lattice, part):
        room = KERNEL + (high - low) / 64  # edges may bulge between the sampled points
        spans.append((math.floor(low - room), math.ceil(high + room)))
    (top, bottom), (left, right) = spans
    return _cut(lattice, (top, left), (bottom - top, right - left)), False


def _spans(of: GeoBox, under: GeoBox) -> list[tuple[float, float]]:
    """Return the rows and columns of one grid, unbounded, under another."""
    points = sample(of, under)
    if not np.isfinite(points).all():
        return [(0.0, float(n)) for n in of.shape.yx]
    if of.crs is not None and of.crs.geographic:
        # columns in degrees, shifted by full turns to be nearest to the centre of the grid
        points[:, 1] = unwrapped(points[:, 1], of.shape.x / 2, 360.0 / abs(of.affine.a))
    return [(float(c.min()), float(c.max())) for c in points.T]


def _under(grid: GeoBox, scene: GeoBox, *, pad: int) -> Cells | None:
    """Return the cells of the grid that a scene touches, with ``pad`` cells around; None for none."""
    slices = []
    for (lo, hi), size in zip(_spans(grid, scene), grid.shape.yx, strict=True):
        start, stop = max(0, math.floor(lo) - pad), min(size, math.ceil(hi) + pad)
        if stop <= start or hi <= 0 or lo >= size:
            return None
        slices.append(slice(start, stop))
    return slices[0], slices[1]


def _offset(lattice: GeoBox, grid: GeoBox) -> tuple[int, int] | None:
    """Return the row and column of the lattice at the start of the grid, None if it is not a part of it."""
    if grid.crs != lattice.crs:
        return None
    x, y = ~lattice.affine * (grid.affine.c, grid.affine.f)
    at = (round(y), round(x))
    return at if same_grid(_cut(lattice, at, grid.shape.yx), grid) else None


def _cut(lattice: GeoBox, at: tuple[int, int], shape: tuple[int, int]) -> GeoBox:
    return GeoBox(shape, lattice.translate_pix(at[1], at[0]).affine, lattice.crs)


def shared_pixels(box: GeoBox, scene: GeoBox) -> Cells | None:
    """Return the rows and columns of a window on the lattice of a scene that the scene covers."""
    x, y = ~box.affine * (scene.affine.c, scene.affine.f)
    slices = []
    for start, size, within in ((y, scene.shape.y, box.shape.y), (x, scene.shape.x, box.shape.x)):
        # rounding of coordinates must not add a row without pixels
        low, high = max(0, math.floor(start + 0.01)), min(within, math.ceil(start + size - 0.01))
        if high <= low:
            return None
        slices.append(slice(low, high))
    return slices[0], slices[1]
