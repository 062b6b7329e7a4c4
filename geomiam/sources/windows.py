"""Which pixels of which scenes lie under a grid; scenes of one pass on one lattice share a window.

Scenes are read and masked on their own lattice, then brought onto the grid. A lattice is a CRS, a pixel
size and where its corners fall: all tiles of one UTM zone have the same, so that they join pixel by pixel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from geomiam.sources.items import Scene

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

CELLS = 1
"""Cells of the grid around a scene that are counted in, so that the clear share is right at its edge."""
KERNEL = 8
"""Pixels around a window; the widest kernel of resampling (lanczos) reaches three."""


@dataclass(frozen=True)
class Placed:
    """A scene and its grid: that of the finest of the assets in use."""

    scene: Scene
    box: GeoBox


@dataclass(frozen=True)
class Window:
    """Scenes of one day on one lattice, best first, and the pixels of it that are needed.

    Attributes
    ----------
    box
        Pixels under the grid, without the margin by which masks grow.
    cells
        Rows and columns of the grid that the scenes touch; elsewhere they have nothing to give.
    aligned
        The grid is a part of the lattice: pixels are cells, nothing is resampled.
    """

    day: str
    scenes: tuple[Placed, ...]
    box: GeoBox
    cells: tuple[slice, slice]
    aligned: bool


def place(scene: Scene, header: Callable[[Any], GeoBox]) -> Placed | None:
    """Return a scene with its grid, from its metadata or else from a file; None without an asset."""
    import odc.stac

    if not (keys := list(scene.assets.values())):
        return None
    known = odc.stac.parse_item(scene.item).geoboxes(keys)
    boxes = [b for b in known if b.crs is not None] or [header(scene.item.assets[keys[0]].href)]
    return Placed(scene, min(boxes, key=lambda b: abs(b.resolution.x)))


def windows(placed: Iterable[Placed], grid: GeoBox) -> list[Window]:
    """Group scenes by day and lattice and find what of them lies under the grid; in order of time.

    Scenes that do not meet the grid are left out. In a group later processing comes first.
    """
    groups: dict[tuple[Any, ...], list[Placed]] = {}
    for one in placed:
        if _under(grid, one.box, pad=0) is not None:
            groups.setdefault((one.scene.day, *_lattice(one.box)), []).append(one)
    found = [_window(k[0], g, grid) for k, g in groups.items()]
    return sorted(found, key=lambda w: (w.day, w.scenes[0].scene.time, str(w.box.crs)))


def _window(day: str, group: Sequence[Placed], grid: GeoBox) -> Window:
    scenes = tuple(sorted(group, key=lambda p: (-np.nan_to_num(p.scene.baseline), p.scene.id)))
    lattice = scenes[0].box
    cells = _joined([_under(grid, p.box, pad=CELLS) for p in scenes])
    part = grid[cells]
    if (offset := _offset(lattice, part)) is not None:
        return Window(day, scenes, _cut(lattice, offset, part.shape.yx), cells, aligned=True)
    (top, bottom), (left, right) = _needed(lattice, part)
    box = _cut(lattice, (top, left), (bottom - top, right - left))
    return Window(day, scenes, box, cells, aligned=False)


def _joined(parts: Iterable[tuple[slice, slice] | None]) -> tuple[slice, slice]:
    """Return the rows and columns that hold all parts."""
    known = [p for p in parts if p is not None]
    rows, cols = zip(*known, strict=True)
    return _hull(rows), _hull(cols)


def _hull(slices: Iterable[slice]) -> slice:
    ends = list(slices)
    return slice(min(s.start for s in ends), max(s.stop for s in ends))


def _needed(lattice: GeoBox, part: GeoBox) -> list[tuple[int, int]]:
    """Rows and columns of the lattice under a part of the grid, with room for kernels."""
    found = []
    for lo, hi in _spans(lattice, part):
        room = KERNEL + (hi - lo) / 64  # edges between the points that were looked at may bulge
        found.append((math.floor(lo - room), math.ceil(hi + room)))
    return found


def _spans(of: GeoBox, under: GeoBox) -> list[tuple[float, float]]:
    """Rows and columns of one grid, unbounded, under another."""
    from odc.geo.overlap import native_pix_transform
    from odc.geo.types import xy_

    ys, xs = (np.linspace(0, n, 17) for n in under.shape.yx)
    back = native_pix_transform(of, under).back([xy_(x, y) for y in ys for x in xs])
    cells = np.array([p.yx for p in back])
    if not np.isfinite(cells).all():
        return [(0.0, float(n)) for n in of.shape.yx]
    return [(float(c.min()), float(c.max())) for c in cells.T]


def _under(grid: GeoBox, scene: GeoBox, *, pad: int) -> tuple[slice, slice] | None:
    """Cells of the grid that a scene touches, with some around it; None when it touches none."""
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
    """Row and column of the lattice where the grid begins, or None when it is no part of it."""
    from geomiam.cube.grid import same_grid

    if grid.crs != lattice.crs:
        return None
    x, y = ~lattice.affine * (grid.affine.c, grid.affine.f)
    at = (round(y), round(x))
    return at if same_grid(_cut(lattice, at, grid.shape.yx), grid) else None


def _cut(lattice: GeoBox, at: tuple[int, int], shape: tuple[int, int]) -> GeoBox:
    from odc.geo.geobox import GeoBox

    return GeoBox(shape, lattice.translate_pix(at[1], at[0]).affine, lattice.crs)


def grow(window: Window, pixels: int) -> Window:
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
