"""An array of Zarr format 2 as a raster that is read in windows, as GeoTIFFs are.

The array states its grid by the attributes ``proj:transform`` and ``proj:epsg``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from affine import Affine
from odc.geo.crs import CRS

from geomiam.checks.sizes import check_array
from geomiam.data.store.chunk_reader import guarded_store
from geomiam.errors import SourceError
from geomiam.sources.web.allow_list import scrub

METADATA = ".zarray"
"""File of metadata of an array; a link to it stands for the array."""


@dataclass(frozen=True)
class ZarrRaster:
    """An array with the attributes of an open raster."""

    array: Any
    transform: Affine
    crs: CRS
    nodata = 0
    """The fill value of reflectance, and the class of SCL without data."""

    @classmethod
    def of(cls, href: str) -> ZarrRaster:
        """Open the array of a file of metadata."""
        path = href.removesuffix(f"/{METADATA}")
        array: Any = zarr.open_array(guarded_store(path), mode="r")
        size = array.dtype.itemsize
        check_array(array.shape, array.chunks, size, location=scrub(path), error=SourceError)
        attrs = dict(array.attrs)
        return cls(array, Affine(*attrs["proj:transform"][:6]), CRS(f"EPSG:{attrs['proj:epsg']}"))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, cols = self.array.shape
        return int(rows), int(cols)

    @property
    def height(self) -> int:
        """Rows."""
        return self.shape[0]

    @property
    def width(self) -> int:
        """Columns."""
        return self.shape[1]

    @property
    def block_shapes(self) -> list[tuple[int, int]]:
        """Rows and columns of a chunk."""
        return [self.array.chunks]

    @property
    def dtypes(self) -> list[Any]:
        """Type of the numbers."""
        return [self.array.dtype]

    @property
    def res(self) -> tuple[float, float]:
        """Sides of a pixel."""
        return abs(self.transform.a), abs(self.transform.e)

    def read(self, band: int, *, window: Any) -> np.ndarray:
        """Return the pixels of a window."""
        rows, cols = window.toslices()
        return np.asarray(self.array[rows, cols])
