"""Sites, settings, masking and backbones that all members of a fit share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from geomiam.data.sites.labels import check_classes
from geomiam.data.sites.table import SiteTable
from geomiam.masking import Strategy
from geomiam.model.model import Model
from geomiam.networks.backbones import with_backbones
from geomiam.networks.config import NetworkConfig
from geomiam.tokens.scaler import Scaler
from geomiam.training import advice
from geomiam.training.config import TrainingConfig
from geomiam.training.loop import Run, torch_seed
from geomiam.training.losses import LINK_OF, resolve_loss
from geomiam.training.rule import Plan, changed, make_plan
from geomiam.training.supervised import Supervised
from geomiam.training.table import Table
from geomiam.training.warm_start import check_start, start_config


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
        """Return the settings of the rule, or those of the model to start from.

        Raises
        ------
        LabelError, BackboneError, SelectionError
            As :func:`geomiam.fit`.
        """
        start = warm_start if isinstance(warm_start, Model) else None
        if warm_start or backbones:
            base = start_config(start) if start else NetworkConfig()
            plan = Plan(changed(base, network), changed(TrainingConfig(), training))
        else:
            plan = make_plan(
                table.labels, network=network, training=training, validation_given=validation_given
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
        """Return the training of one member."""
        settings = self.plan.training_of(model.config.fusion)
        return Run(model, model.network, table, self.masking, settings, seed, Supervised())
