"""Slope and aspect from elevation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

EARTH = 6_371_008.8
"""Mean radius of the earth in metres (IUGG)."""


def slope_aspect(z: Any, box: GeoBox) -> tuple[Any, Any]:
    """Return slope and aspect in degrees, by the differences of Horn (1981).

    Parameters
    ----------
    z
        Elevation in metres, numpy or dask ``(..., y + 2, x + 2)``: one more cell on each side.
    box
        The grid without those cells. For degrees, the sides of cells are computed on a sphere.

    Returns
    -------
    tuple
        Slope against the horizontal; and aspect, the direction of the steepest descent, clockwise
        from north (0 to 360), NaN where it is flat. Both are NaN where any of nine cells is NaN.

    Notes
    -----
    Horn, B. K. P. (1981). Hill shading and the reflectance map. *Proceedings of the IEEE* 69(1),
    14-47, doi:10.1109/PROC.1981.11918; the formula of ``gdaldem``.
    """
    width, height = cell_sides(box)
    east, south = _differences(z)
    east = east / (8 * width) * np.sign(box.affine.a)
    north = -south / (8 * height) * -np.sign(box.affine.e)
    steep = np.hypot(east, north)
    slope = np.degrees(np.arctan(steep))
    aspect = np.degrees(np.arctan2(-east, -north)) % 360
    flat = np.where(steep > 0, np.float32(0), np.float32(np.nan))
    return slope.astype("float32"), (aspect + flat).astype("float32")


def _differences(z: Any) -> tuple[Any, Any]:
    """Return weighted differences along columns and rows, by Horn's kernel."""
    a, b, c = z[..., :-2, :-2], z[..., :-2, 1:-1], z[..., :-2, 2:]
    d, e, f = z[..., 1:-1, :-2], z[..., 1:-1, 1:-1], z[..., 1:-1, 2:]
    g, h, i = z[..., 2:, :-2], z[..., 2:, 1:-1], z[..., 2:, 2:]
    centre = e * 0  # Horn's kernel omits the cell: without this term its own NaN would be lost
    return (c + 2 * f + i) - (a + 2 * d + g) + centre, (g + 2 * h + i) - (a + 2 * b + c) + centre


def cell_sides(box: GeoBox) -> tuple[Any, Any]:
    """Return width and height of cells in metres: numbers, or the width by row ``(y, 1)`` for degrees."""
    dx, dy = abs(box.affine.a), abs(box.affine.e)
    if not box.crs or not box.crs.geographic:
        metres = box.crs.proj.axis_info[0].unit_conversion_factor if box.crs else 1.0
        return dx * metres, dy * metres
    rows = np.arange(box.shape.y) + 0.5
    lat = np.radians(box.affine.f + box.affine.e * rows)[:, None]
    arc = np.radians(1.0) * EARTH
    return (dx * arc * np.cos(lat)).astype("float32"), dy * arc
