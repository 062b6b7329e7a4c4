"""The contribution of a group against the value of a predictor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from geomiam.checks.names import list_names
from geomiam.errors import SelectionError, SettingError
from geomiam.plot.canvas import INK, RED, one_axes, one_species, plain, quiet
from geomiam.plot.responses import axis_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 20
"""Bins of the line, each with the same number of cells."""
POINTS = 5000
"""Most cells that are drawn."""


def dependence(
    contributions: xr.Dataset,
    predictor: xr.DataArray,
    *,
    group: str,
    species: str | None = None,
    colour: xr.DataArray | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the contribution of a group against the value of a predictor, one point for each cell or site.

    The line is the median in bins with equal numbers of cells. The height of the cloud at one value is the part
    that other predictors of the group, and interactions, add. Cells without the predictor or the group are
    not drawn.

    Parameters
    ----------
    contributions : xarray.Dataset
        From :func:`geomiam.shapley`.
    predictor : xarray.DataArray
        Values on the same cells or sites, such as ``cube["bio1"]``.
    group : str
        Group whose contribution is drawn; usually the one with this predictor.
    species : str, optional
        Default: the first.
    colour : xarray.DataArray, optional
        Another predictor, which colours the points: an interaction shows as a pattern of colours.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on; default: those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    SelectionError
        If the group is unknown.
    SettingError
        If the predictor does not have the cells of the contributions.

    See Also
    --------
    geomiam.plot.response : the mean prediction along a predictor, also where few cells are.
    geomiam.shapley : the contributions.

    Examples
    --------
    >>> values = gm.shapley(cube, model)
    >>> ax = gm.plot.dependence(values, cube["bio1"], group="climate", colour=cube["bio12"])
    >>> ax.get_xlabel()
    'bio1 [°C]'
    """
    if "shapley" not in contributions:
        raise SettingError("contributions= has no Shapley values: pass the result of gm.shapley")
    names = [str(n) for n in contributions["group"].values]
    if group not in names:
        raise SelectionError(f"no group {group!r}; choose from {list_names(names)}")
    values = one_species(contributions["shapley"], species).sel(group=group)
    y = values.values.ravel()
    x = _on_cells(predictor, values)
    with_values = np.flatnonzero(np.isfinite(x) & np.isfinite(y) & (y != 0))
    ax = one_axes(ax, (6.6, 4.4))
    # A fixed draw, since a figure has no rng=.
    sample = np.random.default_rng(0).permutation(with_values)[:POINTS]
    style: dict[str, Any] = {"s": 6, "lw": 0, "alpha": 0.5}
    if colour is None:
        ax.scatter(x[sample], y[sample], color=INK, **style)
    else:
        shades = _on_cells(colour, values)[sample]
        points = ax.scatter(x[sample], y[sample], c=shades, cmap="viridis", **style)
        ax.figure.colorbar(points, ax=ax, label=axis_label(colour))
    if len(with_values) >= 2 * BINS:
        parts = np.array_split(with_values[np.argsort(x[with_values], kind="stable")], BINS)
        middle = [(np.median(x[p]), np.median(y[p])) for p in parts]
        ax.plot(*zip(*middle), color=RED, lw=2, label="median")
        ax.legend(frameon=False, fontsize=9)
    ax.axhline(0, color=INK, lw=0.8)
    scale = "log-odds" if values.attrs.get("scale") == "logit" else "suitability"
    ax.set(xlabel=axis_label(predictor), ylabel=f"contribution of {plain(group)} to {scale}")
    ax.set_title(plain(values["species"].item()), style="italic")
    quiet(ax)
    return ax


def _on_cells(predictor: xr.DataArray, values: xr.DataArray) -> np.ndarray:
    """Return the values of a predictor in the order of the cells of the contributions."""
    if set(predictor.dims) != set(values.dims) or predictor.sizes != values.sizes:
        raise SettingError(
            f"'{predictor.name}' has the sizes {dict(predictor.sizes)}, the contributions have {dict(values.sizes)}; pass "
            "one value per cell, such as ndvi.mean('month')"
        )
    return predictor.transpose(*values.dims).values.ravel().astype(float)
