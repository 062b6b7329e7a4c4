"""The correlation matrix of predictors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from geomiam.plot.canvas import EMPTY, INK, one_axes, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes


DARK = 0.6
"""Least absolute correlation whose colour is so dark that text is white."""


def correlations(table: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Draw the correlations of predictors; names of the suggested subset are bold.

    Parameters
    ----------
    table : xarray.Dataset
        From :func:`geomiam.correlations`.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on; default: those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    See Also
    --------
    geomiam.correlations : the table.

    Examples
    --------
    >>> ax = gm.plot.correlations(gm.correlations(sites))
    >>> len(ax.get_xticks()) == gm.correlations(sites).sizes["variable"]
    True
    """
    matrix = table["correlation"].values
    names = [plain(n) for n in table["variable"].values]
    side = 2.2 + 0.42 * len(names)
    ax = one_axes(ax, (side + 0.8, side))
    ax.set_facecolor(EMPTY)
    mesh = ax.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1)
    for i, j in np.argwhere(np.abs(np.tril(np.nan_to_num(matrix), -1)) > table.attrs["threshold"]):
        text = f"{matrix[i, j]:.2f}".replace("0.", ".").replace("-", "−")
        ink = INK if abs(matrix[i, j]) < DARK else "white"
        ax.text(j, i, text, ha="center", va="center", fontsize=8, color=ink)
    ax.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(names)), names)
    is_in_subset = table["selected"].values
    for labels in (ax.get_xticklabels(), ax.get_yticklabels()):
        for label, is_selected in zip(labels, is_in_subset):
            label.set(fontweight="bold" if is_selected else "normal", color=INK)
    text = str(table["correlation"].attrs.get("long_name", "correlation"))
    text = text[:1].upper() + text[1:]  # Pearson, Spearman
    ax.figure.colorbar(mesh, ax=ax, shrink=0.7, label=text)
    return ax
