"""Windows: the pixels of scenes under a grid; scenes of one day on one lattice share a window.

Scenes are read and masked on their lattice, then resampled to the grid. A lattice is a CRS, a pixel
size and the position of the pixel corners. All tiles of one UTM zone have the same lattice, so that
they are combined pixel by pixel.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
from odc.geo.geobox import GeoBox

from geomiam.data.grid.grid import same_grid
from geomiam.data.grid.source_windows import sample
from geomiam.geo.longitude import unwrapped
from geomiam.sources.sentinel2.scene import Scene
from geomiam.sources.stac.extent import Box, extent_of_grid, grown, overlap, to_degrees, wrapped
from geomiam.sources.web.allow_list import scrub
from geomiam.sources.web.ranges import Access

Cells = tuple[slice, slice]
CELLS = 1
"""Cells of the grid around a scene that are included, so that the clear share is correct at its edge."""
LARGEST = 10**6
"""Most rows or columns of a scene; Sentinel-2's have 10,980."""
NEAR = 0.2
"""Most degrees between an item's bbox and its grid."""
KERNEL = 8
"""Pixels around a window; the widest kernel of resampling (lanczos) reaches three."""


@dataclass(frozen=True)
class GriddedScene:
    """A scene and the grid of its finest asset in use."""

    scene: Scene
    box: GeoBox


@dataclass(frozen=True)
class Window:
    """Scenes of one day on one lattice, latest processing first, and their pixels under the grid."""

    day: str
    scenes: tuple[GriddedScene, ...]
    box: GeoBox  # pixels under the grid, without the margin by which masks grow
    cells: Cells  # rows and columns of the grid that the scenes touch
    aligned: bool  # the grid is a part of the lattice, so that no pixel is resampled


def with_grids(scenes: Sequence[Scene], access: Access) -> tuple[list[GriddedScene], list[str]]:
    """Return scenes with their grids, and lines on those without."""
    with_box, lines = [], []
    for scene in scenes:
        if not scene.assets:
            reason = next((f"{b}: {text}" for b, text in scene.lost.items()), "")
            lines.append(f"{scene.id}: no asset can be read: {reason}")
            continue
        try:
            with_box.append(GriddedScene(scene, _grid_of(scene, access)))
        except Exception as error:  # drivers raise errors of any type
            lines.append(f"{scene.id}: its grid cannot be determined: {scrub(error)[:300]}")
    return with_box, lines


def _grid_of(scene: Scene, access: Access) -> GeoBox:
    """Return the grid of the finest asset in use, from its metadata, otherwise from a file."""
    import odc.stac

    keys = list(scene.assets.values())
    try:
        stated_boxes = odc.stac.parse_item(scene.item).geoboxes(keys)
        boxes = [_sound(b) for b in stated_boxes if b.crs is not None]
    except Exception:  # metadata are untrusted; the file has a grid as well
        boxes = []
    if not boxes:
        # metadata without a valid grid are removed, so that later steps do not compare files with them
        of_assets = [a.extra_fields for a in scene.item.assets.values()]
        for fields in (scene.item.properties, *of_assets):
            for key in [k for k in fields if str(k).startswith("proj:")]:
                del fields[key]
        with access.open(scene.item.assets[keys[0]].href) as file:
            boxes = [_sound(GeoBox(file.shape, file.transform, file.crs))]
    best = min(boxes, key=lambda b: abs(b.resolution.x))
    extent, bbox = extent_of_grid(best), cast(Box, tuple(scene.item.bbox or ()))
    if not overlap(grown(extent, NEAR), bbox):  # one of the two is wrong
        raise ValueError(
            f"its grid (proj:transform, proj:shape, CRS {best.crs}) is at longitude {extent[0]:.2f}, "
            f"latitude {extent[1]:.2f}, its bbox at {bbox[0]:.2f}, {bbox[1]:.2f}"
        )
    return best


