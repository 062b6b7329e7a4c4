"""Coverage: fractions of cells or sites at which predictors are observed."""

from __future__ import annotations

from functools import reduce
from operator import and_, or_
from typing import Any, Literal

import numpy as np
import xarray as xr

from geomiam.data.dataset import as_dataset
from geomiam.data.grid.grid import place_dims
from geomiam.data.values import as_float
from geomiam.geo.dims import on_place


def coverage(ds: xr.Dataset | xr.DataTree, schema: Any) -> xr.Dataset:
    """Return the fraction of cells, or sites, at which each modality and variable is observed.

    Cells without a finite value in any of the schema's data variables are empty and do not count.
    Coordinates that serve as predictors are ignored here, because they are finite everywhere. All
    fractions are NaN if all cells are empty.

    Parameters
    ----------
    ds
        Cube or sites, numpy or dask; read once, chunk by chunk.
    schema
        A Schema, or an object with the attribute ``schema``, such as a Model.

    Returns
    -------
    xr.Dataset
        ``observed(modality)``: fraction with at least one finite value in the modality;
        ``complete(modality)``: fraction with finite values only in all its variables;
        ``variable_observed(variable)``: fraction with at least one finite value in the variable;
        ``cells``: number of cells that are not empty; ``cells_with_every_predictor``: number of cells with
        finite values only in all variables. Variables absent from ``ds`` count as not observed.

    See Also
    --------
    geomiam.infer_schema : the schema whose variables are counted.
    geomiam.evaluation.missingness_sweep : skill as more predictors go missing.

    Examples
    --------
    >>> import geomiam as gm
    >>> table = gm.coverage(gm.demo.load_cube(), gm.demo.load_schema())
    >>> bool((table["observed"] <= 1).all())
    True
    """
    import dask

    schema = schema if hasattr(schema, "modalities") else schema.schema
    lazy = chunked(as_dataset(ds))
    any_finite = {v: _finite(lazy, v, values="any") for v in schema.variables}
    all_finite = {v: _finite(lazy, v, values="all") for v in schema.variables}
    members = {m.name: list(m.variables) for m in schema.modalities.values()}
    nonempty = reduce(
        or_, [any_finite[v] for v in any_finite if v in gridded(lazy)], _nowhere(lazy)
    )
    masks_of = {
        "observed": {m: reduce(or_, [any_finite[v] for v in vs]) for m, vs in members.items()},
        "complete": {m: reduce(and_, [all_finite[v] for v in vs]) for m, vs in members.items()},
        "variable_observed": any_finite,
        "every": {"every": reduce(and_, all_finite.values())},
    }
    sums = {k: {n: (nonempty & m).sum() for n, m in masks.items()} for k, masks in masks_of.items()}
    (counts, cell_count) = dask.compute(sums, nonempty.sum())  # one pass over the data
    cells = int(cell_count)
    ds = xr.Dataset(
        {"cells": cells, "cells_with_every_predictor": int(counts["every"]["every"])},
        coords={"modality": list(members), "variable": list(any_finite)},
    )
    dims = {"observed": "modality", "complete": "modality", "variable_observed": "variable"}
    for name, dim in dims.items():
        fractions = [int(n) / cells if cells else np.nan for n in counts[name].values()]
        attrs = {"units": "1", "long_name": f"fraction of cells {name.replace('_', ' ')}"}
        ds[name] = (dim, fractions, attrs)
    return ds[[*dims, "cells", "cells_with_every_predictor"]]


def gridded(ds: xr.Dataset) -> list[str]:
    """Return the names of numeric variables that have all spatial dims, or ``site``."""
    place = set(place_dims(ds))
    return [n for n in on_place(ds) if place <= set(ds[n].dims)]


def observed_cells(ds: xr.Dataset) -> xr.DataArray:
    """Return where at least one data variable has a finite value; lazy, chunk by chunk."""
    lazy = chunked(ds)
    return reduce(or_, [_finite(lazy, v, values="any") for v in gridded(lazy)], _nowhere(lazy))


def chunked(ds: xr.Dataset) -> xr.Dataset:
    """Return the dataset as dask arrays, so that it is processed chunk by chunk."""
    if any(v.chunks is not None for v in ds.variables.values()):
        return ds
    return ds.chunk(dict.fromkeys(place_dims(ds), "auto"))


def _finite(ds: xr.Dataset, name: str, *, values: Literal["any", "all"]) -> xr.DataArray:
    """Return where any or all of a variable's values are finite; False everywhere if it is absent."""
    if name not in ds.variables:
        return _nowhere(ds)
    finite: Any = np.isfinite(as_float(ds[name].reset_coords(drop=True)))
    own_dim_names = [d for d in finite.dims if d not in place_dims(ds)]
    return finite.any(own_dim_names) if values == "any" else finite.all(own_dim_names)


def _nowhere(ds: xr.Dataset) -> xr.DataArray:
    dims, names = place_dims(ds), gridded(ds)
    if not names:
        return xr.DataArray(np.zeros([ds.sizes[d] for d in dims], bool), dims=dims)
    like = ds[names[0]].reset_coords(drop=True)
    return xr.zeros_like(
        like.isel({d: 0 for d in like.dims if d not in dims}, drop=True), dtype=bool
    )
