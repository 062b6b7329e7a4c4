"""GBIF occurrence cubes: counts per species, cell and time become records at the centres of cells.

Definitions: technical documentation of GBIF, "Species occurrence cubes" and "API SQL Downloads - Functions".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from geomiam.data.records.coordinates import has_coordinates
from geomiam.errors import OccurrenceError

CELLS = (
    *("eeacellcode", "eqdgccellcode", "eqdgccode", "qdgccode", "qdgc", "mgrscellcode", "mgrscode"),
    *("cellcode", "cell_code", "gridcellcode", "isea3hcellcode", "isea3hcode", "dmsgcellcode"),
)
"""Columns with codes of cells, in lower case."""
COUNTS = ("occurrences", "n", "count", "obs", "occurrencecount")
TIMES = ("yearmonthday", "yearmonth", "year")
RANKS = ("class", "order", "family", "genus")
"""Taxa whose totals make a target group; the first one that a cube has."""
GROUP, EFFORT = "target_group", "target_group_records"
UNCERTAINTY = "coordinateUncertaintyInMeters"
EEA = re.compile(r"(\d{1,4})(km|m)E(\d+)N(\d+)")
QUARTER = re.compile(r"([EW])(\d{3})([NS])(\d{2})([A-D]*)")
MGRS = re.compile(r"(\d{1,2})([C-HJ-NP-X])([A-HJ-NP-Z])([A-HJ-NP-V])((?:\d\d)*)")

Centre = tuple[float, float, float]
"""Longitude and latitude of a cell's centre in degrees, and its half diagonal in metres."""


def cell_column(table: pd.DataFrame) -> str | None:
    """Return the column with codes of cells; None if there is none."""
    columns = {str(c).strip().lower(): c for c in reversed(table.columns)}
    return next((columns[n] for n in CELLS if n in columns), None)


