"""Warm starts: training from another model's weights, or from branches trained alone.

Two stages for late fusion, "UME-MMA-style" (Li et al. 2023, arXiv:2310.06383, of which neither code
nor settings are public): every branch is trained alone, on all records that have its modality; then
all of them together, under masking. With no joint epochs it is the uni-modal ensemble of Du et al.
(2023, arXiv:2305.01233).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from geomiam.errors import LabelError, SelectionError
from geomiam.masking import Constant
from geomiam.model.model import Model
from geomiam.networks.config import NetworkConfig
from geomiam.networks.network import Network
from geomiam.schema.schema import Schema
from geomiam.tokens.layout import Layout
from geomiam.training.checkpoint import Progress
from geomiam.training.config import TrainingConfig
from geomiam.training.loop import Run, overall, train
from geomiam.training.losses import base_logits
from geomiam.training.table import Table

JOINT_RATE = 0.1
"""Learning rate of the joint stage, as a share of the first rate. The paper does not state its own."""


MAY_DIFFER = {"members", "explainer", "dropout", "sigma"}
"""Settings that may differ from those of the start: they change no weight that is loaded."""


def start_config(model: Model) -> NetworkConfig:
    """Return the network that fits a start, by default."""
    return model.config.model_copy(update={"explainer": 0})


def check_start(warm_start: bool | Model, schema: Schema, network: NetworkConfig) -> None:
    """Raise if a warm start does not suit the network.

    Raises
    ------
    SelectionError
        If the fusion has no branches, or the model has another schema or network.
    """
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
    theirs, ours = (c.model_dump(exclude=MAY_DIFFER) for c in (warm_start.config, network))
    if odd := [f"{k}={v!r} (requested {ours[k]!r})" for k, v in theirs.items() if ours[k] != v]:
        raise SelectionError(
            f"the model of warm_start= has another network: {', '.join(odd)}; leave network= out, or "
            "pass network=warm_start.config"
        )


def load_start(model: Model, start: Model, member: int = 0) -> None:
    """Put the weights of one member of ``start`` into a model of one member; see :func:`load_body`.

    A start of one member serves all members. The head is loaded too if both models have the same
    species and link.
    """
    member = min(member, len(start.network.members) - 1)
    load_body(model.network, start.network, member)
    if set(model.species) != set(start.species) or model.link != start.link:
        return
    rows = torch.as_tensor(start.species_index(model.species))
    widths = [m.feature_width for m in start.network.members]
    member_weight = start.network.head.weight.split(widths, 1)[member] * len(
        widths
    )  # joined by their mean
    with torch.no_grad():
        model.network.head.weight.copy_(member_weight[rows])
        model.network.head.bias.copy_(start.network.head.bias[rows])


def load_body(network: Network, start: Network, member: int = 0) -> None:
    """Put one member of ``start``, all but the head, into a network of one member.

    A model from pre-training has no head.
    """
    network.members[0].load_state_dict(start.members[member].state_dict())


@torch.no_grad()
def set_base(network: Network, base: Tensor) -> None:
    """Set the base value, logits ``(S,)``: the bias of the head, which late fusion does not train."""
    network.head.bias.copy_(base)


def two_stages(run: Run, checkpoint: Path | None = None) -> tuple[Progress, dict]:
    """Train the branches of a run's late fusion alone, then all together.

    Returns
    -------
    tuple
        The joint stage's progress, and the scores of each branch.

    Raises
    ------
    LabelError
        If no training site has any of a modality.
    """
    alone = run.config.model_copy(update={"joint_epochs": None, "joint_lr": None})
    branches, scores = [], {}
    for number, name in enumerate(run.model.schema.modalities):
        branch_run = _branch_run(run, name, alone)
        end = train(branch_run, checkpoint and checkpoint / f"branch-{number}", name=name)
        branches.append(branch_run.model)
        scores[name] = {
            "sites": len(branch_run.table.train),
            "epochs": end.epoch,
            "best_epoch": end.best_epoch,
            "auc": end.history[end.best_epoch][f"{run.task.metric}_all"],
        }
    load_branches(run.model, branches)
    ensemble = _untrained(run)
    if run.config.joint_epochs == 0:
        return ensemble, scores
    joint = replace(run, config=joint_settings(run.config))
    weights = {k: v.clone() for k, v in run.module.state_dict().items()}
    end = train(joint, checkpoint and checkpoint / "joint", name="joint")
    stays = run.config.keep == "best" and overall(run, ensemble.history[0]) >= end.best_score
    if stays:  # joint training gave no better score
        run.module.load_state_dict(weights)
    return _joined_history(ensemble, end, stays=stays), scores


def joint_settings(config: TrainingConfig) -> TrainingConfig:
    """Return the settings of the joint stage, with its number of epochs and learning rate."""
    epochs = config.epochs if config.joint_epochs is None else config.joint_epochs
    rate = config.joint_lr or JOINT_RATE * config.lr
    none = {"joint_epochs": None, "joint_lr": None}
    return config.model_copy(update={"epochs": epochs, "lr": rate, **none})


def branch_model(model: Model, modality: str) -> Model:
    """Return the branch of one modality as a model of its own, with a copy of its weights.

    It predicts as ``model`` does where only that modality is visible.

    Raises
    ------
    SelectionError
        If the model is not of late fusion, or of several members.
    """
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
        for mine, theirs in _shared(model, branch, modality):
            theirs.copy_(mine)
        branch.network.head.bias.copy_(model.network.head.bias)
    branch.network.eval()
    return branch


@torch.no_grad()
def load_branches(model: Model, branches: list[Model]) -> None:
    """Fill late fusion with models of its modalities in order; a mean of logits stays what it was.

    The base value is the mean of the models' base values; the difference goes into their b_m.
    """
    base = torch.stack([b.network.head.bias for b in branches]).mean(0)
    set_base(model.network, base)
    for modality, branch in zip(model.schema.modalities, branches, strict=True):
        for mine, theirs in _shared(model, branch, modality):
            mine.copy_(theirs)
        _head_columns(model, modality)[1].add_(branch.network.head.bias - base)


def _shared(model: Model, branch: Model, modality: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Weights of a modality in a late fusion, and in the model of that modality alone."""
    yield from zip(_weights(model, modality), _weights(branch, modality), strict=True)
    yield from zip(_head_columns(model, modality), _head_columns(branch, modality))


