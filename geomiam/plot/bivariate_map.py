"""Suitability and its uncertainty in one map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from geomiam.errors import SettingError
from geomiam.plot.canvas import grid_layer, one_axes, one_species, plain
from geomiam.plot.cartography import Coastline, decorate
from geomiam.plot.maps import draw_map

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

GREY = np.array([0.86, 0.86, 0.86])
STRENGTH = 0.9
"""Share of grey at the largest uncertainty."""
STEPS = 5


def bivariate(
    maps: xr.Dataset,
    *,
    uncertainty: str = "spread",
    species: str | None = None,
    ax: Axes | None = None,
    cmap: str | Colormap = "YlGnBu",
    coastline: Coastline = None,
    scale_bar: bool = False,
) -> Axes:
    """Draw suitability as colour that fades to grey with the uncertainty, and a legend of both.

    Parameters
    ----------
    maps : xarray.Dataset
        With ``suitability`` and the uncertainty, from :func:`geomiam.predict`.
    uncertainty : str
        Layer with the uncertainty: ``"spread"`` over the members of the ensemble, ``"outside_range"``, or the
        spread of several maps, such as that of :func:`geomiam.ranges.agreement`.
    species : str, optional
        Default: the first.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on; default: those of a new figure.
    cmap : str or matplotlib.colors.Colormap
        Colour map of suitability.
    coastline, scale_bar
        As for :func:`geomiam.plot.suitability`.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    SettingError
        If the maps have no such layer.

    See Also
    --------
    geomiam.predict : the maps, with ``spread=True``.
    geomiam.plot.suitability : suitability alone.

    Notes
    -----
    Colours are suppressed by uncertainty, as in Correll, M., Moritz, D. & Heer, J. (2018).
    Value-Suppressing Uncertainty Palettes. CHI 2018, doi:10.1145/3173574.3174216.

    Examples
    --------
    >>> ax = gm.plot.bivariate(gm.predict(cube, model), uncertainty="outside_range")
    >>> len(ax.child_axes)  # the legend
    1
    """
    import matplotlib

    if uncertainty not in maps:
        remedy = "predict with spread=True, or " if uncertainty == "spread" else ""
        raise SettingError(
            f"the maps have no layer '{uncertainty}'; {remedy}pass uncertainty= as one of "
            f"{', '.join(map(str, maps.data_vars))}"
        )
    array = one_species(grid_layer(maps, "suitability", source="gm.predict"), species)
    y, x = array.dims[-2:]
    spread = maps[uncertainty]
    spread = one_species(spread, species) if "species" in spread.dims else spread
    values, doubts = (a.transpose(y, x).values.astype(float) for a in (array, spread))
    low, high = (0.0, 1.0) if array.attrs.get("scale") != "logit" else _limits(values)
    largest = float(np.nanmax(doubts)) if np.isfinite(doubts).any() else 1.0
    largest = largest or 1.0
    ramp = matplotlib.colormaps[cmap] if isinstance(cmap, str) else cmap
    is_new = ax is None
    ax = one_axes(ax, (8.4, 6))
    figure: Any = ax.figure
    if is_new and (engine := figure.get_layout_engine()) is not None:
        engine.set(rect=(0, 0, 0.9, 1))  # room for the legend
    colours = _blend(ramp, (values - low) / (high - low), doubts / largest)
    draw_map(ax, array, colours=colours)
    decorate(ax, array, coastline=coastline, scale_bar=scale_bar)
    ax.set_title(plain(array["species"].item()), style="italic")
    _draw_legend(
        ax,
        ramp,
        (low, high, array.attrs.get("long_name", "suitability")),
        (0.0, largest, uncertainty),
    )
    return ax


def _limits(values: np.ndarray) -> tuple[float, float]:
    if not np.isfinite(values).any():
        return 0.0, 1.0
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    return (low, high) if low < high else (low, low + 1)


def _blend(ramp: Any, values: np.ndarray, doubts: np.ndarray) -> np.ndarray:
    """Return colours ``(..., 4)``, transparent where a value is missing; without uncertainty no grey is added."""
    share = STRENGTH * np.nan_to_num(np.clip(doubts, 0, 1))[..., None]
    colours: np.ndarray = ramp(np.clip(np.nan_to_num(values), 0, 1))
    colours[..., :3] = (1 - share) * colours[..., :3] + share * GREY
    colours[..., 3] = np.isfinite(values)
    return colours


def _draw_legend(
    ax: Axes, ramp: Any, across: tuple[float, float, str], up: tuple[float, float, str]
) -> None:
    """Draw a square of all colours to the right of the map."""
    legend = ax.inset_axes((1.12, 0.38, 0.22, 0.24))
    steps = (np.arange(STEPS) + 0.5) / STEPS
    values, doubts = np.meshgrid(steps, steps)
    legend.imshow(
        _blend(ramp, values, doubts),
        origin="lower",
        extent=(across[0], across[1], up[0], up[1]),
        aspect="auto",
    )
    legend.set_xlabel(across[2], fontsize=8)
    legend.set_ylabel(plain(up[2].replace("_", " ")), fontsize=8)
    legend.tick_params(labelsize=7)
