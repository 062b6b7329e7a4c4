"""Members of a model, trained in turn and joined to one network that averages their logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geomiam.model.model import Model
from geomiam.networks.config import NetworkConfig
from geomiam.networks.network import join
from geomiam.training.checkpoint import Progress
from geomiam.training.holdout import HoldOut
from geomiam.training.loop import Run, train
from geomiam.training.losses import base_logits
from geomiam.training.setup import Setup
from geomiam.training.table import Table, make_tables
from geomiam.training.warm_start import load_start, set_base, two_stages


@dataclass(frozen=True, eq=False)
class Member:
    """A trained member."""

    run: Run
    end: Progress
    branches: dict
    """Scores of each branch that was trained alone; empty without a warm start by branches."""


def train_members(
    setup: Setup,
    network: NetworkConfig,
    *,
    held_out: HoldOut,
    rng: np.random.Generator,
    checkpoint: Path | None,
) -> list[Member]:
    """Train every member of a network, each with a different hold-out and seed."""
    held_out_masks, seeds = [], []
    for _ in range(network.members):
        held_out_masks.append(held_out.draw(setup.table.labels, rng))
        seeds.append(int(rng.integers(2**31)))
    scaler = setup.start.scaler if setup.start else None
    tables, scaler = make_tables(setup.table, held_out=held_out_masks, scaler=scaler)
    members = []
    for number, (table, seed) in enumerate(zip(tables, seeds)):
        model = setup.member(network.member(number), scaler, seed=seed)
        _begin(model, table, setup, number)
        run, folder = setup.run(model, table, seed=seed), checkpoint
        if folder and network.members > 1:
            folder = folder / f"member-{number}"
        by_branches = setup.warm_start is True
        end, branches = two_stages(run, folder) if by_branches else (train(run, folder), {})
        members.append(Member(run, end, branches))
    return members


def joined(models: Sequence[Model], config: NetworkConfig) -> Model:
    """Return one model of all members."""
    first, *further_members = models
    if not further_members:
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


def _begin(model: Model, table: Table, setup: Setup, number: int) -> None:
    """Set the weights of a new member that do not start at random."""
    loss = setup.plan.training.loss
    has_branches = any(f.branched for f in model.config.fusions)
    if loss == "bce" or has_branches:  # without it, rare species start at odds of 1
        set_base(model.network, base_logits(loss, table.labels[table.train]))
    if setup.start:  # sets the base values of the species it has
        load_start(model, setup.start, number)
