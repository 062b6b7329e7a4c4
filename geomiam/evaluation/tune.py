"""Choice of settings by cross-validation, compared with the default fit.

The trials are drawn by scikit-learn's ``ParameterSampler``. An adaptive search, such as that of Optuna, is not
used: a dozen trials of few settings are too few for it, and it adapts more to the folds.
All settings are known before the start, so that every trial is checked before the first training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from geomiam import splits as splitters
from geomiam.checks.settings import check_count
from geomiam.data.sites.table import read_labels
from geomiam.errors import LabelError, SelectionError
from geomiam.evaluation.cross_validate import cross_validate, folds_of
from geomiam.evaluation.out_of_fold import out_of_fold
from geomiam.evaluation.random_presences import NOT_HIGHER
from geomiam.evaluation.subsets import Subsets
from geomiam.masking import MIAM
from geomiam.masking.registry import as_strategy
from geomiam.metrics.registry import METRICS
from geomiam.networks.config import NetworkConfig
from geomiam.progress import progress_bar, with_progress
from geomiam.schema.schema import Schema
from geomiam.training.config import TrainingConfig
from geomiam.training.rule import make_plan

if TYPE_CHECKING:
    import pandas as pd

SPACE: dict[str, Any] = {
    "masking": [None, "uniform", "subset"],
    "network.fusion": [None, "linear+sum", "linear+sum+group", "quadratic+sum+group"],
    "training.steps": [None, 300, 1000, 3000],
}
"""Default settings of :func:`tune`; None is that of the default fit.

