"""The protocol of raster formats, the format of a source, and steps that all formats share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pkgutil import resolve_name
from typing import Any, Protocol

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox

from geomiam.data.values import fits
from geomiam.errors import DoubtfulSource, SourceError, warn
from geomiam.schema.source import FORMATS, Source
from geomiam.schema.variable import Variable
from geomiam.sources.web.allow_list import scrub


class FileMissing(SourceError):
    """A file is missing, which is no error for tiles: products have none over the sea."""


class Format(Protocol):
    """Reader of files as arrays with coordinates; a class without arguments."""

    def read(
        self,
        paths: Sequence[str],
        source: Source,
        *,
        variable: Variable,
        lenient: bool,
        near: GeoBox | None = None,
    ) -> tuple[list[xr.DataArray], int]:
        """Read files or URLs that together cover the grid.

        ``source`` and ``variable`` are entries of the catalog, with the options for reading; with
        ``lenient``, missing files are skipped. Pixels far from the grid ``near`` may be left out. Returns
        lazy arrays ``(*dims, y, x)`` with a CRS, NaN = missing, each on the grid of its file; and the
        number of missing files. Raises SourceError if a file cannot be read, or lacks the variable.
        """
        ...


def format_of(source: Source) -> Format:
    """Return the format of a source's files."""
    kind = FORMATS[source.kind]
    cls: type[Format] = resolve_name(kind) if isinstance(kind, str) else kind
    return cls()


def apply_decode(array: xr.DataArray, source: Source) -> xr.DataArray:
    """Apply ``decode:`` of a source, after scale and offset."""
    if source.decode == "signed-square":
        return array * abs(array)
    return array


def required_crs(crs: Any, path: str) -> Any:
    """Return the CRS unchanged; refuse None."""
    if crs is None:
        raise SourceError(
            f"{scrub(path)} has no CRS; add 'crs:' to its source, e.g. crs: EPSG:4326"
        )
    return crs


def check_nodata(name: object, source: Source, fills: Iterable[float], dtype: np.dtype) -> None:
    """Warn if the ``nodata:`` of a source cannot occur in its files."""
    if source.nodata is not None and not any(fits(f, dtype) for f in fills):
        warn(
            f"'{name}': nodata: {source.nodata} cannot occur in {dtype}, the type of the file, so "
            "it marks no pixel as missing; correct 'nodata:' in the catalog",
            DoubtfulSource,
        )
