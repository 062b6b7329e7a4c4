"""The share of symbols that stand for values beyond the training data."""

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
    """Return the share of symbols that stand for values beyond those of the training data.

    A series that is read as symbols is clamped: values beyond all training segments get the symbol of the
    most extreme segment, two degrees beyond as well as twenty. A map of a hotter climate or of another region
    therefore does not show how far it extrapolates. This share shows it.

    Parameters
    ----------
    ds : xarray.Dataset or xarray.DataTree
        Cube or sites, numpy or dask; only series that are read as symbols are read.
    model : Model or path
    memory_limit : int or str, optional
        Most bytes a dask block may need; default 4 GiB.

    Returns
    -------
    xarray.DataArray
        ``saturated(y, x)`` or ``(site)``, 0 to 1: share of the observed symbols whose segment mean lies
        outside the range of segment means in training, per variable and channel. NaN where no symbol is
        observed. Lazy for dask arrays.

    Raises
    ------
    SelectionError
        If the model reads nothing as symbols.
    MissingVariable, VariableMismatch, MemoryRefused
        As :func:`geomiam.predict`.

    See Also
    --------
    geomiam.predict : ``outside_range`` of all predictors is a layer of every prediction.

    Examples
    --------
    >>> import geomiam as gm
    >>> symbols = schema.symbolic(8)  # its series are read as symbols
    >>> model = gm.fit(sites, symbols, training={"steps": 20}, validation=False)
    >>> share = gm.explain.saturation(cube, model)
    >>> bool(share.max() <= 1)
    True
    """
    model = as_model(model)
    visible, outputs = symbolic_tokens(model.layout), saturated_output(model)
    if not outputs:
        raise SelectionError(
            f"the model reads none of {list(model.schema.variables)} as symbols; train one that does with gm.fit(sites, schema.symbolic())"
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
