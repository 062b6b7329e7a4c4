"""Windows: the pixels of scenes under a grid; scenes of one day on one lattice share a window.

Scenes are read and masked on their lattice, then resampled to the grid. A lattice is a CRS, a pixel
size and the position of the pixel corners. All tiles of one UTM zone have the same lattice, so that
they are combined pixel by pixel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from geomiam.sources.stac.extent import Box, extent_of_grid, grown, overlap, to_degrees, wrapped
from geomiam.sources.stac.scene import Scene

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

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
    """Scenes of one day on one lattice, latest processing first, and their pixels under the grid.

    Attributes
    ----------
    box
        Pixels under the grid, without the margin by which masks grow.
    cells
        Rows and columns of the grid that the scenes touch.
    aligned
        The grid is a part of the lattice, so that no pixel is resampled.
    """

    day: str
    scenes: tuple[GriddedScene, ...]
    box: GeoBox
    cells: tuple[slice, slice]
    aligned: bool


def with_grid(scene: Scene, header: Callable[[Any], GeoBox]) -> GriddedScene | None:
    """Return a scene with its grid, from its metadata, otherwise from a file; None without an asset.

    Metadata that are not a valid grid are removed from the scene, so that later steps do not compare
    files with them.

    Raises
    ------
    ValueError
        If the grid does not overlap the item's bbox.
    """
    if not (keys := list(scene.assets.values())):
        return None
    try:
        boxes = _stated(scene, keys)
    except Exception:  # metadata are untrusted; the file has a grid as well
        boxes = []
    if not boxes:
        _remove_projection(scene.item)
        boxes = [_sound(header(scene.item.assets[keys[0]].href))]
    best = min(boxes, key=lambda b: abs(b.resolution.x))
    _check_extent(scene, best)
    return GriddedScene(scene, best)


def _stated(scene: Scene, keys: Sequence[str]) -> list[GeoBox]:
    """Return the grids of assets in the metadata of a scene."""
    import odc.stac

    boxes = odc.stac.parse_item(scene.item).geoboxes(keys)
    return [_sound(b) for b in boxes if b.crs is not None]


def _sound(box: GeoBox) -> GeoBox:
    """Return a grid unchanged.

    Raises
    ------
    ValueError
        If it has no CRS, is rotated, has no pixels or too many, or has pixels finer than any satellite's.
    """
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


def _remove_projection(item: Any) -> None:
    """Remove the metadata of the grid from an item."""
    for fields in (item.properties, *(a.extra_fields for a in item.assets.values())):
        for key in [k for k in fields if str(k).startswith("proj:")]:
            del fields[key]


def _check_extent(scene: Scene, box: GeoBox) -> None:
    """Refuse a grid that does not overlap the item's bbox, since one of the two is wrong."""
    grid_extent, bbox = extent_of_grid(box), cast(Box, tuple(scene.item.bbox or ()))
    if not overlap(grown(grid_extent, NEAR), bbox):
        raise ValueError(
            f"its grid (proj:transform, proj:shape, CRS {box.crs}) is at longitude {grid_extent[0]:.2f}, "
            f"latitude {grid_extent[1]:.2f}, its bbox at {bbox[0]:.2f}, {bbox[1]:.2f}"
        )


def solar_day(grid_scene: GriddedScene, around: float) -> str:
    """Return the date of a scene in solar time, which is the same for all scenes of a pass.

    Parameters
    ----------
    around
        Longitude of the middle of the map. Scenes on both sides of the antimeridian are dated relative
        to it, so that one pass has one date.
    """
    box = grid_scene.box
    x, y = box.affine * (box.shape.x / 2, box.shape.y / 2)
    lon, _ = to_degrees(box, x, y)
    longitude = wrapped(float(lon[0]), around) if lon.size else around
    return str((grid_scene.scene.time + pd.Timedelta(hours=longitude / 15)).date())


def middle(grid: GeoBox) -> float:
    """Return the longitude of the middle of a grid."""
    west, _, east, _ = extent_of_grid(grid)
    return wrapped((west + (east if east >= west else east + 360.0)) / 2)


def windows(scenes: Iterable[GriddedScene], grid: GeoBox) -> list[Window]:
    """Return windows by day and lattice, in order of time.

    Scenes that do not overlap the grid are dropped. In a window the latest processing is first.
    """
    groups: dict[tuple[Any, ...], list[GriddedScene]] = {}
    around = middle(grid)
    for scene in scenes:
        if _under(grid, scene.box, pad=0) is not None:
            groups.setdefault((solar_day(scene, around), *_lattice(scene.box)), []).append(scene)
    windows_of_groups = [_window(k[0], g, grid) for k, g in groups.items()]
    return sorted(windows_of_groups, key=lambda w: (w.day, w.scenes[0].scene.time, str(w.box.crs)))


