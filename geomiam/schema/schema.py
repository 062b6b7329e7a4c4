"""The schema: all predictors of a model, as variables in modalities, and the groups to explain.

A schema is read from a YAML catalog, inferred from a dataset, or built in Python. All three give
the same object, and a trained model carries it. Everything is matched by name.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field, ValidationError, model_validator

from geomiam.checks.names import check_key
from geomiam.errors import SchemaError, SettingError, printable
from geomiam.outputs.text import table_html
from geomiam.schema.catalogs import load_yaml
from geomiam.schema.fields import FrozenFields, explain
from geomiam.schema.parameters import Parameters, check_parameters
from geomiam.schema.source import Grid, Source, source_kinds
from geomiam.schema.variable import KINDS, Breakpoints, Group, Modality, Variable, with_names

if TYPE_CHECKING:
    import pandas as pd

HEAD = ("modality", "variable", "kind", "units", "values", "from")
SHOWN = 4  # number of variables of a modality that a short description lists
WIDEST = 40  # most characters of a column that padding aligns; the last column is not padded
SchemaName = Annotated[str, Field(min_length=1), AfterValidator(partial(check_key, kind="schema"))]


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

    name: SchemaName = "schema"
    title: str | None = None
    description: str | None = None
    license: str | None = None
    citation: str | None = None
    grid: Grid | None = None
    parameters: Parameters = Field(
        {}, description="allowed values of the fields {name} in texts, one of which a build takes"
    )
    sources: dict[str, Source] = Field({})
    modalities: dict[str, Modality] = Field(min_length=1)
    groups: dict[str, Group] = Field({})

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
    def _parameters_are_used(self) -> Schema:
        check_parameters(self)
        return self

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
        for modality in self.modalities.values():
            for name in modality.variables:
                self._check_origin(modality, name)
        if not self.groups:
            groups = {m: Group(name=m, members=(m,)) for m in self.modalities}
            object.__setattr__(self, "groups", groups)
        return self

    def _check_origin(self, modality: Modality, name: str) -> None:
        origin, kind = modality.origin_of(name), modality.variables[name].kind
        if origin is None:
            return
        if origin.source not in self.sources:
            close = difflib.get_close_matches(origin.source, self.sources, n=1)
            hint = f"did you mean '{close[0]}'?" if close else "add it under 'sources:'"
            raise ValueError(f"variable '{name}' is from '{origin.source}', no source; {hint}")
        try:
            source = origin.over(self.sources[origin.source])
        except SettingError as error:
            raise ValueError(f"variable '{name}': {error}") from None
        keeps = ("nearest", "mode")
        if kind in ("categorical", "circular") and source.resampling not in (None, *keeps):
            raise ValueError(
                f"variable '{name}' is {kind}: '{source.resampling}' would mix its "
                f"values into others; use resampling: {' or '.join(keeps)}"
            )

    def without_origins(self) -> Schema:
        """Return the schema without grid, parameters, sources and paths, as a model stores it."""
        variables = {k: v.model_copy(update={"origin": None}) for k, v in self.variables.items()}
        modalities = self._modalities_of(variables, origin=None, chips=None)
        without: dict[str, Any] = {"grid": None, "parameters": {}, "sources": {}}
        return Schema(**{**_shallow(self), **without, "modalities": modalities})

    def _modalities_of(self, variables: dict[str, Variable], **fields: Any) -> dict[str, Modality]:
        """Return the modalities with these variables, and with other fields."""
        entries = {
            m.name: {k: variables[k] for k in m.variables if k in variables}
            for m in self.modalities.values()
        }
        return {
            name: self.modalities[name].model_copy(update={"variables": entry, **fields})
            for name, entry in entries.items()
            if entry
        }

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
        rows = _rows(self)
        widths = [min(WIDEST, max(len(r[i]) for r in rows)) for i in range(len(rows[0]))]
        lines = ["  ".join(f"{c:<{w}}" for c, w in zip(row, widths)).rstrip() for row in rows]
        choices = [f"parameter {n}: {', '.join(v)}" for n, v in self.parameters.items()]
        return "\n".join([_title(self), *(f"  {line}" for line in [*lines, *choices])])

    def __repr__(self) -> str:
        lines = [_title(self)]
        for modality in self.modalities.values():
            names = list(modality.variables)
            ellipsis = ", …" if len(names) > SHOWN else ""
            lines.append(f"  {modality.name} ({len(names)}): {', '.join(names[:SHOWN])}{ellipsis}")
        if list(self.groups) != list(self.modalities):
            lines.append(f"  groups: {', '.join(self.groups)}")
        return printable("\n".join(lines))

    def _repr_html_(self) -> str:
        head, *rows = _rows(self)
        return table_html(_title(self), head, rows)

    def replace(self, variables: dict[str, Variable]) -> Schema:
        """Return the schema with some variables replaced, by name."""
        modalities = self._modalities_of(self.variables | variables)
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
        series_variables: dict[str, Variable] = {}
        for name in names:
            variable = self.variables[name]
            calendar = {"window": variable.window} if isinstance(variable.window, str) else {}
            try:
                fields = {**_shallow(variable), **settings, **calendar}
                series_variables[name] = Variable.model_validate(fields)
            except ValidationError as error:
                raise SchemaError(_explain(error, f"variable '{name}'")) from None
        return self.replace(series_variables)

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
                options = list(self.modalities)
                hint = f"did you mean '{close[0]}'?" if close else f"there are {options}"
                raise SchemaError(f"'{name}' is not a modality or variable of the schema; {hint}")
        variables = {
            k: v
            for m in self.modalities.values()
            for k, v in m.variables.items()
            if k in names or m.name in names
        }
        modalities = self._modalities_of(variables)
        return Schema(**{**_shallow(self), "modalities": modalities, "groups": {}})

    def to_dict(self) -> dict[str, Any]:
        """Return the schema as JSON types, which :meth:`from_dict` reads."""
        return self.model_dump(mode="json", exclude_defaults=True, by_alias=True)

    @classmethod
    def from_dict(cls, data: dict[str, Any], *, location: str = "schema") -> Schema:
        """Build a schema from JSON types; ``location`` names the input in messages.

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


