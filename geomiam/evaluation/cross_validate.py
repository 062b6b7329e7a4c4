"""Cross-validation: every site is predicted by a model that was not trained on it or its block."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from geomiam import splits as splitters
from geomiam.data.infer.infer import read_schema
from geomiam.data.sites.labels import has_background, read_labels
from geomiam.errors import LabelError, TrainingWarning
from geomiam.evaluation.evaluate import (
    Subsets,
    check_metrics,
    name_subsets,
    score,
    shown_share,
    subset_scores,
)
from geomiam.evaluation.masked import to_probability
from geomiam.geo.lengths import Length
from geomiam.model.model import Model
from geomiam.progress import progress_bar, with_progress
from geomiam.schema.schema import Schema
from geomiam.training.config import TrainingConfig
from geomiam.training.fit import fit
from geomiam.training.losses import resolve_loss

OURS = (
    splitters.SpatialBlocks,
    splitters.Checkerboard,
    splitters.BufferedLeaveOut,
    splitters.EnvironmentalBlocks,
)
Folds = list[tuple[np.ndarray, np.ndarray]]


@with_progress
def cross_evaluate(
    sites: xr.Dataset,
    schema: Schema | str | Path | None = None,
    *,
    subsets: Subsets = "unimodal+all",
    metrics: str | Sequence[str] = ("auc",),
    splits: Any = None,
    folds: int = 5,
    block: Length | None = None,
    rng: int = 0,
    progress: bool | None = None,
    **options: Any,
) -> xr.Dataset:
    """Train once per fold and score the predictions of all folds together.

    Everything that is chosen from data, such as the members of the default fit, is chosen again in every
    fold from its training sites. A warning that several folds give is issued once.

    Parameters
    ----------
    sites : xarray.Dataset
        With ``presence(site, species)``.
    schema : Schema or path, optional
        As for :func:`geomiam.fit`.
    subsets, metrics
        As for :func:`geomiam.evaluate`.
    splits : splitter or iterable of (train, test), optional
        A splitter of :mod:`geomiam.splits`, one of scikit-learn, or pairs of row numbers. Every site
        is tested once at most. Default: ``SpatialBlocks(folds, size=block, rng=rng)``.
    folds : int
        Folds of spatial blocks; not used with ``splits``.
    block : float or str, optional
        Side of a spatial block: km, or text such as ``"100 km"``; not used with ``splits``. Default:
        from the data, as :func:`geomiam.splits.site_blocks`.
    rng : int
        Seeds the folds and every training.
    progress : bool, optional
        Show progress bars; default: on a terminal or in a notebook.
    **options
        Of :func:`geomiam.fit`. ``validation`` is of all sites, and ``checkpoint`` a folder with one
        folder per fold.

    Returns
    -------
    xarray.Dataset
        As :func:`geomiam.evaluate`, from out-of-fold predictions. In addition
        ``suitability(subset, site, species)``: these predictions on the probability scale, NaN where
        a site is never tested or nothing of the subset is observed; ``presence(site, species)``;
        ``fold(site)``: the fold that tests a site, -1 for none. Coordinates of the sites are kept.
        For spatial blocks, attributes ``block_km``, ``block_count`` and ``block_reason`` describe them.

    Raises
    ------
    LabelError
        If a site is tested twice, a fold is empty, or labels cannot be used.
    GridError
        If the sites have no coordinates, or lie at fewer places than folds.
    SelectionError
        If a subset or a metric is unknown.
    """
    labels, names = read_labels(sites)
    metrics = check_metrics(metrics)
    schema = read_schema(sites, schema)
    chosen = name_subsets(schema, subsets)
    splits = splits or splitters.SpatialBlocks(folds, size=block, rng=rng)
    parts = _folds(splits, sites, labels)
    scores = {name: np.full(labels.shape, np.nan, np.float32) for name in chosen}
    options["training"] = _with_one_loss(options.get("training"), sites, labels)
    caught = []
    for number, (train, test) in enumerate(progress_bar(parts, desc="folds", unit="fold")):
        with warnings.catch_warnings(record=True) as of_fold:
            warnings.simplefilter("always")  # the user's filters hold where they are issued again
            fold_options = _of_fold(options, train, number)
            model = fit(sites.isel(site=train), schema, rng=rng, **fold_options)
            for name, values in subset_scores(model, sites.isel(site=test), chosen).items():
                scores[name][test] = values
        caught.append(of_fold)
    _warn_once(caught)
    table = score(
        labels,
        scores,
        names,
        metrics=metrics,
        probability=lambda z: to_probability(model, z),
        shows=shown_share(schema, chosen),
    )
    table = _with_predictions(table, sites, scores, model=model)
    return table.assign(fold=("site", _numbers(parts, len(labels)))).assign_attrs(
        _block_attrs(splits, sites)
    )


def _folds(splits: Any, sites: xr.Dataset, labels: np.ndarray) -> Folds:
    """Row numbers of every fold, checked."""
    if not hasattr(splits, "split"):
        pairs: Iterable = splits
    elif isinstance(splits, OURS):
        pairs = splits.split(sites)
    else:  # scikit-learn counts the rows of a table, and stratifies by one label per row
        pairs = splits.split(np.zeros((len(labels), 1)), labels[:, 0])
    parts = [(np.asarray(train), np.asarray(test)) for train, test in pairs]
    if not parts or any(not len(rows) for part in parts for rows in part):
        raise LabelError(f"splits={splits!r} leaves a fold without training or test sites")
    tested = np.bincount(np.concatenate([test for _, test in parts]), minlength=len(labels))
    if tested.max() > 1:
        raise LabelError(
            f"splits={splits!r} tests {int((tested > 1).sum())} sites more than once, so they have no "
            "single prediction; use a splitter such as gm.splits.SpatialBlocks"
        )
    return parts


def _of_fold(options: dict[str, Any], train: np.ndarray, number: int) -> dict[str, Any]:
    """Options of :func:`geomiam.fit` for the training sites of one fold."""
    fold_options = dict(options)
    if fold_options.get("validation") is not None:
        fold_options["validation"] = np.asarray(fold_options["validation"])[train]
    if fold_options.get("checkpoint") is not None:
        fold_options["checkpoint"] = Path(fold_options["checkpoint"]) / f"fold-{number}"
    return fold_options


def _warn_once(caught: Sequence[Sequence[warnings.WarningMessage]]) -> None:
    """Issue the warnings of all folds once each, with the number of folds that gave them."""
    folds_of: dict[tuple, set[int]] = {}
    first: dict[tuple, warnings.WarningMessage] = {}
    for number, of_fold in enumerate(caught):
        for warning in of_fold:
            kind = _kind(warning)
            first.setdefault(kind, warning)
            folds_of.setdefault(kind, set()).add(number)
    for kind, warning in first.items():
        text = f"in {len(folds_of[kind])} of {len(caught)} folds: {warning.message}"
        warnings.warn_explicit(text, warning.category, warning.filename, warning.lineno)


def _kind(warning: warnings.WarningMessage) -> tuple:
    """What warnings of several folds share that differ in their numbers only."""
    category = warning.category
    if topic := getattr(warning.message, "topic", None):
        return category, topic
    if category.__module__ == TrainingWarning.__module__:  # one category per kind and place
        return category, warning.filename, warning.lineno
    return category, str(warning.message)


def _with_one_loss(
    training: TrainingConfig | Mapping[str, Any] | None, sites: xr.Dataset, labels: np.ndarray
) -> TrainingConfig | dict[str, Any]:
    """Settings whose loss follows from all labels, so that predictions of all folds can be pooled."""
    background = has_background(sites)
    if isinstance(training, TrainingConfig):
        return resolve_loss(training, labels, background=background)[0]
    changes = dict(training or {})
    config = TrainingConfig(loss=changes.get("loss", "auto"))
    return {**changes, "loss": resolve_loss(config, labels, background=background)[0].loss}


def _with_predictions(
    table: xr.Dataset, sites: xr.Dataset, scores: dict[str, np.ndarray], *, model: Model
) -> xr.Dataset:
    """Add labels, predictions and coordinates of the sites."""
    predicted = np.stack([to_probability(model, z) for z in scores.values()])
    name = model.quantity.name if model.quantity else "suitability"
    attrs = {"long_name": f"out-of-fold prediction: {name}", "units": "1"}
    along = {k: v for k, v in sites.coords.items() if v.dims == ("site",)}
    labels = sites["presence"].transpose("site", "species")
    return table.assign(
        suitability=(("subset", "site", "species"), predicted.astype(np.float32), attrs),
        presence=(("site", "species"), labels.values, dict(labels.attrs)),
    ).assign_coords(along)


def _numbers(parts: Folds, n: int) -> np.ndarray:
    """Fold that tests each site ``(n,)``; -1 for none."""
    fold = np.full(n, -1)
    for number, (_, test) in enumerate(parts):
        fold[test] = number
    return fold


def _block_attrs(splits: Any, sites: xr.Dataset) -> dict[str, Any]:
    """Size, number and reason of spatial blocks; nothing for other splits."""
    if not isinstance(splits, splitters.SpatialBlocks):
        return {}
    blocks = splits.blocks(sites)
    return {"block_km": blocks.km, "block_count": blocks.count, "block_reason": blocks.reason}
