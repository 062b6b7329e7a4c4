"""Baselines of the default fit: tuned logistic regressions and a balanced forest."""

from __future__ import annotations

import numpy as np
import xarray as xr
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import geomiam as gm
from geomiam.baselines.columns import Columns
from geomiam.splits import spatial_folds

STRENGTHS = (0.01, 0.1, 1.0, 10.0)
"""Of which inner spatial folds choose the C of a logistic regression, one for all species."""
TREES, LEAF = 150, 2


def baselines(
    train: xr.Dataset, test: xr.Dataset, *, species: np.ndarray, blocks: np.ndarray, seed: int
) -> dict[str, np.ndarray]:
    """Return scores ``(n_test, S)`` of the species by name of the method.

    Parameters
    ----------
    species : numpy.ndarray
        Which ones to train ``(S,)``.
    blocks : numpy.ndarray
        Spatial block of each training site, for the inner folds.
    """
    columns = Columns.fit(train, gm.infer_schema(train), onehot=True)
    x, new = (np.nan_to_num(columns.table(s)) for s in (train, test))  # 0 is the mean
    y = train["presence"].transpose("site", "species").values[:, species]
    fold = _folds(y, blocks, seed)
    return {
        "LR": _regressions(x, y, new, fold),
        "LR2": _regressions(_squared(x), y, _squared(new), fold),
        "RF": np.stack([_forest(x, column, new, seed) for column in y.T], 1),
    }


def _folds(y: np.ndarray, blocks: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    count = min(3, len(np.unique(blocks)))
    return spatial_folds(y, blocks, folds=count, rng=rng)


def _squared(x: np.ndarray) -> np.ndarray:
    return np.concatenate([x, x**2], 1)


def _regressions(x: np.ndarray, y: np.ndarray, new: np.ndarray, fold: np.ndarray) -> np.ndarray:
    scores = []
    for strength in STRENGTHS:
        out = np.full(y.shape, np.nan)
        for number in np.unique(fold):
            inside = fold == number
            out[inside] = _fitted(x[~inside], y[~inside], x[inside], strength)
        scores.append(np.nanmean(gm.metrics.auc(y, out)))
    return _fitted(x, y, new, STRENGTHS[int(np.nanargmax(scores))])


def _fitted(x: np.ndarray, y: np.ndarray, new: np.ndarray, strength: float) -> np.ndarray:
    """Scores of one regression per species; a species of one class gets its share."""
    scale = StandardScaler().fit(x)
    x, new, columns = scale.transform(x), scale.transform(new), []
    for labels in y.T:
        has_label = np.isfinite(labels)
        if len(np.unique(labels[has_label])) < 2:
            columns.append(np.full(len(new), labels[has_label].mean() if has_label.any() else 0.5))
            continue
        line = LogisticRegression(C=strength, max_iter=500).fit(x[has_label], labels[has_label])
        columns.append(line.decision_function(new))
    return np.stack(columns, 1)


def _forest(x: np.ndarray, labels: np.ndarray, new: np.ndarray, seed: int) -> np.ndarray:
    has_label = np.isfinite(labels)
    if len(np.unique(labels[has_label])) < 2:
        return np.full(len(new), 0.5)
    forest = RandomForestClassifier(
        TREES, min_samples_leaf=LEAF, class_weight="balanced_subsample", random_state=seed
    )
    return forest.fit(x[has_label], labels[has_label]).predict_proba(new)[:, 1]
