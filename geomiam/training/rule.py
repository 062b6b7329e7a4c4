"""The default settings of a fit: a rule from the number of sites, presences and species.

Measured on combinations of data set and size; ``docs/explanation/defaults.md`` has the table. With few
data, small networks of several kinds, all sites in training, a fixed number of optimiser steps and
weight averaging are best, since a few validation presences choose the best epoch by noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from geomiam.labels import Labels, label_counts
from geomiam.networks.config import NetworkConfig
from geomiam.networks.fusion.registry import FUSIONS
from geomiam.training.config import TrainingConfig

KINDS = ("linear", "quadratic", "sum", "group")
"""Kinds of members that the inner folds choose from."""
FIXED, FEW_SITES, FEW_FIXED = ("linear", "sum", "group"), 200, ("linear", "sum")
"""The mix without inner folds, and the mix below ``FEW_SITES`` sites."""
ENOUGH = 100
"""Smallest number of labels of the rarer class, over all species, for a choice of members by inner folds."""
FEWEST_SITES = 30
"""Smallest number of sites for inner folds; with fewer their training sets would be too small."""
FOLDS = 3
MANY = 3000
"""Number of sites above which one hold-out replaces the inner folds."""
FEW_STEPS, MANY_STEPS = 300, 1000
COMMUNITY_STEPS = 2
"""Factor of the steps if observations of species are predictors: a species learns only where its own are hidden."""
SIZES = {
    "width": 64,
    "heads": 4,
    "depth": 1,
    "inner": 0,
    "frequencies": 16,
    "sigma": 0.1,
    "squares": True,
    "private_windows": True,
}
"""Sizes of every member.

Squares of series, images and vectors: on synthetic species with optima they gain .007 to .06 AUC, on a cloudy NDVI
series of land cover nothing (-.002 ± .005 over 8 trainings on other blocks than the test). A linear map of a window
has neither an optimum nor a variance.
Separate weights for the windows of a series: .015 on synthetic species, .003 ± .003 on that series. None of these
members has attention between windows, so with shared weights they see the mean of the windows only.
"""
RATE = 3e-3
"""Learning rate at the width of the rule; wider networks get a lower one."""
FASTER = 3.0
"""Factor of the rate for members without a hidden layer, which otherwise need three times the steps."""
COMPLETE, COMPLETE_SITES = 0.25, 50
"""Share of complete rows in the training of members without a hidden layer, and the fewest sites for it.

