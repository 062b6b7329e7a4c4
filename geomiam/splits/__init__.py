"""Splits of sites into training and test sites that are apart in space or environment.

Splitters take sites, and serve as ``cv=`` in scikit-learn. Lengths are kilometres or text such as
``"100 km"``, in every CRS: geodesic on geographic ones. The default size of blocks follows from the data.
Sites carry their CRS; bare coordinates need ``crs=``, unless they are degrees.
"""

from __future__ import annotations

from geomiam.splits.blocks import hold_out, site_coordinates, spatial_blocks, spatial_folds
from geomiam.splits.environment import EnvironmentalBlocks
from geomiam.splits.neighbours import Matching, NearestNeighbourMatching
from geomiam.splits.site_blocks import Blocks, hold_out_blocks, site_blocks
from geomiam.splits.splitters import BufferedLeaveOut, Checkerboard, SpatialBlocks
from geomiam.splits.weights import prediction_weights

__all__ = [
    "Blocks",
    "BufferedLeaveOut",
    "Checkerboard",
    "EnvironmentalBlocks",
    "Matching",
    "NearestNeighbourMatching",
    "SpatialBlocks",
    "hold_out",
    "hold_out_blocks",
    "prediction_weights",
    "site_blocks",
    "site_coordinates",
    "spatial_blocks",
    "spatial_folds",
]
