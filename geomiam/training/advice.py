"""Warnings about a fit that may be poor, each with a remedy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from geomiam.errors import TrainingWarning, warn
from geomiam.labels import Labels, label_counts
from geomiam.model.model import Model
from geomiam.on_disk import in_parts
from geomiam.tokens.scaler import ROUNDING
from geomiam.training.checkpoint import Progress
from geomiam.training.loop import Run
from geomiam.training.rule import FEW_STEPS, Plan

FEWEST = 5
"""Presences below which a species is warned about."""
FEWEST_VALIDATED = 20
"""Validation presences below which the standard error of an AUC is .06 or more."""
GAP = 0.15
"""Difference of training and validation AUC from which a model is warned about."""
LISTED = 5


def advise(model: Model, run: Run, ends: Sequence[Progress], *, plan: Plan) -> None:
    """Warn of a fit that may be poor; ``run`` is the first member's, ``ends`` are those of all."""
    config, about, sites = plan.training, model.about, len(run.table.train)
    keeps_best, epoch_limit = config.keep == "best", config.most_epochs(sites)
    steps = epoch_limit * config.steps_per_epoch(sites)
    if keeps_best:
        epochs = [e.epoch for e in ends]
        ended_early([e.best_epoch for e in ends], epochs, epoch_limit=epoch_limit, steps=steps)
    if "validation" in about:
        counts = np.array(list(about["validation"]["presences"].values()))
        few_validated(counts, model.species, epoch_chosen=False)
        training, validation = about["training_auc"]["all"], about["validation_auc"]["all"]
        large_gap(training, validation, steps=steps)
    elif about["sites"]["validation"]:
        counts = run.table.counts(run.table.valid).present
        few_validated(counts, model.species, epoch_chosen=keeps_best)
        training = run.task.scores(run, run.table.scored_training())["auc_all"]
        large_gap(training, about["validation_auc"]["all"], steps=steps)


def constant_predictors(arrays: Mapping[str, np.ndarray]) -> None:
    """Warn if no predictor ``(n, *own dims)`` varies between the training sites."""
    for array in arrays.values():
        low, high = np.full((2, *array.shape[1:]), np.inf, np.float32)
        for x in in_parts(array):
            is_finite = np.isfinite(x)
            low = np.minimum(low, np.where(is_finite, x, np.inf).min(0, initial=np.inf))
            high = np.minimum(high, np.where(is_finite, -x, np.inf).min(0, initial=np.inf))
            observed = np.isfinite(low)
            first, last = low[observed], -high[observed]
            if (last - first > ROUNDING * np.maximum(np.abs(first), np.abs(last))).any():
                return  # values differ by more than the rounding of float32
    names = ", ".join(list(arrays)[:LISTED]) + (" …" if len(arrays) > LISTED else "")
    _warn(
        f"all predictors are constant at the training sites: {names}. The suitability can then follow "
        "only what is missing; add predictors that vary between the sites, or check the resolution, "
        "units and type of these files (whole numbers round small values to one)",
        "constant predictors",
    )


def few_presences(labels: Labels, species: Sequence[str]) -> None:
    """Warn of species with very few presences among all labels ``(n, S)``."""
    if species_list := _listed(label_counts(labels).present, species, FEWEST):
        _warn(
            f"fewer than {FEWEST} presences: {species_list}. Their suitability is little more than a guess; "
            "add records, or leave these species out with sites.sel(species=[...])",
            "few presences",
        )


def few_validated(counts: np.ndarray, species: Sequence[str], *, epoch_chosen: bool) -> None:
    """Warn of species with few validation presences ``(S,)``; ``epoch_chosen``: they chose the epoch."""
    if species_list := _listed(counts, species, FEWEST_VALIDATED):
        if epoch_chosen:
            consequence = (
                "The best epoch is then chosen by noise; leave out holdout and keep, so that all sites "
                "train for a number of steps that follows from the data (gm.fit(sites) without training=)"
            )
        else:
            consequence = (
                "The validation AUC of these species is uncertain by .06 or more; add records, or judge "
                "species together"
            )
        start = f"fewer than {FEWEST_VALIDATED} validation presences: {species_list}"
        _warn(f"{start}. {consequence}", "few validation presences")


def ended_early(
    best: Sequence[int], epochs: Sequence[int], *, epoch_limit: int, steps: int
) -> None:
    """Warn of a run that reached its limit of epochs, of ``steps`` in all, while its scores still rose."""
    # ``best`` has the best epoch of each member, ``epochs`` the number that it was trained.
    if epoch_limit not in epochs:
        return
    late = any(b == epoch_limit - 1 for b, e in zip(best, epochs) if e == epoch_limit)
    if not late and steps >= FEW_STEPS:
        return
    reason = f"{steps} optimiser steps are few"
    if late:
        reason = f"the best epoch is the last of {epoch_limit}"
    _warn(
        f"{reason}: training ended too early. Pass more, training={{'epochs': {2 * epoch_limit}}}, or leave "
        "training= out: the number of steps then follows from the data",
        "ended early",
    )


def large_gap(training: float | None, validation: float | None, *, steps: int) -> None:
    """Warn if the training AUC is far above the validation AUC after ``steps`` optimiser steps."""
    if training is None or validation is None or training - validation < GAP:
        return
    shorter = f", or fewer steps (training={{'steps': {steps // 2}}})" if steps >= FEW_STEPS else ""
    _warn(
        f"training AUC {training:.2f}, validation AUC {validation:.2f}: the model fits its training sites, "
        f"not new places. Use fewer predictors{shorter}, and trust gm.cross_validate(sites, schema) only",
        "large gap",
    )


def _listed(counts: np.ndarray, species: Sequence[str], fewest: int) -> str:
    rare = np.flatnonzero(counts < fewest)
    names = ", ".join(f"{species[i]} ({int(counts[i])})" for i in rare[:LISTED])
    remainder = f" and {len(rare) - LISTED} more species" if len(rare) > LISTED else ""
    return names + remainder


def _warn(message: str, topic: str) -> None:
    warn(TrainingWarning(message, topic))
