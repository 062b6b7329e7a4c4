"""Where variables come from, as frozen facts: the grid of a cube, its sources, and what is taken from them."""

from __future__ import annotations

import difflib
import math
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from geomiam.checks.names import check_key
from geomiam.errors import SettingError

Decode = Literal["signed-square"]
Derived = Literal["slope", "aspect"]

BELONGS = {
    "tiles": ("raster",),
    "overview": ("raster",),
    "decode": ("raster", "netcdf", "zarr"),
    "select": ("netcdf", "zarr"),
    "derive": ("derived",),
    "of": ("derived",),
    **dict.fromkeys(
        (
            *("collection", "query", "time", "mask", "snow", "dilate", "max_cloud", "composite"),
            "on_error",
        ),
        ("stac",),
    ),
    "hosts": ("raster", "stac"),
}
"""Keys of a source that only some kinds know."""
FORMATS: dict[str, Any] = {
    "raster": "geomiam.sources.rasters.geotiff:GeoTIFF",
    "netcdf": "geomiam.sources.rasters.labelled:NetCDF",
    "zarr": "geomiam.sources.rasters.labelled:ZarrStore",
}
"""File formats by the ``kind`` that a catalog gives a source. A new one is a class that satisfies
:class:`geomiam.sources.rasters.formats.Format`, and a line here with the class, or with the place of its
definition, since the schema imports no reader."""


def source_kinds() -> tuple[str, ...]:
    """Return the kinds that a source can have: file formats, STAC, and what is computed."""
    return (*FORMATS, "stac", "derived")


if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)  # pydantic has no public name for it


class _Refusing(ModelMetaclass):
    """Calls of a class with wrong fields raise a GeomiamError; validation inside pydantic does not."""

    if not TYPE_CHECKING:

        def __call__(cls, *args: Any, **fields: Any) -> Any:
            try:
                return super().__call__(*args, **fields)
            except ValidationError as error:
                raise SettingError(
                    f"{cls.__name__}: {finding(error, tuple(cls.model_fields))}"
                ) from None


def finding(error: ValidationError, fields: tuple[str, ...] = ()) -> str:
    """Return what pydantic found, on one line: field, message, value.

    Parameters
    ----------
    error : pydantic.ValidationError
    fields : tuple of str
        Fields that there are, to name the nearest one of an unknown field.
    """
    return "; ".join(_line(item, fields) for item in error.errors())


def _line(item: Any, fields: tuple[str, ...]) -> str:
    field = ".".join(map(str, item["loc"]))
    if item["type"] == "extra_forbidden":
        close = difflib.get_close_matches(field, fields, n=1) or fields
        return (
            f"unknown field '{field}' (value {_brief(item['input'])}); fields: {', '.join(close)}"
        )
    message = item["msg"].removeprefix("Value error, ")
    value = "" if item["type"] in ("value_error", "missing") else f"; found {_brief(item['input'])}"
    return f"{field}: {message}{value}" if field else f"{message}{value}"


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"


