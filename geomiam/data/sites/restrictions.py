"""Restrictions of the places of background: distance from presences, hull, polygon and envelope."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from geomiam.data.grid.grid import place_dims, spatial_dims
from geomiam.data.sites.background_area import BackgroundArea, read_polygons
from geomiam.data.values import as_float, is_categorical
from geomiam.errors import LabelError, SelectionError, SettingError
from geomiam.geo.crs import as_crs, equal_area_around, in_degrees
from geomiam.geo.dims import SITE
from geomiam.geo.lengths import as_text
from geomiam.geo.longitude import full_turn
from geomiam.geo.places import Places, chord
from geomiam.splits import site_coordinates

CELLS = 1_000_000
"""Number of cells whose distances are computed at a time."""
Test = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Function of coordinates ``(n, 2)``, and of the same in degrees: whether a restriction allows them ``(n,)``."""
Removals = dict[str, int]
"""Number of places that each restriction removes, after those before it."""


@dataclass(frozen=True, eq=False)
class Restrictions:
    """The restrictions of an area for certain presences."""

    tests: Mapping[str, Test] = field(default_factory=dict)
    envelope: Mapping[str, tuple[xr.DataArray, xr.DataArray]] = field(default_factory=dict)
    """Lowest and highest value of each variable at the presences ``(*own dims)``."""
    crs: Any = None
    """CRS of the places."""

    @classmethod
    def of(
        cls, area: BackgroundArea | None, sites: xr.Dataset, present: np.ndarray, crs: Any
    ) -> Restrictions:
        """Return the restrictions of places in a CRS, for the presences at sites ``(site,)``."""
        if area is None:
            return cls()
        if area.around_presences and not present.any():
            raise LabelError(
                "the area depends on the presences, and the sites have none; use gm.BackgroundArea(polygon=...) only"
            )
        records = in_degrees(site_coordinates(sites)[present], crs)
        tests: dict[str, Test] = {}
        if area.polygon is not None:
            tests["polygon="] = _in_polygon(area.polygon, crs)
        if (hull := area.km("hull")) is not None:
            tests[f"hull='{as_text(hull)}'"] = _in_hull(records, hull)
        if (within := area.km("within")) is not None:
            tests[f"within='{as_text(within)}'"] = _near(records, within)
        if (beyond := area.km("beyond")) is not None:
            near = _near(records, beyond)
            tests[f"beyond='{as_text(beyond)}'"] = lambda xy, degrees: ~near(xy, degrees)
        return cls(tests, _envelope(area, sites, present), crs)

    def outside(self, ds: xr.Dataset) -> xr.DataArray:
        """Return where cells or sites are outside the envelope; lazy."""
        if unknown := [v for v in self.envelope if v not in ds]:
            raise SelectionError(
                f"outside_envelope={unknown} is not in the cube, which has {list(ds.data_vars)}"
            )
        return reduce(or_, [_outside(ds, v, *ends) for v, ends in self.envelope.items()])

    def allowed(self, xy: np.ndarray) -> tuple[np.ndarray, Removals]:
        """Return whether coordinates ``(n, 2)`` are allowed, apart from the envelope."""
        keep, removals = np.ones(len(xy), bool), {}
        degrees = xy
        if set(self.tests) - {"polygon="}:
            degrees = in_degrees(xy, self.crs)
        for name, test in self.tests.items():
            rows = np.flatnonzero(keep)
            keep[rows] = test(xy[rows], degrees[rows])
            removals[name] = len(rows) - int(keep.sum())
        return keep, removals

    def of_sites(self, sites: xr.Dataset) -> tuple[np.ndarray, Removals]:
        """Return whether sites are allowed ``(site,)``."""
        keep, removals = np.ones(sites.sizes[SITE], bool), {}
        if self.envelope:
            keep = self.outside(sites).values
            removals["outside_envelope="] = int((~keep).sum())
        rows = np.flatnonzero(keep)
        keep[rows], later = self.allowed(site_coordinates(sites)[rows])
        return keep, removals | later

    def clear(self, mask: np.ndarray, grid: xr.Dataset) -> Removals:
        """Clear the cells of a mask ``(y, x)`` that are not allowed, apart from the envelope."""
        y, x = (grid[d].values.astype(float) for d in spatial_dims(grid))
        removals = dict.fromkeys(self.tests, 0)
        step = max(1, CELLS // len(x))
        for start in range(0, len(y), step) if self.tests else ():
            rows, columns = np.nonzero(mask[start : start + step])
            keep, counts = self.allowed(np.stack([x[columns], y[start + rows]], 1))
            mask[start + rows, columns] = keep
            removals = {k: n + counts[k] for k, n in removals.items()}
        return removals


def _near(records: np.ndarray, km: float) -> Test:
    """Return the test of places that are less than a distance from records in degrees ``(n, 2)``."""
    from scipy.spatial import cKDTree

    tree = cKDTree(Places(records, True, "").points())

    def near(xy: np.ndarray, degrees: np.ndarray) -> np.ndarray:
        out = np.isfinite(degrees).all(1)  # a projection may not reach the corners of its grid
        points = Places(degrees[out], True, "").points()
        out[out] = np.isfinite(tree.query(points, distance_upper_bound=chord(km))[0])
        return out

    return near


def _in_hull(records: np.ndarray, km: float) -> Test:
    """Return the test of places in the convex hull of records in degrees ``(n, 2)``."""
    import shapely
    from pyproj import Transformer

    plane = Transformer.from_crs("EPSG:4326", equal_area_around(records), always_xy=True)
    hull = shapely.multipoints(np.stack(plane.transform(*records.T), 1)).convex_hull
    hull = hull.buffer(max(km * 1000, 0.001), quad_segs=64)  # the records themselves are inside
    shapely.prepare(hull)
    return lambda xy, degrees: shapely.intersects_xy(hull, *plane.transform(*degrees.T))


def _in_polygon(polygon: Any, crs: Any) -> Test:
    """Return the test of places in a polygon."""
    import shapely
    from pyproj import Transformer

    shapes, polygon_crs = _shapes(polygon, crs)
    shape = shapely.union_all(shapely.make_valid(shapes))
    shapely.prepare(shape)
    transformer = Transformer.from_crs(crs.proj, polygon_crs.proj, always_xy=True)
    turn = full_turn(polygon_crs)
    turns = (0.0,) if turn is None else (-turn, 0.0, turn)

    def inside(xy: np.ndarray, degrees: np.ndarray) -> np.ndarray:
        x, y = transformer.transform(*xy.T)
        return np.any([shapely.intersects_xy(shape, x + t, y) for t in turns], axis=0)

    return inside


def _shapes(polygon: Any, crs: Any) -> tuple[list[Any], Any]:
    """Return the geometries of a polygon, table or vector file, and their CRS."""
    import shapely

    table = read_polygons(polygon) if isinstance(polygon, (str, Path)) else polygon
    polygon_crs = getattr(table, "crs", crs)
    shapes = list(np.ravel(np.asarray(getattr(table, "geometry", table), object)))
    shapes = [s for s in shapes if s is not None]
    kinds = {s.geom_type if isinstance(s, shapely.Geometry) else type(s).__name__ for s in shapes}
    if kinds and kinds <= {"Polygon", "MultiPolygon"} and polygon_crs is not None:
        return shapes, as_crs(polygon_crs, "the CRS of the polygon")
    description = "no CRS" if kinds <= {"Polygon", "MultiPolygon"} else ", ".join(sorted(kinds))
    raise SettingError(
        f"polygon= needs polygons with a CRS, found {description if kinds else 'no geometry'}; pass a path such as "
        "'area.gpkg', a GeoDataFrame with its CRS, or a shapely polygon in the CRS of the cube"
    )


def _envelope(
    area: BackgroundArea, sites: xr.Dataset, present: np.ndarray
) -> dict[str, tuple[xr.DataArray, xr.DataArray]]:
    """Return the lowest and highest value of each variable at the presences, without the tails."""
    envelope = {}
    for name in area.variables:
        if name not in sites.data_vars or SITE not in sites[name].dims or name == "presence":
            names = [k for k, v in sites.data_vars.items() if SITE in v.dims and k != "presence"]
            raise SelectionError(
                f"outside_envelope='{name}' is not a variable of the sites, which have {names}"
            )
        if is_categorical(sites[name]):
            raise SelectionError(
                f"outside_envelope='{name}' has classes, which have no order; name continuous variables"
            )
        values = sites[name].reset_coords(drop=True).isel({SITE: present}).astype(float)
        values = values.where(np.isfinite(values))
        if not values.notnull().any():
            raise LabelError(
                f"outside_envelope='{name}' has no value at any presence; leave it out"
            )
        tails = (area.quantile, 1 - area.quantile)
        low, high = (values.quantile(q, SITE).drop_vars("quantile") for q in tails)
        envelope[name] = (low, high)
    return envelope


def _outside(ds: xr.Dataset, name: str, low: xr.DataArray, high: xr.DataArray) -> xr.DataArray:
    values = as_float(ds[name].reset_coords(drop=True))
    outside = ((values < low) | (values > high)) & (abs(values) < np.inf)  # False for NaN
    return outside.any([d for d in outside.dims if d not in place_dims(ds)])
