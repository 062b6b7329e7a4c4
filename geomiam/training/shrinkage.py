"""Shrinkage of the logits of a survey, by the slope of out-of-fold predictions.

A network that learned from few sites is overconfident at new places: its logits vary more there than the
true log-odds. One factor for all species corrects this, the slope of labels on logits of sites that did
not train (Copas 1983; van Houwelingen & le Cessie 1990). The level of each species is then set anew, so
that the mean of its predictions is its prevalence. The order of its places stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import expit

from geomiam.labels import Labels, label_counts, take
from geomiam.networks.network import Network
from geomiam.training.losses import base_logits

LEAST = 0.05
"""Smallest slope, for predictions without any skill: above 0, so that places keep their order."""
LIMIT = 6.0
"""Largest distance of a logit from that of the prevalence; greater ones are cut. It is a factor of 400 in the odds.

A place far outside the training range has logits of hundreds and would determine the slope alone.
"""
STEPS, CLOSE = 100, 1e-6


@dataclass(frozen=True, eq=False)
class Shrinkage:
    """The new logit of each species, ``level + slope (logit - base)``, with one slope for all."""

    fold_slope: float
    """Slope of the predictions of the folds."""
    slope: float
    """Slope to expect for a model that trains on all sites."""
    base: np.ndarray
    """Log-odds of the prevalence of each species ``(S,)``."""
    level: np.ndarray
    """New logits in place of ``base`` ``(S,)``: with them the mean of the folds' predictions is the prevalence."""

    @classmethod
    def of(
        cls,
        labels: Labels,
        masks: Sequence[np.ndarray],
        fold_labels: np.ndarray,
        logits: np.ndarray,
        *,
        fold: np.ndarray,
    ) -> Shrinkage:
        """Return the shrinkage of a model of all sites.

        ``labels (n, S)`` and the held-out sites ``(n,)`` of each fold give the prevalence of the sites that
        train in each fold. ``fold_labels`` and ``logits (v, S)`` are those of the sites that are predicted,
        ``fold (v,)`` their folds.
        """
        # From the prevalence of the sites that trained: a fold with more presences leaves fewer to train on, so
        # differences between folds would count against the logits.
        fold_base = np.stack([_prevalence_logits(take(labels, ~mask)) for mask in masks])[fold]
        distance = np.clip(logits - fold_base, -LIMIT, LIMIT).astype(float)
        fold_slope = slope_of(fold_labels, distance)
        growth = len(labels) / float(np.mean([(~mask).sum() for mask in masks]))
        slope = round(slope_with(growth, fold_slope), 4)
        base = _prevalence_logits(labels)
        level = level_of(distance, slope=slope, share=expit(base.astype(float)))
        return cls(round(fold_slope, 4), slope, base, level.round(4))

    def about(self, species: Sequence[str]) -> dict[str, Any]:
        """Return slopes and levels as JSON types, for the provenance of a model."""
        levels = dict(zip(species, self.level.tolist()))
        return {"fold_slope": self.fold_slope, "slope": self.slope, "level": levels}

    def text(self) -> str:
        """Return what was done and why, for the reasons of the rule."""
        at = f"at places held out of training (calibration slope {self.fold_slope:.2f}"
        if self.slope == 1:
            return f"probabilities were not too extreme {at}), so they are not moved towards the prevalence"
        return (
            f"probabilities were too extreme {at}, where 1 is right), so they are moved towards the prevalence of "
            f"each species (log-odds times {self.slope:.2f})"
        )

    def scaled(self, logits: np.ndarray) -> np.ndarray:
        """Return logits ``(..., S)`` on the scale of the model."""
        return self.level + self.slope * (logits - self.base)

    @torch.no_grad()
    def apply(self, network: Network) -> None:
        """Scale the logits of a network in its head, and so those of every member and coalition."""
        bias = network.head.bias
        base, level = (torch.as_tensor(v).to(bias) for v in (self.base, self.level))
        network.head.weight.mul_(self.slope)
        bias.copy_(level + self.slope * (bias - base))
        if network.offsets is not None:
            network.offsets.mul_(self.slope)


def slope_of(labels: np.ndarray, distance: np.ndarray) -> float:
    """Return the slope of largest likelihood of ``labels`` on ``distance``, both ``(n, S)``, in [LEAST, 1].

    The logistic regression has one slope and an intercept for each species. NaN does not count, nor does
    a species with one class.
    """
    counts = np.isfinite(distance) & np.isfinite(labels)
    present, number = np.where(counts, labels, 0).sum(0), counts.sum(0)
    counts &= (present > 0) & (present < number)
    x, y = np.where(counts, distance, 0), np.where(counts, labels, 0)
    share = present / np.maximum(number, 1)
    level, slope = _log_odds(share), 1.0
    for _ in range(STEPS):
        p = expit(level + slope * x)
        error, weight = (y - p) * counts, p * (1 - p) * counts
        # Newton's step; the Hessian is an arrow, so the intercepts are eliminated first.
        total = np.maximum(weight.sum(0), 1e-12)
        centre = (weight * x).sum(0) / total
        size = (weight * (x - centre) ** 2).sum()
        step = float((error * (x - centre)).sum() / max(size, 1e-12))
        steps = error.sum(0) / total - centre * step
        # A shortened step always increases the likelihood, and is full near the maximum (Sun & Tran-Dinh 2019).
        length = abs(step) * LIMIT + np.abs(steps).max(initial=0)
        shorter = np.log1p(length) / max(length, 1e-12)
        slope, level = slope + shorter * step, level + shorter * steps
        if length < CLOSE:
            break
    return float(np.clip(slope, LEAST, 1.0))


def level_of(distance: np.ndarray, *, slope: float, share: np.ndarray) -> np.ndarray:
    """Return the intercepts ``(S,)`` with which the mean of σ(intercept + slope · distance) is ``share (S,)``.

    ``distance`` is ``(n, S)``; NaN does not count.
    """
    low, high = _log_odds(share) - slope * LIMIT, _log_odds(share) + slope * LIMIT
    for _ in range(STEPS):
        middle = (low + high) / 2
        is_low = np.nanmean(expit(middle + slope * distance), 0) < share
        low, high = np.where(is_low, middle, low), np.where(is_low, high, middle)
        if (high - low).max(initial=0) < CLOSE:
            break
    return (low + high) / 2


def slope_with(growth: float, slope: float) -> float:
    """Return the slope to expect with ``growth`` times the training sites."""
    # Logits with a signal of variance s and an error of variance e / n have the slope s / (s + e / n), whose
    # odds are proportional to n.
    return growth * slope / (1 + (growth - 1) * slope)


def _log_odds(share: np.ndarray) -> np.ndarray:
    bounded_share = np.clip(share, 1e-9, 1 - 1e-9)
    return np.log(bounded_share / (1 - bounded_share))


def _prevalence_logits(labels: Labels) -> np.ndarray:
    """Return the log-odds of the prevalence of each species ``(S,)`` among labels ``(n, S)``."""
    return base_logits("bce", label_counts(labels)).numpy()
