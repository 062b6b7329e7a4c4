"""Extension of models by species and modalities: trained weights are copied unchanged.

New modalities come last, so every old token keeps its position; new species come last in the head.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from geomiam.errors import SchemaError, SelectionError
from geomiam.model.model import Model
from geomiam.networks.network import Member, Network
from geomiam.schema.modality import Group
from geomiam.schema.schema import Schema
from geomiam.tokens.scaler import Scaler


def grown_schema(schema: Schema, new: Schema) -> Schema:
    """Return a schema with new modalities after its own; each new modality is a group.

    Raises
    ------
    SchemaError
        If a new group has the name of an old one.
    """
    if name_clashes := sorted(set(new.modalities) & set(schema.groups)):
        raise SchemaError(
            f"modalities {name_clashes} have the names of groups of the model; rename them"
        )
    new_groups = {m: Group(name=m, members=(m,)) for m in new.modalities}
    fields = {k: getattr(schema, k) for k in Schema.model_fields}
    return Schema(
        **{
            **fields,
            "modalities": {**schema.modalities, **new.modalities},
            "groups": {**schema.groups, **new_groups},
        }
    )


def joined_scaler(old: Scaler, new: Scaler) -> Scaler:
    """Return the scalers of the old and the new variables as one."""
    fields = ("mean", "std", "classes", "edges", "ranges", "limits")
    return Scaler(*(getattr(old, f) | getattr(new, f) for f in fields))


def with_modalities(model: Model, schema: Schema, scaler: Scaler) -> tuple[Model, list[str]]:
    """Return the model with further modalities, and the names of the weights that are new.

    Parameters
    ----------
    model : Model
        Not changed.
    schema : Schema
        Of :func:`grown_schema`.
    scaler : Scaler
        Of all variables. Fresh weights are drawn from torch's current random state.

    Raises
    ------
    SelectionError
        If the fusion cannot be extended.
    """
    config = model.config
    for member in model.network.members:
        if not member.fusion.extendable:
            raise SelectionError(
                f"fusion='{member.config.fusion}' cannot take new predictors and stay as it is "
                "without them; train a new model with fusion='group', 'token', 'sum' or 'linear'"
            )
    new = [m for m in schema.modalities if m not in model.schema.modalities]
    new_config = config.model_copy(update={"grown": (*config.grown, *new), "explainer": 0})
    larger = Model.untrained(
        schema,
        scaler=scaler,
        species=model.species,
        config=new_config,
        link=model.link,
        backbones=model.network.backbones,
    )
    new_weights: list[nn.Parameter] = []
    for member, old in zip(larger.network.members, model.network.members):
        new_weights += _extend_member(member, old)
    larger.network.head.load_state_dict(model.network.head.state_dict())
    new_ids = {id(p) for p in new_weights}
    return larger, [n for n, p in larger.network.named_parameters() if id(p) in new_ids]


def with_species(model: Model, species: Sequence[str]) -> Model:
    """Return the model with rows for more species in the head, drawn from torch's random state."""
    network = _copy(model.network)
    if not species:
        return _without_explainer(model, network)
    old, new = network.head, nn.Linear(network.head.in_features, len(species))
    network.head = nn.Linear(old.in_features, old.out_features + len(species))
    with torch.no_grad():
        network.head.weight.copy_(torch.cat([old.weight, new.weight]))
        network.head.bias.copy_(torch.cat([old.bias, new.bias]))
    return _without_explainer(model, network, species=(*model.species, *species))


def of_species(model: Model, first: int) -> Model:
    """Return a copy of the model with its species from position ``first`` on only."""
    network = _copy(model.network)
    old = network.head
    network.head = nn.Linear(old.in_features, old.out_features - first)
    with torch.no_grad():
        network.head.weight.copy_(old.weight[first:])
        network.head.bias.copy_(old.bias[first:])
    return _without_explainer(model, network, species=model.species[first:])


def put_head(model: Model, head: nn.Linear, first: int) -> None:
    """Replace rows of the model's head, from ``first`` on, by those of another head."""
    with torch.no_grad():
        model.network.head.weight[first:] = head.weight
        model.network.head.bias[first:] = head.bias


def _extend_member(member: Member, old: Member) -> list[nn.Parameter]:
    """Copy the weights of a trained member into a larger one; return the weights that are new."""
    parts, before = member.tokenizers.parts, old.tokenizers.parts
    for part, old_part in zip(parts, before):
        part.load_state_dict(old_part.state_dict())
    member.norm.load_state_dict(old.norm.state_dict())
    new = [p for part in parts[len(before) :] for p in part.parameters()]
    return new + member.fusion.extend(old.fusion)


def _copy(network: Network) -> Network:
    duplicate = copy.deepcopy(network).cpu()
    duplicate.explainer = None
    return duplicate


def _without_explainer(model: Model, network: Network, **changes: Any) -> Model:
    config = model.config.model_copy(update={"explainer": 0})
    return replace(model, network=network, config=config, **changes)
