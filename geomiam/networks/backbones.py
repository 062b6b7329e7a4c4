"""Backbones: a torch module of the user's, such as a pre-trained one, in place of a tokenizer."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Protocol

from torch import Tensor, nn

from geomiam.errors import BackboneError
from geomiam.networks.config import BackboneSettings, NetworkConfig
from geomiam.schema.schema import OWN_DIMS, Schema, Variable
from geomiam.tokens.tokenizers import Plugged, Tokenizers


class Backbone(Protocol):
    """What a module must be to encode a variable: pass it as ``gm.fit(..., backbones={name: module})``.

    A :class:`torch.nn.Module` in float32. All values of the variable become one token: what the
    module returns goes through one linear map to the width of the network. A module of which no
    parameter has ``requires_grad`` is *frozen*: it stays in evaluation mode and as it is.
    """

    width: int
    """Numbers ``e`` that it returns per row."""

    def forward(self, x: Tensor, observed: Tensor) -> Tensor:
        """Encode rows; one must not depend on the others.

        Parameters
        ----------
        x : Tensor
            float32 ``(n, *own dims)`` in the order of the schema, standardised with the means of
            the training sites; 0 where missing.
        observed : Tensor
            Boolean, same shape; rows without any observed value are not passed.

        Returns
        -------
        Tensor
            Finite ``(n, e)``.
        """
        ...


def plug(
    schema: Schema, config: NetworkConfig, backbones: Mapping[str, nn.Module]
) -> tuple[Schema, NetworkConfig, dict[str, nn.Module]]:
    """Plug backbones in as tokenizers of variables.

    Parameters
    ----------
    schema : Schema
        Bound.
    config : NetworkConfig
    backbones : mapping of str to torch.nn.Module
        By variable, or by modality of one variable.

    Returns
    -------
    tuple
        The schema with these variables as one token each, the configuration with the facts of the
        backbones, and the backbones by variable.

    Raises
    ------
    BackboneError
        If a name is no such variable, or a module no backbone.
    """
    own = {_variable(schema, name).name: _checked(name, m) for name, m in backbones.items()}
    whole = {n: _whole(schema.variables[n]) for n in own}
    facts = {n: BackboneSettings(width=int(m.width), frozen=_frozen(m)) for n, m in own.items()}  # type: ignore[arg-type]
    return (
        schema.replace(whole) if own else schema,
        config.model_copy(update={"encoders": facts}),
        own,
    )


def copies_of(
    backbones: Mapping[str, nn.Module], facts: Mapping[str, BackboneSettings]
) -> dict[str, nn.Module]:
    """Copies of backbones as the facts want them, one for each variable that has facts.

    Raises
    ------
    BackboneError
        If there is none for a variable, or it has another width.
    """
    if missing := sorted(set(facts) - set(backbones)):
        raise BackboneError(
            f"the network has backbones of {missing}, but none was given: "
            f"pass backbones={{'{missing[0]}': <your module>}}"
        )
    return {name: _copy(name, backbones[name], fact) for name, fact in facts.items()}


def backbones_of(tokenizers: Tokenizers) -> dict[str, nn.Module]:
    """The backbones among some tokenizers, by variable."""
    return {p.name: p.encoder for p in tokenizers.parts if isinstance(p, Plugged)}


def restore(network: nn.Module, backbones: Mapping[str, nn.Module], config: NetworkConfig) -> None:
    """Put fresh copies of backbones in: what a state dict does not hold would be lost otherwise."""
    for part in network.modules():
        if isinstance(part, Plugged):
            part.encoder = _copy(part.name, backbones[part.name], config.encoders[part.name])


def _copy(name: str, backbone: nn.Module, facts: BackboneSettings) -> nn.Module:
    _checked(name, backbone)
    if backbone.width != facts.width:
        raise BackboneError(
            f"the backbone of '{name}' has width {backbone.width}, the model's had {facts.width}: "
            "pass the architecture that it was trained with"
        )
    made = copy.deepcopy(backbone).float()
    return made.requires_grad_(False) if facts.frozen else made


def _variable(schema: Schema, name: str) -> Variable:
    """The variable that a key of ``backbones=`` means."""
    if name in schema.variables:
        variable = schema.variables[name]
    elif name in schema.modalities:
        variable = _only(name, list(schema.modalities[name].variables.values()))
    else:
        raise BackboneError(
            f"backbones= names '{name}', which is no variable or modality; there are "
            f"{list(schema.variables)}"
        )
    if not OWN_DIMS[variable.kind]:
        raise BackboneError(
            f"'{variable.name}' is of kind {variable.kind}; a backbone takes a series, image or "
            f"vector: leave '{name}' out of backbones="
        )
    return variable


def _only(name: str, variables: list[Variable]) -> Variable:
    if len(variables) == 1:
        return variables[0]
    names = [v.name for v in variables]
    raise BackboneError(
        f"modality '{name}' has {len(names)} variables {names}, a backbone takes one: name it, or "
        f"stack them with ds.assign({name}=ds[{names}].to_dataarray('band')).drop_vars({names}) and "
        f"put '{name}' in the schema"
    )


def _checked(name: str, backbone: nn.Module) -> nn.Module:
    if not isinstance(backbone, nn.Module):
        raise BackboneError(
            f"the backbone of '{name}' is {type(backbone).__name__}, expected a torch.nn.Module with "
            "forward(x, observed) and an attribute width"
        )
    width = getattr(backbone, "width", None)
    if not isinstance(width, int) or width < 1:
        raise BackboneError(
            f"the backbone of '{name}' has width {width!r}; set module.width = <numbers it returns per row>"
        )
    return backbone


def _whole(variable: Variable) -> Variable:
    facts = {k: getattr(variable, k) for k in Variable.model_fields}
    return Variable(
        **{
            **facts,
            "whole": True,
            "window": None,
            "patch": None,
            "symbols": None,
            "breakpoints": "gaussian",
        }
    )


def _frozen(backbone: nn.Module) -> bool:
    return not any(p.requires_grad for p in backbone.parameters())
