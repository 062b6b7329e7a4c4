"""Coordinates of occurrence tables, from columns, geometries or well-known text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from geomiam.errors import OccurrenceError

DEGREES = (
    ("lon", "lat"),
    ("longitude", "latitude"),
    ("decimallongitude", "decimallatitude"),
    ("lng", "lat"),
    ("long", "lat"),
    ("decimal_longitude", "decimal_latitude"),
)
PAIRS = (*DEGREES, ("x", "y"), ("xcoord", "ycoord"), ("easting", "northing"))
"""Pairs of column names; degrees come first, because their CRS is certain."""
TEXT_NAMES = ("geometry", "geom", "wkt", "footprintwkt", "the_geom")
POINT = r"\s*(?:SRID=\d+;)?POINT\s*[ZM]*\s*\(\s*(\S+)\s+([^\s)]+)[^)]*\)\s*"
"""Regular expression for a point as well-known text."""


@dataclass(frozen=True)
class Points:
    """Coordinates of the rows of a table."""

    x: np.ndarray
    """Eastings or longitudes, ``(row,)``; NaN where unknown."""
    y: np.ndarray
    """Northings or latitudes, ``(row,)``."""
    crs: Any
    """CRS of both coordinates; None for the CRS of the grid."""
    names: tuple[str, str]
    """Names of the two columns, for messages."""


def locate(
    table: pd.DataFrame, *, x: str | None = None, y: str | None = None, crs: Any = None
) -> Points:
    """Return the coordinates of every row.

    Raises
    ------
    OccurrenceError
        When no pair of columns is recognised, or geometries are not points or have no CRS.
    """
    if x is None and y is None:
        if hasattr(getattr(table, "geometry", None), "geom_type"):
            return _of_geometry(table, crs)
        if _pair(table) is None and (name := _text_column(table)) is not None:
            return _of_text(table, name, crs)
    names = (x, y) if x is not None and y is not None else _guess(table, x=x, y=y)
    check_columns(table, names, setting="x=, y=")
    is_degrees = {name.lower() for name in names} <= {n for pair in DEGREES for n in pair}
    crs = "EPSG:4326" if crs is None and is_degrees else crs
    xs, ys = (numbers(table, n) for n in names)
    return Points(xs, ys, crs, (str(names[0]), str(names[1])))


def has_coordinates(table: pd.DataFrame) -> bool:
    """Return whether a table has points, or columns that are recognised as coordinates."""
    is_geometry = hasattr(getattr(table, "geometry", None), "geom_type")
    return is_geometry or _pair(table) is not None or _text_column(table) is not None


def _guess(table: pd.DataFrame, *, x: str | None, y: str | None) -> tuple[str, str]:
    if x is not None or y is not None:
        raise OccurrenceError(f"pass both x= and y=, found x={x!r}, y={y!r}")
    if (pair := _pair(table)) is not None:
        return pair
    raise OccurrenceError(
        f"no coordinate columns such as lon, lat or x, y; found columns {list(table.columns)}: "
        "name them with gm.read_records(table, x='...', y='...')"
    )


def _pair(table: pd.DataFrame) -> tuple[str, str] | None:
    columns = {str(c).lower(): c for c in reversed(table.columns)}
    pairs = (pair for pair in PAIRS if set(pair) <= set(columns))
    return next(((columns[a], columns[b]) for a, b in pairs), None)


def _text_column(table: pd.DataFrame) -> str | None:
    """Return the column whose first value is a point as well-known text."""
    columns = {str(c).lower(): c for c in reversed(table.columns)}
    candidates = [columns[n] for n in TEXT_NAMES if n in columns]
    first = ((c, table[c].dropna().astype(str)) for c in candidates)
    return next((c for c, v in first if len(v) and re.fullmatch(POINT, v.iloc[0], re.I)), None)


def _of_text(table: pd.DataFrame, name: str, crs: Any) -> Points:
    """Read well-known text, which has no CRS: coordinates that can be degrees count as degrees."""
    text = table[name].astype("string")
    xy = text.str.extract(POINT, flags=re.I).to_numpy(dtype=float, na_value=np.nan)
    if unreadable := int(
        (np.isnan(xy[:, 0]) & text.notna() & ~text.str.contains("EMPTY", na=True)).sum()
    ):
        raise OccurrenceError(
            f"{unreadable} of {len(text)} values of '{name}' are not points as well-known text; read them with "
            "geopandas.GeoSeries.from_wkt and pass their centroids"
        )
    if crs is None and not (np.abs(xy[np.isfinite(xy).all(1)]) <= [360, 90]).all():
        raise OccurrenceError(
            f"the points in '{name}' have no CRS and are not degrees; pass crs= to gm.read_records"
        )
    return Points(xy[:, 0], xy[:, 1], crs or "EPSG:4326", (f"{name} x", f"{name} y"))


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
            "the GeoDataFrame has no CRS; set it with table.set_crs('EPSG:4326') or pass crs= to gm.read_records"
        )
    empty = np.asarray(points.isna() | points.is_empty)
    xs, ys = (np.where(empty, np.nan, np.asarray(c, float)) for c in (points.x, points.y))
    return Points(xs, ys, crs, ("geometry x", "geometry y"))


def check_columns(table: pd.DataFrame, names: Sequence[str | None], *, setting: str) -> None:
    """Check that all columns exist and occur once.

    Raises
    ------
    OccurrenceError
        With the columns of the table.
    """
    if missing := [n for n in names if n not in table.columns]:
        raise OccurrenceError(
            f"{setting} names {missing}, but the table has columns {list(table.columns)}: pass names of columns; "
            "table[table['species'] == 'Quercus ilex'] keeps one species"
        )
    if twice := [n for n in names if (table.columns == n).sum() > 1]:
        raise OccurrenceError(
            f"{setting} names {twice}, but the table has more than one such column; keep the first with "
            "table.loc[:, ~table.columns.duplicated()]"
        )


def numbers(table: pd.DataFrame, name: str | None) -> np.ndarray:
    """Return a column as float64.

    Raises
    ------
    OccurrenceError
        When it has text.
    """
    try:
        return table[name].to_numpy(dtype="float64", na_value=np.nan)
    except (ValueError, TypeError):
        raise OccurrenceError(_not_numbers(table[name], name)) from None


def _not_numbers(column: pd.Series, name: str | None) -> str:
    """Return the message for a column with values that are not numeric, with the call that converts them."""
    text = column.dropna().astype(str)
    odd = text[pd.to_numeric(text, errors="coerce").isna()]
    comma = len(odd) and odd.str.fullmatch(r"\s*[+-]?\d*,\d+\s*").all()
    remedy = (
        f"a decimal comma is read with pd.read_csv(..., decimal=','), or with table['{name}'].str.replace("
        "',', '.').astype(float)"
        if comma
        else f"pd.to_numeric(table['{name}'], errors='coerce') makes those values missing"
    )
    return f"column '{name}' has {len(odd)} values that are not numbers, such as {odd.iloc[:1].tolist()}: {remedy}"