class Fact(BaseModel, metaclass=_Refusing):
    """A frozen record whose unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


RESAMPLING = (
    "nearest",
    "bilinear",
    "cubic",
    "cubic_spline",
    "lanczos",
    "average",
    "mode",
    "max",
    "min",
    "med",
    "q1",
    "q3",
    "sum",
    "rms",
)
"""What GDAL can make of the cells of a source."""


class Grid(Fact):
    """The grid of a cube.

    ``resolution`` is in units of the CRS; ``bounds`` are ``[xmin, ymin, xmax, ymax]`` in it.
    """

    crs: str = Field(min_length=1)
    resolution: float = Field(gt=0)
    bounds: tuple[float, float, float, float] | None = None

    @model_validator(mode="after")
    def _numbers_are_finite(self) -> Grid:
        numbers = [self.resolution, *(self.bounds or ())]
        if not all(map(math.isfinite, numbers)):
            raise ValueError(f"resolution and bounds are finite numbers, found {numbers}")
        return self

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> Grid:
        if self.bounds and not (
            self.bounds[0] < self.bounds[2] and self.bounds[1] < self.bounds[3]
        ):
            raise ValueError(f"bounds are [xmin, ymin, xmax, ymax], found {list(self.bounds)}")
        return self


class Reading(Fact):
    """How numbers are taken from a source; a source says what holds for all its variables.

    ``path`` may name ``{variable}``, own dims such as ``{month:02d}``, and tiles by ``{ns}``,
    ``{lat:02d}``, ``{ew}``, ``{lon:03d}``. Values are ``raw × scale + offset``; what is not given
    is as the file declares.
    """

    path: str | tuple[str, ...] | None = None
    variable: str | None = Field(None, description="name inside the file, and in path")
    band: int | str | tuple[int | str, ...] | None = Field(
        None, description="from 1, name or 'all'"
    )
    select: dict[str, Any] = Field(
        {}, description="netcdf, zarr: a label along a dim, which goes, or [first, last]"
    )
    scale: float | None = None
    offset: float | None = None
    nodata: float | tuple[float, ...] | None = None
    decode: Decode | None = Field(None, description="applied after scale and offset")
    resampling: str | None = None
    crs: str | None = Field(None, description="where the file does not say it")
    tiles: float | None = Field(
        None, gt=0, le=360, allow_inf_nan=False, description="raster: side of the tiles, degrees"
    )
    overview: int | None = Field(None, ge=0, le=30, description="raster: overview to read, from 0")
    derive: Derived | None = None
    of: str | None = Field(None, description="derived: the variable of elevation")

    @field_validator("resampling")
    @classmethod
    def _resampling_exists(cls, name: str | None) -> str | None:
        if name is not None and name not in RESAMPLING:
            close = difflib.get_close_matches(name, RESAMPLING, n=1) or RESAMPLING
            raise ValueError(f"no resampling '{name}'; use {', '.join(close)}")
        return name

    @field_validator("band", "path")
    @classmethod
    def _something_is_named(cls, value: Any) -> Any:
        if value in ((), "", ("",)):
            raise ValueError(f"names nothing, found {value!r}; name one or leave the key out")
        return value

    @field_validator("scale", "offset")
    @classmethod
    def _packing_is_finite(cls, value: float | None) -> float | None:
        if value is not None and not math.isfinite(value):
            raise ValueError(f"expected a finite number, found {value}")
        return value


class Source(Reading):
    """A place that data come from.

    ``root`` is a directory or URL before relative paths; a relative root is relative to the catalog.
    Of ``kind: stac`` it is the catalogue, as ``source=`` of :func:`geomiam.sentinel2`.
    """

    name: str = Field(min_length=1)
    kind: str = "raster"
    root: str | None = None
    title: str | None = None
    license: str | None = None
    citation: str | None = None
    collection: str | None = Field(None, description="stac: which of the catalogue's")
    query: dict[str, dict[str, Any]] = Field({}, description="stac: conditions on properties")
    time: str | None = None
    mask: str | tuple[int, ...] | None = "scl"
    snow: Literal["mask", "keep"] = "mask"
    dilate: str | float = "20m"
    max_cloud: float | None = None
    composite: str | None = None
    on_error: Literal["nan", "raise"] = "nan"
    hosts: tuple[str, ...] = Field(
        (), description="raster, stac: further hosts that files may be read from"
    )

    @field_validator("name")
    @classmethod
    def _name_is_no_path(cls, name: str) -> str:
        return check_key(name, "source")

    @field_validator("kind")
    @classmethod
    def _kind_is_there(cls, kind: str) -> str:
        if kind not in source_kinds():
            raise ValueError(f"'{kind}' is not a kind; use one of {', '.join(source_kinds())}")
        return kind

    @model_validator(mode="after")
    def _keys_belong_to_the_kind(self) -> Source:
        wrong = [k for k in self.model_fields_set if self.kind not in BELONGS.get(k, (self.kind,))]
        if wrong:
            raise ValueError(
                f"'{wrong[0]}' belongs to kind: {' or '.join(BELONGS[wrong[0]])}, found kind: "
                f"{self.kind}; remove '{wrong[0]}' or set another kind"
            )
        if self.kind == "stac" and not self.time:
            raise ValueError("kind: stac needs 'time:', such as time: 2021-04/2021-09")
        return self


class Origin(Reading):
    """What one variable takes from a source; ``from: name`` is short for ``from: {source: name}``."""

    source: str = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, data: Any) -> Any:
        return {"source": data} if isinstance(data, str) else data

    def over(self, source: Source) -> Source:
        """Return the source with what is said here in place of what it says for all."""
        said = {k: getattr(self, k) for k in self.model_fields_set if k != "source"}
        base = {k: getattr(source, k) for k in source.model_fields_set}
        return Source(**{**base, **said})
