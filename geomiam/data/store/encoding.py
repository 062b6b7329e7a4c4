"""Preparation of a Dataset for Zarr: plain coordinates, attributes as JSON, one fill value, one chunk size per dim."""

from __future__ import annotations

import datetime
import difflib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from geomiam.data.names import labels_of, text_names
from geomiam.errors import GridError, warn
from geomiam.geo.dims import as_named

ENCODED = ("coordinates", "grid_mapping", "_FillValue", "missing_value")
"""Attributes that xarray expects in the encoding."""


def encodable(ds: xr.Dataset) -> xr.Dataset:
    """Return the Dataset with attributes and encodings that can be written to Zarr.

    NaN becomes the fill value of floats, so that GDAL recognises missing values. The CRS is listed
    among the coordinates, so that ``xr.open_zarr`` reads it as a coordinate. Attributes that are not
    valid JSON (dates, paths, sets, objects) become text.
    """
    ds = _plain_coordinates(text_names(ds))
    text = {k: v.astype(object) for k, v in ds.variables.items() if v.dtype.kind == "U"}
    ds = ds.assign(text)  # Zarr v3 has no fixed-width text
    for name, var in ds.variables.items():
        mapping = var.encoding.get("grid_mapping", var.attrs.get("grid_mapping"))
        fill = {"_FillValue": var.dtype.type(np.nan)} if var.dtype.kind == "f" else {}
        var.encoding = fill if name in ds.data_vars else {"_FillValue": None}
        if mapping in ds.variables:
            names = [
                str(k)
                for k, c in ds.coords.items()
                if k not in (*ds.dims, mapping) and set(c.dims) <= set(var.dims)
            ]
            names = [k for k in names if " " not in k]  # CF separates them by blanks
            var.encoding["grid_mapping"] = mapping
            var.encoding["coordinates"] = " ".join([*names, str(mapping)])
        var.attrs = {k: v for k, v in json_attributes(var.attrs).items() if k not in ENCODED}
    for name, var in ds.variables.items():
        if var.chunks is not None:  # Zarr has one chunk size per dim
            ds[name] = ds[name].chunk({d: max(c) for d, c in zip(var.dims, var.chunks)})
    ds.attrs = json_attributes(ds.attrs)
    return ds


def _plain_coordinates(ds: xr.Dataset) -> xr.Dataset:
    """Return the Dataset with coordinates of types that a store supports.

    Labels that are Python objects (periods, intervals, dates with a time zone) become text. The
    levels of a MultiIndex become coordinates. Other coordinates of Python objects are dropped.
    """
    multi = [d for d, i in ds.indexes.items() if isinstance(i, pd.MultiIndex) and d in ds.dims]
    ds = ds.reset_index(multi) if multi else ds
    odd = [k for k, c in ds.coords.items() if not _is_plain(c)]
    labels = {d: list(map(str, labels_of(ds[d], str(d)))) for d in odd if d in ds.dims}
    if left_out := [str(k) for k in odd if k not in ds.dims]:
        warn(
            f"coordinates {left_out} are Python objects, which no store supports; they are left out. "
            f"Remove them before writing with ds.drop_vars({left_out})"
        )
    ds = ds.drop_vars(left_out).assign_coords(labels)
    extension_names = [k for k, c in ds.coords.items() if not isinstance(c.dtype, np.dtype)]
    return ds.assign_coords(
        {k: ds[k].copy(data=np.asarray(ds[k].values, dtype=object)) for k in extension_names}
    )


def _is_plain(coordinate: xr.DataArray) -> bool:
    """Return whether a coordinate has numbers, text or dates that CF can encode."""
    if isinstance(coordinate.dtype, np.dtype) and coordinate.dtype.kind != "O":
        return True
    values: list[Any] = np.asarray(coordinate.values, dtype=object).ravel().tolist()
    return all(isinstance(v, str) for v in values) or all(hasattr(v, "calendar") for v in values)


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
    values: dict[str, Any] = {}
    for key, value in json_attributes(attrs).items():
        is_list = isinstance(value, list) and bool(value)
        if isinstance(value, bool):
            values[key] = int(value)
        elif isinstance(value, (str, int, float)) or (
            is_list and all(type(v) in (int, float) for v in value)
        ):
            values[key] = value
        elif value is not None:
            values[key] = json.dumps(value)
    return values


def chunk_sizes(chunks: Any, sizes: Mapping[str, int], *, automatic: int) -> dict[str, int]:
    """Return the chunk size of each dim as a positive number.

    ``chunks`` maps dims to a number of cells, to -1 or None for the whole dim, or to ``"auto"``, which
    stands for ``automatic`` cells; or it is ``"auto"`` for all dims. Spatial dims have any usual name: y
    stands for latitude if the cube has it. ``sizes`` has the cells along each dim that can be chunked.

    Raises GridError for a dim that the data do not have, with the nearest name, and for an invalid size.
    """
    if chunks is None:
        return {}
    if chunks == "auto":
        chunks = dict.fromkeys(sizes, "auto")
    if not isinstance(chunks, Mapping):
        raise GridError(f"chunks={chunks!r}; pass a mapping such as {{'y': 512, 'x': 512}}")
    requests = as_named(chunks, sizes).items()
    return {str(d): _chunk(str(d), size, sizes, automatic=automatic) for d, size in requests}


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
