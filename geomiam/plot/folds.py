"""Maps of sites by fold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from geomiam.errors import SettingError
from geomiam.geo.dims import spatial_pair
from geomiam.plot.canvas import one_axes, palette
from geomiam.plot.cartography import frame_map, units_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def folds(table: xr.Dataset, splits: Any = None, *, ax: Axes | None = None) -> Axes:
    """Draw the folds of a cross-validation on a map.

    Parameters
    ----------
    table : xarray.Dataset
        From :func:`geomiam.cross_validate`, with ``fold(site)``; or sites, if ``splits`` are given.
    splits : splitter, optional
        A splitter of :mod:`geomiam.splits`.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on; default: those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    SettingError
        If there are no coordinates, or neither folds nor a splitter.

    Examples
    --------
    >>> import geomiam as gm
    >>> ax = gm.plot.folds(sites, gm.splits.SpatialBlocks(3, size="50 km"))
    >>> [text.get_text() for text in ax.get_legend().get_texts()][0].split(" (")[0]
    'fold 0'
    """
    pair = spatial_pair(table.variables)
    if pair is None or (splits is None and "fold" not in table):
        raise SettingError(
            f"the table has {[str(n) for n in table.variables][:8]}, and a map of folds needs coordinates, and "
            "'fold' or splits=: pass the table of gm.cross_validate, or sites with splits="
        )
    y, x = (table[n].values for n in pair)
    if splits is None:
        fold = table["fold"].values
    else:
        fold = np.full(table.sizes["site"], -1)
        for number, (_, test) in enumerate(splits.split(table)):
            fold[test] = number
    ax = one_axes(ax, (7.2, 6))
    style: dict[str, Any] = {"ls": "none", "marker": "o", "ms": 3.5, "mew": 0}
    for number in np.unique(fold):
        rows = fold == number
        label, colour = (
            ("not tested", "0.75") if number < 0 else (f"fold {number}", palette(number))
        )
        ax.plot(x[rows], y[rows], label=f"{label} ({int(rows.sum()):,})", color=colour, **style)
    is_degrees = pair[1].lower().startswith("lon") or np.abs(y).max() <= 90  # also without a CRS
    frame_map(ax, "degrees" if is_degrees else units_of(table, pair[1]), y)
    ax.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), markerscale=2)
    return ax
