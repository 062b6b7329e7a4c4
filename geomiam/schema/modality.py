"""Modalities, whose variables go missing together, and groups, which are explained as one."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator, model_validator

from geomiam.checks.names import check_key
from geomiam.schema.fields import FrozenFields
from geomiam.schema.source import Origin
from geomiam.schema.variable import Variable


class Modality(FrozenFields):
    """Variables that are collected together and go missing together; masking works per modality.

    Examples
    --------
    >>> import geomiam as gm
    >>> bio1 = gm.Variable(name="bio1")
    >>> list(gm.Modality(name="climate", variables={"bio1": bio1}).variables)
    ['bio1']
    """

    name: str = Field(min_length=1)
    variables: dict[str, Variable] = Field(min_length=1)
    title: str | None = None
    source: str | None = None
    license: str | None = None
    citation: str | None = None
    origin: Origin | None = Field(None, alias="from", description="for all its variables")
    chips: int | None = Field(
        None, ge=2, le=4096, description="cells of the source's grid per side of a cell"
    )

    @field_validator("name")
    @classmethod
    def _name_is_no_path(cls, name: str) -> str:
        return check_key(name, "modality")

    @model_validator(mode="before")
    @classmethod
    def _name_variables(cls, data: Any) -> Any:
        return with_names(data, "variables")

    def origin_of(self, variable: str) -> Origin | None:
        """Return the origin of a variable; its options replace those of the modality."""
        specific, common = self.variables[variable].origin, self.origin
        if specific is None or common is None or specific.source != common.source:
            return specific or common
        options = [{k: getattr(o, k) for k in o.model_fields_set} for o in (common, specific)]
        return Origin(**{**options[0], **options[1]})


class Group(FrozenFields):
    """Predictors that are explained as one: selectors of modalities, variables or parts of them.

    Examples
    --------
    >>> import geomiam as gm
    >>> gm.Group(name="water", members=("precipitation", "rivers")).name
    'water'
    """

    name: str = Field(min_length=1)
    members: tuple[str, ...] = Field(min_length=1)

    @field_validator("name")
    @classmethod
    def _name_is_no_path(cls, name: str) -> str:
        return check_key(name, "group")


def with_names(data: Any, key: str) -> Any:
    """Put each key of the mapping ``data[key]`` into its entry as ``name``."""
    if not isinstance(data, dict) or not isinstance(data.get(key), dict):
        return data
    entries = {k: ({} if v is None else v) for k, v in data[key].items()}
    entries = {k: {"name": k, **v} if isinstance(v, dict) else v for k, v in entries.items()}
    return {**data, key: entries}
