"""Contributions by zone, and regions of cells that are explained alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from geomiam.errors import SettingError
from geomiam.plot.canvas import INK, grid_layer, one_axes, one_species, palette, plain, several_axes
from geomiam.plot.explanations import class_legend, draw_classes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DARK = 0.6
"""Least share of the largest value whose colour is so dark that text is white."""


def zones(table: xr.Dataset, *, species: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw the mean size of contributions in each zone; numbers have the sign of the mean contribution.

    Parameters
    ----------
    table : xarray.Dataset
        From :func:`geomiam.explain.by_zone`.
    species : str, optional
        Default: the first.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on; default: those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    See Also
    --------
    geomiam.explain.by_zone : the table.

    Examples
    --------
    >>> table = gm.explain.by_zone(gm.shapley(cube, model), cube["landcover"])
    >>> [text.get_text() for text in gm.plot.zones(table).get_yticklabels()]
    ['water', 'wood', 'field']
    """
    if "mean_absolute" not in table:
        raise SettingError("there is no table of zones: pass the result of gm.explain.by_zone")
    sizes, means = (one_species(table[n], species) for n in ("mean_absolute", "mean"))
    rows, columns = ([plain(n) for n in sizes[d].values] for d in ("zone", "group"))
    ax = one_axes(ax, (3 + 0.7 * len(columns), 1.8 + 0.4 * len(rows)))
    mesh = _matrix(ax, sizes.values, rows=rows, columns=columns, cmap="Purples", texts=means.values)
    ax.figure.colorbar(mesh, ax=ax, shrink=0.8, label="mean |contribution|")
    ax.set_title(f"{plain(sizes['species'].item())}\nnumbers: mean contribution", fontsize=10)
    return ax


def regions(
    result: xr.Dataset, *, species: str | None = None, ax: Sequence[Axes] | None = None
) -> list[Axes]:
    """Draw regions of cells that are explained alike, and the mean contributions in each.

    Parameters
    ----------
    result : xarray.Dataset
        From :func:`geomiam.explain.regions` of a cube.
    species : str, optional
        Species of the mean contributions; default: the first.
    ax : sequence of matplotlib.axes.Axes, optional
        Axes of the map and of the table; default: those of a new figure.

    Returns
    -------
    list of matplotlib.axes.Axes

    Raises
    ------
    SettingError
        If the number of axes is not 2.

    See Also
    --------
    geomiam.explain.regions : the regions.

    Examples
    --------
    >>> axes = gm.plot.regions(gm.explain.regions(gm.shapley(cube, model), count=3))
    >>> len(axes)
    2
    """
    panels = several_axes(ax, 2, columns=2, figsize=(12, 5.2))
    codes = grid_layer(result, "region", source="gm.explain.regions")
    centres = one_species(result["centre"], species)
    names = [f"region {n}" for n in result["region_number"].values]
    draw_classes(panels[0], codes, {i + 1.0: palette(i) for i in range(len(names))})
    class_legend(panels[0], {n: palette(i) for i, n in enumerate(names)})
    between = float(result["explained"])
    panels[0].set_title(
        f"{between:.0%} of the variance of contributions is between regions", fontsize=10
    )
    limit = float(np.abs(centres).max()) or 1.0
    columns = [plain(n) for n in centres["group"].values]
    values, options = centres.values, {"vmin": -limit, "vmax": limit, "cmap": "RdBu_r"}
    mesh = _matrix(panels[1], values, rows=names, columns=columns, texts=values, **options)
    panels[1].figure.colorbar(mesh, ax=panels[1], shrink=0.8, label="mean contribution")
    panels[1].set_title(plain(centres["species"].item()), style="italic")
    return panels


def _matrix(
    ax: Axes,
    values: np.ndarray,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    texts: np.ndarray,
    **style: Any,
) -> Any:
    """Draw a matrix with names and numbers; return its image."""
    mesh = ax.imshow(values, aspect="auto", **style)
    largest = np.nanmax(np.abs(values))
    for i, j in np.ndindex(*values.shape):
        ink = "white" if abs(values[i, j]) > DARK * largest else INK
        text = f"{texts[i, j]:.2f}".replace("-", "−")
        ax.text(j, i, text, ha="center", va="center", fontsize=8, color=ink)
    ax.set_xticks(range(len(columns)), columns, rotation=40, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(rows)), rows)
    return mesh