def _shallow(entry: FrozenFields) -> dict[str, Any]:
    return {k: getattr(entry, k) for k in entry.__class__.model_fields}


def _explain(error: ValidationError, location: str, text: str | None = None) -> str:
    return explain(error, location, text=text, top=Schema, kinds=(KINDS, source_kinds()))


def refuse_observations(schema: Schema, subject: str) -> None:
    """Refuse observations of species as predictors where nothing hides those of the species itself.

    ``subject`` states what reads them, such as "a baseline reads". Raises SchemaError.
    """
    names = [n for n, v in schema.variables.items() if v.species is not None]
    if names:
        other_names = [n for n, v in schema.variables.items() if v.species is None]
        keep = [m.name for m in schema.modalities.values() if set(m.variables) <= set(other_names)]
        raise SchemaError(
            f"{subject} all predictors, and {len(names)} are observations of species ('{names[0]}', …), among "
            f"them the label of each predicted species; leave them out with schema.subset({keep})"
        )


def frame_of(schema: Schema) -> pd.DataFrame:
    """Return a schema as a table: a row per variable, all columns."""
    import pandas as pd

    pairs = [(m, v) for m in schema.modalities.values() for v in m.variables.values()]
    rows = [(m.name, *_row(schema, m, v)[1:]) for m, v in pairs]
    return pd.DataFrame(rows, columns=list(HEAD))


def _title(schema: Schema) -> str:
    return (
        f"{schema.title or schema.name}: {len(schema.variables)} variables in "
        f"{len(schema.modalities)} modalities"
    )


def _rows(schema: Schema) -> list[list[str]]:
    """Return the headings, then a row per variable; columns without a value are left out."""
    rows = [_row(schema, m, v) for m in schema.modalities.values() for v in m.variables.values()]
    columns = [i for i in range(len(HEAD)) if i < 3 or any(r[i] for r in rows)]
    return [[row[i] for i in columns] for row in (HEAD, *rows)]


def _row(schema: Schema, modality: Any, variable: Any) -> tuple[str, ...]:
    origin = modality.origin_of(variable.name)
    source = origin.source if origin else schema.evidence.get(variable.name, "")
    modality_text = f"{modality.name} ({modality.title})" if modality.title else modality.name
    labels, values = variable.labels, f"{len(variable.classes)} classes"
    if not variable.classes:
        sizes = [f"{d} {len(labels[d])}" if d in labels else d for d in variable.dims]
        values = " × ".join(sizes)
    return modality_text, variable.name, variable.kind, variable.units or "", values, source
