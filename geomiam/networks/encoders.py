"""Own encoders: a torch module of the user's, such as a pre-trained backbone, in place of a tokenizer."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Protocol

from torch import Tensor, nn

from geomiam.errors import EncoderError
from geomiam.networks.config import EncoderFacts, NetworkConfig
from geomiam.schema.schema import OWN_DIMS, Schema, Variable
from geomiam.tokens.tokenizers import Plugged, Tokenizers


class Encoder(Protocol):
    """What a module must be to encode a variable: pass it as ``gm.fit(..., encoders={name: module})``.

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
    schema: Schema, config: NetworkConfig, encoders: Mapping[str, nn.Module]
) -> tuple[Schema, NetworkConfig, dict[str, nn.Module]]:
    """Give variables own encoders.

    Parameters
    ----------
    schema : Schema
        Bound.
    config : NetworkConfig
    encoders : mapping of str to torch.nn.Module
        By variable, or by modality of one variable.

    Returns
    -------
    tuple
        The schema with these variables as one token each, the configuration with the facts of the
        encoders, and the encoders by variable.

    Raises
    ------
    EncoderError
        If a name is no such variable, or a module no encoder.
    """
    own = {_variable(schema, name).name: _checked(name, m) for name, m in encoders.items()}
    whole = {n: _whole(schema.variables[n]) for n in own}
    facts = {n: EncoderFacts(width=int(m.width), frozen=_frozen(m)) for n, m in own.items()}  # type: ignore[arg-type]
    return (
        schema.replace(whole) if own else schema,
        config.model_copy(update={"encoders": facts}),
        own,
    )


def own_copies(
    encoders: Mapping[str, nn.Module], facts: Mapping[str, EncoderFacts]
) -> dict[str, nn.Module]:
    """Copies of own encoders as the facts want them, one for each variable that has facts.

    Raises
    ------
    EncoderError
        If there is none for a variable, or it has another width.
    """
    if missing := sorted(set(facts) - set(encoders)):
        raise EncoderError(
            f"the network has own encoders of {missing}, but none was given: "
            f"pass encoders={{'{missing[0]}': <your module>}}"
        )
    return {name: _copy(name, encoders[name], fact) for name, fact in facts.items()}


def own_encoders(tokenizers: Tokenizers) -> dict[str, nn.Module]:
    """The own encoders among some tokenizers, by variable."""
    return {p.name: p.encoder for p in tokenizers.parts if isinstance(p, Plugged)}


def restore(network: nn.Module, encoders: Mapping[str, nn.Module], config: NetworkConfig) -> None:
    """Put fresh copies of own encoders in: what a state dict does not hold would be lost otherwise."""
    for part in network.modules():
        if isinstance(part, Plugged):
            part.encoder = _copy(part.name, encoders[part.name], config.encoders[part.name])


def _copy(name: str, encoder: nn.Module, facts: EncoderFacts) -> nn.Module:
    _checked(name, encoder)
    if encoder.width != facts.width:
        raise EncoderError(
            f"the encoder of '{name}' has width {encoder.width}, the model's had {facts.width}: "
            "pass the architecture that it was trained with"
        )
    made = copy.deepcopy(encoder).float()
    return made.requires_grad_(False) if facts.frozen else made


def _variable(schema: Schema, name: str) -> Variable:
    """The variable that a key of ``encoders=`` means."""
    if name in schema.variables:
        variable = schema.variables[name]
    elif name in schema.modalities:
        variable = _only(name, list(schema.modalities[name].variables.values()))
    else:
        raise EncoderError(
            f"encoders= names '{name}', which is no variable or modality; there are "
            f"{list(schema.variables)}"
        )
    if not OWN_DIMS[variable.kind]:
        raise EncoderError(
            f"'{variable.name}' is of kind {variable.kind}; an own encoder takes a series, image or "
            f"vector: leave '{name}' out of encoders="
        )
    return variable


def _only(name: str, variables: list[Variable]) -> Variable:
    if len(variables) == 1:
        return variables[0]
    names = [v.name for v in variables]
    raise EncoderError(
        f"modality '{name}' has {len(names)} variables {names}, an own encoder takes one: name it, or "
        f"stack them with ds.assign({name}=ds[{names}].to_dataarray('band')).drop_vars({names}) and "
        f"put '{name}' in the schema"
    )


def _checked(name: str, encoder: nn.Module) -> nn.Module:
    if not isinstance(encoder, nn.Module):
        raise EncoderError(
            f"the encoder of '{name}' is {type(encoder).__name__}, expected a torch.nn.Module with "
            "forward(x, observed) and an attribute width"
        )
    width = getattr(encoder, "width", None)
    if not isinstance(width, int) or width < 1:
        raise EncoderError(
            f"the encoder of '{name}' has width {width!r}; set module.width = <numbers it returns per row>"
        )
    return encoder


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


def _frozen(encoder: nn.Module) -> bool:
    return not any(p.requires_grad for p in encoder.parameters())
