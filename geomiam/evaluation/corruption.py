"""Wrong values in the predictors: noise, and shifts of whole variables."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, get_args

import numpy as np
import xarray as xr

from geomiam.checks.settings import check_number
from geomiam.errors import SelectionError
from geomiam.evaluation.patterns import Rng, by_variable, hide, require_variables
from geomiam.schema.schema import Schema

Error = Literal["noise", "shift"]


def corrupt(
    sites: xr.Dataset,
    entries: xr.DataArray,
    schema: Schema,
    *,
    error: Error = "noise",
    size: float = 1.0,
    rng: Rng = 0,
) -> xr.Dataset:
    """Add errors to the predictors that a pattern marks; gaps stay gaps.

    Parameters
    ----------
    sites : xarray.Dataset
    entries : xarray.DataArray
        Boolean, as :func:`at_random` and the other patterns return it; True = wrong.
    schema : Schema
        Variables of each modality, and which of them are categorical.
    error : {"noise", "shift"}
        ``noise`` adds an independent normal error to each number. ``shift`` adds one constant to all
        marked numbers of a variable, with a random sign. Categories are replaced: with ``noise`` by the
        category of a site that is drawn at random, with ``shift`` by one category for all.
    size : float
        Standard deviation of the noise, or length of the shift, in standard deviations of the variable
        over the sites; at least 0. Categories are replaced at any size above 0.
    rng : int, numpy.random.Generator or None

    Returns
    -------
    xarray.Dataset
        A new dataset; variables of which nothing is marked are shared with ``sites``.

    Raises
    ------
    SelectionError
        If the sites do not have one of the marked variables, or the error is unknown.
    ValueError
        If the size is negative.

    See Also
    --------
    geomiam.evaluation.hide : hide the same entries, as if the errors had been detected.

    Examples
    --------
    >>> wrong = gm.evaluation.at_random(sites, schema, share=0.5, rng=0)
    >>> noisy = gm.evaluation.corrupt(sites, wrong, schema, error="noise", rng=0)
    >>> bool((noisy["bio1"] == sites["bio1"]).all())
    False
    """
    if error not in get_args(Error):
        raise SelectionError(
            f"error={error!r} is not supported; choose from {', '.join(get_args(Error))}"
        )
    check_number(
        "size",
        size,
        requirement="must be at least 0",
        accepts=lambda x: x >= 0,
        hint="1 is one standard deviation",
    )
    marked_entries = by_variable(entries, schema)
    marked_entries = marked_entries[:, marked_entries.any("site").values]
    require_variables(sites, marked_entries, action="changed")
    generator = np.random.default_rng(rng)
    return sites.assign(
        {
            str(name): _with_errors(
                sites[name],
                marked_entries.sel(variable=name, drop=True),
                is_category=schema.variables[str(name)].kind == "categorical",
                error=error,
                size=size,
                rng=generator,
            )
            for name in marked_entries["variable"].values
        }
    )


def _with_errors(
    values: xr.DataArray,
    is_marked: xr.DataArray,
    *,
    is_category: bool,
    error: str,
    size: float,
    rng: np.random.Generator,
) -> xr.DataArray:
    """Return one variable ``(site, ...)`` with errors at the marked sites."""
    observed = values.values[np.isfinite(values.values)]
    if not (len(observed) and size):
        return values
    shape = values.shape if error == "noise" else ()
    if is_category:
        wrong = values.copy(data=np.broadcast_to(rng.choice(observed, shape), values.shape))
    elif error == "noise":
        wrong = values + size * observed.std() * rng.standard_normal(shape)
    else:
        wrong = values + size * observed.std() * rng.choice([-1, 1])
    keep = ~is_marked | values.isnull()
    return values.where(keep, wrong.astype(values.dtype)).transpose(*values.dims)


EFFECTS: dict[str, Callable[..., xr.Dataset]] = {
    "missing": lambda sites, entries, schema, *, rng: hide(sites, entries, schema),
    **{error: partial(corrupt, error=error) for error in get_args(Error)},
}
"""What happens to the entries of a pattern, by name."""
