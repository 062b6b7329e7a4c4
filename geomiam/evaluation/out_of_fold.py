"""Thresholds chosen on out-of-fold predictions, with the skill of the classes on other folds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from geomiam.errors import LabelError, SelectionError
from geomiam.metrics.confusion import classes, kappa, sensitivity, specificity, tss
from geomiam.metrics.thresholds import KINDS, ThresholdKind, check_kind, threshold

SKILL = {"sensitivity": sensitivity, "specificity": specificity, "tss": tss, "kappa": kappa}


def thresholds(
    table: xr.Dataset,
    *,
    kinds: Sequence[ThresholdKind] = KINDS,
    subset: str = "all",
) -> xr.Dataset:
    """Choose a threshold for each species on the out-of-fold predictions of a cross-validation.

    The predictions are from models that did not train on the sites. For the skill of the classes, the
    sites of each fold are classified with the threshold of the other folds, so that it is no
    optimistic value.

    Parameters
    ----------
    table : xarray.Dataset
        From :func:`geomiam.cross_validate`: ``presence(site, species)``, ``suitability(subset, site,
        species)`` and ``fold(site)``.
    kinds : sequence of str
        Of the kinds of :func:`geomiam.metrics.threshold`; default all.
    subset : str
        Subset of the predictors, as the table names it.

    Returns
    -------
    xarray.Dataset
        ``threshold(kind, species)``, on the scale of the suitability; NaN for a species of one class.
        ``sensitivity``, ``specificity``, ``tss`` and ``kappa`` ``(kind, species)`` of the classes
        from thresholds of other folds; NaN if these have no threshold.
        :meth:`geomiam.Model.with_thresholds` stores the thresholds with a model.

    Raises
    ------
    SelectionError
        If a kind or the subset is unknown.
    LabelError
        If the table has no out-of-fold predictions.

    See Also
    --------
    geomiam.classify : apply them to maps.
    geomiam.metrics.threshold : thresholds of your labels and scores.

    Examples
    --------
    >>> table = gm.cross_validate(  # doctest: +SKIP
    ...     sites, schema, subsets="all"
    ... )
    >>> rng = np.random.default_rng(0)
    >>> presence = (rng.random((90, 1)) < 0.4).astype(float)
    >>> table = xr.Dataset(
    ...     {
    ...         "presence": (("site", "species"), presence),
    ...         "suitability": (("subset", "site", "species"), (presence * 0.4 + 0.3)[None]),
    ...         "fold": ("site", np.arange(90) % 3),
    ...     },
    ...     coords={"subset": ["all"], "species": ["oak"]},
    ... )
    >>> chosen = gm.evaluation.thresholds(table, kinds=["max-tss"])
    >>> chosen["threshold"].values.round(1).tolist(), chosen["tss"].values.tolist()
    ([[0.7]], [[1.0]])
    """
    for kind in kinds:
        check_kind(kind)
    labels, scores, fold = out_of_fold(table, subset)
    values = [threshold(labels, scores, kind=k) for k in kinds]
    along = ("kind", "species")
    result = xr.Dataset(
        {"threshold": (along, np.reshape(values, (len(kinds), labels.shape[1])))},
        coords={"kind": list(kinds), "species": table["species"].values},
        attrs={"source": f"out-of-fold predictions of {int(fold.max()) + 1} folds"},
    )
    result["threshold"].attrs = {"long_name": "threshold of suitability", "units": "1"}
    by_kind = [_classes_of_other_folds(labels, scores, fold, kind=k) for k in kinds]
    for name, metric in SKILL.items():
        skill = [metric(labels, c, threshold=0.5) for c in by_kind]
        text = f"{name}, each fold by the threshold of the other folds"
        shape = (len(kinds), labels.shape[1])
        result[name] = (along, np.reshape(skill, shape), {"long_name": text})
    return result


def out_of_fold(table: xr.Dataset, subset: str | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return labels and predictions ``(n, S)`` of the tested sites, and the fold of each ``(n,)``.

    Without a subset, predictions are ``(subsets, n, S)``.
    """
    missing = [n for n in ("presence", "suitability", "fold") if n not in table]
    if missing:
        raise LabelError(
            f"the table has no {', '.join(missing)}: pass the table of gm.cross_validate, which holds the "
            "out-of-fold predictions"
        )
    if subset is not None and subset not in table["subset"].values:
        raise SelectionError(
            f"no subset {subset!r} in the table; choose from {[str(s) for s in table['subset'].values]}"
        )
    fold = table["fold"].values
    rows = np.flatnonzero(fold >= 0)
    of_subset = table["suitability"] if subset is None else table["suitability"].sel(subset=subset)
    scores = of_subset.transpose(..., "site", "species").values[..., rows, :]
    labels = np.asarray(table["presence"].transpose("site", "species").values, float)
    return labels[rows], scores, fold[rows]


def _classes_of_other_folds(
    labels: np.ndarray, scores: np.ndarray, fold: np.ndarray, *, kind: ThresholdKind
) -> np.ndarray:
    """Classify each fold by the threshold of the other folds ``(n, S)``; 1, 0, NaN."""
    result = np.full(labels.shape, np.nan)
    for number in np.unique(fold):
        is_test = fold == number
        of_others = threshold(labels[~is_test], scores[~is_test], kind=kind)
        result[is_test] = classes(scores[is_test], of_others)
    return result
