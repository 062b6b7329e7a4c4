"""Warm starts: training from another model's weights, or from branches trained alone.

Two stages for late fusion, "UME-MMA-style" (Li et al. 2023, arXiv:2310.06383, of which neither code
nor settings are public): every branch is trained alone, on all records that have its modality; then
all of them together, under masking. With no joint epochs it is the uni-modal ensemble of Du et al.
(2023, arXiv:2305.01233).
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geomiam.errors import LabelError, SelectionError
from geomiam.masking import Constant
from geomiam.model.model import Model
from geomiam.networks.config import NetworkConfig
from geomiam.networks.member_heads import member_biases, member_weights
from geomiam.networks.network import Network
from geomiam.schema.schema import Schema
from geomiam.training.checkpoint import Progress
from geomiam.training.config import TrainingConfig
from geomiam.training.loop import Run, overall, train
from geomiam.training.losses import base_logits

JOINT_RATE = 0.1
"""Learning rate of the joint stage, as a share of the first rate. The paper does not state its value."""
NO_JOINT_STAGE = {"joint_epochs": None, "joint_lr": None}
MAY_DIFFER = {"members", "explainer", "dropout", "sigma"}
"""Settings that may differ from those of the start: they change no weight that is loaded."""


def start_config(model: Model) -> NetworkConfig:
    """Return the network that fits a start, by default."""
    return model.config.model_copy(update={"explainer": 0})


def check_start(warm_start: bool | Model, schema: Schema, network: NetworkConfig) -> None:
    """Raise SelectionError if the fusion has no branches, or the model another schema or network."""
    if warm_start is True and not all(f.branched for f in network.fusions):
        raise SelectionError(
            f"warm_start=True trains the branches of late fusion, found fusion='{network.fusion}': "
            "pass network=NetworkConfig(fusion='late'), or a model as warm_start="
        )
    if isinstance(warm_start, bool):
        return
    if warm_start.schema != schema:
        raise SelectionError(
            f"the model of warm_start= has another schema ({_variables(warm_start.schema)}) than the "
            f"sites ({_variables(schema)}): pass schema=warm_start.schema, and sites that have it"
        )
    if warm_start.config.members not in (1, network.members):
        raise SelectionError(
            f"the model of warm_start= has {warm_start.config.members} members, the network "
            f"{network.members}: use the same number, or start all of them from a model with members=1"
        )
    start_config, config = (c.model_dump(exclude=MAY_DIFFER) for c in (warm_start.config, network))
    if odd := [
        f"{k}={v!r} (requested {config[k]!r})" for k, v in start_config.items() if config[k] != v
    ]:
        raise SelectionError(
            f"the model of warm_start= has another network: {', '.join(odd)}; leave network= out, or "
            "pass network=warm_start.config"
        )


def load_start(model: Model, start: Model, member: int = 0) -> None:
    """Put the weights of one member of ``start`` into a model of one member; see :func:`load_body`."""
    # A start of one member serves all members. The head is loaded too if both models have the same
    # species and link.
    member = min(member, len(start.network.members) - 1)
    load_body(model.network, start.network, member)
    if set(model.species) != set(start.species) or model.link != start.link:
        return
    rows = torch.as_tensor(start.species_index(model.species))
    weight = member_weights(start.network)[member]
    bias = member_biases(start.network, start.layout)[member]
    with torch.no_grad():
        model.network.head.weight.copy_(weight[rows])
        model.network.head.bias.copy_(bias[rows])


def load_body(network: Network, start: Network, member: int = 0) -> None:
    """Put one member of ``start``, all but the head, into a network of one member."""
    # A model from pre-training has no head.
    network.members[0].load_state_dict(start.members[member].state_dict())


@torch.no_grad()
def set_base(network: Network, base: Tensor) -> None:
    """Set the base value, logits ``(S,)``: the bias of the head, which late fusion does not train."""
    network.head.bias.copy_(base)


def two_stages(run: Run, checkpoint: Path | None = None) -> tuple[Progress, dict[str, Any]]:
    """Train the branches of a run's late fusion alone, then all together.

    Return the joint stage's progress, after the ensemble as its epoch 0, and the scores of each branch.
    """
    branches, scores = [], {}
    for number, name in enumerate(run.model.schema.modalities):
        branch_run = _branch_run(run, number, name)
        end = train(branch_run, checkpoint and checkpoint / f"branch-{number}", name=name)
        branches.append(branch_run.model)
        scores[name] = {
            "sites": len(branch_run.table.train),
            "epochs": end.epoch,
            "best_epoch": end.best_epoch,
            "auc": end.history[end.best_epoch][f"{run.task.metric}_all"],
        }
    load_branches(run.model, branches)
    run.module.eval()
    ensemble = run.task.scores(run, run.table)
    first: dict[str, Any] = {"epoch": 0, "loss": None}
    first |= {k: None if math.isnan(v) else v for k, v in ensemble.items()}
    first |= {f"p_{m}": 0.0 for m in run.model.schema.modalities} | {"seconds": 0.0}
    if run.config.joint_epochs == 0:
        return Progress([first], best_epoch=0), scores
    weights = {k: v.clone() for k, v in run.module.state_dict().items()}
    joint = replace(run, config=joint_settings(run.config))
    end = train(joint, checkpoint and checkpoint / "joint", name="joint")
    best_epoch = end.best_epoch + 1
    if run.config.keep == "best" and overall(run, first) >= end.best_score:
        run.module.load_state_dict(weights)  # joint training gave no better score
        best_epoch = 0
    rows = [{**row, "epoch": row["epoch"] + 1} for row in end.history]
    return Progress([first, *rows], end.best, best_epoch, end.best_score), scores


def joint_settings(config: TrainingConfig) -> TrainingConfig:
    """Return the settings of the joint stage, with its number of epochs and learning rate."""
    epochs = config.epochs if config.joint_epochs is None else config.joint_epochs
    rate = config.joint_lr or JOINT_RATE * config.lr
    return config.model_copy(update={"epochs": epochs, "lr": rate, **NO_JOINT_STAGE})


def _branch_run(run: Run, number: int, modality: str) -> Run:
    """Return the training of one branch alone, without masking, from its current weights."""
    branch, layout, table = branch_model(run.model, modality), run.model.layout, run.table
    owner = np.repeat(list(layout.schema.modalities), layout.sizes)
    observed = table.observed[:, torch.as_tensor(owner == modality)]
    has_modality = observed.any(1)
    train, valid = table.train[has_modality[table.train]], table.valid[has_modality[table.valid]]
    if not len(train):
        raise LabelError(
            f"no training site has any of '{modality}', so its branch cannot be trained: pass a smaller "
            "training=TrainingConfig(holdout=...), or leave it out with schema.subset(...)"
        )
    values = [v for v, p in zip(table.values, layout.parts) if p.spans[0].modality == modality]
    # Without a site to validate it, a branch is scored where it trains, as a model without holdout.
    parts = zip(table.files, layout.parts)
    table = replace(
        table,
        values=values,
        observed=observed,
        train=train,
        valid=valid if len(valid) else train,
        files=tuple(v for v, p in parts if p.spans[0].modality == modality),
    )
    set_base(branch.network, base_logits(run.config.loss, table.counts(table.train)))
    return replace(
        run,
        model=branch,
        module=branch.network,
        table=table,
        masking=Constant(0.0),
        config=run.config.model_copy(update=NO_JOINT_STAGE),
        # Branches must not draw the same batches.
        seed=int(np.random.default_rng([run.seed, number]).integers(2**31)),
    )


def branch_model(model: Model, modality: str) -> Model:
    """Return the branch of one modality as a model, with a copy of its weights."""
    # It predicts as ``model`` does where only that modality is visible.
    if not all(f.branched for f in model.config.fusions) or model.config.members > 1:
        raise SelectionError(
            f"only a model of late fusion and one member has branches, found {model.config.fusion!r} "
            f"with {model.config.members}: train with NetworkConfig(fusion='late')"
        )
    branch = Model.untrained(
        model.schema.subset([modality]),
        scaler=model.scaler,
        species=model.species,
        config=model.config,
        link=model.link,
    )
    with torch.no_grad():
        for target, source in zip(
            _weights(model, modality), _weights(branch, modality), strict=True
        ):
            source.copy_(target)
        branch.network.head.bias.copy_(model.network.head.bias)
    branch.network.eval()
    return branch


@torch.no_grad()
def load_branches(model: Model, branches: list[Model]) -> None:
    """Fill late fusion with models of its modalities in order; a mean of logits stays what it was."""
    # Logits are c + Σ_m α_m (W_m f_m + b_m): c is the mean of the base values, the rest goes into b_m.
    base = torch.stack([b.network.head.bias for b in branches]).mean(0)
    set_base(model.network, base)
    for modality, branch in zip(model.schema.modalities, branches, strict=True):
        weights = _weights(model, modality)
        for target, source in zip(weights, _weights(branch, modality), strict=True):
            target.copy_(source)
        weights[-1].add_(branch.network.head.bias - base)


def _weights(model: Model, modality: str) -> list[Tensor]:
    """Return the weights of a modality: tokenizers, branch, and W_m ``(S, d)``, b_m ``(S,)`` of the head."""
    member, number = model.network.members[0], list(model.schema.modalities).index(modality)
    weights: list[Tensor] = []
    for tokenizer, part in zip(member.tokenizers.parts, model.layout.parts):
        if part.spans[0].modality == modality:
            weights += tokenizer.parameters()
    features, alpha = member.fusion.branch_features(number)
    head = model.network.head.weight
    return [*weights, *member.fusion.branch_weights(number), head[:, features], head[:, alpha]]


def _variables(schema: Schema) -> str:
    return "; ".join(f"{m.name}: {' '.join(m.variables)}" for m in schema.modalities.values())
