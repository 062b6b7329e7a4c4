"""Axes, colours and styles that the figures share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from geomiam.errors import SettingError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

EMPTY = "#dfe6ea"
"""Colour of cells without an observed predictor, and of hidden modalities."""
INK = "#26323a"
RED = "#d1495b"


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
    """Return the values of one species; default the first."""
    return array.isel(species=0) if species is None else array.sel(species=species)


def metric_label(table: xr.Dataset) -> str:
    """Return the metric of a table as text."""
    return str(table.attrs["metric"]).replace("_", " ").replace("auc", "AUC")


def quiet(ax: Axes, *, across: Literal["x", "y", "both"] = "y") -> None:
    """Draw grid lines behind the data, and no spines at the top and on the right."""
    ax.grid(axis=across, color="#e3e8eb", lw=0.8)
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
