"""ROC and calibration curves of out-of-fold predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from geomiam.errors import SelectionError, SettingError
from geomiam.metrics import auc_within_folds, calibration_curve
from geomiam.metrics.calibration_curve import Strategy
from geomiam.metrics.within_folds import comparable_folds, fold_weight
from geomiam.plot.canvas import one_axes, palette, plain, quiet

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_NAMED = 8
"""Largest number of species with a colour and a label; of more, all are grey and the mean is drawn."""


def roc(
    table: xr.Dataset,
    *,
    subset: str = "all",
    species: str | Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the ROC curve of each species: sensitivity against 1 − specificity over all thresholds.

    With several folds the curve is the mean of the curves of the folds, and the area under it is the AUC
    within folds, as in the table of :func:`geomiam.cross_validate`.
    Of more than eight species the curves are grey, and their mean sensitivity is drawn over them.

    Parameters
    ----------
    table : xarray.Dataset
        From :func:`geomiam.cross_validate`, with ``presence`` and ``suitability``.
    subset : str
        Subset of the predictors, as the table names it.
    species : str or sequence of str, optional
        Default: all. Species with presences or absences only, in every fold, have no curve.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on; default: those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    SettingError
        If the table has no predictions, or no species has a curve.
    SelectionError
        If a species or the subset is unknown.

    See Also
    --------
    geomiam.cross_validate : the predictions.
    geomiam.metrics.auc : the area under the curve.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> presence = (rng.random((60, 1)) < 0.5).astype(float)
    >>> table = xr.Dataset(
    ...     {
    ...         "presence": (("site", "species"), presence),
    ...         "suitability": (("subset", "site", "species"), (presence * 0.4 + 0.3)[None]),
    ...     },
    ...     coords={"subset": ["all"], "species": ["oak"]},
    ... )
    >>> ax = gm.plot.roc(table)
    >>> ax.get_legend().get_texts()[0].get_text()
    'oak: AUC 1.00'
    """
    curves = {}
    for name, y, z, fold in _columns(table, subset, species):
        if not _folds_of_both_classes(y, fold):
            continue
        area = auc_within_folds(y[:, None], z[:, None], fold)[0]
        curves[f"{name}: AUC {area:.2f}"] = _roc(y, z, fold)
    if not curves:
        raise SettingError(
            "no species has presences and absences in the same fold, so there is no curve to draw"
        )
    ax = one_axes(ax, (5, 4.8))
    ax.plot([0, 1], [0, 1], color="0.7", lw=0.8, ls="--")
    _draw(ax, curves, mean_of="mean sensitivity")
    ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="1 − specificity", ylabel="sensitivity", aspect=1)
    quiet(ax, across="both")
    ax.legend(fontsize=8, frameon=False, loc="lower right")
    return ax


def calibration(
    table: xr.Dataset,
    *,
    subset: str = "all",
    species: str | Sequence[str] | None = None,
    bins: int = 10,
    strategy: Strategy = "quantile",
    ax: Axes | None = None,
) -> Axes:
    """Draw the observed frequency of presence against the predicted probability, in bins.

    A calibrated model follows the diagonal. The size of a mark grows with the number of sites in the bin.

    Parameters
    ----------
    table, subset, species
        As for :func:`roc`.
    bins, strategy
        As for :func:`geomiam.metrics.calibration_curve`.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on; default: those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    SettingError, SelectionError
        As for :func:`roc`.

    See Also
    --------
    geomiam.metrics.calibration : slope and intercept.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> chance = rng.random((500, 1))
    >>> table = xr.Dataset(
    ...     {
    ...         "presence": (("site", "species"), (rng.random((500, 1)) < chance).astype(float)),
    ...         "suitability": (("subset", "site", "species"), chance[None]),
    ...     },
    ...     coords={"subset": ["all"], "species": ["oak"]},
    ... )
    >>> gm.plot.calibration(table, bins=5).get_ylabel()
    'observed frequency of presence'
    """
    curves, marks = {}, []
    for name, y, z, _ in _columns(table, subset, species):
        curve = calibration_curve(y, z, bins=bins, strategy=strategy)
        is_filled = curve.sites > 0
        curves[name] = (curve.predicted[is_filled], curve.observed[is_filled])
        marks.append(curve.sites[is_filled] / curve.sites.max())
    ax = one_axes(ax, (5, 4.8))
    ax.plot([0, 1], [0, 1], color="0.7", lw=0.8, ls="--")
    colours = _draw(ax, curves)
    for (x, y), size, colour in zip(curves.values(), marks, colours):
        ax.scatter(x, y, s=8 + 40 * size, color=colour, lw=0, zorder=3)
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect=1, xlabel="predicted probability")
    ax.set_ylabel("observed frequency of presence")
    quiet(ax, across="both")
    if len(curves) <= MOST_NAMED:
        ax.legend(fontsize=8, frameon=False, loc="upper left")
    return ax


