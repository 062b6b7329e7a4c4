"""Sites of a few numbers and models of them, for tests of novelty."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
import xarray as xr
from helpers_small import TINY_NETWORK

import geomiam as gm
from geomiam.data.predictors import bind
from geomiam.data.sites.table import read_arrays
from geomiam.model.model import Model
from geomiam.tokens.scaler import fit_scaler, with_limits

FILES = Path(__file__).resolve().parents[1] / "files" / "novelty"


def model_of(sites: xr.Dataset, schema: gm.Schema | None = None) -> Model:
    """A model with random weights whose scaler is that of the sites; it stores none of them."""
    schema = bind(schema or gm.infer_schema(sites), sites)
    arrays = read_arrays(sites, schema)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Model.untrained(
            schema,
            scaler=with_limits(fit_scaler(arrays, schema), arrays, schema),
            species=["oak"],
            config=TINY_NETWORK,
        )


def sites_of(table: pd.DataFrame | dict, **modalities: str) -> xr.Dataset:
    """Sites with the columns of a table, each in its modality."""
    columns = {k: np.asarray(v, np.float32) for k, v in dict(table).items() if k in modalities}
    return xr.Dataset({k: ("site", v, {"modality": modalities[k]}) for k, v in columns.items()})


def compare(cells: xr.Dataset, sites: xr.Dataset, **options) -> xr.Dataset:
    """Novelty of cells against sites, of a model of these sites."""
    using = options.pop("using", None)
    settings = gm.NoveltyOptions(**options)
    return gm.novelty(cells, model_of(sites), using=using, reference=sites, options=settings)
