"""Grids of overviews: pixels that each cover a block of pixels of a scene."""

from __future__ import annotations

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox

COARSE = 4
"""Pixels along a cell above which overviews are read."""
MASKED = 4
"""Most pixels along a pixel of an overview if there is a mask, which is read at full resolution.

Above it little is gained, since the mask has most of the bytes, and clear cells are lost between clouds.
"""
COARSEST = 64
"""Most pixels along a pixel of an overview without a mask."""


def coarser(box: GeoBox, step: int) -> GeoBox:
    """Return a grid of which each pixel covers ``step`` × ``step`` pixels; incomplete ones are left out."""
    rows, cols = box.shape.yx
    return GeoBox((rows // step, cols // step), box.affine * Affine.scale(step), box.crs)


def finer(box: GeoBox, step: int) -> GeoBox:
    """Return the pixels under a grid of :func:`coarser`."""
    rows, cols = box.shape.yx
    return GeoBox((rows * step, cols * step), box.affine * Affine.scale(1 / step), box.crs)


def mean_below(pixels: np.ndarray, step: int) -> np.ndarray:
    """Return the mean of each block of ``step`` × ``step`` pixels, NaN if one of them is NaN."""
    means: np.ndarray = _blocks(pixels, step).mean(axis=(1, 3))
    return means


def any_below(pixels: np.ndarray, step: int) -> np.ndarray:
    """Return where a pixel of a block of ``step`` × ``step`` pixels is true."""
    return np.asarray(_blocks(pixels, step).any(axis=(1, 3)))


def _blocks(pixels: np.ndarray, step: int) -> np.ndarray:
    """Return pixels in blocks ``(row, y, column, x)``."""
    rows, cols = pixels.shape
    return pixels.reshape(rows // step, step, cols // step, step)
