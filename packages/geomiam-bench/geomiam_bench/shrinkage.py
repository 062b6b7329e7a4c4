"""The default fit with and without the shrinkage of its logits, on held-out sites of real surveys.

One fit gives both: the logits without it follow from those with it, since they are scaled about the prevalence of the
sites that trained. See :mod:`geomiam_bench.calibration`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from scipy.special import expit

import geomiam as gm
from geomiam.labels import label_counts
from geomiam.splits import site_blocks, spatial_folds
from geomiam.training.losses import base_logits
from geomiam_bench.defaults_data import makers

SETS = ("Bryce Canyon plants", "neotropical plants", "French birds")
SIZES = ("50", "100", "300", "all")
FOLDS = 3
CLIP = 0.001
"""Least probability in the log loss; a site outside the training range may have one of 1e-40."""


@dataclass(frozen=True)
class Fold:
    """Predictions of one fit for sites that did not train."""

    labels: np.ndarray
    """``(n, S)``."""
    logits: dict[str, np.ndarray]
    """Without and with shrinkage, ``(subsets, n, S)``: each modality alone, then all."""
    block: np.ndarray
    """``(n,)``."""
    slope: float | None
    """Slope of the model; None if the rule does not scale its logits."""
    members: str


def one_fold(
    sites: xr.Dataset, held_out: np.ndarray, block: np.ndarray, *, options: dict[str, Any]
) -> Fold:
    """Fit on the other sites and predict the held-out ones ``(n,)``, with and without shrinkage."""
    train, test = sites.isel(site=~held_out), sites.isel(site=held_out)
    model = gm.fit(train, rng=0, **options)
    subsets = [[name] for name in model.schema.modalities]
    predictions = [
        gm.predict(test, model, using=using, scale="logit")["suitability"]
        for using in [*subsets, None]
    ]
    shrunk_logits = np.stack(
        [p.transpose("site", "species").values.astype(float) for p in predictions]
    )
    labels, train_labels = (
        d["presence"].transpose("site", "species").values.astype("f4") for d in (test, train)
    )
    plain, slope = shrunk_logits, None
    if shrinkage := model.about["rule"].get("shrinkage"):
        base = base_logits("bce", label_counts(train_labels)).numpy().astype(float)
        slope, level = shrinkage["slope"], np.array([*shrinkage["level"].values()])
        plain = base + (shrunk_logits - level) / slope
    return Fold(
        labels,
        {"without": plain, "with": shrunk_logits},
        block[held_out],
        slope,
        model.config.fusion,
    )


def judged(
    folder: Path, name: str, *, draw: int, nearby: bool, options: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return the scores of one part of a set, from all folds; ``nearby``: of random sites in place of blocks."""
    sites = makers(folder, draw=draw)[name]().sites
    labels = sites["presence"].transpose("site", "species").values
    block = site_blocks(sites, min_blocks=2 * FOLDS).number
    rng = np.random.default_rng(draw)
    if nearby:
        fold_of_sites = rng.permutation(len(labels)) % FOLDS
    else:
        fold_of_sites = spatial_folds(labels, block, folds=FOLDS, rng=rng)
    folds = [
        one_fold(sites, fold_of_sites == number, block, options=options or {})
        for number in range(FOLDS)
    ]
    return {"sites": len(labels), "species": labels.shape[1]} | summary(folds)


def summary(folds: Sequence[Fold]) -> dict[str, Any]:
    """Return the scores without and with shrinkage, and the difference of the log loss over spatial blocks."""
    labels = np.concatenate([f.labels for f in folds])
    block = np.concatenate([f.block for f in folds])
    fold = np.repeat(np.arange(len(folds)), [len(f.labels) for f in folds])
    result: dict[str, Any] = {
        "slopes": [f.slope for f in folds],
        "members": [f.members for f in folds],
    }
    losses = {}
    for kind in ("without", "with"):
        logits = np.concatenate([f.logits[kind] for f in folds], 1)
        p = np.clip(expit(logits), CLIP, 1 - CLIP)
        loss = -np.log(np.where(labels == 1, p, 1 - p))
        losses[kind] = loss[-1].mean(1)
        auc = gm.metrics.auc_within_folds(labels, logits[-1], fold)
        result[kind] = {
            "log_loss": round(float(loss[-1].mean()), 4),
            "log_loss_single": round(float(np.nanmean(loss[:-1])), 4),
            "slope": round(pooled_slope(labels, p[-1]), 3),
            "richness": round(float(p[-1].sum() / labels.sum()), 3),
            "auc": round(float(np.nanmean(auc)), 4),
        }
    result["difference"], result["standard_error"] = block_mean(
        losses["with"] - losses["without"], block
    )
    return result


def pooled_slope(labels: np.ndarray, probability: np.ndarray) -> float:
    """Return the calibration slope of all species together."""
    return float(gm.metrics.calibration_slope(labels.reshape(-1, 1), probability.reshape(-1, 1))[0])


def block_mean(values: np.ndarray, block: np.ndarray) -> tuple[float, float]:
    """Return the mean of ``values (n,)`` and its standard error over spatial blocks ``(n,)``."""
    sums = np.bincount(block, values - values.mean())[np.unique(block)]
    error = np.sqrt((sums**2).sum() * len(sums) / (len(sums) - 1)) / len(values)
    return round(float(values.mean()), 4), round(float(error), 4)