def with_cell_centres(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with coordinates if it is an occurrence cube, else the table itself.

    Added columns: ``lon`` and ``lat`` of the centre of the cell; its half diagonal as
    ``coordinateUncertaintyInMeters``; ``year``; ``target_group``, the class of the species; and
    ``target_group_records``, the records of all species of this class in the cell and time. These totals are the
    column ``classcount`` of the cube where it has one, else sums over its rows.

    Raises
    ------
    OccurrenceError
        If codes are not those of a supported grid.
    """
    name = cell_column(table)
    if name is None or has_coordinates(table):
        return table
    codes, numbers = np.unique(table[name].astype("string").fillna(""), return_inverse=True)
    centres = _centres([str(c).strip() for c in codes], name)[numbers]
    attrs = dict(table.attrs)
    out = table.assign(lon=centres[:, 0], lat=centres[:, 1], **{UNCERTAINTY: centres[:, 2]})
    out = _with_target_group(_with_year(out), name)
    out.attrs = attrs
    out.attrs["origin"] = {**attrs.get("origin", {}), "format": "occurrence cube"}
    return out


def _columns(table: pd.DataFrame) -> dict[str, str]:
    return {str(c).strip().lower(): c for c in reversed(table.columns)}


def _with_year(table: pd.DataFrame) -> pd.DataFrame:
    columns = _columns(table)
    if "year" in columns or not set(TIMES) & set(columns):
        return table
    time = table[columns[next(t for t in TIMES if t in columns)]].astype("string")
    return table.assign(year=pd.to_numeric(time.str[:4], errors="coerce"))


def _with_target_group(table: pd.DataFrame, cell: str) -> pd.DataFrame:
    """Add the taxon whose totals show where records were collected, and these totals."""
    columns = _columns(table)
    rank = next((r for r in RANKS if r in columns), None)
    group = table[columns[rank]].astype(object) if rank else pd.Series("all", index=table.index)
    count = next((columns[c] for c in COUNTS if c in columns), None)
    records = table[count] if count else pd.Series(1, index=table.index)
    if rank and f"{rank}count" in columns:
        totals = table[columns[f"{rank}count"]]
    else:
        times = [columns[t] for t in TIMES if t in columns][:1]
        keys = [table[c] for c in (cell, *times)]
        totals = records.groupby([group, *keys], dropna=False).transform("sum")
    return table.assign(**{GROUP: group, EFFORT: totals})


def _centres(codes: list[str], column: str) -> np.ndarray:
    """Return longitude, latitude and half diagonal of cells ``(cell, 3)``; NaN for blank codes."""
    out = np.full((len(codes), 3), np.nan)
    for pattern, centres in READERS:
        matches = {i: m for i, c in enumerate(codes) if (m := pattern.fullmatch(c))}
        if matches:
            out[list(matches)] = centres(list(matches.values()))
    unread = [c for c, lon in zip(codes, out[:, 0]) if c and np.isnan(lon)]
    if unread:
        raise OccurrenceError(
            f"column '{column}' has {len(unread)} codes of cells that are not read, such as {unread[:3]}; supported are "
            "the EEA reference grid (10kmE432N321), extended quarter degree cells (E010N52CB) and MGRS (32UNC66): "
            "add columns lon and lat with the centres of the cells"
        )
    return out


def _eea(matches: list[re.Match[str]]) -> np.ndarray:
    """Return the centres of cells of the EEA reference grid, whose corners are in EPSG:3035.

    The zeros at the end of the size in metres are left out of the coordinates.
    """
    size = np.array([int(m[1]) * (1000 if m[2] == "km" else 1) for m in matches], float)
    text = [str(int(s)) for s in size]
    unit = np.array([10.0 ** (len(t) - len(t.rstrip("0"))) for t in text])
    x, y = (np.array([float(m[k]) for m in matches]) * unit + size / 2 for k in (3, 4))
    with np.errstate(invalid="ignore"):
        lon, lat = _transformer("EPSG:3035", "EPSG:4326").transform(x, y)
    outside = ~(np.isfinite(lon) & np.isfinite(lat))
    return np.where(outside[:, None], np.nan, np.stack([lon, lat, size / np.sqrt(2)], 1))


def _quarter(matches: list[re.Match[str]]) -> np.ndarray:
    """Return the centres of extended quarter degree cells (Larsen et al. 2009).

    Each letter divides a square in four: A and B in the north, A and C in the west. The degrees are those
    of the corner nearest to longitude and latitude 0.
    """
    from pyproj import Geod

    west, south, side = np.zeros((3, len(matches)))
    for i, m in enumerate(matches):
        west[i] = int(m[2]) if m[1] == "E" else -int(m[2]) - 1
        south[i] = int(m[4]) if m[3] == "N" else -int(m[4]) - 1
        side[i] = 1.0
        for letter in m[5]:
            side[i] /= 2
            west[i] += side[i] * (letter in "BD")
            south[i] += side[i] * (letter in "AB")
    lon, lat = west + side / 2, south + side / 2
    valid = (np.abs(lon) < 180) & (np.abs(lat) < 90)
    safe = np.where(valid, lat, 0)
    diagonal = Geod(ellps="WGS84").inv(lon, safe, west, np.where(valid, south, 0))[2]
    return np.where(valid[:, None], np.stack([lon, lat, diagonal], 1), np.nan)


def _mgrs(matches: list[re.Match[str]]) -> np.ndarray:
    return np.array([mgrs_centre(m) for m in matches])


def mgrs_centre(match: re.Match[str]) -> Centre:
    """Return the centre of a cell of the Military Grid Reference System.

    Columns of 100 km have the letters A to Z in three sets by zone, rows A to V in two sets, without I and O.
    Rows repeat every 2,000 km; the band of latitude selects the repetition.
    """
    zone, band, column, row, digits = match.groups()
    number = int(zone)
    half = len(digits) // 2
    size = 100_000.0 / 10**half
    set_of_columns = ("STUVWXYZ", "ABCDEFGH", "JKLMNPQR")[number % 3]
    if not 1 <= number <= 60 or half > 5 or column not in set_of_columns:
        return (np.nan, np.nan, np.nan)
    letters = "ABCDEFGHJKLMNPQRSTUV"
    shift = 0 if number % 2 else 5
    east = (set_of_columns.index(column) + 1) * 100_000.0
    north = ((letters.index(row) - shift) % 20) * 100_000.0
    if half:
        east += int(digits[:half]) * size
        north += int(digits[half:]) * size
    is_north = band >= "N"
    bottom = -80 + 8 * "CDEFGHJKLMNPQRSTUVWX".index(band)
    crs = f"EPSG:{(32600 if is_north else 32700) + number}"
    start = _transformer("EPSG:4326", crs).transform(6 * number - 183, bottom)[1]
    # the edge of a band is curved in UTM: cells that touch it may begin 100 km further south
    north += 2_000_000.0 * np.ceil((start - 100_000 - north) / 2_000_000.0)
    lon, lat = _transformer(crs, "EPSG:4326").transform(east + size / 2, north + size / 2)
    return (float(lon), float(lat), size / np.sqrt(2))


@lru_cache(maxsize=256)
def _transformer(source: str, target: str) -> Any:
    from pyproj import Transformer

    return Transformer.from_crs(source, target, always_xy=True)


READERS: tuple[tuple[re.Pattern[str], Callable[[list[re.Match[str]]], np.ndarray]], ...] = (
    (EEA, _eea),
    (QUARTER, _quarter),
    (MGRS, _mgrs),
)
