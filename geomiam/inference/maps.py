"""Maps on disk: predictions and explanations as one CF-compliant Zarr store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import xarray as xr

from geomiam.cube.store import claim, open_zarr, write_zarr
from geomiam.inference.predict import predict
from geomiam.inference.shapley import shapley as explain
from geomiam.networks.model import Model


def write_map(
    ds: xr.Dataset | xr.DataTree,
    model: Model,
    path: str | Path,
    *,
    shapley: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    **options: Any,
) -> xr.Dataset:
    """Predict a cube into a Zarr store and open it.

    A dask cube is read, predicted and written block by block, so memory does not grow with the map.
    The store appears when it is complete.

    Parameters
    ----------
    ds : xarray.Dataset or xarray.DataTree
        Cube.
    model : Model
    path : str or pathlib.Path
    shapley : bool
        Explain as well.
    overwrite : bool
        Replace what is there.
    progress : bool
        Show a progress bar.
    **options
        Of :func:`geomiam.predict`, or of :func:`geomiam.shapley`.

    Returns
    -------
    xarray.Dataset
        The stored map, lazily opened.

    Raises
    ------
    OutputExists
        If ``path`` exists and ``overwrite`` is False.
    """
    claim(path, overwrite)
    made = explain(ds, model, **options) if shapley else predict(ds, model, **options)
    write_zarr(
        made.assign_attrs(Conventions="CF-1.11"), path, overwrite=overwrite, progress=progress
    )
    return open_zarr(path)
