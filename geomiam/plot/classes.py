"""Maps of presence and absence, and of prediction sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from geomiam.errors import SettingError
from geomiam.plot.canvas import BLUE, EMPTY, RED, grid_layer, one_axes, one_species, plain
from geomiam.plot.maps import draw_map

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ABSENT, PRESENT = "#f4efe1", BLUE
SETS = {"present": PRESENT, "absent": ABSENT, "both": "#b9c4c9", "neither": "#d99a3d"}
"""Colours of prediction sets; "both" states nothing and is pale."""


def presence(
    maps: xr.Dataset,
    *,
    species: str | None = None,
    points: np.ndarray | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw where a species is predicted to be present and absent, with the threshold in the title.

    Parameters
    ----------
    maps : xarray.Dataset
        From :func:`geomiam.classify`.
    species : str, optional
        Default: the first.
    points : numpy.ndarray, optional
        x and y of presences ``(n, 2)``.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on; default: those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    SettingError
        If the maps have no classes.

    See Also
    --------
    geomiam.classify : the map.

    Examples
    --------
    >>> classes = gm.classify(gm.predict(cube, model), 0.5)
    >>> ax = gm.plot.presence(classes)
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['present', 'absent', 'no prediction']
    """
    if "presence" not in maps:
        raise SettingError("maps need the variable 'presence'; pass the maps of gm.classify")
    array = one_species(grid_layer(maps, "presence", source="gm.classify"), species)
    ax = _classes(array, {"present": PRESENT, "absent": ABSENT}, codes=(1, 0), ax=ax, points=points)
    threshold = f"{float(array['threshold']):.3f}" if "threshold" in array.coords else "unknown"
    kind = array.attrs.get("threshold_kind", "")
    ax.set_title(f"{plain(array['species'].item())}: threshold {threshold} ({kind})", fontsize=10)
    return ax


def prediction_sets(
    maps: xr.Dataset,
    *,
    species: str | None = None,
    points: np.ndarray | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the prediction sets of a species: present, absent, both or neither.

    Parameters
    ----------
    maps : xarray.Dataset
        From :func:`geomiam.predict` with ``interval=``.
    species, points, ax
        As for :func:`geomiam.plot.presence`.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    SettingError
        If the maps have no prediction sets.

    See Also
    --------
    geomiam.calibrate : a model with prediction sets.
    geomiam.plot.presence : presence and absence by one threshold.

    Examples
    --------
    >>> codes = xr.full_like(gm.predict(cube, model)["suitability"], 3)
    >>> ax = gm.plot.prediction_sets(codes.to_dataset(name="prediction_set"))
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['present', 'absent', 'both', 'neither', 'no prediction']
    """
    if "prediction_set" not in maps:
        raise SettingError(
            "maps need the variable 'prediction_set': predict a model of gm.calibrate with interval=0.9"
        )
    array = one_species(grid_layer(maps, "prediction_set", source="gm.predict"), species)
    ax = _classes(array, SETS, codes=(2, 1, 3, 0), ax=ax, points=points)
    level = f": level {array.attrs['level']:.0%}" if "level" in array.attrs else ""
    ax.set_title(f"{plain(array['species'].item())}{level}", fontsize=10)
    return ax


def _classes(
    array: xr.DataArray,
    colours: dict[str, str],
    *,
    codes: tuple[int, ...],
    points: np.ndarray | None,
    ax: Axes | None,
) -> Axes:
    """Draw a map of codes from 0, each with a name and a colour, and a legend."""
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    ax = one_axes(ax, (7.2, 6))
    in_order = [colour for _, colour in sorted(zip(codes, colours.values()))]
    draw_map(ax, array, cmap=ListedColormap(in_order), vmin=-0.5, vmax=len(codes) - 0.5)
    labels = {**colours, "no prediction": EMPTY}
    handles: list[Any] = [Patch(color=colour, label=label) for label, colour in labels.items()]
    if points is not None:
        style: dict[str, Any] = {"ms": 2.5, "mfc": "none", "mec": RED, "mew": 0.8, "ls": "none"}
        handles += ax.plot(*np.asarray(points).T, marker="o", label="records of presence", **style)
    ax.legend(
        handles=handles, fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5)
    )
    return ax
