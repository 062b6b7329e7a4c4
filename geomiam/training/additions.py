"""New species and modalities of sites that a model is fine-tuned on, and models extended by them.

Trained weights are copied unchanged. New modalities come last, so every old token keeps its position; new
species come last in the head.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from geomiam.data.infer import infer_schema
from geomiam.data.predictors import bind
from geomiam.data.sites.table import read_labels
from geomiam.errors import SchemaError, SelectionError
from geomiam.model.model import Model
from geomiam.schema.schema import Schema
from geomiam.schema.variable import Group
from geomiam.tokens.scaler import STATISTICS, Scaler

Part = Literal["head", "all", "new"]


@dataclass(frozen=True)
class Additions:
    """Labels of sites, and the species and modalities of the sites that a model lacks."""

    labels: np.ndarray
    """``(n, S)`` of the model's species, then of the new ones; NaN = not surveyed."""
    species: tuple[str, ...]
    """New species."""
    labelled_count: int
    """Number of the model's species that the sites label."""
    schema: Schema | None
    """New modalities."""

    @classmethod
    def of(
        cls,
        model: Model,
        sites: xr.Dataset,
        schema: Schema | str | Path | None,
        *,
        train: Part | None,
    ) -> Additions:
        """Compare sites with a model."""
        presence, names = read_labels(sites)
        new = tuple(s for s in names if s not in model.species)
        labels = np.full((len(presence), len(model.species) + len(new)), np.nan, np.float32)
        column = {s: i for i, s in enumerate((*model.species, *new))}
        labels[:, [column[s] for s in names]] = presence
        reads_modalities = schema is not None or train not in ("head", "all")
        modalities = _new_modalities(model, sites, schema) if reads_modalities else None
        return cls(labels, new, len(names) - len(new), modalities)

    def __str__(self) -> str:
        new = list(self.schema.modalities) if self.schema else []
        return (
            f"the sites label {self.labelled_count} species of the model and {len(self.species)} new "
            f"ones, and have {len(new)} new modalities {new}"
        )

    def checked(self, train: Part | None, model: Model) -> Part:
        """Return the part to train if it suits the additions and the model."""
        if train is None or train not in get_args(Part):
            fits = {
                "head": bool(self.species),
                "new": self.schema is not None and not self.species,
                "all": self.labelled_count > 0,
            }
            suitable = " or ".join(f"train='{p}'" for p in fits if fits[p]) or "other sites"
            raise SelectionError(
                f"train={train!r}: choose the part to train, train='head' (new species), 'all' (every "
                f"weight, at a low rate) or 'new' (new modalities); {self}: pass {suitable}"
            )
        if train != "new" and self.schema:
            raise SelectionError(
                f"train='{train}' takes no new modalities, found {list(self.schema.modalities)} in "
                "schema=; leave schema= out, or pass train='new'"
            )
        if train == "head" and not self.species:
            raise SelectionError(f"train='head' needs species that the model lacks; {self}")
        if train == "head" and model.link == "softmax":
            raise SelectionError(
                "train='head': this model predicts shares of all species, so new species change the "
                "predictions of the old ones; use train='all'"
            )
        if train == "new" and not self.schema:
            raise SelectionError(f"train='new' needs modalities that the model lacks; {self}")
        if train == "new" and (self.species or not self.labelled_count):
            raise SelectionError(
                f"train='new' learns from species of the model, found others, {list(self.species[:3])}: "
                "train their rows first with gm.finetune(model, sites, train='head'), or take the "
                "model's species alone with sites.sel(species=[...])"
            )
        return train


def _new_modalities(
    model: Model, sites: xr.Dataset, schema: Schema | str | Path | None
) -> Schema | None:
    """Return the modalities that the model lacks, bound to the sites."""
    modalities, variables = model.schema.modalities, model.schema.variables
    if isinstance(schema, (str, Path)):
        schema = Schema.from_yaml(schema)
    if schema is None:
        further = [str(n) for n in sites.data_vars if n not in variables]
        numeric = [n for n in further if n != "presence" and sites[n].dtype.kind in "fiub"]
        schema = infer_schema(sites[numeric]) if numeric else None
    if schema is None:
        return None
    for modality in schema.modalities.values():
        is_old = modality.name in modalities
        wrong = [v for v in modality.variables if is_old is not (v in variables)]
        if wrong and is_old:
            raise SchemaError(
                f"variables {wrong} are new in modality '{modality.name}' of the model, whose tokens are "
                f"fixed; put them into a new modality: ds['{wrong[0]}'].attrs['modality'] = 'more'"
            )
        if wrong:
            raise SchemaError(
                f"variables {wrong} belong to another modality of the model, not to '{modality.name}'; "
                "leave them out of the schema of the new modalities"
            )
    new = [m for m in schema.modalities if m not in modalities]
    return bind(schema.subset(new), sites) if new else None


