"""Tables of scores as one table with a row per subset and species."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from geomiam.errors import LabelError

if TYPE_CHECKING:
    import pandas as pd


def tidy(*tables: xr.Dataset) -> pd.DataFrame:
    """Join tables of scores to one with a row per subset of the predictors and species.

    Parameters
    ----------
    *tables : xarray.Dataset
        From :func:`geomiam.cross_validate`, :func:`geomiam.evaluate` and
        :func:`geomiam.evaluation.confidence`; of a column that several have, the first is used.

    Returns
    -------
    pandas.DataFrame
        ``subset``, ``species``, ``presences`` and ``absences`` (sites of the first table with labels and
        predictions, if it has these), and a column per metric or bound.

    Raises
    ------
    LabelError
        If there is no table, or one without ``subset`` and ``species``.

    See Also
    --------
    geomiam.evaluate : a table of scores.
    geomiam.cross_validate : scores of each fold.

    Examples
    --------
    >>> gm.evaluation.tidy(gm.evaluate(model, sites, subsets="all")).columns.tolist()
    ['subset', 'species', 'auc']
    """
    if not tables or any({"subset", "species"} - set(t.dims) for t in tables):
        raise LabelError(
            "tidy takes tables with the dims subset and species, such as those of gm.cross_validate"
        )
    columns: dict[str, xr.DataArray] = {}
    if {"presence", "suitability"} <= set(tables[0]):
        has_score = np.isfinite(tables[0]["suitability"])
        for name, label in (("presences", 1), ("absences", 0)):
            columns[name] = ((tables[0]["presence"] == label) & has_score).sum("site")
    for table in tables:
        for key, values in table.data_vars.items():
            if set(values.dims) == {"subset", "species"}:
                columns.setdefault(str(key), values)
    first: dict[str, np.ndarray] = {d: tables[0][d].values for d in ("subset", "species")}
    plain = {
        n: c.reset_coords(drop=True).reindex(first).transpose("subset", "species")
        for n, c in columns.items()
    }
    return xr.Dataset(plain, coords=first).to_dataframe(["subset", "species"]).reset_index()
