"""Raster formats: what reads the files of a source, by its kind."""

from __future__ import annotations

from collections.abc import Sequence
from pkgutil import resolve_name
from typing import Protocol

import xarray as xr

from geomiam.schema.data_source import FORMATS, Source
from geomiam.schema.schema import Variable


class Format(Protocol):
    """Reads files as labelled arrays; a class without arguments."""

    def read(
        self, paths: Sequence[str], source: Source, *, variable: Variable, lenient: bool
    ) -> tuple[list[xr.DataArray], int]:
        """Read files that together cover a place.

        Parameters
        ----------
        paths
            Files or URLs.
        source, variable
            What is read of each.
        lenient
            Files that are not there are left out.

        Returns
        -------
        tuple
            Arrays ``(*own dims, y, x)`` with a CRS, NaN = missing, each on its own grid, lazily; and how
            many files are not there.

        Raises
        ------
        SourceError
            When a file cannot be read, or lacks the variable.
        """
        ...


def format_of(source: Source) -> Format:
    """Return the format of a source's files."""
    kind = FORMATS[source.kind]
    return (resolve_name(kind) if isinstance(kind, str) else kind)()
