"""Starting from a model that is there, instead of from nothing."""

from __future__ import annotations

import torch

from geomiam.errors import ArtifactError
from geomiam.networks.config import NetworkConfig
from geomiam.networks.model import Model

OF_ITS_OWN = {"members", "explainer", "dropout", "sigma"}
"""Settings that may differ from those of the start: they change no weight that is taken over."""


def start_config(model: Model) -> NetworkConfig:
    """Return the network that fits a start, where none is asked for."""
    return model.config.model_copy(update={"explainer": 0})


@torch.no_grad()
def start_from(model: Model, into: Model) -> None:
    """Copy weights: tokenizers and fusion, and the head if both know the same species.

    Parameters
    ----------
    model : Model
        Of one member, such as :func:`geomiam.pretrain` makes.
    into : Model
        Of one member; its weights are overwritten.

    Raises
    ------
    ArtifactError
        If a weight would not mean the same in both: another schema, scaler or network.
    """
    _check(model, into)
    left = ("explainer.",) if model.species == into.species else ("explainer.", "head.")
    weights = model.network.state_dict()
    taken = {k: v for k, v in weights.items() if not k.startswith(left)}
    into.network.load_state_dict(into.network.state_dict() | taken)


def _check(model: Model, into: Model) -> None:
    if model.config.members > 1:
        raise ArtifactError(
            f"warm_start has {model.config.members} members, and one is the start of all: pre-train "
            "with members=1, then ask for more with fit(network=...)"
        )
    if model.schema != into.schema:
        raise ArtifactError(
            f"the schema of warm_start ({_modalities(model)}) is not that of the sites "
            f"({_modalities(into)}), so its weights would read other things: leave schema= out"
        )
    if model.scaler.to_dict() != into.scaler.to_dict():
        raise ArtifactError(
            "the scaler is not that of warm_start, so equal numbers would mean other values: make "
            "the tables with scaler=warm_start.scaler"
        )
    own, other = (m.config.model_dump(exclude=OF_ITS_OWN) for m in (model, into))
    if odd := {k: (v, other[k]) for k, v in own.items() if other[k] != v}:
        said = ", ".join(f"{k}={v[0]!r} (asked for {v[1]!r})" for k, v in odd.items())
        raise ArtifactError(f"warm_start has {said}: leave network= out, or pre-train another one")


def _modalities(model: Model) -> str:
    return ", ".join(f"{m.name}: {len(m.variables)}" for m in model.schema.modalities.values())
