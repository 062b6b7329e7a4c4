"""Maps of presence and absence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from geomiam.errors import SettingError
from geomiam.plot.canvas import BLUE, EMPTY, RED, one_axes, one_species, plain
from geomiam.plot.maps import draw_map

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ABSENT, PRESENT = "#f4efe1", BLUE


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
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    if "presence" not in maps:
        raise SettingError("maps need the variable 'presence'; pass the maps of gm.classify")
    array = one_species(maps["presence"], species)
    ax = one_axes(ax, (7.2, 6))
    draw_map(ax, array, cmap=ListedColormap([ABSENT, PRESENT]), vmin=0, vmax=1)
    handles: list[Any] = [
        Patch(color=colour, label=label)
        for colour, label in (
            (PRESENT, "present"),
            (ABSENT, "absent"),
            (EMPTY, "no prediction"),
        )
    ]
    if points is not None:
        style: dict[str, Any] = {"ms": 2.5, "mfc": "none", "mec": RED, "mew": 0.8, "ls": "none"}
        handles += ax.plot(*np.asarray(points).T, marker="o", label="records of presence", **style)
    ax.legend(
        handles=handles, fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5)
    )
    threshold = f"{float(array['threshold']):.3f}" if "threshold" in array.coords else "unknown"
    kind = array.attrs.get("threshold_kind", "")
    ax.set_title(f"{plain(array['species'].item())}: threshold {threshold} ({kind})", fontsize=10)
    return ax
