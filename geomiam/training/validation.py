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
"""Of the sites in a single hold-out."""


def validated(
    setup: Setup, seeds: np.random.Generator, *, folder: Path | None
) -> tuple[NetworkConfig, dict[str, Any]]:
    """Train without each fold and predict it: the network that is chosen, and its scores.

    Without folds, the network stays as it is and there are no scores.
    """
    table, plan, network = setup.table, setup.plan, setup.plan.network
    if not plan.folds:
        return network, {}
    seed = int(seeds.spawn(1)[0].integers(2**31))
    rng = np.random.default_rng(seed)
    try:
        blocks = site_blocks(table.sites, plan.training.block, least=max(plan.folds, 2))
    except BlockError as error:  # fewer places than folds: nothing can be validated
        if plan.training.block is not None:
            raise
        message = f"no spatial validation: {error}"
        warn(TrainingWarning(message, "no spatial validation"))
        return network, {}
    held = _fold_masks(table.labels, blocks.number, plan.folds, rng)
    numbers = len(table.species) * (len(table.schema.modalities) + 1)
    rows = predicted_sites(held, numbers)
    fold = np.argmax(np.stack(held)[:, rows], axis=0)
    folds = Folds(table.labels[rows], blocks.number[rows], fold)
    kinds = plan.choices or (network.member(0).fusion,)
    folds.run(kinds, _fold_predictor(setup, held, rows=rows, seed=seed, folder=folder))
    chosen, inner = choose(folds) if plan.choices else (kinds, {})
    if plan.choices:
        network = changed(network, {"fusion": "+".join(chosen), "members": len(chosen)})
    _, influence = folds.skill(chosen)
    return network, {
        "validation_auc": scores_by_subset(folds, chosen, [*table.schema.modalities, "all"]),
        "validation": {
            "folds": len(held),
            "blocks": blocks.about(),
            "standard_error": round(float(np.sqrt((influence**2).sum())), 4),
            "presences": dict(zip(table.species, folds.validated().tolist())),
        },
        "rule": {"settings": list(plan.reasons), "fusion": network.fusion, "inner_auc": inner},
    }


def _fold_masks(
    labels: np.ndarray, blocks: np.ndarray, count: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Sites of each fold, boolean ``(n,)``."""
    if count == 1:
        return [hold_out(labels, blocks, share=SHARE, rng=rng)]
    fold = spatial_folds(labels, blocks, folds=count, rng=rng)
    return [fold == number for number in range(count)]


def _fold_predictor(
    setup: Setup, held: list[np.ndarray], *, rows: np.ndarray, seed: int, folder: Path | None
) -> Predict:
    """Return what trains one kind of member without a fold and predicts it."""
    network, tables = setup.plan.network, []
    for fold in held:
        (table,), scaler = make_tables(setup.table, held=[fold])
        scored = table.train[:: -(-len(table.train) // MOST_SCORED)]  # as in the final training
        tables.append((replace(table, valid=scored), scaler))

    def predict(kind: str, number: int, which: np.ndarray) -> np.ndarray:
        table, scaler = tables[number]
        model = setup.member(changed(network, {"fusion": kind, "members": 1}), scaler, seed=seed)
        run = setup.run(model, table, seed=seed)
        if run.config.loss == "bce":  # rare species need not unlearn odds of 1 first
            set_base(model.network, base_logits("bce", table.labels[table.train]))
        checkpoint = folder and folder / f"{kind}-{number}"
        train(run, checkpoint, name=f"validation {number + 1} of {len(held)}, {kind}")
        return subset_logits(run, table, torch.as_tensor(rows[which]))

    return predict
