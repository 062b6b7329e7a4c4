"""Baselines by name, with published settings, scored from any subset of the predictors.

Random forests (``"rf"``, ``"rf-equal"``), boosted trees (``"xgboost"``), Maxent (``"maxent"``) and
networks on its likelihood (``"maxent-like"``, ``"deepmaxent"``, ``"tabm"``). They read hidden predictors as NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import xarray as xr

from geomiam.baselines.base import Baseline, Method, Training
from geomiam.baselines.columns import Columns
from geomiam.baselines.elapid_maxent import Maxent
from geomiam.baselines.forest import DownSampledForest, EqualSampleForest
from geomiam.baselines.maxent import DeepMaxent, MaxentNetwork
from geomiam.baselines.tabm_networks import TabM
from geomiam.baselines.trees import BoostedTrees
from geomiam.data.sites.table import check_classes, read_labels
from geomiam.errors import LabelError, SelectionError, SettingError
from geomiam.progress import with_progress
from geomiam.schema.schema import Schema

BASELINES: dict[str, Callable[..., Method]] = {
    "rf": DownSampledForest,
    "rf-equal": EqualSampleForest,
    "xgboost": BoostedTrees,
    "maxent": Maxent,
    "maxent-like": MaxentNetwork,
    "deepmaxent": DeepMaxent,
    "tabm": TabM,
}
"""Every baseline by name. A new one is a frozen dataclass that satisfies
:class:`~geomiam.baselines.base.Method`, and a line here or ``BASELINES["mine"] = Mine`` in a user's
code."""
BASE_SITES = 500
"""Training sites over which the base score is averaged, at most."""


@with_progress
def fit_baseline(
    name: str,
    sites: xr.Dataset,
    schema: Schema,
    *,
    options: Mapping[str, Any] | None = None,
    rng: int | np.random.Generator | None = 0,
    progress: bool | None = None,
) -> Baseline:
    """Train a baseline on sites.

    Parameters
    ----------
    name : {"rf", "rf-equal", "xgboost", "maxent", "maxent-like", "deepmaxent", "tabm"}
    sites : xarray.Dataset
        Predictors ``(site, *own dims)`` and labels ``presence(site, species)``: 1, 0, NaN = not
        surveyed. Sites with nothing observed are left out.
    schema : Schema
        Predictors and their modalities.
    options : mapping, optional
        ``rf``: ``trees=1000``, ``n_jobs=1``. ``rf-equal``: ``draws=10``, ``trees=100``, ``n_jobs=1``.
        ``xgboost``: ``engine``, ``rounds=200``, ``rate=0.03``, ``leaves=8``, ``n_jobs=1``. ``maxent``:
        ``features="linear,quadratic,hinge"``, ``beta=1.0``, ``n_jobs=1``. ``maxent-like`` and
        ``deepmaxent``: ``masked``, ``residual``, ``hidden=250``, ``epochs=100``, ``batch=250``,
        ``rate=2e-4``, ``decay``. ``tabm``: ``networks=32``, ``width=256``, ``epochs=60``, ``batch=250``,
        ``rate=2e-3``, ``decay=3e-4``.
    rng : int, numpy.random.Generator or None
        Equal seed, data and options give equal scores.
    progress : bool, optional
        Show progress bars; default: on a terminal or in a notebook.

    Returns
    -------
    Baseline
        With ``species``, ``engine`` and ``scores(sites, using=None)``.

    Raises
    ------
    SelectionError
        If there is no baseline of that name.
    SettingError
        If the baseline lacks one of the options, or its library is not installed.
    LabelError, MissingVariable, VariableMismatch
        If labels or predictors cannot be used.

    See Also
    --------
    geomiam.evaluate : score a baseline like a model, with ``schema=``.
    geomiam.baselines.fit_imputed : the network of geomiam with imputed values.

    Notes
    -----
    * ``rf``: one forest per species; each of 1000 trees grown fully on a bootstrap of n presences
      and n absences (n: the rarer class), square root of p columns per split (Valavi et al. 2021,
      doi:10.1111/ecog.05615). Scores are shares of votes.
    * ``rf-equal``: ten forests per species, each on the presences and as many absences, drawn once
      for each forest (same source).
    * ``maxent``: Maxent of the library elapid, one model per species; missing values are the median.
    * ``xgboost``: boosted trees, one model per species, classes balanced by weight. Scores are
      probabilities of presence.
    * ``maxent-like``: one network for all species (Ryckewaert et al. 2024, arXiv:2412.19217), with
      predictors hidden in training. Scores are logarithms of the relative intensity.
    * ``deepmaxent``: the same with the published settings: two residual layers of 250 units, Adam
      with a rate of 2e-4 and a weight decay of 3e-4, 100 epochs of batches of 250, nothing hidden.
    * ``tabm``: 32 networks that share most of their weights (Gorishniy et al. 2025, arXiv:2410.24210), of the
      library tabm, on the same likelihood; nothing hidden in training.

    Examples
    --------
    >>> forest = gm.baselines.fit_baseline("rf", sites, schema, options={"trees": 10})
    >>> forest.scores(sites).shape == (sites.sizes["site"], 3)
    True
    """
    if name not in BASELINES:
        raise SelectionError(f"no baseline '{name}'; choose from {', '.join(BASELINES)}")
    make: Any = BASELINES[name]
    names = sorted(f.name for f in fields(make))
    if unknown := sorted(set(options or {}) - set(names)):
        raise SettingError(f"'{name}' has no option {unknown}; it has {', '.join(names)}")
    method: Method = make(**(options or {}))
    training = _training(sites, schema, onehot=method.onehot, rng=rng)
    scorer = method.fit(training)
    step = -(-len(training.table) // BASE_SITES)
    base = scorer(training.table[::step]).mean(0)
    return Baseline(name, method.engine, list(training.species), training.columns, scorer, base)


def _training(sites: xr.Dataset, schema: Schema, *, onehot: bool, rng: Any) -> Training:
    labels, species = read_labels(sites)
    columns = Columns.fit(sites, schema, onehot=onehot)
    table = columns.table(sites)
    any_observed = np.isfinite(table).any(1)
    if not any_observed.any():
        raise LabelError("no site has any predictor observed")
    check_classes(labels[any_observed], species)
    seed = int(np.random.default_rng(rng).integers(2**31))
    return Training(table[any_observed], labels[any_observed], species, columns, seed)
