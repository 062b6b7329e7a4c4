"""Members of a model: common settings, validation on spatial folds, training in turn, and their mean.

The network of a model averages the logits of its members.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from geomiam.data.sites.table import SiteTable, check_classes
from geomiam.errors import BlockError, TrainingWarning, warn
from geomiam.masking import Strategy
from geomiam.model.model import Model
from geomiam.model.reference import NO_FOLD
from geomiam.networks.backbones import with_backbones
from geomiam.networks.config import NetworkConfig
from geomiam.networks.network import join
from geomiam.splits import hold_out, site_blocks, spatial_folds
from geomiam.tokens.scaler import Scaler
from geomiam.training import advice
from geomiam.training.checkpoint import Progress
from geomiam.training.choice import (
    Folds,
    Predict,
    choice_reason,
    choose,
    predicted_sites,
    scores_by_subset,
    thresholds_by_kind,
)
from geomiam.training.config import TrainingConfig
from geomiam.training.loop import Run, torch_seed, train
from geomiam.training.losses import LINK_OF, base_logits, resolve_loss
from geomiam.training.observations import TURNS
from geomiam.training.rule import Plan, changed, make_plan
from geomiam.training.shrinkage import Shrinkage
from geomiam.training.supervised import Supervised, subset_logits
from geomiam.training.table import HoldOut, Table, make_tables
from geomiam.training.warm_start import check_start, load_start, set_base, start_config, two_stages

SHARE = 0.25
"""Share of the sites in a single validation hold-out."""


@dataclass(frozen=True, eq=False)
class Setup:
    """Sites and settings of a fit, the same for all members."""

    table: SiteTable
    plan: Plan
    masking: Strategy
    backbones: dict[str, nn.Module]
    """Backbones by variable."""
    warm_start: bool | Model
    loss_reason: str
    """Reason for the loss."""

    @classmethod
    def of(
        cls,
        table: SiteTable,
        masking: Strategy,
        *,
        network: NetworkConfig | Mapping[str, Any] | None,
        training: TrainingConfig | Mapping[str, Any] | None,
        warm_start: bool | Model,
        backbones: Mapping[str, nn.Module],
        validation_given: bool,
    ) -> Setup:
        """Return the settings of the rule, or those of the model to start from; warn of poor data."""
        start = warm_start if isinstance(warm_start, Model) else None
        if warm_start or backbones:
            base = start_config(start) if start else NetworkConfig()
            plan = Plan(changed(base, network), changed(TrainingConfig(), training))
        else:
            plan = make_plan(
                table.labels,
                network=network,
                training=training,
                validation_given=validation_given,
                community=any(v.species for v in table.schema.variables.values()),
            )
        config, reason = resolve_loss(plan.training, table.labels, background=table.has_background)
        if config.loss != "cross-entropy":
            check_classes(table.labels, table.species)
        schema, network_config, modules = with_backbones(table.schema, plan.network, backbones)
        check_start(warm_start, schema, network_config)
        advice.few_presences(table.labels, table.species)
        advice.constant_predictors(table.arrays)
        plan = replace(plan, network=network_config, training=config)
        return cls(replace(table, schema=schema), plan, masking, modules, warm_start, reason)

    @property
    def shrinks(self) -> bool:
        """Whether out-of-fold predictions scale the logits: of a survey whose folds choose the members."""
        training = self.plan.training
        is_survey = training.loss == "bce" and not self.table.has_background
        return training.shrink and is_survey and bool(self.plan.choices)

    @property
    def start(self) -> Model | None:
        """The model whose weights every member starts from."""
        return self.warm_start if isinstance(self.warm_start, Model) else None

    def member(self, config: NetworkConfig, scaler: Scaler, *, seed: int) -> Model:
        """Return a fresh model of one member."""
        with torch_seed(seed):
            return Model.untrained(
                self.table.schema,
                scaler=scaler,
                species=self.table.species,
                link=LINK_OF[self.plan.training.loss],
                backbones=self.backbones,
                config=config,
            )

    def run(self, model: Model, table: Table, *, seed: int) -> Run:
        """Return the training of one member; its loss starts at the prevalence of the species."""
        config = self.plan.training_of(model.config.fusion)
        if config.loss == "bce" or any(f.branched for f in model.config.fusions):
            # Otherwise rare species start at odds of 1, and late fusion does not train its base value.
            set_base(model.network, base_logits(config.loss, table.counts(table.train)))
        return Run(model, model.network, table, self.masking, config, seed, Supervised())


@dataclass(frozen=True, eq=False)
class Member:
    """A trained member."""

    run: Run
    end: Progress
    branches: dict[str, Any]
    """Scores of each branch that was trained alone; empty without a warm start by branches."""


def validated(
    setup: Setup, seeds: np.random.Generator, *, folder: Path | None
) -> tuple[NetworkConfig, dict[str, Any], np.ndarray, Shrinkage | None]:
    """Train without each fold and predict it; return the chosen network, its scores, the folds ``(n,)``, the shrinkage.

    The fold of a site that is in no fold is -1. Without folds, return the network of the plan and no scores.
    """
    table, plan, network = setup.table, setup.plan, setup.plan.network
    fold_of_sites = np.full(len(table), NO_FOLD)
    if not plan.folds:
        return network, {}, fold_of_sites, None
    seed = int(seeds.spawn(1)[0].integers(2**31))
    rng = np.random.default_rng(seed)
    try:
        blocks = site_blocks(table.sites, plan.training.block, min_blocks=max(plan.folds, 2))
    except BlockError as error:  # fewer places than folds
        if plan.training.block is not None:
            raise
        warn(TrainingWarning(f"no spatial validation: {error}", "no spatial validation"))
        return network, {}, fold_of_sites, None
    masks = _held_out(setup, blocks.number, rng)
    for number, mask in enumerate(masks):
        fold_of_sites[mask] = number
    rows = predicted_sites(masks, len(table.species) * (len(table.schema.modalities) + 1))
    folds = Folds(table.labels[rows], blocks.number[rows], np.argmax(np.stack(masks)[:, rows], 0))
    kinds = plan.choices or (network.member(0).fusion,)
    folds.run(kinds, _fold_predictor(setup, masks, rows=rows, seed=seed, folder=folder))
    rule: dict[str, Any] = {"settings": list(plan.reasons), "inner_auc": {}}
    if plan.choices:
        kinds, rule["inner_auc"] = choose(folds)
        rule["choice"] = choice_reason(kinds, rule["inner_auc"])
        network = changed(network, {"fusion": "+".join(kinds), "members": len(kinds)})
    logits, shrinkage = folds.mean(kinds)[-1], None
    if setup.shrinks:
        shrinkage = Shrinkage.of(table.labels, masks, folds.labels, logits, fold=folds.fold)
        rule["shrinkage"] = shrinkage.about(table.species)
        rule["settings"].append(shrinkage.text())
        logits = shrinkage.scaled(logits)
    _, influence = folds.skill(kinds)
    place = f"{len(masks)} spatial folds" if len(masks) > 1 else "a spatial hold-out"
    scores = {
        "validation_auc": scores_by_subset(folds, kinds, [*table.schema.modalities, "all"]),
        "validation": {
            "folds": len(masks),
            "blocks": blocks.about(),
            "standard_error": round(float(np.sqrt((influence**2).sum())), 4),
            "presences": dict(zip(table.species, folds.validated().tolist())),
        },
        "rule": rule | {"fusion": network.fusion},
        "thresholds": thresholds_by_kind(
            folds.labels, logits, link=LINK_OF[plan.training.loss], place=place
        ),
    }
    return network, scores, fold_of_sites, shrinkage


def _held_out(setup: Setup, blocks: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Return the sites ``(n,)`` that each fold holds out, as whole blocks ``(n,)``."""
    labels, folds = setup.table.labels, setup.plan.folds
    if folds == 1:
        return [hold_out(labels, blocks, share=SHARE, rng=rng)]
    fold = spatial_folds(labels, blocks, folds=folds, rng=rng)
    return [fold == number for number in range(folds)]


