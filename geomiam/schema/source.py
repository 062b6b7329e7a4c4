"""Entries of a catalog: the grid of a cube, its sources, and how variables are read from them."""

from __future__ import annotations

import difflib
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, FiniteFloat, field_validator, model_validator

from geomiam.checks.names import check_key
from geomiam.outputs.paths import expand, is_remote
from geomiam.schema.fields import FrozenFields

Decode = Literal["signed-square"]
Derived = Literal["slope", "aspect"]

BELONGS = {
    **dict.fromkeys(("index", "overview"), ("raster",)),
    **dict.fromkeys(("derive", "of"), ("derived",)),
    **dict.fromkeys(
        "collection product query time mask snow dilate max_cloud composite overviews on_error".split(),
        ("stac",),
    ),
    "decode": ("raster", "netcdf", "zarr"),
    "tiles": ("raster", "zarr"),
    **dict.fromkeys(("select", "scale_variable"), ("netcdf", "zarr")),
    "hosts": ("raster", "stac"),
    "allow": ("zarr",),
}
"""Kinds of source that support a key; other keys are supported by all kinds."""
TILE_KEYS = ("ns", "lat", "ew", "lon", "zone")
"""Fields of a path that name a tile by its south-western corner, or its UTM zone."""
INDEXES = (".parquet", ".vrt")
"""Endings of the indexes of tiles that can be read."""
FORMATS: dict[str, Any] = {
    "raster": "geomiam.sources.rasters.geotiff:GeoTIFF",
    "netcdf": "geomiam.sources.rasters.netcdf_zarr:NetCDF",
    "zarr": "geomiam.sources.rasters.netcdf_zarr:ZarrStore",
}
"""File formats by the ``kind`` of a source. A new format needs a class that satisfies
:class:`geomiam.sources.rasters.formats.Format` and a line here, with the class or with its import path,
since the schema imports no reader."""


def source_kinds() -> tuple[str, ...]:
    """Return the kinds of a source: file formats, STAC, and computed variables."""
    return (*FORMATS, "stac", "derived")


RESAMPLING = tuple(
    "nearest bilinear cubic cubic_spline lanczos average mode max min med q1 q3 sum rms".split()
)
"""Resampling methods of GDAL."""


class Grid(FrozenFields):
    """The grid of a cube.

    ``resolution`` and ``bounds`` are in units of the CRS; ``bounds`` are ``[xmin, ymin, xmax, ymax]``.
    """

    crs: str = Field(min_length=1)
    resolution: FiniteFloat = Field(gt=0)
    bounds: tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat] | None = None

    @field_validator("bounds")
    @classmethod
    def _bounds_are_in_order(cls, bounds: tuple[float, ...] | None) -> Any:
        if bounds is not None and (bounds[0] >= bounds[2] or bounds[1] >= bounds[3]):
            raise ValueError(f"bounds are [xmin, ymin, xmax, ymax], found {list(bounds)}")
        return bounds


class TileIndex(FrozenFields):
    """The index of a product of many GeoTIFFs: a table of their bounds, or a VRT; those under a grid are read.

    ``path`` may contain fields, as the path of a source. A table has the columns ``path`` and
    ``wgs84_west``, ``wgs84_south``, ``wgs84_east`` and ``wgs84_north`` in degrees. The files lie below the
    folder of the index.
    """

    path: str = Field(min_length=1)
    prefix: str | None = Field(
        None, description="start of the paths in the index, in place of which its folder is taken"
    )
    where: dict[str, int | float | str] = Field(
        {}, description="table: value of a column in the rows that are read, such as year: 2024"
    )

    @model_validator(mode="before")
    @classmethod
    def _path_alone(cls, data: Any) -> Any:
        return {"path": data} if isinstance(data, str) else data

    @model_validator(mode="after")
    def _form_can_be_read(self) -> TileIndex:
        if not self.path.lower().endswith(INDEXES):
            raise ValueError(f"an index ends in {' or '.join(INDEXES)}, found path: {self.path}")
        if self.where and not self.path.lower().endswith(".parquet"):
            raise ValueError(f"'where' selects rows of a table (.parquet), found path: {self.path}")
        return self


