"""Maps of novelty with the predictor that is most dissimilar."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from geomiam.errors import SettingError
from geomiam.plot.canvas import EMPTY, PALETTE, grid_layer, one_axes, plain
from geomiam.plot.cartography import Coastline, decorate
from geomiam.plot.maps import draw_map

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INSIDE, COMBINATION, OTHERS = "#f4efe1", "#5b6770", "#a9b4ba"
MOST = 8
"""Predictors with a colour; further ones share a grey."""


def novelty(
    new: xr.Dataset, *, ax: Axes | None = None, coastline: Coastline = None, scale_bar: bool = False
) -> Axes:
    """Draw where cells are new, by the predictor that is most dissimilar to the training sites.

    Colours are the predictors of cells with a value outside the training range. Dark grey: all values are
    inside their ranges, and the cell is outside the area of applicability. Light: not new.

    Parameters
    ----------
    new : xarray.Dataset
        From :func:`geomiam.novelty`, with the measure ``"mess"``.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on; default: those of a new figure.
    coastline : "cells", path or GeoDataFrame, optional
        As for :func:`geomiam.plot.suitability`.
    scale_bar : bool
        Draw a scale bar in km or m.

    Returns
    -------
    matplotlib.axes.Axes
        Its legend has the share of the cells.

    Raises
    ------
    SettingError
        If the layers ``mess`` and ``most_dissimilar`` are missing.

    See Also
    --------
    geomiam.novelty : the map.
    geomiam.plot.bivariate : suitability that fades where predictors are outside their range.

    Examples
    --------
    >>> ax = gm.plot.novelty(gm.novelty(cube, model))
    >>> ax.get_legend().get_texts()[0].get_text().startswith("not new")
    True
    """
    from matplotlib.colors import BoundaryNorm, ListedColormap
    from matplotlib.patches import Patch

    if not {"mess", "most_dissimilar"} <= set(new.data_vars):
        raise SettingError(
            "the map needs the layers 'mess' and 'most_dissimilar': compute them with gm.novelty(cube, model), "
            "whose NoveltyOptions(measures=...) include 'mess'"
        )
    grid_layer(new, "mess", source="gm.novelty")
    classes, labels = _classes(new)
    names = list(labels)
    colours = [INSIDE, COMBINATION, *PALETTE[: len(names) - 3], OTHERS]
    ax = one_axes(ax, (7.6, 6))
    bounds = np.arange(len(names) + 1) - 0.5
    norm = BoundaryNorm(bounds, len(names))
    draw_map(ax, classes, cmap=ListedColormap(colours), norm=norm)
    decorate(ax, classes, coastline=coastline, scale_bar=scale_bar)
    handles = [
        Patch(facecolor=colour, edgecolor="#8a949a", lw=0.5, label=f"{plain(name)}: {share:.1%}")
        for colour, (name, share) in zip(colours, labels.items(), strict=True)
        if share or name == names[0]
    ]
    handles.append(Patch(facecolor=EMPTY, edgecolor="#8a949a", lw=0.5, label="no predictor"))
    place: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}
    title = "share of the cells"
    ax.legend(handles=handles, fontsize=8, frameon=False, title=title, alignment="left", **place)
    ax.set_title("predictor that is outside the training range", fontsize=10)
    return ax


def _classes(new: xr.Dataset) -> tuple[xr.DataArray, dict[str, float]]:
    """Return the class of each cell, NaN without predictors, and the share of the cells of each class.

    Classes: not new, a new combination, the predictors outside the range of most cells, and all others.
    """
    mess, number = new["mess"].values, new["most_dissimilar"].values
    attrs = new["most_dissimilar"].attrs
    names = dict(zip(np.atleast_1d(attrs["flag_values"]).tolist(), attrs["flag_meanings"].split()))
    observed, beyond = np.isfinite(mess), mess < 0
    inside = new["inside"].values if "inside" in new else np.ones(mess.shape)
    is_combination = new["exdet"].values > 1 if "exdet" in new else np.zeros(mess.shape, bool)
    counts = {n: int((beyond & (number == n)).sum()) for n in names if n >= 0}
    largest = [n for n in sorted(counts, key=lambda n: -counts[n]) if counts[n]][:MOST]
    classes = np.where(observed, 0.0, np.nan)
    classes[observed & ~beyond & ((inside == 0) | is_combination)] = 1
    classes[beyond] = 2 + len(largest)
    for position, n in enumerate(largest):
        classes[beyond & (number == n)] = 2 + position
    texts = ["not new", "new combination", *(names[n] for n in largest), "others"]
    total = max(int(observed.sum()), 1)
    shares = {t: float((classes == i).sum()) / total for i, t in enumerate(texts)}
    return new["mess"].copy(data=classes), shares
