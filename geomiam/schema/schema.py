"""The schema: all predictors of a model, as variables in modalities, and the groups to explain.

A schema is read from a YAML catalog, inferred from a dataset, or built in Python. All three give
the same object, and a trained model carries it. Everything is matched by name.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator, model_validator

from geomiam.checks.names import check_key
from geomiam.errors import SchemaError, SettingError
from geomiam.schema.fields import FrozenFields
from geomiam.schema.messages import explain
from geomiam.schema.modality import Group, Modality, with_names
from geomiam.schema.source import Grid, Origin, Source, source_kinds
from geomiam.schema.table import digest_of, html_of, table_of
from geomiam.schema.variable import KINDS, Breakpoints, Variable
from geomiam.schema.yaml_text import load_yaml


class Schema(FrozenFields):
    """All predictors of a model, in order.

    Parameters are keyword-only. See :meth:`from_yaml` for catalogs and
    :func:`geomiam.infer_schema` for datasets.

    Raises
    ------
    SettingError
        If a name occurs twice or a source is unknown.

    Examples
    --------
    >>> import geomiam as gm
    >>> layers = {name: gm.Variable(name=name) for name in ("bio1", "bio12")}
    >>> gm.Schema(modalities={"climate": gm.Modality(name="climate", variables=layers)})
    schema: 2 variables in 1 modalities
      climate (2): bio1, bio12
    """

    name: str = Field("schema", min_length=1)
    title: str | None = None
    description: str | None = None
    license: str | None = None
    citation: str | None = None
    grid: Grid | None = None
    sources: dict[str, Source] = Field({})
    modalities: dict[str, Modality] = Field(min_length=1)
    groups: dict[str, Group] = Field({})

    @field_validator("name")
    @classmethod
    def _name_is_no_path(cls, name: str) -> str:
        return check_key(name, "schema")

    @model_validator(mode="before")
    @classmethod
    def _name_modalities(cls, data: Any) -> Any:
        data = with_names(with_names(data, "sources"), "modalities")
        groups = data.get("groups") if isinstance(data, dict) else None
        if isinstance(groups, dict):
            entries = {
                k: {"members": v} if isinstance(v, (list, tuple)) else v for k, v in groups.items()
            }
            data = with_names({**data, "groups": entries}, "groups")
        return data

    @model_validator(mode="after")
    def _names_are_unique(self) -> Schema:
        modality_of: dict[str, str] = {}
        for modality in self.modalities.values():
            for name in modality.variables:
                if name in modality_of:
                    raise ValueError(
                        f"variable '{name}' is in modalities '{modality_of[name]}' and '{modality.name}'; "
                        "a variable has one modality: rename or remove one"
                    )
                modality_of[name] = modality.name
        self._check_sources()
        if not self.groups:
            groups = {m: Group(name=m, members=(m,)) for m in self.modalities}
            object.__setattr__(self, "groups", groups)
        return self

    def _check_sources(self) -> None:
        for modality in self.modalities.values():
            for variable in modality.variables.values():
                if origin := modality.origin_of(variable.name):
                    self._check_origin(variable, origin)

    def _check_origin(self, variable: Variable, origin: Origin) -> None:
        if origin.source not in self.sources:
            close = difflib.get_close_matches(origin.source, self.sources, n=1)
            hint = f"did you mean '{close[0]}'?" if close else "add it under 'sources:'"
            raise ValueError(
                f"variable '{variable.name}' is from '{origin.source}', no source; {hint}"
            )
        try:
            source = origin.over(self.sources[origin.source])
        except SettingError as error:
            raise ValueError(f"variable '{variable.name}': {error}") from None
        keeps = ("nearest", "mode")
        if variable.kind in ("categorical", "circular") and source.resampling not in (None, *keeps):
            raise ValueError(
                f"variable '{variable.name}' is {variable.kind}: '{source.resampling}' would mix its "
                f"values into others; use resampling: {' or '.join(keeps)}"
            )

    def without_origins(self) -> Schema:
        """Return the schema without grid, sources and paths, as a model stores it."""
        modalities = {
            m.name: m.model_copy(
                update={
                    "origin": None,
                    "chips": None,
                    "variables": {
                        k: v.model_copy(update={"origin": None}) for k, v in m.variables.items()
                    },
                }
            )
            for m in self.modalities.values()
        }
        return Schema(**{**_shallow(self), "grid": None, "sources": {}, "modalities": modalities})

    @cached_property
    def variables(self) -> dict[str, Variable]:
        """Every variable by name, modality after modality."""
        return {k: v for m in self.modalities.values() for k, v in m.variables.items()}

    @property
    def bound(self) -> bool:
        """Whether the dims and labels of every variable are set."""
        return all(v.bound for v in self.variables.values())

    @cached_property
    def evidence(self) -> dict[str, str]:
        """Reason for each inferred kind by variable; empty for a catalog."""
        return {}

    def __str__(self) -> str:
        return table_of(self)

    def __repr__(self) -> str:
        return digest_of(self)

    def _repr_html_(self) -> str:
        return html_of(self)

    def replace(self, variables: dict[str, Variable]) -> Schema:
        """Return the schema with some variables replaced, by name."""
        modalities = {
            m.name: m.model_copy(
                update={"variables": {k: variables.get(k, v) for k, v in m.variables.items()}}
            )
            for m in self.modalities.values()
        }
        return Schema(**{**_shallow(self), "modalities": modalities})

    def symbolic(
        self,
        alphabet: int | None = 20,
        *,
        window: int | str = 2,
        breakpoints: Breakpoints = "gaussian",
        variables: Collection[str] | None = None,
    ) -> Schema:
        """Return the schema with its series read as symbols, as SAX in MAESTRO (Mohapatra et al. 2025).

        Parameters
        ----------
        alphabet : int, optional
            Number of symbols, 2 to 256. None: read numbers, with the present windows.
        window : int or str
            Steps, or the calendar period, that one symbol replaces. Windows that are calendar
            periods are kept.
        breakpoints : {"gaussian", "quantile"}
            See :func:`geomiam.tokens.symbols.breakpoints`.
        variables : collection of str, optional
            Names of series; default: all.

        Raises
        ------
        SchemaError
            If a name is not a series of the schema, there is no series, or a setting is out of bounds.
        """
        series = [n for n, v in self.variables.items() if v.kind == "series"]
        names = list(series if variables is None else variables)
        if not names or set(names) - set(series):
            raise SchemaError(
                f"symbols are for series; requested {names}, found the series {series}: pass "
                "variables=[...] with names of series, or set kind: series in the catalog"
            )
        settings: dict[str, Any] = {"symbols": None, "breakpoints": "gaussian"}
        if alphabet is not None:
            settings = {"window": window, "symbols": alphabet, "breakpoints": breakpoints}
        return self.replace({n: _with_settings(self.variables[n], settings) for n in names})

    def subset(self, names: Collection[str]) -> Schema:
        """Return the schema of some modalities or variables, with a group for each modality.

        Raises
        ------
        SchemaError
            If a name is not a modality or variable; the message has the nearest one.
        """
        names_in_schema = [*self.modalities, *self.variables]
        for name in names:
            if name not in names_in_schema:
                close = difflib.get_close_matches(name, names_in_schema, n=1)
                hint = (
                    f"did you mean '{close[0]}'?" if close else f"there are {list(self.modalities)}"
                )
                raise SchemaError(f"'{name}' is not a modality or variable of the schema; {hint}")
        selection = {
            m.name: {k: v for k, v in m.variables.items() if k in names or m.name in names}
            for m in self.modalities.values()
        }
        modalities = {
            name: self.modalities[name].model_copy(update={"variables": variables})
            for name, variables in selection.items()
            if variables
        }
        return Schema(**{**_shallow(self), "modalities": modalities, "groups": {}})

    def to_dict(self) -> dict:
        """Return the schema as JSON types, which :meth:`from_dict` reads."""
        return self.model_dump(mode="json", exclude_defaults=True, by_alias=True)

    @classmethod
    def from_dict(cls, data: dict, *, location: str = "schema") -> Schema:
        """Build a schema from JSON types; ``where`` names the input in messages.

        Raises
        ------
        SchemaError
            With one line for each wrong key: its location, the value, and the remedy.
        """
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise SchemaError(_explain(error, location)) from None

    @classmethod
    def from_yaml(cls, path: str | Path) -> Schema:
        """Read a catalog.

        Raises
        ------
        SchemaError
            As :meth:`from_dict`, with line numbers.
        InputNotFound
            If there is no such file.
        """
        data, text = load_yaml(path)
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise SchemaError(_explain(error, str(path), text)) from None


def _shallow(entry: FrozenFields) -> dict:
    return {k: getattr(entry, k) for k in entry.__class__.model_fields}


def _with_settings(variable: Variable, settings: dict[str, Any]) -> Variable:
    """Change settings of a variable; a window that is a calendar period is kept."""
    calendar = {"window": variable.window} if isinstance(variable.window, str) else {}
    try:
        return Variable.model_validate({**_shallow(variable), **settings, **calendar})
    except ValidationError as error:
        raise SchemaError(_explain(error, f"variable '{variable.name}'")) from None


def _explain(error: ValidationError, location: str, text: str | None = None) -> str:
    return explain(error, location, text=text, top=Schema, kinds=(KINDS, source_kinds()))