Their weights cannot depend on which variables are hidden, so masking shifts them away from those for all
variables. On linear worlds that costs .002 to .006 AUC with all variables; a share of .25 regains most of it
and costs .001 to .009 where half of the variables are hidden (.5 costs twice as much there). With about 33
training sites the shift is a welcome regularisation: eight real sets lost .006 in the mean without it.
"""

Changes = Mapping[str, Any]
Config = TypeVar("Config", NetworkConfig, TrainingConfig)


@dataclass(frozen=True)
class Plan:
    """Settings of a fit, and the kinds of members that validation chooses from."""

    network: NetworkConfig
    training: TrainingConfig
    choices: tuple[str, ...] = ()
    """Kinds of members to choose from; empty if the network is fixed."""
    folds: int = 0
    """Number of spatial folds; 1: one hold-out; 0: none, since the training holds out sites itself."""
    reasons: tuple[str, ...] = ()
    """Reasons for the settings, one sentence each."""
    by_kind: frozenset[str] = frozenset()
    """Settings that depend on the kind of member: ``lr``, ``complete``."""

    def training_of(self, kind: str) -> TrainingConfig:
        """Return the training settings of one kind of member."""
        if not FUSIONS[kind].linear:
            return self.training
        settings = {"lr": FASTER * self.training.lr, "complete": COMPLETE}
        return self.training.model_copy(update={k: settings[k] for k in self.by_kind})


def make_plan(
    labels: Labels,
    *,
    network: NetworkConfig | Changes | None = None,
    training: TrainingConfig | Changes | None = None,
    validation_given: bool = False,
    community: bool = False,
) -> Plan:
    """Return the settings of a fit on labels ``(n, S)``; 1, 0, NaN.

    A config is used unchanged; a mapping changes single settings of the rule. ``validation_given``: the caller chose the
    validation sites, so that no folds are made. ``community``: observations of species are predictors. Raises
    SettingError if a setting is unknown or out of range.
    """
    fusion_is_set = isinstance(network, NetworkConfig) or (
        network is not None and "fusion" in network
    )
    config, reasons = _training(labels, training, community=community)
    changes = network if isinstance(network, Mapping) else {}
    if isinstance(network, NetworkConfig):
        network_config = network
    else:
        network_config = members(FEW_FIXED if len(labels) < FEW_SITES else FIXED, changes)
    is_config = isinstance(training, TrainingConfig)
    by_kind = frozenset() if is_config else frozenset({"lr", "complete"} - set(training or {}))
    if len(labels) < COMPLETE_SITES:
        by_kind -= {"complete"}
    # A wider layer makes larger steps at the same rate, so the rate falls with the width.
    if "lr" in by_kind:
        config = config.model_copy(
            update={"lr": RATE * min(1.0, SIZES["width"] / network_config.width)}
        )
    folds = _folds(labels) if config.holdout == 0 and not validation_given else 0
    if is_config:
        folds = 0  # a config by hand trains no other models
    choices: tuple[str, ...] = ()
    if not (fusion_is_set or is_config):
        why_fixed = _why_fixed(labels, config, validation_given=validation_given)
        choices = () if why_fixed else KINDS
        reasons += [f"{why_fixed}: fixed members"] if why_fixed else []
    if by_kind and (choices or any(FUSIONS[kind].linear for kind in network_config.kinds)):
        reasons.append(_by_kind_text(config, by_kind))
    return Plan(
        network_config,
        config,
        choices=choices,
        folds=folds if choices else min(folds, 1),
        reasons=tuple(reasons),
        by_kind=by_kind,
    )


def members(kinds: tuple[str, ...], changes: Changes | None = None) -> NetworkConfig:
    """Return the network of the rule with members of these kinds."""
    changes = dict(changes or {})
    fusion = changes.get("fusion", "+".join(kinds))
    count = len(fusion.split("+"))
    settings = {**SIZES, "fusion": fusion, "members": count, **changes}
    return NetworkConfig(**settings)


def changed(config: Config, changes: Config | Changes | None) -> Config:
    """Return a checked config with single settings changed; a config as changes replaces it."""
    if isinstance(changes, type(config)):
        return changes
    return type(config)(**{**config.model_dump(), **dict(changes or {})})


def training_steps(labels: Labels) -> int:
    """Return the optimiser steps for labels ``(n, S)``.

    One step per site between 300 and 1,000, where the number of sites is limited to ten times that of
    presences. Beyond 1,000 sites, the steps grow with the square root of the number of sites.
    """
    n = len(labels)
    size = min(n, 10 * label_counts(labels).rarer)
    growth = math.sqrt(max(1.0, size / MANY_STEPS))
    return round(min(max(size, FEW_STEPS), MANY_STEPS) * growth)


def _training(
    labels: Labels, training: TrainingConfig | Changes | None, *, community: bool
) -> tuple[TrainingConfig, list[str]]:
    if isinstance(training, TrainingConfig):
        return training, []
    changes = dict(training or {})
    steps = training_steps(labels) * (COMMUNITY_STEPS if community else 1)
    rule: dict[str, Any] = {"steps": steps, "holdout": 0.0, "keep": "last"}
    if "epochs" in changes:  # the user sets the length
        rule.pop("steps")
    if changes.get("holdout", 0) > 0:  # the held-out sites choose the epoch
        rule["keep"] = "best"
        rule.pop("steps", None)
    config = TrainingConfig(**{**rule, **changes})
    reason = f"{len(labels):,} sites, {labels.shape[1]} species, {label_counts(labels).rarer:,} labels of the rarer class: "
    length = f"{config.steps} optimiser steps" if config.steps else f"up to {config.epochs} epochs"
    is_doubled = community and "steps" in rule and "steps" not in changes
    observations = " (doubled: observations of species are predictors)" if is_doubled else ""
    return config, [reason + length + observations]


def _folds(labels: Labels) -> int:
    if len(labels) < FEWEST_SITES:
        return 0
    # Three folds cost three further trainings; with many sites one hold-out is precise enough.
    return FOLDS if len(labels) <= MANY else 1


def _why_fixed(labels: Labels, config: TrainingConfig, *, validation_given: bool) -> str:
    """Return the reason not to choose members by inner folds; empty if they are chosen."""
    if validation_given:
        return "validation= is given"
    if config.holdout:
        return "held-out sites choose the epoch"
    if len(labels) < FEWEST_SITES:
        return f"fewer than {FEWEST_SITES} sites"
    rare = label_counts(labels).rarer
    if rare < ENOUGH:
        return f"{rare} labels of the rarer class in all, fewer than {ENOUGH}"
    return ""


def _by_kind_text(config: TrainingConfig, by_kind: frozenset[str]) -> str:
    """Return the settings of members without a hidden layer, which differ from ``config``."""
    texts = {
        "lr": f"learning rate {FASTER * config.lr:g}, {FASTER:g} times that of the others",
        "complete": f"{COMPLETE:.0%} of the rows complete",
    }
    settings = ", ".join(texts[k] for k in texts if k in by_kind)
    return f"linear and quadratic members: {settings}"
