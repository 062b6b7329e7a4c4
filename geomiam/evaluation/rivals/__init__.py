"""Rivals: what a masked model has to beat, trained the same way and asked the same questions.

They are what the field uses, each at its published settings, none of them straw: a down-sampled
random forest (``"rf"``), boosted trees (``"xgboost"``) and a Maxent-like network
(``"maxent-like"``). All answer from any subset of the predictors; what is not shown is NaN to them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from geomiam.data.sites.labels import check_classes, read_labels
from geomiam.errors import LabelError, SelectionError
from geomiam.evaluation.columns import Columns
from geomiam.evaluation.rivals.base import Rival, Training
from geomiam.evaluation.rivals.boosting import fit_boosting
from geomiam.evaluation.rivals.forest import fit_forest
from geomiam.evaluation.rivals.network import fit_network
from geomiam.progress import with_progress
from geomiam.schema.schema import Schema

__all__ = ["RIVALS", "Rival", "fit_rival"]


class Recipe(NamedTuple):
    """How a rival is trained, and whether it wants classes as indicators."""

    fit: Callable[..., tuple]
    onehot: bool


RIVALS = {
    "rf": Recipe(fit_forest, onehot=True),
    "xgboost": Recipe(fit_boosting, onehot=False),
    "maxent-like": Recipe(fit_network, onehot=True),
}
"""Every rival by name."""
BASE_SITES = 500
"""Training sites over which the base score is averaged, at most."""


@with_progress
def fit_rival(
    name: str,
    sites: xr.Dataset,
    schema: Schema,
    *,
    rng: int | np.random.Generator | None = 0,
    progress: bool | None = None,
    **options: Any,
) -> Rival:
    """Train a rival on sites.

    Parameters
    ----------
    name : {"rf", "xgboost", "maxent-like"}
    sites : xarray.Dataset
        Predictors ``(site, *own dims)`` and labels ``presence(site, species)``: 1, 0, NaN = not
        surveyed. Sites with nothing observed are left out.
    schema : Schema
        Which variables are predictors.
    rng : int, numpy.random.Generator or None
        Equal seed, data and options give equal scores.
    progress : bool, optional
        Show progress bars; default: on a terminal or in a notebook.
    **options
        ``rf``: ``trees=1000``, ``n_jobs=1``. ``xgboost``: ``engine``, ``rounds=200``, ``rate=0.03``,
        ``leaves=8``, ``n_jobs=1``. ``maxent-like``: ``masked=True``, ``hidden=250``, ``epochs=100``,
        ``batch=250``, ``rate=2e-4``.

    Returns
    -------
    Rival
        With ``species``, ``engine`` and ``scores(sites, using=None)``.

    Raises
    ------
    SelectionError
        If there is no rival of that name.
    LabelError, MissingVariable, VariableMismatch
        If labels or predictors cannot be used.

    Notes
    -----
    * ``rf``: one forest per species; each of 1000 trees grown to the end on a bootstrap of n presences
      and n absences (n: the rarer class), square root of p columns per split (Valavi et al. 2021,
      doi:10.1111/ecog.05615). Scores are shares of votes.
    * ``xgboost``: boosted trees, one model per species, classes balanced by weight. Scores are
      chances of presence.
    * ``maxent-like``: one network for all species (Ryckewaert et al. 2024, arXiv:2412.19217), with
      predictors hidden in training. Scores are logarithms of the relative intensity.
    """
    if name not in RIVALS:
        raise SelectionError(f"no rival '{name}'; choose from {', '.join(RIVALS)}")
    recipe = RIVALS[name]
    training = _training(sites, schema, onehot=recipe.onehot, rng=rng)
    answer, engine = recipe.fit(training, **options)
    step = -(-len(training.table) // BASE_SITES)
    base = answer(training.table[::step]).mean(0)
    return Rival(name, engine, list(training.species), training.columns, answer, base)


def _training(sites: xr.Dataset, schema: Schema, *, onehot: bool, rng: Any) -> Training:
    labels, species = read_labels(sites)
    columns = Columns.fit(sites, schema, onehot=onehot)
    table = columns.table(sites)
    seen = np.isfinite(table).any(1)
    if not seen.any():
        raise LabelError("no site has any predictor observed")
    check_classes(labels[seen], species)
    seed = int(np.random.default_rng(rng).integers(2**31))
    return Training(table[seen], labels[seen], species, columns, seed)
