"""Occurrence tables: reading them, finding their coordinates and their species."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from geomiam.errors import OccurrenceError
from geomiam.outputs.paths import expand

DEGREES = (
    ("lon", "lat"),
    ("longitude", "latitude"),
    ("decimallongitude", "decimallatitude"),
    ("lng", "lat"),
    ("long", "lat"),
)
PAIRS = (*DEGREES, ("x", "y"))
"""Degrees first: their CRS is known, that of x and y is a guess."""


@dataclass(frozen=True)
class Points:
    """Where the rows of a table are."""

    x: np.ndarray
    """Eastings or longitudes, ``(row,)``; NaN where unknown."""
    y: np.ndarray
    """Northings or latitudes, ``(row,)``."""
    crs: Any
    """CRS of both; None for the grid's own."""
    names: tuple[str, str]
    """What the columns are called, for messages."""


@dataclass(frozen=True)
class Records:
    """What was recorded in the rows of a table."""

    codes: np.ndarray
    """Long tables: the species of each row, ``(row,)``; -1 where none is named."""
    values: np.ndarray
    """1, 0, or NaN for not surveyed: ``(row,)`` of long, ``(row, species)`` of wide tables."""
    names: np.ndarray
    """Names of the species, ``(species,)``."""


def read_table(source: Any) -> pd.DataFrame:
    """Return a DataFrame or GeoDataFrame.

    Raises
    ------
    OccurrenceError
        For formats that are not read.
    """
    if isinstance(source, pd.DataFrame):
        return source
    source = expand(source) if isinstance(source, (str, Path)) else source
    name = str(source).lower()
    if name.endswith((".csv", ".csv.gz")):
        return pd.read_csv(source)
    if name.endswith((".parquet", ".pq")):
        return pd.read_parquet(source)
    if name.endswith((".gpkg", ".geojson", ".shp", ".fgb")):
        import geopandas

        return geopandas.read_file(source)
    raise OccurrenceError(
        f"occurrences are a DataFrame, a GeoDataFrame or a path to csv, csv.gz, parquet or gpkg, "
        f"found {Path(source).name if isinstance(source, (str, Path)) else type(source).__name__}; "
        "read it with pandas or geopandas and pass the table"
    )


def locate(table: pd.DataFrame, *, x: str | None, y: str | None, crs: Any) -> Points:
    """Return the coordinates of every row.

    Raises
    ------
    OccurrenceError
        When no pair of columns is recognised, or a geometry is not a point or has no CRS.
    """
    if x is None and y is None and hasattr(table, "geometry"):
        return _of_geometry(table, crs)
    names = (x, y) if x is not None and y is not None else _guess(table, x=x, y=y)
    need_columns(table, names, setting="x=, y=")
    known = {name.lower() for name in names} <= {n for pair in DEGREES for n in pair}
    crs = "EPSG:4326" if crs is None and known else crs
    xs, ys = (numbers(table, n) for n in names)
    return Points(xs, ys, crs, (str(names[0]), str(names[1])))


def _guess(table: pd.DataFrame, *, x: str | None, y: str | None) -> tuple[str, str]:
    if x is not None or y is not None:
        raise OccurrenceError(f"pass both x= and y=, found x={x!r}, y={y!r}")
    columns = {str(c).lower(): c for c in reversed(table.columns)}
    for pair in PAIRS:
        if set(pair) <= set(columns):
            return columns[pair[0]], columns[pair[1]]
    raise OccurrenceError(
        f"no coordinate columns such as lon, lat or x, y; found columns {list(table.columns)}: "
        "name them with x='...', y='...'"
    )


def _of_geometry(table: Any, crs: Any) -> Points:
    points = table.geometry
    if (points.geom_type.dropna() != "Point").any():
        kinds = sorted(set(points.geom_type.dropna()))
        raise OccurrenceError(
            f"geometries are {kinds}, not points; use table.set_geometry(table.centroid)"
        )
    crs = table.crs if table.crs is not None else crs
    if crs is None:
        raise OccurrenceError(
            "the GeoDataFrame has no CRS; set it with table.set_crs('EPSG:4326') or pass crs="
        )
    empty = np.asarray(points.isna() | points.is_empty)
    xs, ys = (np.where(empty, np.nan, np.asarray(c, float)) for c in (points.x, points.y))
    return Points(xs, ys, crs, ("geometry x", "geometry y"))


def need_columns(table: pd.DataFrame, names: Sequence[str | None], *, setting: str) -> None:
    """Raise an error that lists the columns there are, unless all names are among them."""
    if missing := [n for n in names if n not in table.columns]:
        raise OccurrenceError(
            f"{setting} names {missing}, but the table has columns {list(table.columns)}"
        )


def numbers(table: pd.DataFrame, name: str | None) -> np.ndarray:
    """Return a column as float64.

    Raises
    ------
    OccurrenceError
        When it holds text.
    """
    try:
        return table[name].to_numpy(dtype="float64", na_value=np.nan)
    except (ValueError, TypeError):
        raise OccurrenceError(
            f"column '{name}' holds {table[name].dtype}, not numbers; "
            f"convert it with pd.to_numeric(table['{name}'])"
        ) from None


def read_records(
    table: pd.DataFrame, *, species: str | Sequence[str], presence: str = "presence"
) -> Records:
    """Return the records of a long or a wide table.

    Raises
    ------
    OccurrenceError
        When a column is missing or holds no presences.
    """
    if not isinstance(species, str):
        need_columns(table, species, setting="species=")
        wide = np.stack([_to_presence(table, n) for n in species], axis=1)
        return Records(np.zeros(len(table), int), wide, np.array([str(s) for s in species]))
    if species not in table.columns:
        raise OccurrenceError(
            f"no species column '{species}'; found columns {list(table.columns)}: pass species=..., "
            "species=[...] with one column per species, or table.assign(species='Quercus ilex')"
        )
    if presence != "presence":
        need_columns(table, [presence], setting="presence=")
    codes, names = pd.factorize(table[species].astype("object"), sort=True)
    ones = np.ones(len(table), dtype="float32")
    values = _to_presence(table, presence) if presence in table.columns else ones
    return Records(codes, values, np.array([str(n) for n in names]))


def _to_presence(table: pd.DataFrame, name: str) -> np.ndarray:
    values = numbers(table, name)
    if (values < 0).any():
        raise OccurrenceError(
            f"column '{name}' has negative values, down to {np.nanmin(values):g}; expected 1, 0, "
            f"counts, or NaN for not surveyed: table['{name}'].where(table['{name}'] >= 0)"
        )
    return np.where(np.isnan(values), np.nan, values > 0).astype("float32")
