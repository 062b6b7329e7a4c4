"""Preparation of a Dataset for Zarr: attributes as JSON, one fill value, one chunk size per dim."""

from __future__ import annotations

import datetime
import difflib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from geomiam.data.store.coordinates import plain_coordinates, text_names
from geomiam.errors import GridError
from geomiam.geo.dims import as_named

ENCODED = ("coordinates", "grid_mapping", "_FillValue", "missing_value")
"""Attributes that xarray expects in the encoding."""


def encodable(ds: xr.Dataset) -> xr.Dataset:
    """Return the Dataset with attributes and encodings that can be written to Zarr.

    NaN becomes the fill value of floats, so that GDAL recognises missing values. The CRS is listed
    among the coordinates, so that ``xr.open_zarr`` reads it as a coordinate. Attributes that are not
    valid JSON (dates, paths, sets, objects) become text.
    """
    ds = plain_coordinates(text_names(ds))
    text = [k for k, v in ds.variables.items() if v.dtype.kind == "U"]
    ds = ds.assign({k: ds[k].astype(object) for k in text})  # Zarr v3 has no fixed-width text
    for name, var in ds.variables.items():
        mapping = var.encoding.get("grid_mapping", var.attrs.get("grid_mapping"))
        fill = {"_FillValue": var.dtype.type(np.nan)} if var.dtype.kind == "f" else {}
        var.encoding = fill if name in ds.data_vars else {"_FillValue": None}
        if mapping in ds.variables:
            var.encoding["grid_mapping"] = mapping
            var.encoding["coordinates"] = " ".join([*_coordinates(ds, var, mapping), str(mapping)])
        var.attrs = {k: v for k, v in json_attributes(var.attrs).items() if k not in ENCODED}
    ds = _evenly_chunked(ds)
    ds.attrs = json_attributes(ds.attrs)
    return ds


def _coordinates(ds: xr.Dataset, var: xr.Variable, mapping: Any) -> list[str]:
    """Return the names of a variable's coordinates that are not dims, for CF's ``coordinates``."""
    return [
        str(name)
        for name, c in ds.coords.items()
        if name not in ds.dims
        and name != mapping
        and set(c.dims) <= set(var.dims)
        and " " not in str(name)
    ]


def _evenly_chunked(ds: xr.Dataset) -> xr.Dataset:
    """Rechunk dask arrays to one size per dim, as Zarr requires."""
    for name, var in ds.variables.items():
        if var.chunks is not None:
            sizes = {d: max(c) for d, c in zip(var.dims, var.chunks, strict=True)}
            ds[name] = ds[name].chunk(sizes)
    return ds


def json_attributes(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """Return attributes as valid JSON; other types become text."""
    return {str(k): _json_value(v) for k, v in attrs.items()}


def _json_value(value: Any) -> Any:
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.astype(str).tolist() if value.dtype.kind in "mM" else value.tolist()
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, Mapping):
        return json_attributes(value)
    if isinstance(value, (list, tuple)):
        return [_json_value(v) for v in value]
    if isinstance(value, (set, frozenset)):
        return sorted(str(v) for v in value)
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def netcdf_attributes(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """Return attributes with types of netCDF 3 and 4: numbers, text, and lists of numbers."""
    plain = json_attributes(attrs)
    return {k: _netcdf_value(v) for k, v in plain.items() if v is not None}


def _netcdf_value(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, (str, int, float)):
        return value
    numbers = isinstance(value, list) and all(
        isinstance(v, (int, float)) and not isinstance(v, bool) for v in value
    )
    return value if value and numbers else json.dumps(value)


def chunk_sizes(chunks: Any, sizes: Mapping[str, int], *, automatic: int) -> dict[str, int]:
    """Return the chunk size of each dim as a positive number.

    Parameters
    ----------
    chunks
        Mapping from a dim to a number of cells, to -1 or None for the whole dim, or to ``"auto"``; or
        ``"auto"`` for all dims. Spatial dims have any usual name: y stands for latitude if the cube has it.
    sizes
        Number of cells along each dim that can be chunked.
    automatic
        Number of cells for ``"auto"``.

    Raises
    ------
    GridError
        For a dim that the data do not have, with the nearest name, and for an invalid size.
    """
    if chunks is None:
        return {}
    if chunks == "auto":
        chunks = dict.fromkeys(sizes, "auto")
    if not isinstance(chunks, Mapping):
        raise GridError(f"chunks={chunks!r}; pass a mapping such as {{'y': 512, 'x': 512}}")
    return {
        str(dim): _chunk(str(dim), size, sizes, automatic=automatic)
        for dim, size in as_named(chunks, sizes).items()
    }


def _chunk(dim: str, size: Any, sizes: Mapping[str, int], *, automatic: int) -> int:
    if dim not in sizes:
        close = difflib.get_close_matches(dim.lower(), sizes, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"dims are {', '.join(sizes)}"
        raise GridError(f"chunks has the dim '{dim}', which the data do not have; {hint}")
    if size in (-1, None):
        return max(1, sizes[dim])
    if size == "auto":
        return max(1, min(automatic, sizes[dim]))
    if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1:
        raise GridError(
            f"chunks={{'{dim}': {size!r}}}; pass a number of cells from 1, -1 for the whole dim, or 'auto'"
        )
    return int(size)
