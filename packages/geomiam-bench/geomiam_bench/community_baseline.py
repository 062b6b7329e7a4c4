"""A joint model of scikit-learn parts, which predicts species from predictors and other species.

One logistic regression per species on the standardised predictors, their squares, and the observations of all
other species, where the mean stands for values that are missing or hidden. It is trained on copies of the sites in
which observations are hidden at random, as in the training of geomiam. Inner spatial folds choose the
strength of the penalty, one for all species.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from sklearn.linear_model import LogisticRegression

import geomiam as gm
from geomiam.baselines.columns import Columns, Using
from geomiam.splits import site_blocks, spatial_folds
from geomiam.training.observations import WHOLLY

STRENGTHS = (0.001, 0.01, 0.1, 1.0)
COPIES = 4
"""Copies of the training sites, each with other hidden observations."""


@dataclass(frozen=True)
class Moments:
    """Means and deviations of columns, of which NaN becomes the mean."""

    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray) -> Moments:
        """Return those of a table ``(n, p)``."""
        deviation = np.nanstd(x, 0)
        return cls(np.nanmean(x, 0), np.where(deviation > 0, deviation, 1))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return np.nan_to_num((x - self.mean) / self.deviation)


@dataclass(frozen=True)
class JointLogistic:
    """A trained joint model, as a predictor of :mod:`geomiam.evaluation.evaluate`."""

    species: tuple[str, ...]
    variables: tuple[str, ...]
    """Observations of each species; empty for a model without the community."""
    columns: Columns
    of_predictors: Moments
    of_observations: Moments
    weights: np.ndarray
    """``(S, p + S)``."""
    intercepts: np.ndarray

    def scores(self, sites: xr.Dataset, *, using: Using = None) -> np.ndarray:
        """Return log-odds ``(n, S)``; the weight of a species' own observation is 0."""
        x = self.of_predictors(squared(self.columns.table(sites)))
        if self.variables:
            z = self.of_observations(observations(sites, self.variables))
            x = np.concatenate([x, z], 1)
        return x @ self.weights.T + self.intercepts


def observations(sites: xr.Dataset, variables: tuple[str, ...]) -> np.ndarray:
    """Return the observations of species ``(n, S)``."""
    return np.stack([sites[v].values for v in variables], 1).astype(float)


def squared(x: np.ndarray) -> np.ndarray:
    """Return a table with the squares of its columns ``(n, 2 p)``."""
    return np.concatenate([x, x**2], 1)


def fit_joint(train: xr.Dataset, variables: tuple[str, ...], *, seed: int) -> JointLogistic:
    """Train the joint model; ``variables`` are the observations of the species, in their order.

    Without variables it is a logistic regression on the predictors alone.
    """
    schema = gm.infer_schema(train)
    names = [n for n, v in schema.variables.items() if v.species is None]
    columns = Columns.fit(train, schema.subset(names), onehot=True)
    table = squared(columns.table(train))
    of_predictors, y = Moments.of(table), train["presence"].transpose("site", "species").values
    of_observations, x = Moments.of(y), of_predictors(table)
    z = of_observations(observations(train, variables)) if variables else np.zeros((len(y), 0))
    blocks = site_blocks(train, min_blocks=3).number
    fold = spatial_folds(y, blocks, folds=3, rng=np.random.default_rng(seed))
    skills = []
    for strength in STRENGTHS:
        out = np.full(y.shape, np.nan)
        for number in range(3):
            inside = fold == number
            weights, intercepts = _regressions(x[~inside], z[~inside], y[~inside], strength, seed)
            hidden = _hidden(z[inside], np.random.default_rng(seed))
            out[inside] = np.concatenate([x[inside], hidden], 1) @ weights.T + intercepts
        skills.append(np.nanmean(gm.metrics.auc_within_folds(y, out, fold)))
    best = STRENGTHS[int(np.argmax(skills))]
    weights, intercepts = _regressions(x, z, y, best, seed)
    species = tuple(map(str, train["species"].values))
    return JointLogistic(
        species, variables, columns, of_predictors, of_observations, weights, intercepts
    )


def _hidden(z: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Hide observations ``(n, S)`` at the rates of the training of geomiam: 0 is the mean."""
    rate = np.where(rng.random((len(z), 1)) < WHOLLY, 1.0, rng.random((len(z), 1)))
    return np.where(rng.random(z.shape) < rate, 0, z)


def _regressions(
    x: np.ndarray, z: np.ndarray, y: np.ndarray, strength: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return weights ``(S, p + S)`` and intercepts ``(S,)``, from copies with hidden observations."""
    rng, copies = np.random.default_rng(seed), COPIES if z.shape[1] else 1
    hidden = np.concatenate([_hidden(z, rng) for _ in range(copies)])
    table = np.concatenate([np.tile(x, (copies, 1)), hidden], 1)
    weights, intercepts = np.zeros((y.shape[1], table.shape[1])), np.zeros(y.shape[1])
    for number, labels in enumerate(y.T):
        if len(np.unique(labels)) < 2:
            continue
        usable = np.arange(table.shape[1])
        if z.shape[1]:  # without the observation of the species itself
            usable = np.delete(usable, x.shape[1] + number)
        line = LogisticRegression(C=strength / copies, max_iter=300)
        line.fit(table[:, usable], np.tile(labels, copies))
        weights[number, usable], intercepts[number] = line.coef_[0], line.intercept_[0]
    return weights, intercepts
