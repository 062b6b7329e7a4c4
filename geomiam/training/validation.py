"""Out-of-fold validation of a fit whose final members train on all sites."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from geomiam.errors import BlockError, TrainingWarning, warn
from geomiam.networks.config import NetworkConfig
from geomiam.splits import hold_out, site_blocks, spatial_folds
from geomiam.training.choice import Folds, Predict, choose, predicted_sites, scores_by_subset
from geomiam.training.loop import train
from geomiam.training.losses import base_logits
from geomiam.training.rule import changed
from geomiam.training.setup import Setup
from geomiam.training.supervised import subset_logits
from geomiam.training.table import MOST_SCORED, make_tables
from geomiam.training.warm_start import set_base

SHARE = 0.25
"""Share of the sites in a single hold-out."""


def validated(
    setup: Setup, seeds: np.random.Generator, *, folder: Path | None
) -> tuple[NetworkConfig, dict[str, Any]]:
    """Train without each fold and predict it; return the chosen network and its scores.

    Without folds, return the network of the plan and no scores.
    """
    table, plan, network = setup.table, setup.plan, setup.plan.network
    if not plan.folds:
        return network, {}
    seed = int(seeds.spawn(1)[0].integers(2**31))
    rng = np.random.default_rng(seed)
    try:
        blocks = site_blocks(table.sites, plan.training.block, min_blocks=max(plan.folds, 2))
    except BlockError as error:  # fewer places than folds
        if plan.training.block is not None:
            raise
        message = f"no spatial validation: {error}"
        warn(TrainingWarning(message, "no spatial validation"))
        return network, {}
    masks = _fold_masks(table.labels, blocks.number, plan.folds, rng)
    numbers = len(table.species) * (len(table.schema.modalities) + 1)
    rows = predicted_sites(masks, numbers)
    fold = np.argmax(np.stack(masks)[:, rows], axis=0)
    folds = Folds(table.labels[rows], blocks.number[rows], fold)
    kinds = plan.choices or (network.member(0).fusion,)
    folds.run(kinds, _fold_predictor(setup, masks, rows=rows, seed=seed, folder=folder))
    best_kinds, inner = choose(folds) if plan.choices else (kinds, {})
    if plan.choices:
        network = changed(network, {"fusion": "+".join(best_kinds), "members": len(best_kinds)})
    _, influence = folds.skill(best_kinds)
    return network, {
        "validation_auc": scores_by_subset(folds, best_kinds, [*table.schema.modalities, "all"]),
        "validation": {
            "folds": len(masks),
            "blocks": blocks.about(),
            "standard_error": round(float(np.sqrt((influence**2).sum())), 4),
            "presences": dict(zip(table.species, folds.validated().tolist())),
        },
        "rule": {"settings": list(plan.reasons), "fusion": network.fusion, "inner_auc": inner},
    }


def _fold_masks(
    labels: np.ndarray, blocks: np.ndarray, count: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Return the sites of each fold, boolean ``(n,)``."""
    if count == 1:
        return [hold_out(labels, blocks, share=SHARE, rng=rng)]
    fold = spatial_folds(labels, blocks, folds=count, rng=rng)
    return [fold == number for number in range(count)]


def _fold_predictor(
    setup: Setup, masks: list[np.ndarray], *, rows: np.ndarray, seed: int, folder: Path | None
) -> Predict:
    """Return a function that trains one kind of member without a fold and predicts the fold."""
    network, tables = setup.plan.network, []
    for fold in masks:
        (table,), scaler = make_tables(setup.table, held_out=[fold])
        scored_rows = table.train[
            :: -(-len(table.train) // MOST_SCORED)
        ]  # as in the final training
        tables.append((replace(table, valid=scored_rows), scaler))

    def predict(kind: str, number: int, positions: np.ndarray) -> np.ndarray:
        table, scaler = tables[number]
        model = setup.member(changed(network, {"fusion": kind, "members": 1}), scaler, seed=seed)
        run = setup.run(model, table, seed=seed)
        if run.config.loss == "bce":  # without it, rare species start at odds of 1
            set_base(model.network, base_logits("bce", table.labels[table.train]))
        checkpoint = folder and folder / f"{kind}-{number}"
        train(run, checkpoint, name=f"validation {number + 1} of {len(masks)}, {kind}")
        return subset_logits(run, table, torch.as_tensor(rows[positions]))

    return predict
