"""Cross-validation: every site is predicted by a model that was not trained on it or its block."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from geomiam import splits as splitters
from geomiam.data.infer import read_schema
from geomiam.data.sites.table import has_background, read_labels
from geomiam.errors import SettingError, TrainingWarning
from geomiam.evaluation.evaluate import score, subset_scores, to_probability
from geomiam.evaluation.subsets import Subsets, name_subsets, shown_share
from geomiam.geo.crs import crs_coordinate
from geomiam.metrics.registry import Metrics, as_metrics
from geomiam.model.model import Model
from geomiam.networks.config import NetworkConfig
from geomiam.progress import progress_bar, with_progress
from geomiam.schema.schema import Schema
from geomiam.splits.reading import rows_of_folds
from geomiam.training.config import TrainingConfig
from geomiam.training.fit import fit
from geomiam.training.losses import resolve_loss

GEOMIAM_SPLITTERS = (
    splitters.SpatialBlocks,
    splitters.Checkerboard,
    splitters.BufferedLeaveOut,
    splitters.EnvironmentalBlocks,
    splitters.NearestNeighbourMatching,
)
Folds = list[tuple[np.ndarray, np.ndarray]]


@with_progress
def cross_validate(
    sites: xr.Dataset,
    schema: Schema | str | Path | None = None,
    *,
    splits: Any = None,
    metrics: Metrics = ("auc",),
    subsets: Subsets = "unimodal+all",
    network: NetworkConfig | Mapping[str, Any] | None = None,
    training: TrainingConfig | Mapping[str, Any] | None = None,
    fit_options: Mapping[str, Any] | None = None,
    rng: int = 0,
    progress: bool | None = None,
) -> xr.Dataset:
    """Train once per fold and score the predictions for the sites of the folds.

    The AUC compares sites of the same fold (:func:`geomiam.metrics.auc_within_folds`), since the models of
    the folds differ in the level of their predictions; if the folds are single sites, all pairs count.
    Other metrics take the predictions of all folds together.

    Every choice that depends on data, such as the members of the default fit, is repeated in every
    fold from its training sites. A warning that occurs in several folds is issued once.

    Parameters
    ----------
    sites : xarray.Dataset
        Predictors and ``presence(site, species)``.
    schema : Schema or path, optional
        As for :func:`geomiam.fit`.
    splits : splitter or iterable of (train, test), optional
        A splitter of :mod:`geomiam.splits` or of scikit-learn, or pairs of row numbers. Every site is
        tested once at most. Default: ``SpatialBlocks(5, rng=rng)``, whose size follows from the data.
    metrics : str, callable or sequence of these
        As for :func:`geomiam.evaluate`.
    subsets : str, sequence or mapping
        As for :func:`geomiam.evaluate`.
    network, training : config or mapping, optional
        As for :func:`geomiam.fit`.
    fit_options : mapping, optional
        Further keyword arguments of :func:`geomiam.fit`, such as ``{"masking": "uniform"}``. An array
        ``validation`` has one entry per site of ``sites``, and ``checkpoint`` gets one folder per fold.
    rng : int
        Seed of the default folds and of every training.
    progress : bool, optional
        Show progress bars; default: on a terminal or in a notebook.

    Returns
    -------
    xarray.Dataset
        The table of :func:`geomiam.evaluate`, from out-of-fold predictions. In addition
        ``suitability(subset, site, species)``: these predictions as probabilities, NaN where
        a site is never tested or nothing of the subset is observed; ``presence(site, species)``;
        ``fold(site)``: the fold that tests a site, -1 for none. Coordinates and CRS of the sites are kept.
        For spatial blocks, the attributes ``block_km``, ``block_count`` and ``block_reason`` are set, for
        nearest-neighbour distance matching ``w_km``, ``clusters`` and ``fold_reason``.

    Raises
    ------
    LabelError
        If a site is tested twice or trains the model that tests it, a fold is empty, or labels cannot be used.
    GridError
        If the sites have no coordinates, or lie at fewer places than folds.
    SelectionError
        If a subset or a metric is unknown.

    See Also
    --------
    geomiam.evaluate : score one model on sites that it was not trained on.
    geomiam.splits.SpatialBlocks : the splits.
    geomiam.evaluation.thresholds : thresholds from the held-out predictions.
    geomiam.plot.roc : plot the held-out predictions.
    geomiam.splits.prediction_weights : weights of the test sites by distance to the prediction area.
    geomiam.evaluation.confidence : metrics of the table with intervals, and with weights.

    Examples
    --------
    >>> import geomiam as gm
    >>> blocks = gm.splits.SpatialBlocks(3, size="100 km")
    >>> table = gm.cross_validate(  # doctest: +SKIP
    ...     sites, schema, splits=blocks, metrics=["auc", "boyce", "tss"]
    ... )
    >>> table["mean_auc"].to_series()  # doctest: +SKIP
    """
    labels, names = read_labels(sites)
    as_metrics(metrics)
    schema = read_schema(sites, schema)
    subsets_by_name = name_subsets(schema, subsets)
    splits = splitters.SpatialBlocks(rng=rng) if splits is None else splits
    folds = folds_of(splits, sites, labels)
    scores = {name: np.full(labels.shape, np.nan, np.float32) for name in subsets_by_name}
    options = dict(fit_options or {})
    if twice := sorted({"network", "training"} & set(options)):
        raise SettingError(f"fit_options= has {twice}, which are arguments of cross_validate")
    options |= {"network": network, "training": _with_one_loss(training, sites, labels)}
    fold_warnings = []
    for number, (train, test) in enumerate(progress_bar(folds, desc="folds", unit="fold")):
        with warnings.catch_warnings(record=True) as of_fold:
            warnings.simplefilter("always")  # the user's filters apply where they are issued again
            fold_options = _of_fold(options, train, number)
            model = fit(sites.isel(site=train), schema, rng=rng, **fold_options)
            for name, values in subset_scores(
                model, sites.isel(site=test), subsets_by_name
            ).items():
                scores[name][test] = values
        fold_warnings.append(of_fold)
    _warn_once(fold_warnings)
    fold = _numbers(folds, len(labels))
    table = score(
        labels,
        scores,
        names,
        metrics=metrics,
        probability=lambda z: to_probability(model, z),
        shows=shown_share(schema, subsets_by_name),
        fold=fold,
    )
    table = _with_predictions(table, sites, scores, model=model)
    return table.assign(fold=("site", fold)).assign_attrs(_block_attrs(splits, sites))


def folds_of(splits: Any, sites: xr.Dataset, labels: np.ndarray) -> Folds:
    """Return the row numbers of every fold, checked."""
    if not hasattr(splits, "split") or isinstance(splits, str):
        pairs: Iterable[Any] = splits
    elif isinstance(splits, GEOMIAM_SPLITTERS):
        pairs = splits.split(sites)
    else:  # scikit-learn splits the rows of a table and stratifies by one label per row
        pairs = splits.split(np.zeros((len(labels), 1)), labels[:, 0])
    return rows_of_folds(pairs, splits, len(labels))


def _of_fold(options: dict[str, Any], train: np.ndarray, number: int) -> dict[str, Any]:
    """Return the options of :func:`geomiam.fit` for the training sites of one fold."""
    validation, checkpoint = options.get("validation"), options.get("checkpoint")
    changes: dict[str, Any] = {}
    if validation is not None and validation is not False:
        changes["validation"] = np.asarray(validation)[train]
    if checkpoint is not None:
        changes["checkpoint"] = Path(checkpoint) / f"fold-{number}"
    return options | changes


def _warn_once(fold_warnings: Sequence[Sequence[warnings.WarningMessage]]) -> None:
    """Issue each warning once, with the number of folds in which it occurred."""
    folds_of: dict[tuple[Any, ...], set[int]] = {}
    first: dict[tuple[Any, ...], warnings.WarningMessage] = {}
    for number, of_fold in enumerate(fold_warnings):
        for warning in of_fold:
            kind = _kind(warning)
            first.setdefault(kind, warning)
            folds_of.setdefault(kind, set()).add(number)
    for kind, warning in first.items():
        text = f"in {len(folds_of[kind])} of {len(fold_warnings)} folds: {warning.message}"
        warnings.warn_explicit(text, warning.category, warning.filename, warning.lineno)


def _kind(warning: warnings.WarningMessage) -> tuple[Any, ...]:
    """Return a key that is equal for warnings of several folds that differ in their numbers only."""
    category = warning.category
    if topic := getattr(warning.message, "topic", None):
        return category, topic
    if category.__module__ == TrainingWarning.__module__:  # one category per kind and place
        return category, warning.filename, warning.lineno
    return category, str(warning.message)


def _with_one_loss(
    training: TrainingConfig | Mapping[str, Any] | None, sites: xr.Dataset, labels: np.ndarray
) -> TrainingConfig | dict[str, Any]:
    """Return settings whose loss follows from all labels, so that all predictions have one scale."""
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
    suitability = np.stack([to_probability(model, z) for z in scores.values()])
    name = model.quantity.name if model.quantity else "suitability"
    attrs = {"long_name": f"out-of-fold prediction: {name}", "units": "1"}
    along = {k: v for k, v in sites.coords.items() if v.dims == ("site",)}
    if crs := crs_coordinate(sites):
        along[crs] = sites.coords[crs]
    if "crs" in sites.attrs:
        table = table.assign_attrs(crs=sites.attrs["crs"])
    labels = sites["presence"].transpose("site", "species")
    return table.assign(
        suitability=(("subset", "site", "species"), suitability.astype(np.float32), attrs),
        presence=(("site", "species"), labels.values, dict(labels.attrs)),
    ).assign_coords(along)


def _numbers(folds: Folds, n: int) -> np.ndarray:
    """Return the fold that tests each site ``(n,)``; -1 for none."""
    fold = np.full(n, -1)
    for number, (_, test) in enumerate(folds):
        fold[test] = number
    return fold


def _block_attrs(splits: Any, sites: xr.Dataset) -> dict[str, Any]:
    """Return size, number and reason of spatial blocks, or the statistic of matched distances; otherwise nothing."""
    if isinstance(splits, splitters.NearestNeighbourMatching):
        matching = splits.match(sites)
        return {
            "w_km": matching.statistic,
            "clusters": matching.clusters,
            "fold_reason": matching.reason,
        }
    if not isinstance(splits, splitters.SpatialBlocks):
        return {}
    blocks = splits.blocks(sites)
    return {"block_km": blocks.km, "block_count": blocks.count, "block_reason": blocks.reason}