def _roc(y: np.ndarray, z: np.ndarray, fold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ROC curve of one species, the mean of those of the folds by the weights of the AUC."""
    from sklearn.metrics import roc_curve

    numbers = _folds_of_both_classes(y, fold)
    curves = [roc_curve(y[fold == f], z[fold == f], drop_intermediate=False) for f in numbers]
    if len(curves) == 1:
        return curves[0][0], curves[0][1]
    at = np.linspace(0, 1, 2001)
    weights = [fold_weight(y[fold == f], z[fold == f]) for f in numbers]
    true = np.average([np.interp(at, x, t) for x, t, _ in curves], axis=0, weights=weights)
    return np.r_[0, at], np.r_[0, true]


def _folds_of_both_classes(y: np.ndarray, fold: np.ndarray) -> list[int]:
    return [int(f) for f in np.unique(fold) if f >= 0 and len(np.unique(y[fold == f])) == 2]


def _columns(
    table: xr.Dataset, subset: str, species: str | Sequence[str] | None
) -> list[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """Return name, labels, predictions and folds of each species with both classes."""
    if "presence" not in table or "suitability" not in table:
        raise SettingError(
            "the table has no out-of-fold predictions: pass the table of gm.cross_validate"
        )
    names = [str(s) for s in table["species"].values]
    drawn_species = (
        names if species is None else [species] if isinstance(species, str) else list(species)
    )
    subsets = [str(s) for s in table["subset"].values]
    if unknown := [s for s in drawn_species if s not in names]:
        raise SelectionError(f"no species {unknown} in the table; it has {names[:5]}")
    if subset not in subsets:
        raise SelectionError(f"no subset {subset!r} in the table; choose from {subsets}")
    labels = np.asarray(table["presence"].transpose("site", "species").values, float)
    fold = comparable_folds(labels, table["fold"].values if "fold" in table else None)
    columns = []
    for name in drawn_species:
        species_table = table.isel(species=names.index(name), subset=subsets.index(subset))
        y = species_table["presence"].values.astype(float)
        z = species_table["suitability"].values.astype(float)
        is_scored = np.isfinite(y) & np.isfinite(z)
        if len(np.unique(y[is_scored])) == 2:
            columns.append((name, y[is_scored], z[is_scored], fold[is_scored]))
    if not columns:
        raise SettingError(
            "no species has both presences and absences, so there is no curve to draw"
        )
    return columns


def _draw(
    ax: Axes, curves: dict[str, tuple[np.ndarray, np.ndarray]], *, mean_of: str = ""
) -> list[str]:
    """Draw the curves and return their colours; many are grey, with their mean if it has a name."""
    is_named = len(curves) <= MOST_NAMED
    colours = [palette(i) if is_named else "0.75" for i in range(len(curves))]
    for (name, (x, y)), colour in zip(curves.items(), colours):
        label: Any = plain(name) if is_named else None
        ax.plot(x, y, color=colour, lw=1.4 if is_named else 0.7, label=label)
    if mean_of and not is_named:
        at = np.linspace(0, 1, 201)
        mean = np.mean([np.interp(at, x, y) for x, y in curves.values()], 0)
        ax.plot(at, mean, color=palette(0), lw=2, label=f"{mean_of} of {len(curves)} species")
    return colours
