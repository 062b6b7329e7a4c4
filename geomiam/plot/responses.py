"""Response curves and surfaces."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from geomiam.plot.canvas import EMPTY, INK, RED, one_axes, one_species, plain, quiet

if TYPE_CHECKING:
    from matplotlib.axes import Axes


SYMBOLS = {"degC": "°C", "degree": "°", "degrees_east": "°E", "degrees_north": "°N"}
"""Symbols of units whose CF names are no text for a figure."""


def response(result: xr.Dataset, *, species: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw a response curve with its spread, rug and training range, or a surface of two predictors.

    A curve has a band of one standard deviation over the ensemble members, thin lines of single sites if
    there are any, and a mark for the value of each site: red for presences. Values outside the training
    range have a grey background; on a surface they are hatched.

    Parameters
    ----------
    result : xarray.Dataset
        From :func:`geomiam.explain.response`.
    species : str, optional
        Default: the first.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on; default: those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    See Also
    --------
    geomiam.explain.response : the table.

    Examples
    --------
    >>> ax = gm.plot.response(gm.explain.response(model, sites, "bio1"))
    >>> ax.get_xlabel()
    'bio1 [°C]'
    """
    curve = one_species(result["response"], species)
    dims = [str(d) for d in curve.dims]
    ax = one_axes(ax, (6.2, 4.2) if len(dims) == 1 else (6.4, 5))
    if len(dims) == 2:
        _draw_surface(ax, result, curve, dims)
    else:
        _draw_curve(ax, result, curve, dims[0])
    texts = {"partial": "partial dependence", "alone": "from this predictor alone"}
    title = plain(curve["species"].item())
    ax.set_title(f"{title}\n{texts.get(result.attrs.get('kind', ''), '')}".strip(), fontsize=10)
    return ax


def _draw_curve(ax: Axes, result: xr.Dataset, curve: xr.DataArray, dim: str) -> None:
    name = curve["species"].item()
    x, y = result[dim].values, curve.values
    spread = one_species(result["spread"], name).values
    if result[dim].attrs.get("kind") == "categorical":
        labels = json.loads(result[dim].attrs["class_names"])
        ax.bar(range(len(x)), y, yerr=spread if spread.any() else None, color="#4a7fa7", capsize=3)
        ax.set_xticks(range(len(x)), [plain(n) for n in labels], rotation=30, ha="right")
    else:
        if "individual" in result:
            ax.plot(
                x, one_species(result["individual"], name).values.T, color=INK, lw=0.4, alpha=0.15
            )
        ax.fill_between(x, y - spread, y + spread, color="#4a7fa7", alpha=0.25, lw=0)
        ax.plot(x, y, color="#4a7fa7", lw=2)
        _draw_outside(ax, x, result[f"outside_{dim}"].values)
        _draw_rug(ax, result, name)
    ax.set(xlabel=axis_label(result[dim]), ylabel=curve.attrs.get("long_name", "suitability"))
    if result.attrs.get("scale") != "logit":
        ax.set_ylim(0, 1)
    quiet(ax)


def _draw_outside(ax: Axes, x: np.ndarray, outside: np.ndarray) -> None:
    """Shade the parts of an axis that are outside the training range."""
    inside = np.flatnonzero(~outside)
    if not outside.any() or not inside.size:
        return
    ends: Any = (x.min(), x[inside[0]], x[inside[-1]], x.max())
    for low, high in (ends[:2], ends[2:]):
        if high > low:
            ax.axvspan(low, high, color=EMPTY, zorder=0, lw=0)


def _draw_rug(ax: Axes, result: xr.Dataset, species: str) -> None:
    if "rug" not in result:
        return
    values = result["rug"].isel(variable=0).values
    present = np.zeros(len(values), bool)
    if "presence" in result:
        present = result["presence"].sel(species=species).values == 1
    style: dict[str, Any] = {"transform": ax.get_xaxis_transform(), "clip_on": True, "ls": "none"}
    for chosen_sites, colour in ((~present, INK), (present, RED)):
        at = values[chosen_sites & np.isfinite(values)]
        ax.plot(at, np.full(len(at), 0.015), "|", ms=7, mew=0.5, alpha=0.5, color=colour, **style)


def _draw_surface(ax: Axes, result: xr.Dataset, surface: xr.DataArray, dims: list[str]) -> None:
    first, second = dims
    x, y = result[first].values, result[second].values
    limits: dict[str, Any] = {} if result.attrs.get("scale") == "logit" else {"vmin": 0, "vmax": 1}
    mesh = ax.pcolormesh(x, y, surface.values.T, cmap="YlGnBu", shading="nearest", **limits)
    outside = result[f"outside_{second}"].values[:, None] | result[f"outside_{first}"].values
    if outside.any():
        ax.contourf(x, y, outside.astype(float), levels=[0.5, 1.5], colors="none", hatches=["////"])
    if "rug" in result:
        ax.plot(*result["rug"].values, ".", ms=2, color=INK, alpha=0.4)
    ax.figure.colorbar(mesh, ax=ax, shrink=0.8, label=surface.attrs.get("long_name", "suitability"))
    ax.set(xlabel=axis_label(result[first]), ylabel=axis_label(result[second]))


def axis_label(axis: xr.DataArray) -> str:
    """Return the name of a predictor with its units."""
    name, units = plain(axis.attrs.get("long_name", axis.name)), axis.attrs.get("units", "1")
    return name if units == "1" else f"{name} [{SYMBOLS.get(units, units)}]"
