"""Longitudes repeat after a full turn: -170 and 190 degrees are one meridian."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

Bounds = tuple[float, float, float, float]
POINTS = 33
"""Points along a side of a grid whose longitudes are looked up."""
WHOLE = 270.0
"""Degrees from which on a projected grid is taken to surround a pole, or the world."""


def full_turn(crs: Any) -> float | None:
    """Return the units of a CRS in a full turn, such as 360 degrees; None for a projected one."""
    if crs is None or not crs.geographic:
        return None
    unit = crs.proj.axis_info[0].unit_conversion_factor if crs.proj.axis_info else 0.0
    return 2 * np.pi / unit if unit else 360.0


def into_grid(x: np.ndarray, box: GeoBox) -> np.ndarray:
    """Return x coordinates moved by full turns into the range that begins at a grid's west edge.

    Parameters
    ----------
    x
        In the CRS of the grid, any shape.
    box
        A grid. On a projected one nothing is moved.
    """
    turn = full_turn(box.crs)
    if turn is None:
        return x
    west = box.extent.boundingbox.left
    turned_x = x - turn * np.floor((x - west) / turn)
    inside = (x >= west) & (x <= box.extent.boundingbox.right)
    return np.where(inside | ~np.isfinite(x), x, turned_x)


def unwrapped(x: np.ndarray, near: np.ndarray | float, turn: float) -> np.ndarray:
    """Return coordinates moved by full turns to within half a turn of a reference."""
    return near + (x - near + turn / 2) % turn - turn / 2


def middle(x: np.ndarray, turn: float) -> float:
    """Return the mean direction of coordinates on a circle."""
    angle = x[np.isfinite(x)] * (2 * np.pi / turn)
    return float(np.angle(np.exp(1j * angle).mean()) * turn / (2 * np.pi)) if angle.size else 0.0


def lonlat_bounds(box: GeoBox) -> list[Bounds]:
    """Return what a grid covers as bounds in degrees within -180 to 180.

    Parameters
    ----------
    box
        A grid in any CRS.

    Returns
    -------
    list of tuple
        ``(west, south, east, north)``; two of them for a grid across the antimeridian.
    """
    from pyproj import Transformer

    ys, xs = (np.linspace(0, n, POINTS) for n in box.shape.yx)
    cols, rows = (v.ravel() for v in np.meshgrid(xs, ys))
    affine = box.affine
    x, y = (
        affine.a * cols + affine.b * rows + affine.c,
        affine.d * cols + affine.e * rows + affine.f,
    )
    assert box.crs is not None
    to_degrees = Transformer.from_crs(box.crs.proj, "EPSG:4326", always_xy=True)
    lon, lat = to_degrees.transform(x, y)
    turn = full_turn(box.crs)
    near = x * 360 / turn if turn else middle(lon, 360.0)
    lon = unwrapped(lon, near, 360.0)
    lon, lat = lon[np.isfinite(lon)], lat[np.isfinite(lat)]
    if not lon.size:
        return [(-180.0, -90.0, 180.0, 90.0)]
    west, east, south, north = (float(f(v)) for v in (lon, lat) for f in (np.min, np.max))
    if turn is None and east - west > WHOLE:
        west, east = -180.0, 180.0
    return _cut(west, east, south, north)


def _cut(west: float, east: float, south: float, north: float) -> list[Bounds]:
    if east - west >= 360:
        return [(-180.0, south, 180.0, north)]
    start = west if -180 <= west < 180 else (west + 180) % 360 - 180
    end = start + east - west
    if end <= 180:
        return [(start, south, end, north)]
    return [(start, south, 180.0, north), (-180.0, south, end - 360, north)]
