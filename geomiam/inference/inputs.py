"""Convert the data of a prediction to a Dataset, and the result back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import xarray as xr

from geomiam.checks.names import list_names
from geomiam.data.dataset import along_sites, as_dataset, geometry_dim
from geomiam.errors import MissingVariable
from geomiam.geo.dims import SITE
from geomiam.model.model import Model

Data = xr.Dataset | xr.DataTree | xr.DataArray | pd.DataFrame | Sequence[xr.Dataset | xr.DataArray]
"""Data that a prediction accepts."""


def as_data(data: Any, model: Model) -> xr.Dataset:
    """Return a cube or sites as a Dataset; dims of geometries are called ``site``."""
    if isinstance(data, xr.DataArray) and data.name in model.schema.variables:
        return along_sites(as_dataset(data.to_dataset()))
    ds = as_dataset(data)
    if isinstance(data, pd.DataFrame) and not set(model.schema.variables) & set(ds.data_vars):
        raise MissingVariable(
            f"the table has none of the predictors ({list_names(model.schema.variables)}), found columns "
            f"{list_names(list(map(str, data.columns)))}: read them from a cube, sites = gm.sample(cube, table, "
            "species='...'), and predict the sites"
        )
    return along_sites(ds)


def like_data(result: xr.Dataset, data: Any) -> xr.Dataset:
    """Return a result with the dim of geometries of the data in place of ``site``."""
    dim = geometry_dim(data) if isinstance(data, (xr.Dataset, xr.DataArray)) else None
    return result if dim in (None, SITE) else result.rename({SITE: dim})
