"""Skill per subset of the predictors, and against the share of missing data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from geomiam.plot.canvas import EMPTY, INK, palette, plain, quiet, several_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def subsets(
    tables: xr.Dataset | Mapping[str, xr.Dataset],
    *,
    metric: str = "auc",
    ax: Sequence[Axes] | None = None,
) -> list[Axes]:
    """Draw skill per subset of the predictors above a matrix of the modalities of each subset.

    Parameters
    ----------
    tables : xarray.Dataset or mapping of str to xarray.Dataset
        From :func:`geomiam.evaluate`: one table, or one per method. The method ``"oracle"`` is drawn as a
        horizontal bar over each column.
    metric : str
        The mean over species is drawn; the last column is the mean over subsets.
    ax : sequence of matplotlib.axes.Axes, optional
        Two axes; default: those of a new figure.

    Returns
    -------
    list of matplotlib.axes.Axes
        Scores at the top, the matrix at the bottom.

    Raises
    ------
    SettingError
        If ``ax`` has not two axes.

    See Also
    --------
    geomiam.evaluate : the table.

    Examples
    --------
    >>> import geomiam as gm
    >>> table = gm.evaluate(model, sites, subsets="unimodal+all")
    >>> top, bottom = gm.plot.subsets(table)
    """
    by_method = {"model": tables} if isinstance(tables, xr.Dataset) else dict(tables)
    first = next(iter(by_method.values()))
    matrix = first["shows"].transpose("subset", "modality")
    columns, rows = matrix.shape
    axes = top, bottom = several_axes(
        ax,
        2,
        rows=2,
        sharex=True,
        figsize=(2.6 + 0.75 * (columns + 1), 3.4 + 0.3 * rows),
        height_ratios=[3.0, 0.3 * rows],
    )
    values = {n: t[f"mean_{metric}"].values for n, t in by_method.items()}
    oracle = values.pop("oracle", None)
    for i, (name, y) in enumerate(values.items()):
        shift = (i - (len(values) - 1) / 2) * min(0.14, 0.6 / len(values))
        _draw_method(top, np.append(y, np.nanmean(y)), shift, name, palette(i))
    if oracle is not None:
        _draw_oracle(top, np.append(oracle, np.nanmean(oracle)))
    _draw_matrix(bottom, matrix.values)
    bottom.set_yticks(range(rows), list(map(plain, matrix["modality"].values)))
    top.set_ylabel(f"{first[metric].attrs.get('long_name', metric)}\n(mean over species)")
    if len(by_method) > 1:
        place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1)}
        top.legend(frameon=False, ncols=min(len(by_method), 5), **place)
    return axes


def _draw_method(ax: Axes, y: np.ndarray, shift: float, name: str, colour: str) -> None:
    """Draw a mark per column, and a diamond for the mean."""
    x = np.arange(len(y)) + shift
    ax.plot(x[:-1], y[:-1], "o", ms=6, color=colour, label=plain(name))
    ax.plot(x[-1:], y[-1:], "D", ms=7, color=colour)
    ax.tick_params(axis="x", length=0)
    quiet(ax)


def _draw_oracle(ax: Axes, y: np.ndarray) -> None:
    x = np.arange(len(y))
    ax.hlines(y, x - 0.38, x + 0.38, color="#3a3a3a", lw=1.4, label="oracle", zorder=0)


def _draw_matrix(ax: Axes, shows: np.ndarray) -> None:
    """Draw full dots for modalities of a subset, and half dots for modalities of which it has a part."""
    columns, rows = shows.shape
    at = np.argwhere(np.ones_like(shows))
    share = shows[tuple(at.T)]
    styles = {"none": share >= 0, "full": share >= 1, "bottom": (share > 0) & (share < 1)}
    for fill, is_drawn in styles.items():
        style: dict[str, Any] = {"mfc": INK, "mec": "none", "mfcalt": EMPTY}
        if fill == "none":
            fill, style = "full", {"mfc": EMPTY, "mec": "none"}
        ax.plot(*at[is_drawn].T, "o", ms=11, fillstyle=fill, **style)
    ax.set(xlim=(-0.6, columns + 0.6), ylim=(rows - 0.4, -0.6))
    ax.set_xticks([columns], ["mean"])
    ax.tick_params(length=0)
    ax.axvline(columns - 0.5, color="#c3ccd2", lw=0.8)
    for side in ax.spines.values():
        side.set_visible(False)


def missingness(
    sweep: xr.Dataset, *, styles: Mapping[str, str] | None = None, ax: Sequence[Axes] | None = None
) -> list[Axes]:
    """Draw skill against the share of missing data, one panel per pattern of gaps.

    Parameters
    ----------
    sweep : xarray.Dataset
        From :func:`geomiam.evaluation.missingness_sweep`. Repeats, and the dim ``seed`` if there is one,
        become a ribbon from the least to the greatest score. The mean over predictors is subtracted from
        each repeat first, so that the ribbon shows the uncertainty of their order.
    styles : mapping of str to str, optional
        Line style per predictor, such as ``"--"`` for imputations.
    ax : sequence of matplotlib.axes.Axes, optional
        One for each pattern; default: those of a new figure.

    Returns
    -------
    list of matplotlib.axes.Axes

    Raises
    ------
    SettingError
        If the number of axes is not that of the patterns.

    See Also
    --------
    geomiam.evaluation.missingness_sweep : the table.

    Examples
    --------
    >>> import geomiam as gm
    >>> sweep = gm.evaluation.missingness_sweep(
    ...     sites, sites, model.schema, predictors={"model": model}, shares=(0, 0.5)
    ... )
    >>> axes = gm.plot.missingness(sweep, styles={"model": "--"})
    """
    patterns = sweep["pattern"].values
    size = (1.6 + 3.1 * len(patterns), 3.9)
    axes = several_axes(ax, len(patterns), columns=len(patterns), figsize=size, sharey=True)
    score = sweep["mean_auc"]
    repeats = [d for d in score.dims if d not in ("predictor", "pattern", "share")]
    common = score.mean("predictor")
    score = score - common + common.mean(repeats)
    for panel, pattern in zip(axes, patterns):
        for i, name in enumerate(sweep["predictor"].values):
            curve = score.sel(predictor=name, pattern=pattern)
            line: dict[str, Any] = {"color": palette(i), "ls": (styles or {}).get(str(name), "-")}
            panel.plot(
                curve["share"], curve.mean(repeats), label=plain(name), marker="o", ms=3.5, **line
            )
            low, high = curve.min(repeats), curve.max(repeats)
            panel.fill_between(curve["share"], low, high, alpha=0.12, lw=0, color=line["color"])
        panel.set_title(str(pattern).replace("-", " "), fontsize=11)
        panel.set_xlabel("share of the entries")
        panel.xaxis.set_major_formatter(lambda v, _: f"{v:.0%}")
        quiet(panel)
    axes[0].set_ylabel("AUC (mean over species)")
    handles = axes[0].get_legend_handles_labels()
    if ax is None:
        axes[0].figure.legend(*handles, loc="outside right center", frameon=False)
    else:
        axes[-1].legend(*handles, frameon=False)
    return axes
