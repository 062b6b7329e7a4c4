"""Variables, one predictor each; modalities, which go missing together; groups, which are explained as one."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field, field_validator, model_validator

from geomiam.checks.names import check_folder, check_key, check_label, check_variable
from geomiam.schema.calendar_windows import is_period
from geomiam.schema.fields import FrozenFields
from geomiam.schema.source import Origin

Kind = Literal["scalar", "categorical", "circular", "series", "image", "vector"]
Breakpoints = Literal["gaussian", "quantile"]
Label = int | float | str

KINDS: tuple[str, ...] = get_args(Kind)
OWN_DIMS = {"scalar": 0, "categorical": 0, "circular": 0, "series": 1, "image": 2, "vector": 1}
"""Least number of dims of a variable beyond place, by kind. Series and images may have channels before."""


class Variable(FrozenFields):
    """One predictor.

    ``dims`` are the dims of the variable beyond place: the steps of a series, the rows and columns
    of an image chip, the features of a vector. Series and images may have channel dims before.
    ``labels`` are the coordinates along them, by which data are matched.

    Raises
    ------
    SettingError
        If settings contradict each other or the kind.

    Examples
    --------
    >>> import geomiam as gm
    >>> gm.Variable(name="ndvi", kind="series", dims=("month",), window=3).bound
    False
    """

    name: Annotated[str, Field(min_length=1), AfterValidator(check_variable)]
    kind: Kind = "scalar"
    units: str | None = None
    long_name: str | None = None
    dims: tuple[str, ...] = ()
    labels: dict[str, tuple[Label, ...]] = Field({})
    window: int | str | None = Field(
        None, description="series: steps per token, or the period that one token holds: 1MS, 16D"
    )
    symbols: int | None = Field(
        None,
        ge=2,
        le=256,
        description="series: number of symbols, one of which replaces each window (SAX)",
    )
    breakpoints: Breakpoints = Field(
        "gaussian",
        description="between symbols: of a normal distribution, or quantiles of the training windows",
    )
    patch: int | None = Field(None, ge=1, description="image: rows and columns per token")
    whole: bool = Field(
        False, description="series, image, vector: all values are one token, for a backbone"
    )
    period: float = Field(360.0, gt=0, description="circular: value that is equal to 0")
    classes: dict[int, str] = Field({}, description="categorical: code to meaning")
    species: str | None = Field(
        None,
        description="scalar: species whose observations (1, 0) these are; hidden where it is predicted",
    )
    year: int | None = Field(
        None, description="vector, image: year of the data that a model was trained with"
    )
    origin: Origin | None = Field(
        None, alias="from", description="source, and options for reading it"
    )

    @field_validator("dims")
    @classmethod
    def _dims_are_folders(cls, dims: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(dims)) < len(dims):
            raise ValueError(f"dims name one dim twice: {list(dims)}; rename one")
        return tuple(check_folder(d, "dim") for d in dims)

    @field_validator("labels")
    @classmethod
    def _labels_can_be_printed(cls, labels: dict[str, Any]) -> dict[str, Any]:
        for dim, values in labels.items():
            check_folder(dim, "dim")
            for value in values:
                if isinstance(value, str):
                    check_label(value, f"label of '{dim}'")
        return labels

    @field_validator("species")
    @classmethod
    def _species_can_be_printed(cls, name: str | None) -> str | None:
        return None if name is None else check_label(name, "species")

    @field_validator("units", "long_name", mode="before")
    @classmethod
    def _numbers_are_text(cls, value: Any) -> Any:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return f"{value:g}" if number else value  # YAML reads units: 1 as a number

    @field_validator("window", mode="before")
    @classmethod
    def _window_is_steps_or_a_period(cls, value: Any) -> Any:
        is_count = isinstance(value, (int, float)) and value >= 1 and value % 1 == 0
        if value is None or is_count or is_period(value):
            return int(value) if is_count else value
        raise ValueError(
            "expected a period of a day or longer, such as 1MS or 16D, or a number of steps "
            f"greater than or equal to 1; found {value!r}"
        )

    @model_validator(mode="after")
    def _settings_belong_to_the_kind(self) -> Variable:
        kind_of = {
            "window": "series",
            "symbols": "series",
            "patch": "image",
            "classes": "categorical",
            "species": "scalar",
        }
        for setting, kind in kind_of.items():
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
                f"'breakpoints: {self.breakpoints}' separate symbols, but 'symbols' is not set; add "
                "'symbols: 20' or remove 'breakpoints'"
            )
        if self.dims and len(self.dims) < OWN_DIMS[self.kind]:
            raise ValueError(
                f"kind: {self.kind} needs {OWN_DIMS[self.kind]} dims, found {self.dims}"
            )
        if self.dims and not OWN_DIMS[self.kind]:
            raise ValueError(f"kind: {self.kind} takes no dims, found {self.dims}")
        return self

    @property
    def sizes(self) -> tuple[int, ...]:
        """Length of each dim; available once the schema is bound to data."""
        return tuple(len(self.labels[d]) for d in self.dims)

    @property
    def bound(self) -> bool:
        """Whether dims and labels are set, so that tokens can be counted."""
        return len(self.dims) >= OWN_DIMS[self.kind] and set(self.labels) == set(self.dims)


class Modality(FrozenFields):
    """Variables that are collected together and go missing together; masking works per modality.

    Examples
    --------
    >>> import geomiam as gm
    >>> bio1 = gm.Variable(name="bio1")
    >>> list(gm.Modality(name="climate", variables={"bio1": bio1}).variables)
    ['bio1']
    """

    name: Annotated[str, Field(min_length=1), AfterValidator(partial(check_key, kind="modality"))]
    variables: dict[str, Variable] = Field(min_length=1)
    title: str | None = None
    source: str | None = None
    license: str | None = None
    citation: str | None = None
    origin: Origin | None = Field(None, alias="from", description="for all its variables")
    chips: int | None = Field(
        None, ge=2, le=4096, description="cells of the source's grid per side of a cell"
    )

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

    name: Annotated[str, Field(min_length=1), AfterValidator(partial(check_key, kind="group"))]
    members: tuple[str, ...] = Field(min_length=1)


def with_names(data: Any, key: str) -> Any:
    """Put each key of the mapping ``data[key]`` into its entry as ``name``."""
    if not isinstance(data, dict) or not isinstance(data.get(key), dict):
        return data
    entries = {k: ({} if v is None else v) for k, v in data[key].items()}
    entries = {k: {"name": k, **v} if isinstance(v, dict) else v for k, v in entries.items()}
    return {**data, key: entries}
