"""Comparison of two grids: whether they are equal, and whether one lies on the lattice of the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from geomiam.data.grid.axes import SAME_CELL
from geomiam.geo.crs import same_crs

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox


def same_grid(a: GeoBox, b: GeoBox, *, within: float = SAME_CELL) -> bool:
    """Return whether two grids have the same shape and CRS, and corners within a part of a cell."""
    from odc.geo.math import apply_affine

    if a.shape != b.shape or not same_crs(a.crs, b.crs):
        return False
    rows, cols = a.shape
    y, x = np.array([0.0, rows, rows]), np.array([0.0, 0.0, cols])
    corners_in_a = apply_affine(~a.affine, *apply_affine(b.affine, x, y))
    return bool(np.abs(np.subtract(corners_in_a, (x, y))).max() < within)


def snapped(box: GeoBox, lattice: GeoBox, *, within: float) -> GeoBox:
    """Return a grid moved onto the lattice of another, or unchanged if it would move too far.

    Parameters
    ----------
    box, lattice
        Grids.
    within
        Largest displacement of a corner, in cells.
    """
    from affine import Affine
    from odc.geo.geobox import GeoBox

    if not same_crs(box.crs, lattice.crs):
        return box
    step = ~lattice.affine * box.affine
    shift = Affine.translation(round(step.c), round(step.f))
    rows, cols = box.shape
    corners = [(x, y) for x in (0, cols) for y in (0, rows)]
    displacement = max(np.abs(np.subtract(step * c, shift * c)).max() for c in corners)
    return GeoBox(box.shape, lattice.affine * shift, lattice.crs) if displacement <= within else box
