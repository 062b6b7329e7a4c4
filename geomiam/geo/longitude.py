"""Longitudes as periodic coordinates: -170 and 190 degrees are the same meridian."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

Bounds = tuple[float, float, float, float]
POINTS = 33  # number of points along each side of a grid at which longitudes are computed
WHOLE = 270.0
"""A projected grid that spans more degrees than this counts as one around a pole or the world."""


def full_turn(crs: Any) -> float | None:
    """Return a full turn in units of a geographic CRS, such as 360 degrees; None for another CRS."""
    if crs is None or not crs.geographic:
        return None
    unit = crs.proj.axis_info[0].unit_conversion_factor if crs.proj.axis_info else 0.0
    return 2 * np.pi / unit if unit else 360.0


def unwrapped(x: np.ndarray, near: np.ndarray | float, turn: float) -> np.ndarray:
    """Return coordinates moved by full turns to within half a turn of a reference."""
    return near + (x - near + turn / 2) % turn - turn / 2


def middle(x: np.ndarray, turn: float) -> float:
    """Return the mean direction of coordinates on a circle."""
    angle = x[np.isfinite(x)] * (2 * np.pi / turn)
    return float(np.angle(np.exp(1j * angle).mean()) * turn / (2 * np.pi)) if angle.size else 0.0


def lonlat_bounds(box: GeoBox) -> list[Bounds]:
    """Return the extent of a grid as bounds ``(west, south, east, north)`` from -180 to 180 degrees.

    A grid across the antimeridian has two such bounds.
    """
    from pyproj import Transformer

    ys, xs = (np.linspace(0, n, POINTS) for n in box.shape.yx)
    cols, rows = (v.ravel() for v in np.meshgrid(xs, ys))
    a = box.affine
    x, y = a.a * cols + a.b * rows + a.c, a.d * cols + a.e * rows + a.f
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
    if east - west >= 360:
        return [(-180.0, south, 180.0, north)]
    start = west if -180 <= west < 180 else (west + 180) % 360 - 180
    end = start + east - west
    if end <= 180:
        return [(start, south, end, north)]
    return [(start, south, 180.0, north), (-180.0, south, end - 360, north)]
