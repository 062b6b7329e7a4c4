"""Out-of-fold validation of a fit whose final members train on all sites."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn

from geomiam.errors import BlockError, TrainingWarning, warn
from geomiam.masking import Strategy
from geomiam.networks.config import NetworkConfig
from geomiam.networks.model import Model
from geomiam.schema.schema import Schema
from geomiam.splits import hold_out, site_blocks, spatial_folds
from geomiam.tokens.layout import Layout
from geomiam.tokens.scaler import Scaler
from geomiam.training.choice import Folds, Predict, choose, predicted_sites, scores_by_subset
from geomiam.training.loop import Run, torch_seed, train
from geomiam.training.losses import LINK_OF, base_logits
from geomiam.training.rule import Plan, changed
from geomiam.training.supervised import Supervised, subset_logits
from geomiam.training.table import MOST_SCORED, make_tables
from geomiam.training.warm import set_base

SHARE = 0.25
"""Of the sites in a single hold-out."""


@dataclass(frozen=True, eq=False)
class Data:
    """What every member of a fit is trained on."""

    sites: xr.Dataset
    arrays: dict[str, np.ndarray]
    """``(n, *own dims)`` per variable."""
    labels: np.ndarray
    """``(n, S)``; 1, 0, NaN."""
    species: tuple[str, ...]
    schema: Schema
    encoders: dict[str, nn.Module]


def member_model(
    data: Data, config: NetworkConfig, scaler: Scaler, *, loss: str, seed: int
) -> Model:
    """A fresh model of one member."""
    with torch_seed(seed):
        return Model.untrained(
            data.schema,
            scaler=scaler,
            species=data.species,
            link=LINK_OF[loss],
            encoders=data.encoders,
            config=config,
        )


def validated(
    data: Data,
    plan: Plan,
    network: NetworkConfig,
    masking: Strategy,
    *,
    seed: int,
    folder: Path | None,
) -> tuple[NetworkConfig, dict[str, Any]]:
    """Train without each fold and predict it: the network that is chosen, and its scores."""
    rng = np.random.default_rng(seed)
    try:
        blocks = site_blocks(data.sites, plan.training.block, least=max(plan.folds, 2))
    except BlockError as error:  # fewer places than folds: nothing can be validated
        if plan.training.block is not None:
            raise
        message = f"no spatial validation: {error}"
        warn(TrainingWarning(message, "no spatial validation"))
        return network, {}
    held = _fold_masks(data.labels, blocks.number, plan.folds, rng)
    numbers = len(data.species) * (len(data.schema.modalities) + 1)
    rows = predicted_sites(held, numbers)
    fold = np.argmax(np.stack(held)[:, rows], axis=0)
    folds = Folds(data.labels[rows], blocks.number[rows], fold)
    kinds = plan.choices or (network.member(0).fusion,)
    folds.run(
        kinds,
        _fold_predictor(
            data, plan, network, masking, held=held, rows=rows, seed=seed, folder=folder
        ),
    )
    chosen, inner = choose(folds, fallback=plan.fixed) if plan.choices else (kinds, {})
    if plan.choices:
        network = changed(network, {"fusion": "+".join(chosen), "members": len(chosen)})
    _, influence = folds.skill(chosen)
    return network, {
        "validation_auc": scores_by_subset(folds, chosen, [*data.schema.modalities, "all"]),
        "validation": {
            "folds": len(held),
            "blocks": blocks.about(),
            "standard_error": round(float(np.sqrt((influence**2).sum())), 4),
            "presences": dict(zip(data.species, folds.validated().tolist())),
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
    data: Data,
    plan: Plan,
    network: NetworkConfig,
    masking: Strategy,
    *,
    held: list[np.ndarray],
    rows: np.ndarray,
    seed: int,
    folder: Path | None,
) -> Predict:
    """Return what trains one kind of member without a fold and predicts it."""
    layout = Layout.of(data.schema)
    tables = []
    for fold in held:
        (table,), scaler = make_tables(data.arrays, data.labels, layout=layout, held=[fold])
        scored = table.train[:: -(-len(table.train) // MOST_SCORED)]  # as in the final training
        tables.append((replace(table, valid=scored), scaler))

    def predict(kind: str, number: int, which: np.ndarray) -> np.ndarray:
        table, scaler = tables[number]
        config = changed(network, {"fusion": kind, "members": 1})
        model = member_model(data, config, scaler, loss=plan.training.loss, seed=seed)
        settings = plan.training_of(kind)
        if settings.loss == "bce":  # rare species need not unlearn odds of 1 first
            set_base(model.network, base_logits("bce", table.labels[table.train]))
        run = Run(model, model.network, table, masking, settings, seed, Supervised())
        checkpoint = folder and folder / f"{kind}-{number}"
        train(run, checkpoint, name=f"validation {number + 1} of {len(held)}, {kind}")
        return subset_logits(run, table, torch.as_tensor(rows[which]))

    return predict