def _fold_predictor(
    setup: Setup, masks: list[np.ndarray], *, rows: np.ndarray, seed: int, folder: Path | None
) -> Predict:
    """Return a function that trains one kind of member without a fold and predicts the fold."""
    tables = []
    for fold in masks:
        (table,), scaler = make_tables(setup.table, held_out=[fold])
        tables.append((table.scored_training(), scaler))  # as in the final training

    def predict(kind: str, number: int, positions: np.ndarray) -> np.ndarray:
        table, scaler = tables[number]
        config = changed(setup.plan.network, {"fusion": kind, "members": 1})
        run = setup.run(setup.member(config, scaler, seed=seed), table, seed=seed)
        checkpoint = folder and folder / f"{kind}-{number}"
        train(run, checkpoint, name=f"validation {number + 1} of {len(masks)}, {kind}")
        return subset_logits(run, table, torch.as_tensor(rows[positions]), count=TURNS)

    return predict


def train_members(
    setup: Setup,
    network: NetworkConfig,
    *,
    held_out: HoldOut,
    rng: np.random.Generator,
    checkpoint: Path | None,
) -> list[Member]:
    """Train every member of a network, each with a different hold-out and seed."""
    masks, seeds = [], []
    for _ in range(network.members):
        masks.append(held_out.draw(setup.table.labels, rng))
        seeds.append(int(rng.integers(2**31)))
    scaler = setup.start.scaler if setup.start else None
    tables, scaler = make_tables(setup.table, held_out=masks, scaler=scaler)
    members = []
    for number, (table, seed) in enumerate(zip(tables, seeds)):
        model = setup.member(network.member(number), scaler, seed=seed)
        run, folder = setup.run(model, table, seed=seed), checkpoint
        if setup.start:  # also sets the base values of the species that the start has
            load_start(model, setup.start, number)
        if folder and (network.members > 1 or setup.plan.folds):  # beside "validation"
            folder = folder / f"member-{number}"
        by_branches = setup.warm_start is True
        end, branches = two_stages(run, folder) if by_branches else (train(run, folder), {})
        members.append(Member(run, end, branches))
    return members


