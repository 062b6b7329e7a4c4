"""Maps of suitability and of Shapley values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from geomiam.errors import SettingError
from geomiam.plot.canvas import EMPTY, RED, grid_layer, one_axes, one_species, plain, several_axes
from geomiam.plot.cartography import Coastline, decorate, frame_map, units_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

MOST_PANELS = 30


def suitability(
    maps: xr.Dataset,
    *,
    species: str | None = None,
    points: np.ndarray | None = None,
    ax: Axes | None = None,
    cmap: str | Colormap = "YlGnBu",
    coastline: Coastline = None,
    scale_bar: bool = False,
) -> Axes:
    """Draw the suitability map of one species.

    Parameters
    ----------
    maps : xarray.Dataset
        From :func:`geomiam.predict` or :func:`geomiam.shapley`.
    species : str, optional
        Default: the first.
    points : numpy.ndarray, optional
        x and y of presences ``(n, 2)``.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on; default: those of a new figure.
    cmap : str or matplotlib.colors.Colormap
        Colour map.
    coastline : "cells", path or GeoDataFrame, optional
        Lines or polygons to draw over the map, in any CRS; ``"cells"``: the outline of the cells with a
        prediction. Default: none.
    scale_bar : bool
        Draw a scale bar in km or m.

    Returns
    -------
    matplotlib.axes.Axes

    See Also
    --------
    geomiam.predict : the map.
    geomiam.plot.interactive : a map to move and zoom in a browser.

    Examples
    --------
    >>> import geomiam as gm
    >>> ax = gm.plot.suitability(gm.predict(cube, model), coastline="cells", scale_bar=True)
    >>> ax.get_title() == model.species[0]
    True
    """
    array = one_species(grid_layer(maps, "suitability", source="gm.predict"), species)
    ax = one_axes(ax, (7.2, 6))
    mesh = _draw_suitability(ax, array, cmap)
    if points is not None:
        style: dict[str, Any] = {"ms": 2.5, "mfc": "none", "mec": RED, "mew": 0.8}
        ax.plot(*np.asarray(points).T, "o", label="records of presence", **style)
        below: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (0, -0.05)}
        ax.legend(frameon=False, fontsize=9, markerscale=2, **below)
    decorate(ax, array, coastline=coastline, scale_bar=scale_bar)
    label = array.attrs.get("long_name", "suitability")
    ax.figure.colorbar(mesh, ax=ax, shrink=0.75, label=label)
    ax.set_title(plain(array["species"].item()), style="italic")
    return ax


def _draw_suitability(ax: Axes, array: xr.DataArray, cmap: Any) -> Any:
    probability = array.attrs.get("scale") != "logit"
    limits: dict[str, Any] = {"vmin": 0, "vmax": 1} if probability else {}
    return draw_map(ax, array, cmap=cmap, **limits)


def species_maps(
    maps: xr.Dataset,
    *,
    species: Sequence[str] | None = None,
    ax: Sequence[Axes] | None = None,
    cmap: str | Colormap = "YlGnBu",
    coastline: Coastline = None,
) -> list[Axes]:
    """Draw the suitability maps of several species on one scale, with one colour bar.

    Parameters
    ----------
    maps : xarray.Dataset
        From :func:`geomiam.predict` or :func:`geomiam.shapley`.
    species : sequence of str, optional
        Default: all, at most 30.
    ax : sequence of matplotlib.axes.Axes, optional
        One for each species; default: those of a new figure.
    cmap : str or matplotlib.colors.Colormap
        Colour map.
    coastline : "cells", path or GeoDataFrame, optional
        As for :func:`geomiam.plot.suitability`.

    Returns
    -------
    list of matplotlib.axes.Axes

    Raises
    ------
    SettingError
        If there are more than 30 species, or the number of axes is not that of the species.

    See Also
    --------
    geomiam.plot.suitability : one species.

    Examples
    --------
    >>> axes = gm.plot.species_maps(gm.predict(cube, model))
    >>> len(axes) == len(model.species)
    True
    """
    names = list(maps["species"].values) if species is None else list(species)
    if len(names) > MOST_PANELS:
        raise SettingError(
            f"{len(names)} species are more than the {MOST_PANELS} panels of a figure; pass species= with fewer"
        )
    columns = min(4, int(np.ceil(np.sqrt(len(names)))))
    rows = -(-len(names) // columns)
    size = (3.6 * columns + 1, 3.4 * rows)
    axes = several_axes(ax, len(names), rows=rows, columns=columns, figsize=size)
    layers = [maps["suitability"].sel(species=name) for name in names]
    meshes = [_draw_suitability(a, v, cmap) for a, v in zip(axes, layers, strict=True)]
    low = min(m.get_clim()[0] for m in meshes)
    high = max(m.get_clim()[1] for m in meshes)
    for panel, mesh, array in zip(axes, meshes, layers, strict=True):
        mesh.set_clim(low, high)
        decorate(panel, array, coastline=coastline, scale_bar=False)
        panel.set_title(plain(array["species"].item()), style="italic", fontsize=9)
    label = layers[0].attrs.get("long_name", "suitability")
    axes[0].figure.colorbar(meshes[0], ax=axes, shrink=0.7, label=label)
    return axes


def shapley(
    explanation: xr.Dataset,
    *,
    species: str | None = None,
    layer: Literal["shapley", "main_effect", "interaction"] = "shapley",
    ax: Sequence[Axes] | None = None,
    cmap: str | Colormap = "RdBu_r",
) -> list[Axes]:
    """Draw one map per group: where the group raises (red) and lowers (blue) the suitability.

    The panel of a group that is observed in no cell states this.

    Parameters
    ----------
    explanation : xarray.Dataset
        From :func:`geomiam.shapley`, :func:`geomiam.explain.change` or :func:`geomiam.explain.difference`.
    species : str, optional
        Default: the first.
    layer : {"shapley", "main_effect", "interaction"}
        Layer to draw; ``"interaction"`` has one map for each combination of groups.
    ax : sequence of matplotlib.axes.Axes, optional
        One for each map; default: those of a new figure.
    cmap : str or matplotlib.colors.Colormap
        Colour map, whose middle is 0.

    Returns
    -------
    list of matplotlib.axes.Axes

    Raises
    ------
    SettingError
        If the number of axes is not that of the maps, there are more than 30, or the layer is missing.

    See Also
    --------
    geomiam.shapley : the maps.
    geomiam.plot.interactions : the mean size of all main effects and interactions.

    Examples
    --------
    >>> import geomiam as gm
    >>> axes = gm.plot.shapley(gm.shapley(cube, model))
    >>> len(axes) >= len(model.schema.groups)
    True
    """
    if layer not in explanation:
        raise SettingError(
            f"no layer '{layer}' in this explanation; interactions need gm.shapley(…, order=2)"
        )
    array = one_species(explanation[layer], species)
    dim = "combination" if layer == "interaction" else "group"
    limit = float(np.nanmax(np.abs(array.values)))
    count = array.sizes[dim]
    if count > MOST_PANELS:
        raise SettingError(
            f"{count} maps are more than the {MOST_PANELS} panels of a figure; select some, such as "
            f"explanation.isel({dim}=slice(6))"
        )
    columns = min(3, int(np.ceil(np.sqrt(count))))
    rows = -(-count // columns)
    size = (7.2, 6) if count == 1 else (3.8 * columns + 1.2, 3.7 * rows + 0.6)
    axes = several_axes(ax, count, rows=rows, columns=columns, figsize=size)
    mesh: Any = None
    empty = "not changed" if "later" in explanation else "not on this map"
    for panel, name in zip(axes, array[dim].values):
        mesh = _draw_group(panel, array.sel({dim: name}), limit, cmap=cmap, empty=empty)
    figure = axes[0].figure
    scale = "suitability" if array.attrs.get("scale") != "logit" else "log-odds"
    cause = "by the groups together" if layer == "interaction" else "by the group"
    figure.colorbar(mesh, ax=axes, shrink=0.7, label=f"change of {scale} {cause}")
    if ax is None:
        name = plain(array["species"].item())
        figure.suptitle(f"{name}: {_sum_text(explanation, species, layer)}")
    return axes


def _sum_text(explanation: xr.Dataset, species: str | None, layer: str) -> str:
    """Return what the panels add up to."""
    if layer != "shapley":
        return layer.replace("_", " ") + "s"
    if "later" in explanation:
        return "all panels = later − earlier prediction"
    base = float(one_species(explanation["base_value"], species))
    return f"base value {base:.2f} + all panels = suitability"


def _draw_group(ax: Axes, values: xr.DataArray, limit: float, *, cmap: Any, empty: str) -> Any:
    mesh = draw_map(ax, values, cmap=cmap, vmin=-limit, vmax=limit)
    effect = np.abs(values.values)
    name = plain(values["group" if "group" in values.coords else "combination"].item())
    ax.set_title(f"{name}\nmean |effect| {np.nanmean(effect):.3f}", fontsize=10)
    if not (effect > 0).any():
        place: dict[str, Any] = {"transform": ax.transAxes, "ha": "center", "va": "center"}
        ax.text(0.5, 0.5, f"{empty}:\nexactly 0", fontsize=9, **place)
    return mesh


def draw_map(
    ax: Axes, array: xr.DataArray, *, colours: np.ndarray | None = None, **style: Any
) -> Any:
    """Draw cells with coordinates, or with the colours ``(y, x, 4)``; return the mesh."""
    y, x = array.dims[-2:]
    ax.set_facecolor(EMPTY)
    mesh = ax.pcolormesh(
        array[x],
        array[y],
        array.transpose(y, x).values if colours is None else colours,
        shading="nearest",
        rasterized=True,
        **style,
    )
    frame_map(ax, units_of(array, str(x)), array[y].values)
    return mesh