def grown_schema(schema: Schema, new: Schema) -> Schema:
    """Return a schema with new modalities after the existing ones; each new modality is a group."""
    if name_clashes := sorted(set(new.modalities) & set(schema.groups)):
        raise SchemaError(
            f"modalities {name_clashes} have the names of groups of the model; rename them"
        )
    new_groups = {m: Group(name=m, members=(m,)) for m in new.modalities}
    fields = {k: getattr(schema, k) for k in Schema.model_fields}
    fields["modalities"] = {**schema.modalities, **new.modalities}
    return Schema(**{**fields, "groups": {**schema.groups, **new_groups}})


def joined_scaler(old: Scaler, new: Scaler) -> Scaler:
    """Return the scalers of the old and the new variables as one."""
    return Scaler(*(getattr(old, f) | getattr(new, f) for f in STATISTICS))


def with_modalities(model: Model, schema: Schema, scaler: Scaler) -> tuple[Model, list[str]]:
    """Return the model with further modalities, and the names of the weights that are new.

    ``schema`` is that of :func:`grown_schema`, ``scaler`` that of all its variables. Fresh weights are
    drawn from torch's current random state.
    """
    for member in model.network.members:
        if not member.fusion.extendable:
            raise SelectionError(
                f"fusion='{member.config.fusion}' cannot take new predictors and stay as it is "
                "without them; train a new model with fusion='group', 'token', 'sum' or 'linear'"
            )
    new_modalities = [m for m in schema.modalities if m not in model.schema.modalities]
    all_added = (*model.config.grown, *new_modalities)
    larger = Model.untrained(
        schema,
        scaler=scaler,
        species=model.species,
        config=model.config.model_copy(update={"grown": all_added, "explainer": 0}),
        link=model.link,
        backbones=model.network.backbones,
    )
    new_weights: list[nn.Parameter] = []
    for member, old in zip(larger.network.members, model.network.members):
        parts, old_parts = member.tokenizers.parts, old.tokenizers.parts
        for part, old_part in zip(parts, old_parts):
            part.load_state_dict(old_part.state_dict())
        member.norm.load_state_dict(old.norm.state_dict())
        new_weights += [p for part in parts[len(old_parts) :] for p in part.parameters()]
        new_weights += member.fusion.extend(old.fusion)
    larger.network.head.load_state_dict(model.network.head.state_dict())
    larger.network.offsets = model.network.offsets
    new_ids = {id(p) for p in new_weights}
    return larger, [n for n, p in larger.network.named_parameters() if id(p) in new_ids]


def with_species(model: Model, species: Sequence[str]) -> Model:
    """Return a copy of the model with rows for more species, drawn from torch's random state."""
    weight, bias = (p.detach().cpu() for p in model.network.head.parameters())
    if species:
        new = nn.Linear(weight.shape[1], len(species))
        weight, bias = torch.cat([weight, new.weight]), torch.cat([bias, new.bias])
    return _with_head(model, weight, bias, (*model.species, *species))


def of_species(model: Model, first: int) -> Model:
    """Return a copy of the model with its species from position ``first`` on only."""
    head = model.network.head
    return _with_head(model, head.weight[first:], head.bias[first:], model.species[first:])


def _with_head(model: Model, weight: Tensor, bias: Tensor, species: tuple[str, ...]) -> Model:
    """Return a copy of the model without a learned explainer, with the head of other species."""
    network = copy.deepcopy(model.network).cpu()
    network.explainer = None
    if species != model.species:
        network.head = nn.Linear(weight.shape[1], len(species))
        network.head.load_state_dict({"weight": weight, "bias": bias})
        network.offsets = None  # new rows are trained over the features of all members
    config = model.config.model_copy(update={"explainer": 0})
    return replace(model, network=network, config=config, species=species, calibration=None)
