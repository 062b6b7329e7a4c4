"""Figures from outputs: suitability, Shapley panels, training curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

EMPTY = "#dfe6ea"
"""Colour of cells where nothing was observed."""


def suitability(
    maps: xr.Dataset, *, species: str | None = None, points: np.ndarray | None = None
) -> Figure:
    """Draw the suitability map of one species.

    Parameters
    ----------
    maps : xarray.Dataset
        From :func:`geomiam.predict` or :func:`geomiam.shapley`.
    species : str, optional
        Default: the first.
    points : numpy.ndarray, optional
        ``(n, 2)`` x and y of presences.
    """
    array = _one_species(maps["suitability"], species)
    probability = array.attrs.get("scale") != "logit"
    fig, (ax,) = _canvas(1)
    mesh = _map(ax, array, cmap="YlGnBu", **({"vmin": 0, "vmax": 1} if probability else {}))
    if points is not None:
        style: dict[str, Any] = {"ms": 2.5, "mfc": "none", "mec": "#d1495b", "mew": 0.6}
        ax.plot(*np.asarray(points).T, "o", label="records of presence", **style)
        ax.legend(loc="lower left", frameon=False, fontsize=9, markerscale=2)
    fig.colorbar(mesh, ax=ax, shrink=0.75, label=array.attrs.get("long_name", "suitability"))
    ax.set_title(str(array["species"].item()), style="italic")
    return fig


def shapley(why: xr.Dataset, *, species: str | None = None) -> Figure:
    """Draw one panel per group: where it raises (red) and lowers (blue) the suitability.

    A group that was observed nowhere on the map says so in its panel.
    """
    array = _one_species(why["shapley"], species)
    most = float(np.nanmax(np.abs(array.values)))
    fig, axes = _canvas(array.sizes["group"])
    mesh: Any = None
    for ax, name in zip(axes, array["group"].values):
        mesh = _panel(ax, array.sel(group=name), most)
    scale = "suitability" if array.attrs.get("scale") != "logit" else "log-odds"
    fig.colorbar(mesh, ax=axes, shrink=0.7, label=f"change of {scale} by the group")
    base = float(_one_species(why["base_value"], species))
    fig.suptitle(f"{array['species'].item()}: base value {base:.2f} + all panels = suitability")
    return fig


def training(history: pd.DataFrame) -> Figure:
    """Draw the AUC of each modality alone and of all, and how often MIAM hid each, by epoch."""
    import matplotlib.pyplot as plt

    history = history.groupby("epoch", as_index=False).mean(numeric_only=True)  # over members
    names = [c.removeprefix("auc_") for c in history if c.startswith("auc_") and c != "auc_all"]
    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    colours = dict(zip(names, plt.rcParams["axes.prop_cycle"].by_key()["color"] * 10))
    for name in names:
        left.plot(
            history["epoch"], history[f"auc_{name}"].astype(float), color=colours[name], label=name
        )
        right.plot(history["epoch"], history[f"p_{name}"], color=colours[name], label=name)
    left.plot(history["epoch"], history["auc_all"].astype(float), color="black", lw=2, label="all")
    left.set(
        xlabel="epoch", ylabel="AUC on validation blocks", title="each modality alone, and all"
    )
    right.set(
        xlabel="epoch",
        ylabel="mean share of hidden tokens",
        title="what the masking hid",
        ylim=(0, 1),
    )
    fig.legend(*left.get_legend_handles_labels(), loc="outside right center", frameon=False)
    for ax in (left, right):
        ax.spines[["top", "right"]].set_visible(False)
    return fig


def _panel(ax: Axes, values: xr.DataArray, most: float) -> Any:
    mesh = _map(ax, values, cmap="RdBu_r", vmin=-most, vmax=most)
    size = np.abs(values.values)
    ax.set_title(f"{values['group'].item()}\nmean |effect| {np.nanmean(size):.3f}", fontsize=10)
    if not (size > 0).any():
        place: dict[str, Any] = {"transform": ax.transAxes, "ha": "center", "va": "center"}
        ax.text(0.5, 0.5, "not on this map:\nexactly 0", fontsize=9, **place)
    return mesh


def _one_species(array: xr.DataArray, species: str | None) -> xr.DataArray:
    return array.isel(species=0) if species is None else array.sel(species=species)


def _canvas(panels: int) -> tuple[Figure, Sequence[Axes]]:
    import matplotlib.pyplot as plt

    columns = min(3, int(np.ceil(np.sqrt(panels))))
    rows = -(-panels // columns)
    size = (7.2, 6) if panels == 1 else (3.8 * columns + 1.2, 3.7 * rows + 0.6)
    fig, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for ax in axes.ravel()[panels:]:
        ax.remove()
    return fig, list(axes.ravel()[:panels])


def _map(ax: Axes, array: xr.DataArray, **style: Any) -> Any:
    y, x = array.dims[-2:]
    ax.set_facecolor(EMPTY)
    mesh = ax.pcolormesh(
        array[x],
        array[y],
        array.transpose(y, x).values,
        shading="nearest",
        rasterized=True,
        **style,
    )
    degrees = "degree" in str(array[x].attrs.get("units", ""))
    middle = float(array[y].mean())
    ax.set_aspect(1 / np.cos(np.radians(middle)) if degrees else 1)
    ax.tick_params(labelsize=7)
    return mesh
