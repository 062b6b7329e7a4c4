"""Map of the group of predictors whose observation would change the prediction most."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from geomiam.plot.canvas import grid_layer, one_axes, one_species, palette, plain
from geomiam.plot.cartography import Coastline, decorate
from geomiam.plot.explanations import class_legend, draw_classes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COMPLETE = "#f4efe1"
"""Colour of cells that lack no group."""
PALEST = 0.2
"""Opacity of the smallest value."""
HIGH = 0.98
"""Quantile of the values at which colours are full."""


def value_of_information(
    result: xr.Dataset,
    *,
    species: str | None = None,
    ax: Axes | None = None,
    coastline: Coastline = None,
    scale_bar: bool = False,
) -> Axes:
    """Draw the group whose observation would change the prediction most, in a stronger colour for a larger change.

    Parameters
    ----------
    result : xarray.Dataset
        From :func:`geomiam.value_of_information`, or a map with its layers.
    species : str, optional
        Default: the first, or the set of species that the values are of.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on; default: those of a new figure.
    coastline, scale_bar
        As for :func:`geomiam.plot.suitability`.

    Returns
    -------
    matplotlib.axes.Axes
        Its legend has the share of the cells that lack a group, and the mean value there.

    Raises
    ------
    SettingError
        If the layer ``value_of_information`` is missing, or lies on sites.

    See Also
    --------
    geomiam.value_of_information : the map.
    geomiam.explain.mean_value : means over the map and over regions.

    Examples
    --------
    >>> value = gm.value_of_information(cube, model, groups=["climate", "terrain"])
    >>> ax = gm.plot.value_of_information(value)
    >>> ax.get_legend().get_texts()[0].get_text().split(":")[0]
    'climate'
    """
    layer = grid_layer(result, "value_of_information", source="gm.value_of_information")
    layer = one_species(layer, species)
    y, x = layer.dims[-2:]
    values = layer.transpose("group", y, x).values
    lacking = np.isfinite(values).any(0)
    values = np.where(np.isfinite(values), values, -1)
    best, size = values.argmax(0), values.max(0)
    limit = (float(np.quantile(size[lacking], HIGH)) if lacking.any() else 0.0) or 1.0
    numbers = np.where(lacking, best + 1.0, np.where(_complete(result, (y, x)), 0.0, np.nan))
    names = [plain(n) for n in layer["group"].values]
    colours = {0.0: COMPLETE, **{i + 1.0: palette(i) for i in range(len(names))}}
    opacity = np.where(lacking, PALEST + (1 - PALEST) * np.clip(size / limit, 0, 1), 1.0)
    ax = one_axes(ax, (7.6, 6))
    cells = layer.isel(group=0).transpose(y, x).copy(data=numbers)  # of which the outline is drawn
    draw_classes(ax, cells, colours, opacity)
    decorate(ax, cells, coastline=coastline, scale_bar=scale_bar)
    labels = {_label(n, best[lacking] == i, size[lacking]): palette(i) for i, n in enumerate(names)}
    class_legend(ax, {**labels, "no group is missing": COMPLETE})
    title = plain(layer["species"].item()) if "species" in layer.coords else "set of species"
    ax.set_title(
        f"{title}: the missing group worth most\nfull colour: expected change of {limit:.2g} or more",
        fontsize=10,
    )
    return ax


def _complete(result: xr.Dataset, dims: tuple[Hashable, ...]) -> Any:
    """Return which cells lack no group ``(y, x)``."""
    return (
        result["missing_groups"].transpose(*dims).values == 0
        if "missing_groups" in result
        else False
    )


def _label(name: str, is_best: np.ndarray, size: np.ndarray) -> str:
    """Return the share of the lacking cells ``(n,)`` in which a group is worth most, and its mean value there."""
    if not is_best.any():
        return f"{name}: nowhere"
    return f"{name}: {is_best.mean():.0%}, mean {size[is_best].mean():.2g}"
