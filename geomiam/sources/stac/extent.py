"""Extents of grids and items in degrees, also across the antimeridian and around a pole."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox
from pyproj import Transformer

Box = tuple[float, float, float, float]
"""West, south, east, north; west is larger than east across the antimeridian."""
BELT = 359.0
"""Least width in degrees of longitude at which an extent counts as the whole circle."""


def extent_of_grid(grid: GeoBox) -> Box:
    """Return the extent of a grid; across the antimeridian the smaller of the two possible ones."""
    west, south, east, north = grid.footprint("EPSG:4326").boundingbox.bbox
    # the outline of a grid does not contain a pole inside it
    south = -90.0 if _contains_pole(grid, -90.0) else max(south, -90.0)
    north = 90.0 if _contains_pole(grid, 90.0) else min(north, 90.0)
    if not (-180 <= west and east <= 180 and east - west < 180):
        rows, cols = (np.linspace(0, n, 65) for n in grid.shape.yx)
        col, row = np.meshgrid(cols, rows)
        a = grid.affine
        x, y = a.a * col + a.b * row + a.c, a.d * col + a.e * row + a.f
        west, east = _arc(to_degrees(grid, x.ravel(), y.ravel())[0])
    return west, south, east, north


def to_degrees(grid: GeoBox, x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return finite longitudes and latitudes of points in the CRS of a grid."""
    change = Transformer.from_crs(str(grid.crs), "EPSG:4326", always_xy=True)
    lon, lat = (np.atleast_1d(v) for v in change.transform(x, y))
    fine = np.isfinite(lon) & np.isfinite(lat)
    return lon[fine], lat[fine]


def _arc(longitudes: np.ndarray) -> tuple[float, float]:
    """Return the shortest arc that contains all longitudes: the complement of the widest gap."""
    if not longitudes.size:
        return -180.0, 180.0
    sorted_longitudes = np.unique(longitudes % 360.0)
    gaps = np.diff(sorted_longitudes, append=sorted_longitudes[0] + 360.0)
    widest = int(gaps.argmax())
    if 360.0 - gaps[widest] >= BELT or gaps[widest] < 10.0:
        return -180.0, 180.0
    west, east = sorted_longitudes[(widest + 1) % len(sorted_longitudes)], sorted_longitudes[widest]
    return _within(float(west), float(east))


def _within(west: float, east: float) -> tuple[float, float]:
    """Return two longitudes from -180 to 180; the antimeridian as an east end is 180."""
    right = wrapped(east)
    return wrapped(west), 180.0 if right == -180.0 else right


def wrapped(longitude: float, around: float = 0.0) -> float:
    """Return a longitude within 180 degrees of another one."""
    return around + (longitude - around + 180.0) % 360.0 - 180.0


def _contains_pole(grid: GeoBox, latitude: float) -> bool:
    if grid.crs is None or grid.crs.geographic:
        return False
    change = Transformer.from_crs("EPSG:4326", str(grid.crs), always_xy=True)
    x, y = change.transform(0.0, latitude)
    if not (math.isfinite(x) and math.isfinite(y)):
        return False
    col, row = ~grid.affine * (x, y)
    return bool(0 < col < grid.shape.x and 0 < row < grid.shape.y)


def halves(box: Box) -> list[Box]:
    """Return an extent as one box, or as two on both sides of the antimeridian."""
    west, south, east, north = box
    if west <= east:
        return [box]
    return [(west, south, 180.0, north), (-180.0, south, east, north)]


def grown(box: Box, by: float) -> Box:
    """Return an extent that is larger by some degrees on all sides."""
    west, south, east, north = box
    width = east - west if east >= west else east - west + 360.0
    if width + 2 * by >= BELT:
        return -180.0, south - by, 180.0, north + by
    west, east = _within(west - by, east + by)
    return west, south - by, east, north + by


def overlap(a: Box, b: Box) -> bool:
    """Return whether two extents overlap or touch."""
    return any(
        p[0] <= q[2] and q[0] <= p[2] and p[1] <= q[3] and q[1] <= p[3]
        for p in halves(a)
        for q in halves(b)
    )


def extent_of_item(bbox: Any, geometry: Any) -> Box:
    """Return the extent of an item: its bbox of 4 or 6 numbers, otherwise that of its geometry."""
    if bbox is None:
        points = list(_points(geometry.get("coordinates"))) if isinstance(geometry, Mapping) else []
        if not points:
            raise ValueError("neither a bbox nor a geometry")
        lon, lat = np.array(points).T
        bbox = [lon.min(), lat.min(), lon.max(), lat.max()]
    numbers = [float(v) for v in bbox] if isinstance(bbox, (list, tuple)) else []
    if len(numbers) not in (4, 6) or not all(map(math.isfinite, numbers)):
        raise ValueError(f"bbox {str(bbox)[:80]} has not 4 or 6 numbers")
    half = len(numbers) // 2
    west, south, east, north = numbers[0], numbers[1], numbers[half], numbers[half + 1]
    if not (-90.1 <= south <= north <= 90.1 and -360 <= west <= 360 and -360 <= east <= 360):
        raise ValueError(f"bbox {numbers} is not in degrees, west, south, east, north")
    if east - west >= BELT:
        return -180.0, south, 180.0, north
    left, right = _within(west, east)
    return left, south, right, north


def _points(coordinates: Any) -> Iterable[tuple[float, float]]:
    if isinstance(coordinates, Sequence) and not isinstance(coordinates, str):
        if coordinates and all(isinstance(c, (int, float)) for c in coordinates[:2]):
            yield float(coordinates[0]), float(coordinates[1])
        else:
            for part in coordinates:
                yield from _points(part)
