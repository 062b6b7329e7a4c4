"""Splits: neighbours must not sit on both sides.

Splitters work wherever scikit-learn takes ``cv=``, and on sites. Lengths are in units of the
coordinates: metres on most projected CRS, degrees on a geographic one, where a degree of longitude
shrinks towards the poles and the date line is an edge. Reproject first when that matters.
"""

from __future__ import annotations

from geomiam.training.splits.blocks import (
    hold_out,
    hold_out_blocks,
    site_coordinates,
    spatial_blocks,
    spatial_folds,
)
from geomiam.training.splits.splitters import (
    BufferedLeaveOut,
    Checkerboard,
    EnvironmentalBlocks,
    SpatialBlocks,
)

__all__ = [
    "BufferedLeaveOut",
    "Checkerboard",
    "EnvironmentalBlocks",
    "SpatialBlocks",
    "hold_out",
    "hold_out_blocks",
    "site_coordinates",
    "spatial_blocks",
    "spatial_folds",
]
