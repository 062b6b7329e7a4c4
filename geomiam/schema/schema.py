"""What the predictors are: variables, modalities and groups as frozen facts.

A schema is written in a YAML catalog, inferred from a dataset, or built in Python; the three give
the same object, and a trained model carries it. Everything is matched by name.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, ValidationError, field_validator, model_validator

from geomiam.checks.names import check_folder, check_key, check_label, check_variable
from geomiam.errors import SchemaError, SettingError
from geomiam.schema.calendar_windows import is_period
from geomiam.schema.data_source import Fact, Grid, Origin, Source, source_kinds
from geomiam.schema.messages import explain
from geomiam.schema.table import digest_of, html_of, table_of
from geomiam.schema.yaml_text import load_yaml

Kind = Literal["scalar", "categorical", "circular", "series", "image", "vector"]
Breakpoints = Literal["gaussian", "quantile"]
Label = int | float | str

KINDS: tuple[str, ...] = get_args(Kind)
OWN_DIMS = {"scalar": 0, "categorical": 0, "circular": 0, "series": 1, "image": 2, "vector": 1}
"""How many dims of its own a variable of each kind has at least (series, image: channels before)."""


class Variable(Fact):
    """One predictor.

    ``dims`` are the variable's own dims, beyond place: the steps of a series, the rows and columns
    of an image chip, the features of a vector; series and images may have channel dims before.
    ``labels`` are the coordinates along them; data are matched to them by label.
    """

    name: str = Field(min_length=1)
    kind: Kind = "scalar"
    units: str | None = None
    long_name: str | None = None
    dims: tuple[str, ...] = ()
    labels: dict[str, tuple[Label, ...]] = Field({})
    window: int | str | None = Field(
        None, description="series: steps per token, or the period that one token holds: 1MS, 16D"
    )
    symbols: int | None = Field(
        None, ge=2, le=256, description="series: read each window as one of so many symbols (SAX)"
    )
    breakpoints: Breakpoints = Field(
        "gaussian",
        description="between symbols: of a normal distribution, or quantiles of the training windows",
    )
    patch: int | None = Field(None, ge=1, description="image: rows and columns per token")
    whole: bool = Field(
        False, description="series, image, vector: all values are one token, for a backbone"
    )
    period: float = Field(360.0, gt=0, description="circular: value at which it starts again")
    classes: dict[int, str] = Field({}, description="categorical: code to meaning")
    origin: Origin | None = Field(None, alias="from", description="source, and what is read there")

    @field_validator("name")
    @classmethod
    def _name_is_one_folder(cls, name: str) -> str:
        return check_variable(name)

    @field_validator("dims")
    @classmethod
    def _dims_are_folders(cls, dims: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(dims)) < len(dims):
            raise ValueError(f"dims name one dim twice: {list(dims)}; rename one")
        return tuple(check_folder(d, "dim") for d in dims)

    @field_validator("labels")
    @classmethod
    def _labels_can_be_printed(cls, labels: dict) -> dict:
        for dim, values in labels.items():
            check_folder(dim, "dim")
            for value in values:
                if isinstance(value, str):
                    check_label(value, f"label of '{dim}'")
        return labels

    @field_validator("units", "long_name", mode="before")
    @classmethod
    def _numbers_are_text(cls, value: Any) -> Any:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return f"{value:g}" if number else value  # YAML reads units: 1 as a number

    @field_validator("window", mode="before")
    @classmethod
    def _window_is_steps_or_a_period(cls, value: Any) -> Any:
        counted = isinstance(value, (int, float)) and value >= 1 and value % 1 == 0
        if value is None or counted or is_period(value):
            return int(value) if counted else value
        raise ValueError(
            "expected a period of a day or longer, such as 1MS or 16D, or a number of steps "
            f"greater than or equal to 1; found {value!r}"
        )

    @model_validator(mode="after")
    def _settings_belong_to_the_kind(self) -> Variable:
        for setting, kind in {
            "window": "series",
            "symbols": "series",
            "patch": "image",
            "classes": "categorical",
        }.items():
            if getattr(self, setting) and self.kind != kind:
                raise ValueError(
                    f"'{setting}' belongs to kind: {kind}, found kind: {self.kind}; "
                    f"set kind: {kind} or remove '{setting}'"
                )
        if self.whole and (not OWN_DIMS[self.kind] or self.window or self.patch or self.symbols):
            raise ValueError(
                f"'whole' makes one token of a series, image or vector, found kind: {self.kind}, window: "
                f"{self.window}, patch: {self.patch}, symbols: {self.symbols}; remove 'whole', or the others"
            )
        if self.breakpoints != "gaussian" and not self.symbols:
            raise ValueError(
                f"'breakpoints: {self.breakpoints}' stand between symbols, and there are none; add "
                "'symbols: 20' or remove 'breakpoints'"
            )
        if self.dims and len(self.dims) < OWN_DIMS[self.kind]:
            raise ValueError(
                f"kind: {self.kind} needs {OWN_DIMS[self.kind]} dims, found {self.dims}"
            )
        if self.dims and not OWN_DIMS[self.kind]:
            raise ValueError(f"kind: {self.kind} has no dims of its own, found {self.dims}")
        return self

    @property
    def sizes(self) -> tuple[int, ...]:
        """Length of each own dim; known once the schema is bound to data."""
        return tuple(len(self.labels[d]) for d in self.dims)

    @property
    def bound(self) -> bool:
        """Whether dims and labels are known, so that tokens can be counted."""
        return len(self.dims) >= OWN_DIMS[self.kind] and set(self.labels) == set(self.dims)


class Modality(Fact):
    """Variables that come together and go missing together; masking works per modality."""

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
        return _with_names(data, "variables")

    def origin_of(self, variable: str) -> Origin | None:
        """Return where a variable comes from: what it says itself, before what the modality says."""
        own, common = self.variables[variable].origin, self.origin
        if own is None or common is None or own.source != common.source:
            return own or common
        said = [{k: getattr(o, k) for k in o.model_fields_set} for o in (common, own)]
        return Origin(**{**said[0], **said[1]})


class Group(Fact):
    """The unit of explanation: selectors of modalities, variables or parts of them."""

    name: str = Field(min_length=1)
    members: tuple[str, ...] = Field(min_length=1)

    @field_validator("name")
    @classmethod
    def _name_is_no_path(cls, name: str) -> str:
        return check_key(name, "group")


class Schema(Fact):
    """All predictors of a model, in order.

    Parameters are keyword-only; see :meth:`from_yaml` for catalogs and
    :func:`geomiam.infer_schema` for datasets.
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
        data = _with_names(_with_names(data, "sources"), "modalities")
        groups = data.get("groups") if isinstance(data, dict) else None
        if isinstance(groups, dict):
            named = {
                k: {"members": v} if isinstance(v, (list, tuple)) else v for k, v in groups.items()
            }
            data = _with_names({**data, "groups": named}, "groups")
        return data

    @model_validator(mode="after")
    def _names_are_unique(self) -> Schema:
        seen: dict[str, str] = {}
        for modality in self.modalities.values():
            for name in modality.variables:
                if name in seen:
                    raise ValueError(
                        f"variable '{name}' is in modalities '{seen[name]}' and '{modality.name}'; "
                        "a variable has one modality: rename or remove one"
                    )
                seen[name] = modality.name
        self._check_sources()
        if not self.groups:
            own = {m: Group(name=m, members=(m,)) for m in self.modalities}
            object.__setattr__(self, "groups", own)
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
        """Return the predictors alone: what a model keeps, with no grid and no paths in it."""
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
        """Whether every variable's dims and labels are known."""
        return all(v.bound for v in self.variables.values())

    @cached_property
    def evidence(self) -> dict[str, str]:
        """Evidence for each inferred kind by variable; empty for a catalog."""
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
        every: int | str = 2,
        breakpoints: Breakpoints = "gaussian",
        variables: Collection[str] | None = None,
    ) -> Schema:
        """Return the schema with its series read as symbols, as SAX in MAESTRO (Mohapatra et al. 2025).

        Parameters
        ----------
        alphabet : int, optional
            Symbols, 2 to 256; None reads numbers again, with the windows there are.
        every : int or str
            Steps, or the period, that one symbol stands for. Windows that are periods of the
            calendar stay.
        breakpoints : {"gaussian", "quantile"}
            See :func:`geomiam.tokens.symbols.breakpoints`.
        variables : collection of str, optional
            Which series; default all.

        Raises
        ------
        SchemaError
            If a name is no series of the schema, there is no series, or a setting is out of bounds.
        """
        series = [n for n, v in self.variables.items() if v.kind == "series"]
        chosen = list(series if variables is None else variables)
        if not chosen or set(chosen) - set(series):
            raise SchemaError(
                f"symbols are for series; asked for {chosen}, found the series {series}: pass "
                "variables=[...] with some of them, or set kind: series in the catalog"
            )
        facts: dict[str, Any] = {"symbols": None, "breakpoints": "gaussian"}
        if alphabet is not None:
            facts = {"window": every, "symbols": alphabet, "breakpoints": breakpoints}
        return self.replace({n: _with(self.variables[n], facts) for n in chosen})

    def subset(self, names: Collection[str]) -> Schema:
        """Return the schema of some modalities or variables only, with a group for each modality.

        Raises
        ------
        SchemaError
            If a name is no modality or variable, with the nearest one.
        """
        known = [*self.modalities, *self.variables]
        for name in names:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = (
                    f"did you mean '{close[0]}'?" if close else f"there are {list(self.modalities)}"
                )
                raise SchemaError(f"'{name}' is no modality or variable of the schema; {hint}")
        kept = {
            m.name: {k: v for k, v in m.variables.items() if k in names or m.name in names}
            for m in self.modalities.values()
        }
        modalities = {
            name: self.modalities[name].model_copy(update={"variables": variables})
            for name, variables in kept.items()
            if variables
        }
        return Schema(**{**_shallow(self), "modalities": modalities, "groups": {}})

    def to_dict(self) -> dict:
        """Return plain JSON types; ``Schema.from_dict`` reads them back."""
        return self.model_dump(mode="json", exclude_defaults=True, by_alias=True)

    @classmethod
    def from_dict(cls, data: dict, *, where: str = "schema") -> Schema:
        """Build a schema from plain types.

        Raises
        ------
        SchemaError
            With one line for each wrong key: where it is, what was found, what would be right.
        """
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise SchemaError(_explain(error, where)) from None

    @classmethod
    def from_yaml(cls, path: str | Path) -> Schema:
        """Read a catalog.

        Raises
        ------
        SchemaError
            As :meth:`from_dict`, with line numbers.
        """
        data, text = load_yaml(path)
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise SchemaError(_explain(error, str(path), text)) from None


def _shallow(fact: Fact) -> dict:
    return {k: getattr(fact, k) for k in fact.__class__.model_fields}


def _with(variable: Variable, facts: dict[str, Any]) -> Variable:
    """Change a variable; a window that is a period of the calendar stays."""
    kept = {"window": variable.window} if isinstance(variable.window, str) else {}
    try:
        return Variable.model_validate({**_shallow(variable), **facts, **kept})
    except ValidationError as error:
        where = f"variable '{variable.name}'"
        raise SchemaError(_explain(error, where)) from None


def _with_names(data: Any, key: str) -> Any:
    """Put each mapping key of ``data[key]`` into its record as ``name``."""
    if not isinstance(data, dict) or not isinstance(data.get(key), dict):
        return data
    named = {k: ({} if v is None else v) for k, v in data[key].items()}
    named = {k: {"name": k, **v} if isinstance(v, dict) else v for k, v in named.items()}
    return {**data, key: named}


def _explain(error: ValidationError, where: str, text: str | None = None) -> str:
    return explain(error, where, text=text, top=Schema, kinds=(KINDS, source_kinds()))
