"""The cells of a grid that contain points, and the nearest cells with data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from geomiam.data.records.coordinates import Points
from geomiam.errors import OccurrenceError
from geomiam.geo.crs import as_crs, same_crs
from geomiam.geo.lengths import as_text
from geomiam.geo.longitude import full_turn, unwrapped
from geomiam.geo.places import places

MAX_CELLS = 5_000_000
"""Largest number of cells around all points that are searched for data."""
Usable = Callable[[np.ndarray], np.ndarray]
"""Function from rows and columns ``(n, 2)`` to whether these cells have the required data ``(n,)``."""


def cells_of(points: Points, box: Any) -> np.ndarray:
    """Return row and column ``(point, 2)`` of the cells that contain points; -1 for points outside."""
    with np.errstate(invalid="ignore"):
        cells = np.floor(pixels_of(points, box))
        inside = ((cells >= 0) & (cells < (box.shape.y, box.shape.x))).all(axis=1)
    return np.where(inside[:, None], cells, -1).astype("int64")


def pixels_of(points: Points, box: Any) -> np.ndarray:
    """Return row and column with fractions ``(point, 2)``; longitudes are periodic."""
    from odc.geo.math import apply_affine

    x, y = points.x, points.y
    if points.crs is not None:
        x, y = _reprojected(x, y, crs=points.crs, to=box.crs)
    if (turn := full_turn(box.crs)) is not None:
        x = _near_grid(x, box, turn)
    cols, rows = apply_affine(~box.affine, x, y)
    return np.stack([rows, cols], axis=1)


def _reprojected(
    x: np.ndarray, y: np.ndarray, *, crs: Any, to: Any
) -> tuple[np.ndarray, np.ndarray]:
    crs = as_crs(crs, "the CRS of the records")
    return (x, y) if same_crs(crs, to) else crs.transformer_to_crs(to, always_xy=True)(x, y)


def _near_grid(x: np.ndarray, box: Any, turn: float) -> np.ndarray:
    """Move longitudes from -180 to 360 degrees to within half a turn of the grid's centre."""
    bounds = box.extent.boundingbox
    middle = (bounds.left + bounds.right) / 2
    with np.errstate(invalid="ignore"):
        far = ~((x >= middle - turn / 2) & (x < middle + turn / 2))
        return np.where(far & (x >= -turn / 2) & (x <= turn), unwrapped(x, middle, turn), x)


@dataclass(frozen=True)
class Snapped:
    """Points that were moved to a cell with data."""

    rows: np.ndarray
    """Indices of the points ``(k,)``."""
    cells: np.ndarray
    """Row and column of their new cells ``(k, 2)``."""
    km: np.ndarray
    """Distance in km from each point to its new cell ``(k,)``."""


def snap_points(
    points: Points, rows: np.ndarray, box: Any, *, km: float, usable: Usable
) -> Snapped:
    """Return the nearest cell of each point ``rows (k,)`` that is ``usable``, of points that have one within ``km``.

    Distances are measured from the point to the nearest edge of the cell. Raises OccurrenceError if the distance
    covers too many cells.
    """
    pixels = pixels_of(points, box)[rows]
    near = np.isfinite(pixels).all(1)
    rows, pixels = rows[near], pixels[near]
    point, cells = _cells_around(pixels, box, km=km)
    inside = usable(cells) if len(cells) else np.zeros(0, bool)
    point, cells = point[inside], cells[inside]
    distance = _to_cells(pixels[point], cells, box)
    order = np.lexsort((distance, point))
    order = order[distance[order] <= km]
    first = order[np.unique(point[order], return_index=True)[1]]
    return Snapped(rows[point[first]], cells[first], distance[first])


def _cells_around(pixels: np.ndarray, box: Any, *, km: float) -> tuple[np.ndarray, np.ndarray]:
    """Return point ``(n,)`` and cell ``(n, 2)`` of at least all cells within a distance of points."""
    if not len(pixels):
        return np.zeros(0, int), np.zeros((0, 2), int)
    positions = np.clip(pixels, 0, np.subtract(box.shape, 1e-6))
    reach = [
        np.ceil(km / np.maximum(_distance(positions, positions + step, box), 1e-9)) + 1
        for step in ((1, 0), (0, 1))
    ]
    reach = np.minimum(np.stack(reach, 1), box.shape).astype(int)
    if (2 * reach + 1).prod(1).sum() > MAX_CELLS:
        raise OccurrenceError(
            f"snap='{as_text(km)}' covers up to {reach.max():,} cells around each of {len(pixels):,} points: "
            "pass a shorter distance"
        )
    pairs = []
    for number, ((row, column), (up, across)) in enumerate(
        zip(np.floor(pixels).astype(int), reach)
    ):
        block = np.mgrid[row - up : row + up + 1, column - across : column + across + 1]
        cells = block.reshape(2, -1).T
        if _is_global(box):
            cells[:, 1] %= box.shape.x
        on_grid = ((cells >= 0) & (cells < box.shape)).all(1)
        pairs.append((np.full(on_grid.sum(), number), cells[on_grid]))
    return np.concatenate([f[0] for f in pairs]), np.concatenate([f[1] for f in pairs])


def cell_size(box: Any) -> float:
    """Return the longer side of the cell at the centre of a grid, in km."""
    middle = np.array([box.shape]) / 2 - 0.5
    return float(max(_distance(middle, middle + step, box)[0] for step in ((1, 0), (0, 1))))


def _is_global(box: Any) -> bool:
    bounds, turn = box.extent.boundingbox, full_turn(box.crs)
    return turn is not None and abs(bounds.right - bounds.left - turn) < 1e-6


def _to_cells(pixels: np.ndarray, cells: np.ndarray, box: Any) -> np.ndarray:
    """Return the distance in km from points to the nearest edge of cells ``(n,)``; 0 inside."""
    columns = cells[:, 1].astype(float)
    if _is_global(box):  # the copy of the cell that is nearest to the point
        columns += box.shape.x * np.rint((pixels[:, 1] - columns) / box.shape.x)
    corner = np.stack([cells[:, 0].astype(float), columns], 1)
    return _distance(pixels, np.clip(pixels, corner, corner + 1), box)


def _distance(pixels: np.ndarray, to: np.ndarray, box: Any) -> np.ndarray:
    """Return the distance in km between pairs of positions on a grid ``(n,)``."""
    from odc.geo.math import apply_affine

    if not len(pixels):
        return np.zeros(0)
    positions = np.concatenate([pixels, to])
    xy = np.stack(apply_affine(box.affine, positions[:, 1], positions[:, 0]), 1)
    if box.crs.geographic:
        xy[:, 1] = xy[:, 1].clip(-90, 90)
    ends = places(xy, box.crs.to_wkt())
    points = ends.points()
    chords = np.linalg.norm(points[: len(pixels)] - points[len(pixels) :], axis=1)
    return ends.along_surface(chords)
