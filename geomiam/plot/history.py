"""Curves of training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from geomiam.errors import SelectionError
from geomiam.plot.canvas import PALETTE, plain, several_axes

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

SCORES = {
    "auc": "AUC on validation sites\n(training sites if none are held out)",
    "r2": "R² of reconstructed tokens on validation blocks",
}
"""Labels of the scores of a history."""


def training(history: pd.DataFrame, *, ax: Sequence[Axes] | None = None) -> list[Axes]:
    """Draw the score of each modality alone and of all per epoch, and the share of hidden tokens.

    Parameters
    ----------
    history : pandas.DataFrame
        ``model.history`` of :func:`geomiam.fit` or :func:`geomiam.finetune`, with AUC, or of
        :func:`geomiam.pretrain`, with R². Ensemble members are averaged.
    ax : sequence of matplotlib.axes.Axes, optional
        Two axes; default: those of a new figure.

    Returns
    -------
    list of matplotlib.axes.Axes
        Scores on the left, hidden tokens on the right.

    Raises
    ------
    SelectionError
        If there are no epochs, as in a model from :func:`geomiam.evaluation.probe`.
    SettingError
        If ``ax`` has not two axes.

    See Also
    --------
    geomiam.Model : ``model.history`` has the scores.

    Examples
    --------
    >>> import geomiam as gm
    >>> left, right = gm.plot.training(model.history)
    >>> left.get_xlabel()
    'epoch'
    """
    from matplotlib.ticker import MaxNLocator

    metric = _score_of(history)
    history = history.astype(float).groupby("epoch", as_index=False).mean()  # over members
    names = [c.removeprefix(f"{metric}_") for c in history if c.startswith(f"{metric}_")]
    names.remove("all")
    axes = left, right = several_axes(ax, 2, columns=2, figsize=(11, 4))
    colours = dict(zip(names, PALETTE * 10))
    for name in names:
        style = {"color": colours[name], "label": plain(name)}
        left.plot(history["epoch"], history[f"{metric}_{name}"], **style)
        right.plot(history["epoch"], history[f"p_{name}"], **style)
    left.plot(history["epoch"], history[f"{metric}_all"], color="black", lw=2, label="all")
    left.set(xlabel="epoch", ylabel=SCORES[metric], title="each modality alone, and all")
    right.set(xlabel="epoch", ylabel="mean share of hidden tokens", ylim=(0, 1))
    right.set_title("hidden by the masking")
    handles = left.get_legend_handles_labels()
    if ax is None:
        left.figure.legend(*handles, loc="outside right center", frameon=False)
    else:
        right.legend(*handles, frameon=False)
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    return axes


def _score_of(history: pd.DataFrame) -> str:
    """Return the score that a history has for every epoch."""
    for metric in SCORES:
        if f"{metric}_all" in history:
            return metric
    raise SelectionError(
        f"the history has no epochs (columns {list(history.columns)}): a model from gm.evaluation.probe has none; "
        "draw that of gm.fit, gm.finetune or gm.pretrain"
    )
