"""Axes, colours and styles that the figures share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from geomiam.checks.names import list_names
from geomiam.errors import SelectionError, SettingError
from geomiam.geo.dims import spatial_pair

if TYPE_CHECKING:
    from matplotlib.axes import Axes

EMPTY = "#dfe6ea"
"""Colour of cells without an observed predictor, and of hidden modalities."""
INK = "#26323a"
RED = "#d1495b"
BLUE = "#26547c"
PALETTE = (
    *("#3f90da", "#ffa90e", "#bd1f01", "#832db6", "#a96b59"),
    *("#92dadd", "#e76300", "#b9ac70", "#717581", "#94a4a2"),
)
"""Ten colours that readers with colour blindness distinguish too (Petroff 2021, arXiv:2107.02270), in an
order whose greys are last: grey also means hidden or not tested."""


def palette(number: int) -> str:
    """Return the colour of a numbered line or layer; after ten, colours repeat."""
    return PALETTE[number % len(PALETTE)]


def one_axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    """Return the given axes, or those of a new figure of a size in inches."""
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=size, layout="constrained")[1] if ax is None else ax


def several_axes(
    ax: Sequence[Axes] | None, count: int, *, rows: int = 1, columns: int = 1, **figure: Any
) -> list[Axes]:
    """Return the given axes, or the first ones of a new figure with a grid of axes."""
    import matplotlib.pyplot as plt

    if ax is not None:
        axes = list(np.ravel(np.asarray(ax, object)))
        if len(axes) != count:
            raise SettingError(f"ax= has {len(axes)} axes for {count} panels; pass {count} axes")
        return axes
    _, grid = plt.subplots(rows, columns, squeeze=False, layout="constrained", **figure)
    for unused_axes in grid.ravel()[count:]:
        unused_axes.remove()
    return list(grid.ravel()[:count])


def plain(name: Any) -> str:
    """Return a name of a species or predictor as plain text, in which a dollar sign starts no formula."""
    return str(name).replace("$", r"\$")


def one_species(array: xr.DataArray, species: str | None) -> xr.DataArray:
    """Return the values of one species; default the first, or the one that the caller selected."""
    if "species" not in array.dims and (species is None or array["species"].item() == species):
        return array
    if species is None:
        return array.isel(species=0)
    names = np.atleast_1d(array["species"].values).tolist()
    if species not in names:
        raise SelectionError(f"no species {species!r}; choose from {list_names(names)}")
    return array.sel(species=species)


def grid_layer(maps: xr.Dataset, name: str, *, source: str) -> xr.DataArray:
    """Return a layer of a map; refuse data that lack it, or sites.

    ``source`` is the call that returns the layer.
    """
    if name not in maps:
        raise SettingError(f"the map needs the layer '{name}': pass the result of {source}")
    if spatial_pair(maps[name].dims) is None:
        raise SettingError(
            f"a map needs a grid, found the dims {maps[name].dims}: pass the result of {source} for a cube"
        )
    return maps[name]


def metric_label(table: xr.Dataset) -> str:
    """Return the metric of a table as text."""
    return str(table.attrs["metric"]).replace("_", " ").replace("auc", "AUC")


def quiet(ax: Axes, *, across: Literal["x", "y", "both"] = "y") -> None:
    """Draw grid lines behind the data, and no spines at the top and on the right."""
    ax.grid(axis=across, color="#e3e8eb", lw=0.8)
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
