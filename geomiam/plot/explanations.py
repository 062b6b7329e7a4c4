"""The interaction matrix, and maps of limiting groups and of shadow distributions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from geomiam.errors import SettingError
from geomiam.plot.canvas import EMPTY, INK, grid_layer, one_axes, one_species, palette, plain
from geomiam.plot.maps import draw_map

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHADOW = {"unsuitable": "#e9e4da", "realised": "#2a9d8f", "shadow": "#4b3b6b"}
PALE = 0.35
"""Opacity of cells in which no group lowers the prediction."""
DARK = 0.6
"""Least share of the largest value whose colour is so dark that text is white."""


def interactions(
    explanation: xr.Dataset, *, species: str | None = None, ax: Axes | None = None
) -> Axes:
    """Draw the mean size of main effects, on the diagonal, and of interactions of pairs of groups.

    A cell of the matrix is the mean absolute value over the cells or sites. Effects that cancel out on the map
    do not cancel out here.

    Parameters
    ----------
    explanation : xarray.Dataset
        From :func:`geomiam.shapley` with ``order=2``.
    species : str, optional
        Default: the first.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on; default: those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    SettingError
        If there are no interactions.

    See Also
    --------
    geomiam.shapley : the interactions.
    geomiam.plot.shapley : their maps, with ``layer="interaction"``.

    Examples
    --------
    >>> explanation = gm.shapley(cube, model, order=2)
    >>> ax = gm.plot.interactions(explanation)
    >>> len(ax.get_xticks()) == len(model.schema.groups)
    True
    """
    if "interaction" not in explanation:
        raise SettingError("there are no interactions; pass the result of gm.shapley(…, order=2)")
    names = [plain(n) for n in explanation["group"].values]
    matrix = _mean_sizes(explanation, species)
    side = 2.2 + 0.5 * len(names)
    ax = one_axes(ax, (side + 1, side))
    ax.set_facecolor(EMPTY)
    largest = float(np.nanmax(matrix)) or 1.0
    mesh = ax.imshow(matrix, cmap="Purples", vmin=0, vmax=largest)
    for i, j in np.argwhere(np.tril(np.ones_like(matrix)) > 0):
        ink = "white" if matrix[i, j] > DARK * largest else INK
        text = f"{matrix[i, j]:.3f}".replace("0.", ".", 1)
        ax.text(j, i, text, ha="center", va="center", fontsize=8, color=ink)
    ax.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(names)), names)
    scale = (
        "log-odds" if explanation["interaction"].attrs.get("scale") == "logit" else "suitability"
    )
    ax.figure.colorbar(mesh, ax=ax, shrink=0.7, label=f"mean |effect| on {scale}")
    name = plain(one_species(explanation["interaction"], species)["species"].item())
    ax.set_title(f"{name}\ndiagonal: main effects", fontsize=10)
    return ax


def _mean_sizes(explanation: xr.Dataset, species: str | None) -> np.ndarray:
    """Return mean absolute main effects on the diagonal and pairwise interactions beside it ``(G, G)``."""
    sizes = {}
    for name, dim in (("main_effect", "group"), ("interaction", "combination")):
        values = abs(one_species(explanation[name], species))
        sizes[name] = values.mean([d for d in values.dims if d != dim]).values
    matrix = np.diag(sizes["main_effect"]).astype(float)
    for row, size in zip(explanation["includes"].values, sizes["interaction"]):
        pair = np.flatnonzero(row)
        if len(pair) == 2:
            matrix[pair[0], pair[1]] = matrix[pair[1], pair[0]] = size
    return matrix


def limiting(result: xr.Dataset, *, species: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw the limiting group of each cell; colours are pale where no group lowers the prediction.

    Parameters
    ----------
    result : xarray.Dataset
        From :func:`geomiam.explain.limiting`.
    species : str, optional
        Default: the first.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on; default: those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    See Also
    --------
    geomiam.explain.limiting : the map.

    Examples
    --------
    >>> ax = gm.plot.limiting(gm.explain.limiting(gm.shapley(cube, model)))
    >>> ax.get_legend().get_texts()[0].get_text().split(":")[0]
    'climate'
    """
    codes = one_species(grid_layer(result, "limiting", source="gm.explain.limiting"), species)
    names = str(codes.attrs["flag_meanings"]).split()
    y, x = codes.dims[-2:]
    numbers = codes.transpose(y, x).values
    lowers = one_species(result["contribution"], species).transpose(y, x).values < 0
    colours = {i + 1.0: palette(i) for i in range(len(names))}
    ax = one_axes(ax, (7.4, 6))
    draw_classes(ax, codes, colours, np.where(lowers, 1.0, PALE))
    cells = max(int(np.isfinite(numbers).sum()), 1)
    labels = {
        f"{plain(n)}: {(numbers == i + 1).sum() / cells:.0%}": palette(i)
        for i, n in enumerate(names)
    }
    class_legend(ax, labels)
    pale = "pale: no group lowers the prediction"
    ax.set_title(f"{plain(codes['species'].item())}: limiting group\n{pale}", fontsize=10)
    return ax


def shadow(result: xr.Dataset, *, species: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw the shadow distribution: expected by natural conditions, lowered by human pressure.

    Parameters
    ----------
    result : xarray.Dataset
        From :func:`geomiam.explain.shadow`.
    species : str, optional
        Default: the first.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on; default: those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    See Also
    --------
    geomiam.explain.shadow : the map.

    Examples
    --------
    >>> parts = gm.explain.shadow(gm.shapley(cube, model), natural="climate", human="cover")
    >>> len(gm.plot.shadow(parts).get_legend().get_texts())
    3
    """
    codes = one_species(grid_layer(result, "shadow", source="gm.explain.shadow"), species)
    ax = one_axes(ax, (7.4, 6))
    draw_classes(ax, codes, {float(i): c for i, c in enumerate(SHADOW.values())})
    area = one_species(result["area"], species)
    class_legend(
        ax,
        {f"{n}: {float(area.sel({'class': n})):,.0f} km²": colour for n, colour in SHADOW.items()},
    )
    share = float(one_species(result["share"], species))
    ax.set_title(
        f"{plain(codes['species'].item())}\n{share:.0%} of the natural distribution is shadow",
        fontsize=10,
    )
    return ax


def draw_classes(
    ax: Axes, codes: xr.DataArray, colours: dict[float, str], opacity: Any = 1.0
) -> None:
    """Draw codes in their colours, with the opacity ``(y, x)``; cells without a code are transparent."""
    from matplotlib.colors import to_rgb

    numbers = codes.transpose(*codes.dims[-2:]).values
    rgba = np.zeros((*numbers.shape, 4))
    for code, colour in colours.items():
        rgba[numbers == code, :3] = to_rgb(colour)
    rgba[..., 3] = np.where(np.isin(numbers, list(colours)), opacity, 0.0)
    draw_map(ax, codes, colours=rgba)


def class_legend(ax: Axes, colours: dict[str, str]) -> None:
    """Write classes with their colours beside the map."""
    from matplotlib.patches import Patch

    handles: list[Any] = [Patch(color=colour, label=label) for label, colour in colours.items()]
    place: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}
    ax.legend(handles=handles, fontsize=8, frameon=False, **place)
