"""Occurrence records from any source as one table with the same columns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from geomiam.data.records.columns import species_column
from geomiam.data.records.coordinates import Points, locate
from geomiam.data.records.files import read_table
from geomiam.data.records.labels import Records, labels_of
from geomiam.data.records.origin import DOI, citation
from geomiam.errors import OccurrenceError, SettingError
from geomiam.geo.crs import as_crs, same_crs

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

STANDARD = ("species", "lon", "lat", "presence")
"""Columns of records, before all others."""
DEGREES = "EPSG:4326"


def read_records(
    source: pd.DataFrame | GeoDataFrame | str | Path,
    *,
    species: str | Sequence[str] = "species",
    presence: str = "presence",
    x: str | None = None,
    y: str | None = None,
    crs: Any = None,
    encoding: str | None = None,
    doi: str | None = None,
) -> pd.DataFrame:
    """Read occurrence records: presences, absences, coordinates and the source of the data.

    Readable are downloads of GBIF (simple CSV, Darwin Core archive, occurrence cube), other Darwin Core
    archives as zip file or folder, text with commas, semicolons or tabs and with decimal points or commas,
    Parquet, GeoParquet, GeoPackage and other vector files, DataFrames and GeoDataFrames. Zip files are read
    without unpacking. Their sizes are checked first, and links and XML entities are refused.

    Parameters
    ----------
    source
        A table or a path.
    species
        For a long table, the column of species names. Default: ``species``, ``scientificName`` or another
        usual name. Names that differ by case or blanks are joined. For a wide table, a list of columns, one
        for each species, with 1, 0, counts, or NaN for not surveyed.
    presence
        The column with 1, 0, counts, NaN, or PRESENT and ABSENT. Without this column, each row is a
        presence, except where Darwin Core's ``occurrenceStatus`` or an ``individualCount`` of 0 records an
        absence.
    x, y
        Columns of coordinates. Default: decimalLongitude and decimalLatitude, lon and lat, x and y or
        another usual pair, the geometry, points as well-known text, or codes of grid cells.
    crs
        CRS of the coordinates. Default: that of the geometry; EPSG:4326 for columns named as longitude and
        latitude.
    encoding
        Encoding of text, such as ``"cp1252"``; default UTF-8.
    doi
        DOI of the download, for files that do not contain it, such as GBIF's simple CSV.

    Returns
    -------
    pandas.DataFrame
        One row per record. The first columns are ``species`` (missing where unknown), ``lon`` and ``lat``
        in degrees (EPSG:4326), and ``presence``: 1, 0, or NaN for not surveyed. The other columns follow
        unchanged. Where coordinates named x and y have no CRS, they stay ``x`` and ``y``.
        ``attrs["origin"]`` has the file, its format, the number of rows and, as far as the download states
        them, ``doi``, ``query``, ``licence``, ``citation``, ``date`` and ``key``: text and numbers only.

    Raises
    ------
    InputNotFound
        If the file does not exist.
    OccurrenceError
        If the source is damaged, has another encoding or implausible sizes, or if no column of species or
        coordinates is recognised.
    SettingError
        If ``doi`` is not a DOI.

    Warns
    -----
    NamesJoined
        With the species names that were joined.

    See Also
    --------
    geomiam.clean_records : remove records that cannot be right.
    geomiam.sample : predictors at the records.

    Notes
    -----
    **Surveys.** In an archive of sampling events, an occurrence takes place and date of its event. The
    Humboldt extension states the taxonomic scope of events. Where ``isTaxonomicScopeFullyReported`` is
    true, each species within ``targetTaxonomicScope``, without ``excludedTaxonomicScope``, that has no
    record in the event is an absence. Taxa in ``absentTaxa`` are absences too, unless ``isAbsenceReported``
    is false. Nothing is inferred outside the scope: there is no row, and sites have NaN. The column
    ``absenceInferred`` marks these rows.

    **Occurrence cubes.** A row is a presence at the centre of its cell. ``coordinateUncertaintyInMeters``
    is half of the diagonal of the cell, and ``target_group_records`` counts the records of the whole class.
    :func:`geomiam.add_background` with ``kind="target-group"`` uses it: a species without records in a cell
    where its class was recorded has 0 there.

    Examples
    --------
    >>> import geomiam as gm, pandas as pd
    >>> table = pd.DataFrame(
    ...     {
    ...         "scientificName": ["Quercus ilex", "Quercus ilex"],
    ...         "decimalLongitude": [3.9, 4.1],
    ...         "decimalLatitude": [43.6, 43.7],
    ...         "occurrenceStatus": ["PRESENT", "ABSENT"],
    ...     }
    ... )
    >>> records = gm.read_records(table, doi="10.15468/dl.abcdef")
    >>> records[["species", "lon", "lat", "presence"]].values.tolist()
    [['Quercus ilex', 3.9, 43.6, 1.0], ['Quercus ilex', 4.1, 43.7, 0.0]]
    >>> records.attrs["origin"]["doi"]
    '10.15468/dl.abcdef'
    """
    table = read_table(source, encoding=encoding)
    if table.empty:
        raise OccurrenceError(
            f"the table of occurrences has no rows; its columns are {list(table.columns)}"
        )
    labels = labels_of(table, species=species, presence=presence)
    points = locate(table, x=x, y=y, crs=crs)
    out = _long(_others(table, points, species=species, presence=presence), labels, points)
    origin = {"format": "table", **table.attrs.get("origin", {}), "rows": len(table)}
    if doi is not None:
        origin |= _cited(doi)
    out.attrs = {**table.attrs, "origin": origin}
    return out


def _cited(doi: str) -> dict[str, str]:
    match = DOI.search(str(doi))
    if match is None:
        raise SettingError(f"doi={doi!r} is not a DOI; pass for example doi='10.15468/dl.abcdef'")
    text = match[0].rstrip(".,;)")
    return {"doi": text, "citation": citation(text)}


def _others(
    table: pd.DataFrame, points: Points, *, species: str | Sequence[str], presence: str
) -> pd.DataFrame:
    """Return the columns that the standard columns do not replace."""
    names = [species] if isinstance(species, str) else list(species)
    if names == ["species"] and (name := species_column(table)) is not None:
        names = [name]
    standard_sources = {*names, presence, *STANDARD}
    if points.crs is None or same_crs(as_crs(points.crs, "crs"), as_crs(DEGREES, "crs")):
        standard_sources |= set(points.names)
    if hasattr(getattr(table, "geometry", None), "geom_type"):
        standard_sources.add(table.geometry.name)
    return pd.DataFrame(table[[c for c in table.columns if c not in standard_sources]])


def _long(other_columns: pd.DataFrame, labels: Records, points: Points) -> pd.DataFrame:
    """Return one row per record, also of a wide table, whose NaN are no records."""
    names = (*_degree_names(points), "presence")
    x, y = degrees(points)
    if labels.wide:
        rows, codes = np.nonzero(np.isfinite(labels.values))
        values = labels.values[rows, codes]
    else:
        rows, codes, values = np.arange(len(other_columns)), labels.codes, labels.values
    names_or_none = np.array([*labels.names, None], dtype=object)  # None for the code -1
    standard = {
        "species": names_or_none[codes],
        names[0]: x[rows],
        names[1]: y[rows],
        "presence": np.asarray(values, "float32"),
    }
    row_columns = other_columns.iloc[rows].reset_index(drop=True)
    return pd.concat([pd.DataFrame(standard), row_columns], axis=1)


def _degree_names(points: Points) -> tuple[str, str]:
    return ("x", "y") if points.crs is None else ("lon", "lat")


def degrees(points: Points) -> tuple[np.ndarray, np.ndarray]:
    """Return longitudes and latitudes in EPSG:4326; coordinates without CRS are unchanged.

    Raises
    ------
    OccurrenceError
        If points lie outside the area in which their CRS is defined.
    """
    if points.crs is None:
        return points.x, points.y
    crs, wgs84 = as_crs(points.crs, "the CRS of the records"), as_crs(DEGREES, "crs")
    if same_crs(crs, wgs84):
        return points.x, points.y
    with np.errstate(invalid="ignore"):
        lon, lat = crs.transformer_to_crs(wgs84, always_xy=True)(points.x, points.y)
    lon, lat = (np.where(np.isfinite(v), v, np.nan) for v in (lon, lat))
    outside = np.isfinite(points.x) & np.isfinite(points.y) & np.isnan(lon)
    if outside.any():
        raise OccurrenceError(
            f"{int(outside.sum())} of {len(outside)} points, such as {points.x[outside][0]:g}, {points.y[outside][0]:g}, lie "
            f"outside the area of their CRS {str(points.crs)[:60]}: pass the crs= of the coordinates"
        )
    return lon, lat
