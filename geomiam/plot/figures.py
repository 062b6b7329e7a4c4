"""Figures from outputs: suitability, Shapley panels, training curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from geomiam.errors import SelectionError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SCORES = {
    "auc": "AUC on validation sites (training sites if none are held out)",
    "r2": "R² of reconstructed tokens on validation blocks",
}
"""Labels of the scores of a history."""
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
    ax.set_title(_name(array["species"].item()), style="italic")
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
    fig.suptitle(
        f"{_name(array['species'].item())}: base value {base:.2f} + all panels = suitability"
    )
    return fig


def training(history: pd.DataFrame) -> Figure:
    """Draw the score of each modality alone and of all per epoch, and how often each was hidden.

    Parameters
    ----------
    history : pandas.DataFrame
        ``model.history`` of :func:`geomiam.fit` or :func:`geomiam.finetune`, scored by AUC, or of
        :func:`geomiam.pretrain`, scored by R². Members are averaged.

    Raises
    ------
    SelectionError
        If there are no epochs, as in a model from :func:`geomiam.evaluation.probe`.
    """
    import matplotlib.pyplot as plt

    metric = _score_of(history)
    history = history.astype(float).groupby("epoch", as_index=False).mean()  # over members
    every = f"{metric}_all"
    names = [c.removeprefix(f"{metric}_") for c in history if c.startswith(f"{metric}_")]
    names.remove("all")
    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    colours = dict(zip(names, plt.rcParams["axes.prop_cycle"].by_key()["color"] * 10))
    for name in names:
        style = {"color": colours[name], "label": _name(name)}
        left.plot(history["epoch"], history[f"{metric}_{name}"], **style)
        right.plot(history["epoch"], history[f"p_{name}"], **style)
    left.plot(history["epoch"], history[every], color="black", lw=2, label="all")
    left.set(xlabel="epoch", ylabel=SCORES[metric], title="each modality alone, and all")
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


def _score_of(history: pd.DataFrame) -> str:
    """The score that a history has for every epoch."""
    for metric in SCORES:
        if f"{metric}_all" in history:
            return metric
    raise SelectionError(
        f"the history has no epochs (columns {list(history.columns)}): a model from gm.evaluation.probe has none; "
        "draw that of gm.fit, gm.finetune or gm.pretrain"
    )


def subsets(tables: xr.Dataset | Mapping[str, xr.Dataset], *, metric: str = "auc") -> Figure:
    """Draw skill per subset of the predictors above a matrix of what each subset shows.

    Parameters
    ----------
    tables : xarray.Dataset or mapping of str to xarray.Dataset
        From :func:`geomiam.evaluate`, one or by method. A method called ``"oracle"`` is drawn as
        the bound: a bar over each column.
    metric : str
        Its mean over species is drawn; the last column is the mean over subsets.
    """
    named = {"model": tables} if isinstance(tables, xr.Dataset) else dict(tables)
    matrix = next(iter(named.values()))["shows"].transpose("subset", "modality")
    shows: np.ndarray = matrix.values
    columns, rows = shows.shape
    fig, (top, bottom) = _two_storeys(columns, rows)
    values = {n: t[f"mean_{metric}"].values for n, t in named.items()}
    oracle = values.pop("oracle", None)
    for i, (name, y) in enumerate(values.items()):
        shift = (i - (len(values) - 1) / 2) * min(0.14, 0.6 / len(values))
        _column_marks(top, np.append(y, np.nanmean(y)), shift, name, f"C{i}")
    if oracle is not None:
        _oracle_bars(top, np.append(oracle, np.nanmean(oracle)))
    _dot_matrix(bottom, shows)
    bottom.set_yticks(range(rows), list(map(_name, matrix["modality"].values)))
    first = next(iter(named.values()))[metric]
    top.set_ylabel(f"{first.attrs.get('long_name', metric)}\n(mean over species)")
    if len(named) > 1:
        top.legend(frameon=False, ncols=min(len(named), 5), loc="lower left", bbox_to_anchor=(0, 1))
    return fig


def missingness(sweep: xr.Dataset, *, styles: Mapping[str, str] | None = None) -> Figure:
    """Draw skill against the share of data that is missing, one panel per pattern of gaps.

    Parameters
    ----------
    sweep : xarray.Dataset
        From :func:`geomiam.evaluation.missingness_sweep`; repeats, and a dim ``seed`` if there is one, become
        the ribbon from least to most. What all predictors share, such as a hard split, is taken out
        of it first, so that it shows how sure their order is.
    styles : mapping of str to str, optional
        Line style per predictor, such as ``"--"`` for imputations.
    """
    import matplotlib.pyplot as plt

    panels = sweep["pattern"].values
    fig, axes = plt.subplots(
        1,
        len(panels),
        figsize=(1.6 + 3.1 * len(panels), 3.9),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    score = sweep["mean_auc"]
    drawn = [d for d in score.dims if d not in ("predictor", "pattern", "share")]
    common = score.mean("predictor")
    score = score - common + common.mean(drawn)
    for ax, pattern in zip(axes[0], panels):
        for i, name in enumerate(sweep["predictor"].values):
            one = score.sel(predictor=name, pattern=pattern)
            line = {"color": f"C{i % 10}", "ls": (styles or {}).get(str(name), "-")}
            ax.plot(one["share"], one.mean(drawn), label=_name(name), marker="o", ms=3.5, **line)
            ax.fill_between(
                one["share"], one.min(drawn), one.max(drawn), alpha=0.12, lw=0, color=line["color"]
            )
        ax.set_title(str(pattern).replace("-", " "), fontsize=11)
        ax.set_xlabel("share missing")
        ax.xaxis.set_major_formatter(lambda v, _: f"{v:.0%}")
        _quiet(ax)
    axes[0][0].set_ylabel("AUC (mean over species)")
    fig.legend(*axes[0][0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    return fig


def importance(table: xr.Dataset, *, species: str | None = None) -> Figure:
    """Draw what each group is worth, most first, with 95 % intervals where coalitions were sampled.

    Parameters
    ----------
    table : xarray.Dataset
        From :func:`geomiam.explain.importance`.
    species : str, optional
        Default: the mean over species.
    """
    import matplotlib.pyplot as plt

    names = ["mean_shapley", "standard_error", "mean_base_value", "mean_full_value"]
    if species is not None:
        names = ["shapley", "species_standard_error", "base_value", "full_value"]
        table = table.sel(species=species)
    values, errors, base, full = (table[n].values for n in names)
    order = np.argsort(values)
    half = _half_width(errors[order], table.attrs["replicates"])
    fig, ax = plt.subplots(figsize=(6.6, 1.5 + 0.34 * len(order)), layout="constrained")
    ax.barh(
        table["group"].values[order],
        values[order],
        xerr=half if half.any() else None,
        color=np.where(values[order] < 0, "#d1495b", "#4a7fa7"),
        ecolor="#26323a",
        capsize=3,
    )
    ax.axvline(0, color="#26323a", lw=0.8)
    ax.set_xlabel(f"contribution to {_said(table)}")
    shown = np.atleast_1d(table["species"].values)
    what = "mean over species" if len(shown) > 1 else shown[0]
    ax.set_title(f"{what}: {base:.3f} without predictors, {full:.3f} with all", fontsize=10)
    _quiet(ax, across="x")
    return fig


def convergence(runs: xr.Dataset) -> Figure:
    """Draw how the error of sampled Shapley values falls with the number of evaluations.

    Parameters
    ----------
    runs : xarray.Dataset
        ``evaluations(kind, size, repeat)`` and ``error(kind, size, repeat)``: absolute error of
        repeated samples of growing size, mean over groups; ``standard_error``, alike, is what the
        samples said of themselves, drawn as a dashed line. An attribute ``exact`` is the number of
        evaluations that leaves no error.
    """
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter

    fig, ax = plt.subplots(figsize=(6.8, 4.8), layout="constrained")
    for i, kind in enumerate(runs["kind"].values):
        one = runs.sel(kind=kind)
        line: dict[str, Any] = {"color": f"C{i}"}
        x = one["evaluations"].mean("repeat")
        low, high = one["error"].quantile([0.1, 0.9], dim="repeat")
        ax.fill_between(x, low, high, alpha=0.12, lw=0, **line)
        ax.plot(x, one["error"].mean("repeat"), marker="o", ms=4, label=str(kind), **line)
        said = one["standard_error"].mean("repeat") * np.sqrt(2 / np.pi)  # mean |x| of a normal
        ax.plot(x, said, ls="--", lw=1, **line)
    ax.plot([], [], ls="--", lw=1, color="#26323a", label="expected from the standard error")
    if "exact" in runs.attrs:
        ax.axvline(runs.attrs["exact"], color="#26323a", lw=1, ls=":", label="exact")
    ax.set(xscale="log", yscale="log", xlabel="evaluations (predictions of all sites)")
    ax.set_ylabel(f"absolute error of Shapley values of {_said(runs)},\nmean over groups")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(lambda v, _: f"{v:,.5g}" if v >= 1 else f"{v:.5f}".rstrip("0"))
        axis.set_minor_formatter(NullFormatter())
    fig.legend(frameon=False, fontsize=9, loc="outside upper left", ncols=2)
    _quiet(ax, across="both")
    return fig


def _half_width(errors: np.ndarray, replicates: int) -> np.ndarray:
    """Of 95 % intervals; without replicates there was no sampling."""
    from scipy.stats import t

    return errors * t.ppf(0.975, replicates - 1) if replicates else np.zeros_like(errors)


def _said(table: xr.Dataset) -> str:
    return str(table.attrs["metric"]).replace("_", " ").replace("auc", "AUC")


def _panel(ax: Axes, values: xr.DataArray, most: float) -> Any:
    mesh = _map(ax, values, cmap="RdBu_r", vmin=-most, vmax=most)
    size = np.abs(values.values)
    ax.set_title(
        f"{_name(values['group'].item())}\nmean |effect| {np.nanmean(size):.3f}", fontsize=10
    )
    if not (size > 0).any():
        place: dict[str, Any] = {"transform": ax.transAxes, "ha": "center", "va": "center"}
        ax.text(0.5, 0.5, "not on this map:\nexactly 0", fontsize=9, **place)
    return mesh


def _name(name: Any) -> str:
    """Return a name of a species or predictor as plain text: a dollar sign begins no formula."""
    return str(name).replace("$", r"\$")


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
    if not degrees:  # coordinates in metres are long numbers
        ax.ticklabel_format(style="plain", useOffset=False)
        ax.locator_params(nbins=4)
    return mesh


def _two_storeys(columns: int, rows: int) -> tuple[Figure, Sequence[Axes]]:
    import matplotlib.pyplot as plt

    return plt.subplots(
        2,
        1,
        sharex=True,
        figsize=(2.6 + 0.75 * (columns + 1), 3.4 + 0.3 * rows),
        height_ratios=[3.0, 0.3 * rows],
        layout="constrained",
    )


def _column_marks(ax: Axes, y: np.ndarray, shift: float, name: str, colour: str) -> None:
    """One method: a mark per column, and the mean apart, in bold."""
    x = np.arange(len(y)) + shift
    ax.plot(x[:-1], y[:-1], "o", ms=6, color=colour, label=_name(name))
    ax.plot(x[-1:], y[-1:], "D", ms=7, color=colour)
    ax.tick_params(axis="x", length=0)
    _quiet(ax)


def _oracle_bars(ax: Axes, y: np.ndarray) -> None:
    x = np.arange(len(y))
    ax.hlines(y, x - 0.38, x + 0.38, color="#3a3a3a", lw=1.4, label="oracle", zorder=0)


def _dot_matrix(ax: Axes, shows: np.ndarray) -> None:
    """Full where a modality is shown, half where a part of it is."""
    columns, rows = shows.shape
    at = np.argwhere(np.ones_like(shows))
    share = shows[tuple(at.T)]
    styles = {"none": share >= 0, "full": share >= 1, "bottom": (share > 0) & (share < 1)}
    for fill, here in styles.items():
        style: dict[str, Any] = {"mfc": "#26323a", "mec": "none", "mfcalt": "#dfe6ea"}
        if fill == "none":
            fill, style = "full", {"mfc": "#dfe6ea", "mec": "none"}
        ax.plot(*at[here].T, "o", ms=11, fillstyle=fill, **style)
    ax.set(xlim=(-0.6, columns + 0.6), ylim=(rows - 0.4, -0.6))
    ax.set_xticks([columns], ["mean"])
    ax.tick_params(length=0)
    ax.axvline(columns - 0.5, color="#c3ccd2", lw=0.8)
    for side in ax.spines.values():
        side.set_visible(False)


def _quiet(ax: Axes, *, across: Literal["x", "y", "both"] = "y") -> None:
    ax.grid(axis=across, color="#e3e8eb", lw=0.8)
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
