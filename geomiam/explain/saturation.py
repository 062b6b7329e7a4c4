"""Where symbols say less than the data do."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import xarray as xr

from geomiam.errors import SelectionError
from geomiam.inference.cells import over_cells
from geomiam.inference.inputs import Data, as_data, like_data
from geomiam.inference.predict import saturated_output, saturated_share
from geomiam.model.model import Model
from geomiam.model.saved_model import as_model
from geomiam.tokens.select import symbolic_tokens


def saturation(
    ds: Data, model: Model | str | Path, *, memory_limit: int | str | None = None
) -> xr.DataArray:
    """Return the share of a cell's symbols that stand for values beyond those of the training data.

    A series that is read as symbols is clamped: whatever lies beyond all training segments gets the
    same symbol as the most extreme of them, be it two degrees beyond or twenty. So a map of a hotter
    climate, or of another region, does not show how far it extrapolates. This share does.

    Parameters
    ----------
    ds : xarray.Dataset or xarray.DataTree
        Cube or sites, numpy or dask; only series that are read as symbols are looked at.
    model : Model
    memory_limit : int or str, optional
        Most bytes a dask block may need; default 4 GiB.

    Returns
    -------
    xarray.DataArray
        ``saturated(y, x)`` or ``(site)``, 0 to 1: of the observed symbols, those whose segment mean
        lies outside the range of segment means that the model was trained on, per variable and
        channel. NaN where no symbol is observed. Lazy on dask.

    Raises
    ------
    SelectionError
        If the model reads nothing as symbols.
    MissingVariable, VariableMismatch, MemoryRefused
        As :func:`geomiam.predict`.
    """
    model = as_model(model)
    visible, outputs = symbolic_tokens(model.layout), saturated_output(model)
    if not outputs:
        raise SelectionError(
            f"the model reads none of {list(model.schema.variables)} as symbols, so none can be "
            "saturated; train one with gm.fit(sites, schema.symbolic())"
        )
    out = over_cells(
        as_data(ds, model),
        model,
        partial(saturated_share, model, visible=visible),
        outputs=outputs,
        visible=visible,
        memory_limit=memory_limit,
    )
    return like_data(out, ds)["saturated"].assign_attrs(model_id=model.id)
