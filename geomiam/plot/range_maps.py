"""Maps of range change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from geomiam.plot.canvas import BLUE, one_axes, one_species, plain
from geomiam.plot.maps import draw_map

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {
    "stable_absent": "#e9e4da",
    "gain": "#2a9d8f",
    "loss": "#e08214",
    "stable_present": BLUE,
}


def range_change(result: xr.Dataset, *, species: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw where a range is gained, lost and stable, with the areas in the legend.

    Parameters
    ----------
    result : xarray.Dataset
        From :func:`geomiam.ranges.change`, for one scenario.
    species : str, optional
        Default: the first.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on; default: those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    SelectionError
        If the species is unknown.

    See Also
    --------
    geomiam.ranges.change : the map.

    Examples
    --------
    >>> maps = gm.predict(cube, model)
    >>> ax = gm.plot.range_change(gm.ranges.change(maps, maps, threshold=0.5))
    >>> len(ax.get_legend().get_texts())
    4
    """
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    codes, areas = result["change"], result["area"]
    if "species" in codes.dims:
        codes, areas = one_species(codes, species), one_species(areas, species)
    ax = one_axes(ax, (7, 6))
    draw_map(ax, codes, cmap=ListedColormap(list(COLOURS.values())), vmin=-0.5, vmax=3.5)
    labels = {
        n: f"{n.replace('_', ' ')}: {float(areas.sel({'class': n})):,.0f} km²" for n in COLOURS
    }
    handles = [Patch(color=colour, label=labels[n]) for n, colour in COLOURS.items()]
    place: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.08), "ncols": 2}
    ax.legend(handles=handles, frameon=False, fontsize=9, **place)
    if "species" in codes.coords:
        ax.set_title(plain(np.atleast_1d(codes["species"].values)[0]), style="italic")
    return ax