def _window(day: str, group: Sequence[GriddedScene], grid: GeoBox) -> Window:
    scenes = tuple(_latest_first(group))
    lattice = scenes[0].box
    cells = _joined([_under(grid, p.box, pad=CELLS) for p in scenes])
    part = grid[cells]
    if (offset := _offset(lattice, part)) is not None:
        return Window(day, scenes, _cut(lattice, offset, part.shape.yx), cells, aligned=True)
    (top, bottom), (left, right) = _needed(lattice, part)
    box = _cut(lattice, (top, left), (bottom - top, right - left))
    return Window(day, scenes, box, cells, aligned=False)


def _latest_first(group: Sequence[GriddedScene]) -> list[GriddedScene]:
    """Sort by processing, latest first; then by time; then by id."""
    by_id = sorted(group, key=lambda p: p.scene.id, reverse=True)
    by_time = sorted(by_id, key=lambda p: p.scene.time)
    return sorted(by_time, key=lambda p: p.scene.processed, reverse=True)


def _joined(parts: Iterable[tuple[slice, slice] | None]) -> tuple[slice, slice]:
    """Return the rows and columns that contain all parts."""
    rows, cols = zip(*(p for p in parts if p is not None), strict=True)
    return _hull(rows), _hull(cols)


def _hull(slices: Iterable[slice]) -> slice:
    ends = list(slices)
    return slice(min(s.start for s in ends), max(s.stop for s in ends))


def _needed(lattice: GeoBox, part: GeoBox) -> list[tuple[int, int]]:
    """Return the rows and columns of the lattice under a part of the grid, with room for kernels."""
    spans = []
    for lo, hi in _spans(lattice, part):
        room = KERNEL + (hi - lo) / 64  # edges may bulge between the sampled points
        spans.append((math.floor(lo - room), math.ceil(hi + room)))
    return spans


def _spans(of: GeoBox, under: GeoBox) -> list[tuple[float, float]]:
    """Return the rows and columns of one grid, unbounded, under another."""
    cols, rows = (np.linspace(0, n, 17) for n in (under.shape.x, under.shape.y))
    col, row = (v.ravel() for v in np.meshgrid(cols, rows))
    a = under.affine
    x, y = a.a * col + a.b * row + a.c, a.d * col + a.e * row + a.f
    if of.crs is not None and under.crs is not None and of.crs != under.crs:
        x, y = under.crs.transformer_to_crs(of.crs)(x, y)
    a = ~of.affine
    cells = np.stack([a.d * x + a.e * y + a.f, a.a * x + a.b * y + a.c], axis=1)
    if not np.isfinite(cells).all():
        return [(0.0, float(n)) for n in of.shape.yx]
    if of.crs is not None and of.crs.geographic:
        cells[:, 1] = _around(cells[:, 1], of)
    return [(float(c.min()), float(c.max())) for c in cells.T]


def _around(columns: np.ndarray, of: GeoBox) -> np.ndarray:
    """Return columns of a grid in degrees, shifted by full turns to be nearest to its centre."""
    turn, center = 360.0 / abs(of.affine.a), of.shape.x / 2
    return center + (columns - center + turn / 2) % turn - turn / 2


def _under(grid: GeoBox, scene: GeoBox, *, pad: int) -> tuple[slice, slice] | None:
    """Return the cells of the grid that a scene touches, with ``pad`` cells around; None for none."""
    slices = []
    for (lo, hi), size in zip(_spans(grid, scene), grid.shape.yx, strict=True):
        start, stop = max(0, math.floor(lo) - pad), min(size, math.ceil(hi) + pad)
        if stop <= start or hi <= 0 or lo >= size:
            return None
        slices.append(slice(start, stop))
    return slices[0], slices[1]


def _lattice(box: GeoBox) -> tuple[Any, ...]:
    a = box.affine
    corner = (round((a.c / a.a) % 1, 3) % 1, round((a.f / a.e) % 1, 3) % 1)
    return str(box.crs), round(a.a, 6), round(a.e, 6), corner


def _offset(lattice: GeoBox, grid: GeoBox) -> tuple[int, int] | None:
    """Return the row and column of the lattice at the start of the grid, None if it is not a part of it."""
    from geomiam.data.grid.lattice import same_grid

    if grid.crs != lattice.crs:
        return None
    x, y = ~lattice.affine * (grid.affine.c, grid.affine.f)
    at = (round(y), round(x))
    return at if same_grid(_cut(lattice, at, grid.shape.yx), grid) else None


def _cut(lattice: GeoBox, at: tuple[int, int], shape: tuple[int, int]) -> GeoBox:
    from odc.geo.geobox import GeoBox

    return GeoBox(shape, lattice.translate_pix(at[1], at[0]).affine, lattice.crs)


def widen(window: Window, pixels: int) -> Window:
    """Return a window with pixels added on all sides."""
    return replace(window, box=window.box.pad(pixels))


def touches(box: GeoBox, scene: GeoBox) -> bool:
    """Return whether a scene has pixels in a window of its lattice."""
    x, y = ~box.affine * (scene.affine.c, scene.affine.f)
    return (
        x < box.shape.x - 0.01
        and y < box.shape.y - 0.01
        and x + scene.shape.x > 0.01
        and y + scene.shape.y > 0.01
    )
