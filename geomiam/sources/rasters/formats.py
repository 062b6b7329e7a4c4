"""The protocol of raster formats, and the format of a source."""

from __future__ import annotations

from collections.abc import Sequence
from pkgutil import resolve_name
from typing import Protocol

import xarray as xr

from geomiam.schema.source import FORMATS, Source
from geomiam.schema.variable import Variable


class Format(Protocol):
    """Reader of files as arrays with coordinates; a class without arguments."""

    def read(
        self, paths: Sequence[str], source: Source, *, variable: Variable, lenient: bool
    ) -> tuple[list[xr.DataArray], int]:
        """Read files that together cover the grid.

        Parameters
        ----------
        paths
            Files or URLs.
        source, variable
            Entries of the catalog, with the options for reading.
        lenient
            Skip missing files.

        Returns
        -------
        tuple
            Lazy arrays ``(*dims, y, x)`` with a CRS, NaN = missing, each on the grid of its file; and
            the number of missing files.

        Raises
        ------
        SourceError
            If a file cannot be read, or lacks the variable.
        """
        ...


def format_of(source: Source) -> Format:
    """Return the format of a source's files."""
    kind = FORMATS[source.kind]
    return (resolve_name(kind) if isinstance(kind, str) else kind)()