Width, dropout, weight decay, batch, learning rate, frequencies and masks per site or batch are left out: on
small and middle-sized data they changed the skill by no more than its error."""
LOWER = ("brier", "log_loss")
"""Metrics that are lower for better models, and that settings can be chosen by."""


@dataclass(frozen=True, eq=False)
class Tuning:
    """Trials of :func:`geomiam.tune`, and the settings that they recommend.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame({"gain": [0.0, 0.03], "gain_error": [0.0, 0.01]})
    >>> tuning = gm.evaluation.Tuning(table, ({}, {"training.steps": 300}), "auc")
    >>> tuning.recommended, tuning.best
    (1, {'training': {'steps': 300}})
    """

    table: pd.DataFrame
    """One row per trial, of which 0 is the default fit: settings (None: default), the score of each fold,
    ``mean``, ``standard_error``, ``gain`` over the default fit and ``gain_error``, its standard error over folds."""
    settings: tuple[dict[str, Any], ...]
    """Settings of each trial by name, such as ``training.steps``, without those of the default."""
    metric: str

    @property
    def winner(self) -> int:
        """Trial of the best mean score."""
        return int(self.table["gain"].idxmax())

    @property
    def recommended(self) -> int:
        """The winner if its gain exceeds the standard error of the gain; otherwise 0, the default fit."""
        row = self.table.loc[self.winner]
        return self.winner if row["gain"] > row["gain_error"] else 0

    @property
    def best(self) -> dict[str, Any]:
        """Keyword arguments of :func:`geomiam.fit` for the recommended trial; none for the default fit."""
        return fit_arguments(self.settings[self.recommended])

    @property
    def reason(self) -> str:
        """The comparison with the default fit in words."""
        row = self.table.loc[self.winner]
        gain = f"{row['gain']:.4f} ± {row['gain_error']:.4f} ({self.metric})"
        if self.recommended:
            return (
                f"trial {self.winner} is better than the default fit by {gain}. Its score is optimistic, since it is "
                "the best of several: measure the skill on sites that the tuning did not use"
            )
        best = f": trial {self.winner} by {gain}" if self.winner else ""
        return f"no trial is better than the default fit by more than a standard error{best}. The default is recommended"

    def __str__(self) -> str:
        return f"{len(self.table)} trials: {self.reason}"


@with_progress
def tune(
    sites: xr.Dataset,
    schema: Schema | str | Path | None = None,
    *,
    space: Mapping[str, Any] | None = None,
    trials: int = 12,
    splits: Any = None,
    metric: str = "auc",
    subsets: Subsets = "unimodal+all",
    checkpoint: str | Path | None = None,
    rng: int = 0,
    progress: bool | None = None,
) -> Tuning:
    """Compare settings of :func:`geomiam.fit` by cross-validation on the same folds.

    The first trial is the default fit. Another one is recommended only if it is better by more than the
    standard error of the difference over folds. Small data seldom show such a difference.

    Parameters
    ----------
    sites : xarray.Dataset
        Predictors and ``presence(site, species)``. Keep test sites out of it.
    schema : Schema or path, optional
        As for :func:`geomiam.fit`.
    space : mapping, optional
        The values of each setting, as a list or a distribution of scipy with the method ``rvs``. Names are
        ``"masking"``, ``"network.…"`` and ``"training.…"`` with the fields of
        :class:`geomiam.NetworkConfig` and :class:`geomiam.TrainingConfig`; the value None is that of the
        default fit. Default: ``gm.evaluation.SPACE``, which has masking, fusion and steps.
    trials : int
        Number of trials, the default fit among them; fewer if the lists have fewer combinations.
        Each costs a training per fold.
    splits : splitter or iterable of (train, test), optional
        As for :func:`geomiam.cross_validate`.
    metric : str
        Of ``geomiam.metrics.METRICS``; not ``"omission"`` or ``"calibration_slope"``, which do not measure
        the whole skill.
    subsets : str, sequence or mapping
        As for :func:`geomiam.evaluate`; the score is the mean over subsets and species.
    checkpoint : str or pathlib.Path, optional
        Folder where the trainings are saved, as for :func:`geomiam.fit`: the same call after an
        interruption resumes there, with equal results.
    rng : int
        Seed of the trials, of the default folds and of every training.
    progress : bool, optional
        Show progress bars; default: on a terminal or in a notebook.

    Returns
    -------
    Tuning
        ``table`` of the trials, and ``best``, the arguments of :func:`geomiam.fit` for the recommended one.

    Raises
    ------
    SelectionError
        If a setting or the metric is unknown or unsuitable.
    SettingError
        If a value of a setting is out of range; all are checked before the first training.
    LabelError, GridError
        As :func:`geomiam.cross_validate`, or if the default fit has no score.

    See Also
    --------
    geomiam.cross_validate : the skill of one choice of settings.

    Notes
    -----
    The score of the winner is optimistic, since it is the best of several on the same folds. Its skill is
    measured on sites that the tuning did not use: held out before (``gm.splits.hold_out_blocks``), or fold
    by fold, with a tuning on the training sites of each fold. The standard error is over folds, whose
    training sites overlap, so it is a lower bound.

    Examples
    --------
    >>> tuning = gm.tune(sites, schema)  # doctest: +SKIP
    >>> sparse_sites = sites.isel(site=slice(0, None, 6))[["bio1", "bio12", "presence"]]
    >>> space = {"network.fusion": ["linear"], "training.steps": [25]}
    >>> folds = gm.splits.SpatialBlocks(2, size="100 km")
    >>> tuning = gm.tune(sparse_sites, space=space, trials=2, splits=folds, subsets="all")
    >>> tuning.table.index.tolist(), float(tuning.table["gain"][0])
    ([0, 1], 0.0)
    >>> model = gm.fit(sites, schema, **tuning.best)  # doctest: +SKIP
    """
    check_count("trials", trials, minimum=2, hint="12 are the default")
    if str(metric) not in METRICS or metric in set(NOT_HIGHER) - set(LOWER):
        raise SelectionError(
            f"settings cannot be chosen by metric={metric!r}; use one such as 'auc'"
        )
    labels, _ = read_labels(sites)
    settings = draw_settings(SPACE if space is None else space, trials - 1, rng=rng)
    for of_trial in settings:
        _check(of_trial, labels)
    folds = folds_of(splitters.SpatialBlocks(rng=rng) if splits is None else splits, sites, labels)
    scores = []
    for number, of_trial in enumerate(progress_bar(settings, desc="trials", unit="trial")):
        arguments = fit_arguments(of_trial)
        options = {k: arguments.pop(k) for k in ("masking",) if k in arguments}
        if checkpoint is not None:
            options["checkpoint"] = Path(checkpoint) / f"trial-{number}"
        table = cross_validate(
            sites,
            schema,
            splits=folds,
            metrics=metric,
            subsets=subsets,
            fit_options=options,
            rng=rng,
            **arguments,
        )
        scores.append(fold_scores(table, metric))
    by_fold = np.stack(scores)
    if np.isnan(by_fold[0]).all():
        raise LabelError(
            "the default fit has no score, since no fold has a species with presences and absences: pass other splits="
        )
    return Tuning(_trial_table(settings, by_fold, metric), tuple(settings), metric)


def _trial_table(
    settings: Sequence[Mapping[str, Any]], by_fold: np.ndarray, metric: str
) -> pd.DataFrame:
    """Return settings, scores ``(trials, folds)``, their means and the gain over the default by trial."""
    import pandas as pd

    names = dict.fromkeys(name for of_trial in settings for name in of_trial)
    columns: dict[str, Any] = {name: [s.get(name) for s in settings] for name in names}
    columns |= {f"fold_{i}": by_fold[:, i] for i in range(by_fold.shape[1])}
    gain = (by_fold - by_fold[0]) * (-1 if metric in LOWER else 1)
    columns["mean"], columns["standard_error"] = _mean_and_error(by_fold)
    columns["gain"], columns["gain_error"] = _mean_and_error(gain)
    return pd.DataFrame(columns).rename_axis("trial")


def draw_settings(space: Mapping[str, Any], count: int, *, rng: int) -> list[dict[str, Any]]:
    """Return the default settings and ``count`` others, each once; None is the default and is left out."""
    from sklearn.model_selection import ParameterSampler

    if not isinstance(space, Mapping):
        raise SelectionError(f"space= must map names of settings to their values, found {space!r}")
    configs = {"network": NetworkConfig, "training": TrainingConfig}
    for name, values in space.items():
        part, _, field = str(name).partition(".")
        is_known = name == "masking" or field in getattr(configs.get(part), "model_fields", ())
        if not is_known or not (hasattr(values, "rvs") or (isinstance(values, list) and values)):
            raise SelectionError(
                f"space has {name!r}: {values!r}; names are 'masking', 'network.…' and 'training.…' with a field of "
                "gm.NetworkConfig or gm.TrainingConfig, values are a list or a distribution with the method rvs"
            )
    draws: list[dict[str, Any]] = [{}]
    is_finite = not any(hasattr(values, "rvs") for values in space.values())
    total = int(np.prod([len(v) for v in space.values()])) if is_finite else count
    for draw in ParameterSampler(space, min(count + 1, total), random_state=rng):
        plain = {k: v.item() if isinstance(v, np.generic) else v for k, v in sorted(draw.items())}
        setting = {k: v for k, v in plain.items() if v is not None}
        if setting not in draws:
            draws.append(setting)
    return draws[: count + 1]


def fit_arguments(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by name as keyword arguments of :func:`geomiam.fit`."""
    arguments: dict[str, Any] = {}
    for name, value in settings.items():
        part, _, field = name.partition(".")
        if field:
            arguments.setdefault(part, {})[field] = value
        else:
            arguments[part] = value
    return arguments


def fold_scores(table: xr.Dataset, metric: str) -> np.ndarray:
    """Return the mean score over subsets and species in each fold ``(folds,)``; NaN = none."""
    labels, scores, fold = out_of_fold(table, None)
    values = np.full(int(fold.max()) + 1, np.nan)
    for number in range(len(values)):
        is_test = fold == number
        skills = np.stack([METRICS[metric](labels[is_test], s[is_test]) for s in scores])
        if np.isfinite(skills).any():
            values[number] = np.nanmean(skills)
    return values


def _check(settings: Mapping[str, Any], labels: np.ndarray) -> None:
    """Refuse settings that a fit would refuse."""
    arguments = fit_arguments(settings)
    as_strategy(arguments.pop("masking", None), default=MIAM())
    make_plan(labels, **arguments)


def _mean_and_error(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean over folds and its standard error ``(trials,)``; a fold without a score is left out."""
    values = values[:, np.isfinite(values[0])]
    count = values.shape[1]
    error = values.std(1, ddof=1) / np.sqrt(count) if count > 1 else np.full(len(values), np.nan)
    return values.mean(1), error
