"""Correlations of predictors, variance inflation factors, and a subset without strong correlations."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import xarray as xr

from geomiam.checks.names import list_names
from geomiam.checks.settings import check_number
from geomiam.data.dataset import along_sites, as_dataset
from geomiam.data.infer import infer_schema
from geomiam.data.sites.draw import random_cells
from geomiam.errors import DoubtfulKind, SelectionError
from geomiam.geo.dims import SITE

Method = Literal["pearson", "spearman"]
ROWS_PER_VARIABLE = 10
"""Complete rows per predictor from which variance inflation is computed from complete rows."""
FEWEST = 3
"""Least number of common rows of a correlation."""
SINGULAR = 1e-10
"""Eigenvalue of a correlation matrix at and below which predictors are linear combinations of each other."""


def correlations(
    data: Any,
    *,
    variables: Sequence[str] | None = None,
    method: Method = "pearson",
    threshold: float = 0.7,
    vif: float = 10.0,
    prefer: Sequence[str] = (),
    sample: int = 100_000,
    rng: int | np.random.Generator | None = 0,
) -> xr.Dataset:
    """Return correlations and variance inflation of predictors, and a subset without strong correlations.

    A masked model needs no such subset: it trains with all predictors, and :func:`geomiam.explain.stepwise`
    finds the ones that suffice afterwards. Choose one where a protocol requires it, or where the effects of
    single predictors are interpreted.

    Parameters
    ----------
    data : xarray.Dataset, xarray.DataTree, xarray.DataArray or pandas.DataFrame
        Cube, of which ``sample`` cells are drawn, or sites.
    variables : sequence of str, optional
        Predictors; default: all numbers with one value per place. Categorical and circular ones are left out.
    method : {"pearson", "spearman"}
        Of the correlations. Each is computed from the rows in which both predictors are observed.
    threshold : float
        Largest absolute correlation of two predictors of the subset, in (0, 1]. 0.7 after Dormann et al.
        (2013).
    vif : float
        Largest variance inflation factor in the subset, above 1; ``numpy.inf`` sets no limit.
    prefer : sequence of str
        Predictors to keep rather than others, the most important first.
    sample : int
        Most cells of a cube that are read.
    rng : int, numpy.random.Generator or None
        Draws the cells.

    Returns
    -------
    xarray.Dataset
        ``correlation(variable, other)``, NaN with less than three common rows or for a constant predictor;
        ``rows(variable, other)``: number of common rows; ``vif(variable)``: variance inflation factor
        1 / (1 − R²) of the regression on all other predictors, infinite for a linear combination of them;
        ``selected(variable)``: whether a predictor is in the subset; ``reason(variable)``: why it is not;
        ``selected_vif(variable)``: variance inflation in the subset. Attributes: ``selected`` and
        ``left_out`` (JSON lists), and ``vif_from``. This is ``"complete rows"``, or
        ``"pairwise correlations"`` if there are fewer than ten complete rows per predictor.

    Raises
    ------
    SelectionError
        If a setting or a variable is unknown, or fewer than two predictors are left.

    See Also
    --------
    geomiam.plot.correlations : plot the table.
    geomiam.explain.importance : the share of each group in the skill of a model.

    Notes
    -----
    Of the two predictors with the largest correlation above the threshold, the one with the larger mean
    absolute correlation with the others is removed, until none is above. Then the predictor with the
    largest variance inflation is removed until none is above ``vif``.

    References
    ----------
    Dormann et al. (2013), Ecography 36, 27-46; Kuhn (2008), Journal of Statistical Software 28(5), for the
    order of removal.

    Examples
    --------
    >>> import geomiam as gm
    >>> table = gm.correlations(gm.demo.load_cube(), threshold=0.7, prefer=["altitude"])
    >>> bool(table["selected"].sel(variable="altitude"))
    True
    """
    _check(method, threshold, vif)
    rows, left_out = _rows(data, variables, prefer, sample=sample, rng=rng)
    matrix = rows.corr(method=method, min_periods=FEWEST)
    reasons = dict.fromkeys(rows.columns, "")
    usable_names = _varying(matrix, reasons)
    inflation, source = _inflation(rows[usable_names])
    selected_names = _uncorrelated(
        matrix.loc[usable_names, usable_names], threshold, prefer, reasons
    )
    selected_names, selected_inflation = _not_inflated(rows[selected_names], vif, prefer, reasons)
    finite = rows.notna().to_numpy(float)
    names = list(rows.columns)
    table = xr.Dataset(
        {
            "correlation": (("variable", "other"), matrix.to_numpy()),
            "rows": (("variable", "other"), (finite.T @ finite).astype(int)),
            "vif": ("variable", inflation.reindex(names).to_numpy()),
            "selected": ("variable", [n in selected_names for n in names]),
            "reason": ("variable", [reasons[n] for n in names]),
            "selected_vif": ("variable", selected_inflation.reindex(names).to_numpy()),
        },
        coords={"variable": names, "other": names},
    )
    table["correlation"].attrs = {"long_name": f"{method} correlation", "units": "1"}
    table["vif"].attrs = {"long_name": "variance inflation factor", "units": "1"}
    return table.assign_attrs(
        method=method,
        threshold=float(threshold),
        vif_limit=float(vif),
        vif_from=source,
        data_rows=len(rows),
        selected=json.dumps(selected_names),
        left_out=json.dumps(left_out),
    )


def _varying(matrix: pd.DataFrame, reasons: dict[str, str]) -> list[str]:
    """Return the predictors that have a correlation; write the reason for the others."""
    is_usable = np.isfinite(np.diag(matrix))
    for name in matrix.columns[~is_usable]:
        reasons[name] = "constant, or observed in less than three rows"
    names = list(matrix.columns[is_usable])
    if len(names) < 2:
        raise SelectionError(
            f"correlations need two predictors that vary, found {names}; constant or never observed: "
            f"{list_names(matrix.columns[~is_usable])}"
        )
    return names


def _check(method: str, threshold: float, vif: float) -> None:
    if method not in get_args(Method):
        raise SelectionError(f"method={method!r}; use 'pearson' or 'spearman'")
    check_number(
        "threshold",
        threshold,
        requirement="must lie in (0, 1]",
        accepts=lambda x: 0 < x <= 1,
        hint="0.7 is usual",
    )
    check_number(
        "vif", vif, requirement="must be above 1", accepts=lambda x: x > 1, hint="10 is usual"
    )


def _rows(
    data: Any, variables: Sequence[str] | None, prefer: Sequence[str], *, sample: int, rng: Any
) -> tuple[pd.DataFrame, list[str]]:
    """Return predictors as columns, and the names of those that are not numbers with one value per place."""
    ds = along_sites(as_dataset(data))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DoubtfulKind)
        kinds = infer_schema(ds).variables
    numbers = [n for n, v in kinds.items() if v.kind == "scalar"]
    names = numbers if variables is None else list(variables)
    if unknown := [n for n in (*names, *prefer) if n not in names or n not in kinds]:
        raise SelectionError(f"{unknown} are not among the predictors {list_names(numbers)}")
    if with_dims := [n for n in names if kinds[n].dims]:
        raise SelectionError(
            f"{with_dims} have several values per place: select one, such as ds['ndvi'].sel(month=7), and add it under "
            "another name"
        )
    part = ds[names]
    if SITE not in part.dims:
        part, _ = random_cells(part, n=sample, rng=np.random.default_rng(rng))
    columns = {n: np.asarray(part[n].values, float) for n in names}
    rows = pd.DataFrame(columns).replace([np.inf, -np.inf], np.nan)
    return rows, [n for n in kinds if n not in names]


def _inflation(rows: pd.DataFrame) -> tuple[pd.Series, str]:
    """Return the variance inflation factor of each column, and the rows it is computed from."""
    complete_rows = rows.dropna()
    varies = len(complete_rows) > 1 and bool((complete_rows.std() > 0).all())
    if varies and len(complete_rows) >= ROWS_PER_VARIABLE * rows.shape[1]:
        matrix, source = complete_rows.corr(), "complete rows"
    else:
        matrix, source = rows.corr(min_periods=FEWEST), "pairwise correlations"
    # VIF_j = [R⁻¹]_jj; directions without variance are linear combinations
    values, vectors = np.linalg.eigh(matrix.fillna(0.0).to_numpy())
    is_flat = values <= SINGULAR
    inverse = (vectors[:, ~is_flat] ** 2 / values[~is_flat]).sum(1)
    is_combination = (vectors[:, is_flat] ** 2).sum(1) > SINGULAR
    return pd.Series(np.where(is_combination, np.inf, inverse), index=rows.columns), source


def _uncorrelated(
    matrix: pd.DataFrame, threshold: float, prefer: Sequence[str], reasons: dict[str, str]
) -> list[str]:
    """Remove predictors until no absolute correlation is above the threshold, and note the reasons."""
    strength = matrix.abs().fillna(0.0).to_numpy(copy=True)
    np.fill_diagonal(strength, 0.0)
    names, remaining = list(matrix.columns), np.ones(len(matrix), bool)
    while True:
        among = np.where(remaining[:, None] & remaining, strength, 0.0)
        first, second = np.unravel_index(among.argmax(), among.shape)
        if among[first, second] <= threshold:
            return [n for n, stays in zip(names, remaining) if stays]
        mean = among.sum(1)
        pair = [int(first), int(second)]
        pair.sort(key=lambda i: (_rank(names[i], prefer), mean[i], i))
        better, worse = pair
        remaining[worse] = False
        reasons[names[worse]] = f"|r| = {among[first, second]:.2f} with {names[better]}"


def _not_inflated(
    rows: pd.DataFrame, limit: float, prefer: Sequence[str], reasons: dict[str, str]
) -> tuple[list[str], pd.Series]:
    """Remove predictors until no variance inflation is above the limit, and note the reasons."""
    while True:
        inflation, _ = _inflation(rows)
        above = inflation[inflation > limit]
        if above.empty or rows.shape[1] < 2:
            return list(rows.columns), inflation
        worst = max(above.index, key=lambda n: (_rank(n, prefer), above[n]))
        reasons[worst] = f"VIF = {above[worst]:.1f}"
        rows = rows.drop(columns=worst)


def _rank(name: str, prefer: Sequence[str]) -> int:
    """Return the position of a name among the preferred ones; their number for all others."""
    return list(prefer).index(name) if name in prefer else len(prefer)
