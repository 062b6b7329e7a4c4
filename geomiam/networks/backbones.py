"""Backbones: torch modules of the user, such as pre-trained ones, that replace a tokenizer."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor, nn

from geomiam.errors import BackboneError
from geomiam.networks.config import BackboneSettings, NetworkConfig
from geomiam.schema.schema import Schema
from geomiam.schema.variable import OWN_DIMS, Variable
from geomiam.tokens.tokenizers import BackboneTokenizer, Tokenizers

ONE_TOKEN: dict[str, Any] = {
    "whole": True,
    "window": None,
    "patch": None,
    "symbols": None,
    "breakpoints": "gaussian",
}
"""Settings of a variable that a backbone encodes."""


class Backbone(Protocol):
    """The protocol of a module that encodes a variable: ``gm.fit(..., network={"backbones": {name: module}})``.

    It is a :class:`torch.nn.Module` in float32. All values of the variable become one token. A linear
    map brings the output of the module to the width of the network. A module without a parameter that
    has ``requires_grad`` is *frozen*: it stays in evaluation mode and its weights do not change.

    Examples
    --------
    >>> import torch
    >>> class Mean(torch.nn.Module):
    ...     width = 1
    ...
    ...     def forward(self, x, observed):
    ...         return x.flatten(1).mean(1, keepdim=True)
    >>> Mean()(torch.zeros(4, 6, 6), torch.ones(4, 6, 6, dtype=bool)).shape
    torch.Size([4, 1])
    """

    width: int
    """Numbers ``e`` per row of the output."""

    def forward(self, x: Tensor, observed: Tensor) -> Tensor:
        """Encode rows; no row may depend on another.

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


def with_backbones(
    schema: Schema, config: NetworkConfig, backbones: Mapping[str, nn.Module]
) -> tuple[Schema, NetworkConfig, dict[str, nn.Module]]:
    """Use backbones, by variable or by modality of one variable, as tokenizers.

    Return the bound schema with these variables as one token each, the configuration with the settings of
    the backbones, and the backbones by variable.
    """
    modules, variables, settings = {}, {}, {}
    for name, module in backbones.items():
        variable = _variable(schema, name)
        modules[variable.name] = _check(name, module)
        fields = {k: getattr(variable, k) for k in Variable.model_fields}
        variables[variable.name] = Variable(**{**fields, **ONE_TOKEN})
        is_frozen = not any(p.requires_grad for p in module.parameters())
        settings[variable.name] = BackboneSettings(width=int(module.width), frozen=is_frozen)  # type: ignore[arg-type]  # _check: an int
    config = config.model_copy(update={"encoders": settings})
    return schema.replace(variables) if modules else schema, config, modules


def copies_of(
    backbones: Mapping[str, nn.Module], settings: Mapping[str, BackboneSettings]
) -> dict[str, nn.Module]:
    """Return copies of backbones as their settings require, one for each variable with settings."""
    if missing := sorted(set(settings) - set(backbones)):
        raise BackboneError(
            f"the network has backbones of {missing}, but none was given: "
            f"pass backbones={{'{missing[0]}': <your module>}}"
        )
    return {name: _copy(name, backbones[name], setting) for name, setting in settings.items()}


def backbones_of(tokenizers: Tokenizers) -> dict[str, nn.Module]:
    """Return the backbones among the tokenizers, by variable."""
    return {p.name: p.encoder for p in tokenizers.parts if isinstance(p, BackboneTokenizer)}


def restore(network: nn.Module, backbones: Mapping[str, nn.Module], config: NetworkConfig) -> None:
    """Replace backbones by fresh copies, since a state dict does not hold all of their state."""
    for part in network.modules():
        if isinstance(part, BackboneTokenizer):
            part.encoder = _copy(part.name, backbones[part.name], config.encoders[part.name])


def _copy(name: str, backbone: nn.Module, settings: BackboneSettings) -> nn.Module:
    _check(name, backbone)
    if backbone.width != settings.width:
        raise BackboneError(
            f"the backbone of '{name}' has width {backbone.width}, the model's had {settings.width}: "
            "pass the architecture that it was trained with"
        )
    duplicate = copy.deepcopy(backbone).float()
    return duplicate.requires_grad_(False) if settings.frozen else duplicate


def _variable(schema: Schema, name: str) -> Variable:
    """Return the variable that a key of ``backbones=`` names."""
    if name in schema.variables:
        variable = schema.variables[name]
    elif name in schema.modalities:
        variable, *further = schema.modalities[name].variables.values()
        if further:
            names = [v.name for v in (variable, *further)]
            raise BackboneError(
                f"modality '{name}' has {len(names)} variables {names}, a backbone takes one: name it, or "
                f"stack them with ds.assign({name}=ds[{names}].to_dataarray('band')).drop_vars({names}) "
                f"and put '{name}' in the schema"
            )
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


def _check(name: str, backbone: nn.Module) -> nn.Module:
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