def _sound(box: GeoBox) -> GeoBox:
    """Return a grid; refuse one that is rotated, or has far too many or too fine pixels, or no CRS."""
    a = box.affine
    finest = 1e-6 if box.crs is not None and box.crs.geographic else 0.1
    sides = [abs(a.a), abs(a.e)]
    right = box.crs is not None and np.isfinite(list(a)).all() and a.b == a.d == 0
    if not right or min(sides) < finest or not all(0 < n <= LARGEST for n in box.shape.yx):
        raise ValueError(
            f"a grid of {box.shape.yx} pixels with transform {tuple(a)[:6]} and CRS {box.crs} cannot "
            "be read"
        )
    return box


def _solar_day(grid_scene: GriddedScene, around: float) -> str:
    """Return the date of a scene in solar time, which is the same for all scenes of a pass.

    Scenes on both sides of the antimeridian are dated relative to one longitude, so that one pass has
    one date.
    """
    box = grid_scene.box
    x, y = box.affine * (box.shape.x / 2, box.shape.y / 2)
    lon, _ = to_degrees(box, x, y)
    longitude = wrapped(float(lon[0]), around) if lon.size else around
    return str((grid_scene.scene.time + pd.Timedelta(hours=longitude / 15)).date())


def windows(scenes: Iterable[GriddedScene], grid: GeoBox) -> list[Window]:
    """Return windows by day and lattice, in order of time.

    Scenes that do not overlap the grid are dropped. In a window the latest processing is first.
    """
    groups: dict[tuple[Any, ...], list[tuple[GriddedScene, Cells]]] = {}
    west, _, east, _ = extent_of_grid(grid)
    middle = wrapped((west + (east if east >= west else east + 360.0)) / 2)
    for scene in scenes:
        if _under(grid, scene.box, pad=0) is not None:
            cells = cast(Cells, _under(grid, scene.box, pad=CELLS))
            a = scene.box.affine
            corner = (round((a.c / a.a) % 1, 3) % 1, round((a.f / a.e) % 1, 3) % 1)
            lattice = (str(scene.box.crs), round(a.a, 6), round(a.e, 6), corner)
            key = (_solar_day(scene, middle), *lattice)
            groups.setdefault(key, []).append((scene, cells))
    windows_of_groups = [_window(key[0], group, grid) for key, group in groups.items()]
    return sorted(windows_of_groups, key=lambda w: (w.day, w.scenes[0].scene.time, str(w.box.crs)))


def _window(day: str, group: Sequence[tuple[GriddedScene, Cells]], grid: GeoBox) -> Window:
    # by processing, latest first; then by time; then by id
    scenes = sorted((p for p, _ in group), key=lambda p: p.scene.id, reverse=True)
    scenes = sorted(scenes, key=lambda p: p.scene.time)
    scenes = sorted(scenes, key=lambda p: p.scene.processed, reverse=True)
    lattice = scenes[0].box
    rows, cols = (
        slice(min(s.start for s in parts), max(s.stop for s in parts))
        for parts in zip(*(cells for _, cells in group), strict=True)
    )
    part = grid[rows, cols]
    if (offset := _offset(lattice, part)) is not None:
        box = _cut(lattice, offset, part.shape.yx)
        return Window(day, tuple(scenes), box, (rows, cols), aligned=True)
    spans = []
    for low, high in _spans(lattice, part):
        room = KERNEL + (high - low) / 64  # edges may bulge between the sampled points
        spans.append((math.floor(low - room), math.ceil(high + room)))
    (top, bottom), (left, right) = spans
    box = _cut(lattice, (top, left), (bottom - top, right - left))
    return Window(day, tuple(scenes), box, (rows, cols), aligned=False)


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


def touches(box: GeoBox, scene: GeoBox) -> bool:
    """Return whether a scene has pixels in a window of its lattice."""
    x, y = ~box.affine * (scene.affine.c, scene.affine.f)
    return bool(
        x < box.shape.x - 0.01
        and y < box.shape.y - 0.01
        and x + scene.shape.x > 0.01
        and y + scene.shape.y > 0.01
    )
