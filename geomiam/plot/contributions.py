"""Contributions of groups to the skill of a model, and the error of sampled contributions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from geomiam.errors import SettingError
from geomiam.plot.canvas import INK, RED, metric_label, one_axes, palette, plain, quiet

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def importance(table: xr.Dataset, *, species: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw the contribution of each group to the skill, with 95 % intervals for sampled coalitions.

    Parameters
    ----------
    table : xarray.Dataset
        From :func:`geomiam.explain.importance`.
    species : str, optional
        Default: the mean over species.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on; default: those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    See Also
    --------
    geomiam.explain.importance : the table.

    Examples
    --------
    >>> import geomiam as gm
    >>> ax = gm.plot.importance(gm.explain.importance(model, sites))
    >>> len(ax.get_yticks()) == len(model.schema.groups)
    True
    """
    names = ["mean_shapley", "standard_error", "mean_base_value", "mean_full_value"]
    if species is not None:
        names = ["shapley", "species_standard_error", "base_value", "full_value"]
        table = table.sel(species=species)
    values, errors, base, full = (table[n].values for n in names)
    order = np.argsort(values)
    half = _half_width(errors[order], table.attrs["replicates"])
    ax = one_axes(ax, (6.6, 1.5 + 0.34 * len(order)))
    ax.barh(
        table["group"].values[order],
        values[order],
        xerr=half if half.any() else None,
        color=np.where(values[order] < 0, RED, "#4a7fa7"),
        ecolor=INK,
        capsize=3,
    )
    ax.axvline(0, color=INK, lw=0.8)
    ax.set_xlabel(f"contribution to {metric_label(table)}")
    all_species = np.atleast_1d(table["species"].values)
    title = "mean over species" if len(all_species) > 1 else all_species[0]
    ax.set_title(f"{title}: {base:.3f} without predictors, {full:.3f} with all", fontsize=10)
    quiet(ax, across="x")
    return ax


def _half_width(errors: np.ndarray, replicates: int) -> np.ndarray:
    """Return the half width of 95 % intervals; 0 without sampling."""
    from scipy.stats import t

    return errors * t.ppf(0.975, replicates - 1) if replicates else np.zeros_like(errors)


def stepwise(table: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Draw the skill of growing sets of groups, and mark the set that is enough.

    Parameters
    ----------
    table : xarray.Dataset
        From :func:`geomiam.explain.stepwise`. Scores of test sites are drawn as a second line.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on; default: those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    See Also
    --------
    geomiam.explain.stepwise : the table.

    Examples
    --------
    >>> ax = gm.plot.stepwise(gm.explain.stepwise(model, sites))
    >>> ax.get_xticklabels()[0].get_text()
    'none'
    """
    if "zone" in table.dims:
        raise SettingError("the table has several zones: select one with table.sel(zone=...)")
    ax = one_axes(ax, (2.4 + 0.7 * table.sizes["step"], 4))
    enough = int(table["enough"]) if "enough" in table else table.attrs["enough"]
    steps = table["step"].values
    lines = {"score": "sites of the choice", "test_score": "test sites"}
    for i, (name, label) in enumerate(lines.items()):
        if name in table:
            ax.plot(steps, table[name].values, marker="o", ms=5, color=palette(i), label=label)
    ax.axhline(float(table["score"][-1]), color=INK, lw=0.8, ls=":")
    ax.axvline(enough, color=RED, lw=1, label=f"within {table.attrs['tolerance']:g} of all")
    names = ["none", *(f"+ {plain(n)}" for n in table["added"].values[1:])]
    ax.set_xticks(steps, names, rotation=40, ha="right", rotation_mode="anchor")
    ax.set_ylabel(f"{metric_label(table)}, mean over species")
    ax.legend(frameon=False, fontsize=9)
    quiet(ax)
    return ax


def convergence(runs: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Draw the error of sampled Shapley values against the number of evaluations.

    Parameters
    ----------
    runs : xarray.Dataset
        ``evaluations(kind, size, repeat)`` and ``error(kind, size, repeat)``: absolute error of repeated
        samples of growing size, mean over groups. ``standard_error``, of the same dims, is the standard error
        that the samples estimate; it is drawn as a dashed line. The attribute ``metric`` names the metric;
        ``exact``, if present, is the number of evaluations without error.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on; default: those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    See Also
    --------
    geomiam.explain.importance : sampled Shapley values.

    Examples
    --------
    >>> import geomiam as gm
    >>> dims, error = ("kind", "size", "repeat"), np.array([[[0.04, 0.03], [0.02, 0.01]]])
    >>> runs = xr.Dataset({"evaluations": (dims, 1 / error), "error": (dims, error)})
    >>> runs = runs.assign(standard_error=runs["error"]).assign_coords(kind=["latin"])
    >>> runs = runs.assign_attrs(metric="auc")
    >>> gm.plot.convergence(runs).get_yscale()
    'log'
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    new_figure = ax is None
    ax = one_axes(ax, (6.8, 4.8))
    for i, kind in enumerate(runs["kind"].values):
        curve = runs.sel(kind=kind)
        line: dict[str, Any] = {"color": palette(i)}
        x = curve["evaluations"].mean("repeat")
        low, high = curve["error"].quantile([0.1, 0.9], dim="repeat")
        ax.fill_between(x, low, high, alpha=0.12, lw=0, **line)
        ax.plot(x, curve["error"].mean("repeat"), marker="o", ms=4, label=str(kind), **line)
        # mean |x| of a normal distribution is √(2 / π) standard deviations
        estimate = curve["standard_error"].mean("repeat") * np.sqrt(2 / np.pi)
        ax.plot(x, estimate, ls="--", lw=1, **line)
    ax.plot([], [], ls="--", lw=1, color=INK, label="expected from the standard error")
    if "exact" in runs.attrs:
        ax.axvline(runs.attrs["exact"], color=INK, lw=1, ls=":", label="exact")
    ax.set(xscale="log", yscale="log", xlabel="evaluations (predictions of all sites)")
    ax.set_ylabel(f"absolute error of Shapley values of {metric_label(runs)},\nmean over groups")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(lambda v, _: f"{v:,.5g}" if v >= 1 else f"{v:.5f}".rstrip("0"))
        axis.set_minor_formatter(NullFormatter())
    if new_figure:
        ax.figure.legend(frameon=False, fontsize=9, loc="outside upper left", ncols=2)
    else:
        ax.legend(frameon=False, fontsize=9)
    quiet(ax, across="both")
    return ax
