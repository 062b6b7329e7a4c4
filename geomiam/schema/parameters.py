"""Parameters of a catalog: parts of its texts, such as the climate model in a path, set for each build."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field

from geomiam.errors import SettingError
from geomiam.schema.source import TILE_KEYS

if TYPE_CHECKING:
    from geomiam.schema.schema import Schema

FIELD = re.compile(r"{(\w+)(:lower)?}")
Value = Annotated[
    str,
    Field(min_length=1),
    BeforeValidator(lambda v: str(v) if isinstance(v, (int, float)) else v),  # year: [2050, 2070]
]
Parameters = dict[str, Annotated[tuple[Value, ...], Field(min_length=1)]]
"""Allowed values by the name of a parameter."""


def check_parameters(schema: Schema) -> None:
    """Refuse a parameter with the name of another field, and one that no text of the catalog contains."""
    if not schema.parameters:
        return
    fields = {name for name, _ in FIELD.findall(str(schema.to_dict()))}
    dims = {dim for variable in schema.variables.values() for dim in variable.dims}
    for name in schema.parameters:
        if name in ("variable", *TILE_KEYS, *dims):
            raise ValueError(
                f"parameter '{name}' has the name of another field of a path; rename it"
            )
        if name not in fields:
            raise ValueError(f"parameter '{name}' is in no text; write {{{name}}} into a 'path:'")


def with_parameters(schema: Schema, values: Mapping[str, Any]) -> Schema:
    """Return a schema without parameters: each field ``{name}`` is replaced by its value.

    ``{name:lower}`` is the value in lower case. Raises SettingError, with the allowed values, if a
    parameter has no value, has another value than those listed, or is not in the catalog.
    """
    values_of = schema.parameters
    texts = {name: str(value) for name, value in values.items()}
    problems = [
        *(f"has no parameter '{n}'" for n in texts if n not in values_of),
        *(f"needs a value of '{n}'" for n in values_of if n not in texts),
        *(f"has no {n} '{v}'" for n, v in texts.items() if v not in values_of.get(n, ())),
    ]
    if problems:
        choices = "; ".join(f"{n}: {', '.join(v)}" for n, v in values_of.items())
        remedy = f"takes one value of each: {choices}" if values_of else "must be left out"
        raise SettingError(f"catalog '{schema.name}' {problems[0]}; parameters= {remedy}")
    if not values_of:
        return schema
    data = {k: v for k, v in schema.to_dict().items() if k != "parameters"}
    return type(schema).from_dict(_filled(data, texts))


def _filled(data: Any, values: Mapping[str, str]) -> Any:
    """Return JSON types with the fields of all texts replaced; fields of other names stay."""
    if isinstance(data, dict):
        return {k: _filled(v, values) for k, v in data.items()}
    if isinstance(data, list):
        return [_filled(v, values) for v in data]
    if not isinstance(data, str):
        return data

    def value(match: re.Match[str]) -> str:
        text = values.get(match[1], match[0])
        return text.lower() if match[2] and match[1] in values else text

    return FIELD.sub(value, data)