def _weights(model: Model, modality: str) -> Iterator[Tensor]:
    """Weights of the tokenizers and the branch of a modality."""
    member = model.network.members[0]
    for tokenizer, part in zip(member.tokenizers.parts, model.layout.parts):
        if part.spans[0].modality == modality:
            yield from tokenizer.parameters()
    yield from member.fusion.branch_weights(_number(model, modality))


def _head_columns(model: Model, modality: str) -> tuple[Tensor, Tensor]:
    """Columns W_m ``(S, d)`` and b_m ``(S,)`` of the head."""
    features, alpha = model.network.members[0].fusion.branch_features(_number(model, modality))
    weight = model.network.head.weight
    return weight[:, features], weight[:, alpha]


def _number(model: Model, modality: str) -> int:
    return list(model.schema.modalities).index(modality)


def _branch_run(run: Run, modality: str, config: TrainingConfig) -> Run:
    """Return the training of one branch alone, without masking, from its current weights."""
    branch = branch_model(run.model, modality)
    table = _table_of(run.table, run.model.layout, modality)
    set_base(branch.network, base_logits(config.loss, table.labels[table.train]))
    seed = int(np.random.default_rng([run.seed, _number(run.model, modality)]).integers(2**31))
    return replace(
        run,
        model=branch,
        module=branch.network,
        table=table,
        masking=Constant(0.0),
        config=config,
        seed=seed,
    )


def _table_of(table: Table, layout: Layout, modality: str) -> Table:
    """Return the tokens of one modality, and the rows where any of them is observed."""
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
    return Table(values, observed, table.labels, train, valid if len(valid) else train)


def _untrained(run: Run) -> Progress:
    """Return the progress of a stage without epochs: scores of the current weights."""
    run.module.eval()
    scores = run.task.scores(run, run.table)
    row = {k: None if math.isnan(v) else v for k, v in scores.items()}
    hidden = {f"p_{m}": 0.0 for m in run.model.schema.modalities}
    return Progress([{"epoch": 0, "loss": None, **row, **hidden, "seconds": 0.0}], best_epoch=0)


def _joined_history(ensemble: Progress, joint: Progress, *, stays: bool) -> Progress:
    """Return the history of the joint stage after the ensemble, which is its epoch 0."""
    rows = [{**row, "epoch": row["epoch"] + 1} for row in joint.history]
    best = 0 if stays else joint.best_epoch + 1
    return Progress([*ensemble.history, *rows], joint.best, best, joint.best_score)


def _variables(schema: Schema) -> str:
    return "; ".join(f"{m.name}: {' '.join(m.variables)}" for m in schema.modalities.values())