class ReadOptions(FrozenFields):
    """Options for reading a variable; those of a source are the default of all its variables.

    ``path`` may contain ``{variable}``, dims of the variable such as ``{month:02d}``, and tiles as
    ``{ns}``, ``{lat:02d}``, ``{ew}``, ``{lon:03d}``, or ``{zone:02d}``. Values are
    ``raw × scale + offset``. Options that are not set are taken from the file.
    """

    path: str | tuple[str, ...] | None = None
    index: TileIndex | None = Field(None, description="raster: index of tiles, in place of path")
    variable: str | None = Field(None, description="name inside the file, and in path")
    band: int | str | tuple[int | str, ...] | None = Field(
        None, description="from 1, name or 'all'"
    )
    select: dict[str, Any] = Field(
        {}, description="netcdf, zarr: a label along a dim, which is dropped, or [first, last]"
    )
    scale: FiniteFloat | None = None
    offset: FiniteFloat | None = None
    nodata: float | tuple[float, ...] | None = None
    decode: Decode | None = Field(None, description="applied after scale and offset")
    resampling: str | None = None
    period: str | None = Field(None, description="year or period of the data, such as 2024")
    crs: str | None = Field(None, description="CRS of files that declare none")
    tiles: Annotated[FiniteFloat, Field(gt=0, le=360)] | Literal["utm"] | None = Field(
        None, description="raster, zarr: side of the tiles in degrees, or utm: a file for each zone"
    )
    scale_variable: str | None = Field(
        None, description="netcdf, zarr: variable with a factor for each pixel; not finite: missing"
    )
    overview: int | None = Field(None, ge=0, le=30, description="raster: overview to read, from 0")
    derive: Derived | None = None
    of: str | None = Field(None, description="derived: the variable of elevation")

    @field_validator("period", mode="before")
    @classmethod
    def _years_are_text(cls, value: Any) -> Any:
        return (
            str(value) if isinstance(value, int) else value
        )  # YAML reads period: 2024 as a number

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
            raise ValueError(f"expected a name, found {value!r}; add one or remove the key")
        return value


class Source(ReadOptions):
    """Files or a STAC catalog that variables are read from.

    ``root`` is a directory or URL that relative paths start from. A relative root is relative to the
    catalog. For ``kind: stac`` it is the STAC catalog, as ``source=`` of :func:`geomiam.sentinel2`.
    """

    name: Annotated[str, Field(min_length=1), AfterValidator(partial(check_key, kind="source"))]
    kind: str = "raster"
    root: str | None = None
    title: str | None = None
    license: str | None = None
    citation: str | None = None
    collection: str | None = Field(None, description="stac: collection of the STAC catalog")
    product: Literal["sentinel2", "landsat", "sentinel1"] = Field(
        "sentinel2", description="stac: kind of scenes, as the functions of these names read them"
    )
    query: dict[str, dict[str, Any]] = Field({}, description="stac: conditions on properties")
    time: str | None = None
    mask: str | tuple[int, ...] | None = "auto"
    snow: Literal["mask", "keep"] = "mask"
    dilate: str | float = "20m"
    max_cloud: float | None = None
    composite: str | None = None
    overviews: bool = False
    on_error: Literal["nan", "raise"] = "nan"
    hosts: tuple[str, ...] = Field(
        (), description="raster, stac: further hosts that files may be read from"
    )
    allow: tuple[str, ...] = Field(
        (), description="zarr: folders and URLs that references may lead to, beside their folder"
    )

    @field_validator("allow")
    @classmethod
    def _places_are_complete(cls, places: tuple[str, ...]) -> tuple[str, ...]:
        for place in places:
            if not (is_remote(place) or Path(expand(place)).is_absolute()):
                raise ValueError(f"'allow' has the folder {place}; write its full path")
        return places

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
        if self.max_cloud is not None and self.product == "sentinel1":
            raise ValueError(
                "'max_cloud' is for optical scenes, since radar has no cloud cover; remove it"
            )
        if self.kind == "stac" and not self.time:
            raise ValueError("kind: stac needs 'time:', such as time: 2021-04/2021-09")
        return self


class Origin(ReadOptions):
    """Source and options of one variable; ``from: name`` is short for ``from: {source: name}``."""

    source: str = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, data: Any) -> Any:
        return {"source": data} if isinstance(data, str) else data

    def over(self, source: Source) -> Source:
        """Return the source with the options of this variable in place of those of the source."""
        options = {k: getattr(self, k) for k in self.model_fields_set if k != "source"}
        defaults = {k: getattr(source, k) for k in source.model_fields_set}
        return Source(**{**defaults, **options})