def held_out_thresholds(members: Sequence[Member]) -> dict[str, Any]:
    """Return thresholds on validation sites of members, as an entry of ``about``; none if all sites train."""
    # Members may hold out different blocks: a site is predicted by those that did not train on it.
    first = members[0].run
    masks = np.ones((len(members), len(first.table.labels)), bool)
    for mask, member in zip(masks, members):
        mask[member.run.table.train.numpy()] = False
    if not masks.any():
        return {}
    rows = predicted_sites(
        list(masks), first.table.labels.shape[1] * (len(first.model.schema.modalities) + 1)
    )
    labels = first.table.labels_of(torch.as_tensor(rows)).numpy()
    total, count = np.zeros(labels.shape, np.float32), np.zeros((len(rows), 1), np.float32)
    for mask, member in zip(masks[:, rows], members):
        validated_rows = torch.as_tensor(rows[mask])
        logits = subset_logits(member.run, member.run.table, validated_rows, count=TURNS)
        total[mask] += logits[-1]
        count[mask] += 1
    place = "sites that are held out"
    return {
        "thresholds": thresholds_by_kind(labels, total / count, link=first.model.link, place=place)
    }


def joined(models: Sequence[Model], config: NetworkConfig) -> Model:
    """Return one model of all members, which predicts the mean of their logits."""
    first = models[0]
    if len(models) == 1:
        return first
    model = Model.untrained(
        first.schema,
        scaler=first.scaler,
        species=first.species,
        config=config,
        link=first.link,
        backbones=first.network.backbones,
    )
    join([m.network for m in models], model.network)
    model.network.eval()
    return model
