"""The AUC within folds by scikit-learn, for one species."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import roc_auc_score


def auc_of_folds(
    y: np.ndarray, z: np.ndarray, fold: np.ndarray, weights: np.ndarray | None = None
) -> float:
    """Mean of the folds' AUC with weights n1 n0 / (n1 + n0 + 1); labels and scores ``(n,)``, NaN left out."""
    site_weights = np.ones(len(y)) if weights is None else weights / weights.mean()
    is_scored = np.isfinite(y) & np.isfinite(z)
    values, of_folds = [], []
    for number in np.unique(fold[fold >= 0]):
        rows = is_scored & (fold == number) & (site_weights > 0)
        ones, zeros = (site_weights[rows & (y == v)].sum() for v in (1, 0))
        if ones and zeros:
            values.append(roc_auc_score(y[rows], z[rows], sample_weight=site_weights[rows]))
            of_folds.append(ones * zeros / (ones + zeros + 1))
    return float(np.average(values, weights=of_folds))
