"""Warnings about a fit that may be poor, each with its remedy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from geomiam.errors import TrainingWarning, warn
from geomiam.training.rule import FEW_STEPS

FEWEST = 5
"""Presences below which hardly anything can be learned."""
FEWEST_VALIDATED = 20
"""Presences below which an AUC is mostly noise: its standard error is .06 or more."""
GAP = 0.15
"""Training AUC above validation AUC from which a model fits its sites rather than new places."""
LISTED = 5


def few_presences(labels: np.ndarray, species: Sequence[str]) -> None:
    """Warn of species with very few presences among all labels ``(n, S)``."""
    if listed := _listed((labels == 1).sum(0), species, FEWEST):
        _warn(
            f"fewer than {FEWEST} presences: {listed}. Their suitability is little more than a guess; "
            "add records, or leave these species out with sites.sel(species=[...])",
            "few presences",
        )


def few_validated(counts: np.ndarray, species: Sequence[str], *, chosen: bool) -> None:
    """Warn of species with few validation presences ``(S,)``, which may have chosen the epoch."""
    listed = _listed(counts, species, FEWEST_VALIDATED)
    if listed and chosen:
        _warn(
            f"fewer than {FEWEST_VALIDATED} validation presences: {listed}. The best epoch is then "
            "chosen by noise; leave out holdout and keep, so that all sites train for a number of "
            "steps that follows from the data (gm.fit(sites) without training=)",
            "few validation presences",
        )
    elif listed:
        _warn(
            f"fewer than {FEWEST_VALIDATED} validation presences: {listed}. The validation AUC of these "
            "species is uncertain by .06 or more; add records, or judge species together",
            "few validation presences",
        )


def ended_early(best: Sequence[int], epochs: Sequence[int], *, most: int, steps: int) -> None:
    """Warn of a run that its limit ended before its scores could stop rising.

    Parameters
    ----------
    best, epochs : sequence of int
        Best epoch of each member, and the epochs that it was trained.
    most : int
        Limit of the epochs.
    steps : int
        Optimiser steps of so many epochs.
    """
    if most not in epochs:
        return
    late = any(b == most - 1 for b, e in zip(best, epochs) if e == most)
    if not late and steps >= FEW_STEPS:
        return
    reason = f"the best epoch is the last of {most}" if late else f"{steps} optimiser steps are few"
    _warn(
        f"{reason}: training ended too early. Pass more, training={{'epochs': {2 * most}}}, or leave "
        "training= out: the number of steps then follows from the data",
        "ended early",
    )


def large_gap(training: float | None, validation: float | None, *, steps: int) -> None:
    """Warn if the training AUC is far above the validation AUC, after so many optimiser steps."""
    if training is None or validation is None or training - validation < GAP:
        return
    shorter = f", or fewer steps (training={{'steps': {steps // 2}}})" if steps >= FEW_STEPS else ""
    _warn(
        f"training AUC {training:.2f}, validation AUC {validation:.2f}: the model fits its own sites, "
        f"not new places. Use fewer predictors{shorter}, and trust gm.cross_evaluate(sites, schema) only",
        "large gap",
    )


def _listed(counts: np.ndarray, species: Sequence[str], fewest: int) -> str:
    few = np.flatnonzero(counts < fewest)
    names = ", ".join(f"{species[i]} ({int(counts[i])})" for i in few[:LISTED])
    more = f" and {len(few) - LISTED} more species" if len(few) > LISTED else ""
    return names + more


def _warn(message: str, topic: str) -> None:
    warn(TrainingWarning(message, topic))
