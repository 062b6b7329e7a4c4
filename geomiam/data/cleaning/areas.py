"""Land, sea and countries: whether points lie in them, on grids and in polygons."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from geomiam.data.dataset import as_dataset
from geomiam.data.grid.grid import geobox, spatial_dims
from geomiam.data.records.cells import cells_of, snap_points
from geomiam.data.records.coordinates import Points
from geomiam.errors import OccurrenceError, SelectionError

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

CODE_NAMES = (
    "iso_a2_eh",
    "iso_a2",
    "iso2",
    "countrycode",
    "iso_a3_eh",
    "iso_a3",
    "iso3",
    "adm0_a3",
)
"""Columns of polygons with codes of countries, in lower case."""
CORNERS = 48
"""Corners of the polygon that stands for a circle around a point."""
Inside = Callable[[Points], np.ndarray]
"""Function from points to 1 inside, 0 outside, NaN unknown ``(point,)``."""


def land_of(land: Any, cube: xr.Dataset | None, *, km: float) -> Inside:
    """Return the function that states whether points are on land, or at most ``km`` off it.

    ``land`` is a layer that is positive on land and 0 or NaN elsewhere, the name of such a variable of ``cube``, or
    polygons. Raises SelectionError if the cube lacks the variable, OccurrenceError for other types.
    """
    if isinstance(land, str):
        if cube is None or land not in cube:
            names = [] if cube is None else list(cube.data_vars)
            raise SelectionError(
                f"land='{land}' is not a variable of the cube, which has {names}; pass cube= with it"
            )
        land = cube[land]
    if isinstance(land, xr.DataArray):
        return _on_grid(land, km=km)
    if hasattr(land, "geom_type"):
        areas = Areas.of(land)
        return lambda points: areas.contain(points, km=km).any(axis=1).astype(float)
    raise OccurrenceError(
        f"land= is a layer, the name of a variable of the cube, or polygons, found {type(land).__name__}; read "
        "polygons with geopandas.read_file"
    )


def _on_grid(layer: xr.DataArray, *, km: float) -> Inside:
    ds = as_dataset(layer.rename("land").to_dataset())
    dims, box = spatial_dims(ds), geobox(ds)
    mask = ds["land"].squeeze(drop=True)

    def usable(cells: np.ndarray) -> np.ndarray:
        at = {d: xr.DataArray(i, dims="point") for d, i in zip(dims, cells.T, strict=True)}
        values = np.asarray(mask.isel(at).values, float)
        return np.isfinite(values) & (values > 0)

    def inside(points: Points) -> np.ndarray:
        cells = cells_of(points, box)
        on_grid = (cells >= 0).all(axis=1)
        out = np.full(len(cells), np.nan)
        out[on_grid] = usable(cells[on_grid])
        off_land = np.flatnonzero(out == 0)
        if km and len(off_land):
            out[snap_points(points, off_land, box, km=km, usable=usable).rows] = 1
        return out

    return inside


@dataclass(frozen=True)
class Areas:
    """Polygons in degrees."""

    polygons: np.ndarray
    codes: np.ndarray
    """Code of the country of each polygon; empty texts where there is none."""

    @classmethod
    def of(cls, table: Any) -> Areas:
        """Return the polygons of a GeoDataFrame or GeoSeries.

        Raises
        ------
        OccurrenceError
            If the polygons have no CRS, or are other geometries.
        """
        if table.crs is None:
            raise OccurrenceError(
                "the polygons have no CRS; set it with polygons.set_crs('EPSG:4326')"
            )
        kinds = set(table.geom_type.dropna()) - {"Polygon", "MultiPolygon"}
        if kinds:
            raise OccurrenceError(f"expected polygons, found {sorted(kinds)}; pass their polygons")
        table = table.to_crs(4326)
        columns = {str(c).lower(): c for c in getattr(table, "columns", ())}
        name = next((columns[c] for c in CODE_NAMES if c in columns), None)
        codes = (
            table[name].astype(str).str.strip().str.upper() if name else pd.Series("", table.index)
        )
        geometry = np.asarray(getattr(table, "geometry", table))
        usable = np.array([g is not None and not g.is_empty for g in geometry], bool)
        return cls(geometry[usable], codes.to_numpy(str)[usable])

    def contain(self, points: Points, *, km: float = 0.0) -> np.ndarray:
        """Return whether each polygon contains each point, or comes within a distance ``(point, polygon)``."""
        import shapely

        x = (points.x + 180) % 360 - 180
        inside = np.zeros((len(x), len(self.polygons)), bool)
        tree = shapely.STRtree(self.polygons)
        at, polygon = tree.query(shapely.points(x, points.y), predicate="intersects")
        inside[at, polygon] = True
        outside = np.flatnonzero(~inside.any(axis=1)) if km else np.zeros(0, int)
        if len(outside):
            at, polygon = tree.query(
                _circles(x[outside], points.y[outside], km), predicate="intersects"
            )
            inside[outside[at], polygon] = True
        return inside


def _circles(x: np.ndarray, y: np.ndarray, km: float) -> np.ndarray:
    """Return circles around points, measured along the surface of the earth, as polygons in degrees."""
    import shapely
    from pyproj import Geod

    azimuth = np.linspace(0, 360, CORNERS, endpoint=False)
    lon, lat = (np.repeat(v[:, None], CORNERS, 1) for v in (x, y))
    turns = np.broadcast_to(azimuth, lon.shape)
    east, north, _ = Geod(ellps="WGS84").fwd(lon, lat, turns, np.full(lon.shape, km * 1000))
    east = lon + (east - lon + 180) % 360 - 180
    return shapely.polygons(np.stack([east, north], -1))


def in_country(
    countries: GeoDataFrame, points: Points, codes: np.ndarray, *, km: float
) -> np.ndarray:
    """Return whether points lie in the country of their code: 1, 0, or NaN without such a polygon.

    Raises
    ------
    OccurrenceError
        If the polygons have no codes, or none of the codes of the points.
    """
    areas = Areas.of(countries)
    has_code = np.isin(codes, areas.codes) & (codes != "")
    if not (areas.codes != "").any():
        raise OccurrenceError(
            f"countries= has no column of codes such as ISO_A2; found columns {list(countries.columns)}: rename it to "
            "iso_a2"
        )
    if not has_code.any() and (codes != "").any():
        raise OccurrenceError(
            f"countries= has codes such as {sorted(set(areas.codes))[:4]}, and the records have "
            f"{sorted(set(codes[codes != '']))[:4]}: use the same kind of codes in both"
        )
    out = np.full(len(codes), np.nan)
    rows = np.flatnonzero(has_code)
    for code in np.unique(codes[rows]):
        at = rows[codes[rows] == code]
        area = Areas(areas.polygons[areas.codes == code], areas.codes[areas.codes == code])
        out[at] = area.contain(
            Points(points.x[at], points.y[at], points.crs, points.names), km=km
        ).any(axis=1)
    return out
