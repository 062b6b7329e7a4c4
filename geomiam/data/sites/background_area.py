"""The area of background points: restrictions by distance, hull, polygon and environmental envelope."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from geomiam.checks.settings import check_number
from geomiam.data.grid.grid import place_dims, spatial_dims
from geomiam.data.records.files import PARQUET, VECTOR, read_table
from geomiam.data.values import as_float, is_categorical
from geomiam.errors import InputNotFound, LabelError, SelectionError, SettingError
from geomiam.geo.crs import as_crs, equal_area_around
from geomiam.geo.dims import SITE
from geomiam.geo.lengths import Length, as_text, kilometres
from geomiam.geo.longitude import full_turn
from geomiam.geo.places import Places, chord
from geomiam.outputs.paths import expand
from geomiam.splits import site_coordinates

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

CELLS = 1_000_000
"""Number of cells whose distances are computed at a time."""
Test = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Function from coordinates ``(n, 2)``, and the same in degrees, to whether a restriction allows them ``(n,)``."""
Removed = dict[str, int]
"""Number of places that each restriction removes, after those before it."""


@dataclass(frozen=True, eq=False)
class BackgroundArea:
    """Where background points of :func:`geomiam.add_background` may lie; all restrictions hold together.

    Distances are geodesic, from the centre of a cell to the site of a presence. The presences of all
    species count together, because their background is shared; with ``kind="target-group"``, whose zeros
    differ between species, those of each species alone.

    Parameters
    ----------
    within
        Largest distance from the nearest presence: km, or text such as ``"200 km"``. A buffer around the
        records is the usual calibration area.
    beyond
        Least distance from the nearest presence.
    hull
        The convex hull of the presences, enlarged by this length; ``"0 km"`` for the hull itself. It is convex in
        the Lambert azimuthal equal-area projection that is centred on the presences.
    polygon
        A calibration area: a GeoDataFrame, or the path of a vector file, in any CRS; or a shapely polygon in the CRS
        of the cube.
    outside_envelope
        Continuous variables. A place is allowed where at least one of them is below the quantile ``quantile``
        or above the quantile ``1 - quantile`` of its values at the presences. These are the places outside the surface range
        envelope (Bioclim). Missing values count as inside. A variable with other dims has one range for each step.
    quantile
        See ``outside_envelope``: at least 0, where the range is that from minimum to maximum, and below 0.5.

    Raises
    ------
    LengthError
        If a length is not valid.
    SettingError
        If ``beyond`` is not less than ``within``, or ``quantile`` is not valid.

    See Also
    --------
    geomiam.add_background : Draws the points.

    References
    ----------
    The envelope is that of ``bm_SRE`` of biomod2, whose ``sre.quant`` is ``quantile``. The disk of biomod2 is
    ``beyond`` with ``within``, and ``geo_env_const`` of flexsdm is ``beyond`` with ``outside_envelope``
    (Velazco et al. 2022, Methods in Ecology and Evolution 13, 1661-1669).

    Examples
    --------
    >>> import geomiam as gm
    >>> gm.BackgroundArea(beyond="20 km", within="300 km").texts()["beyond"]
    'at least 20 km from the presences'
    """

    within: Length | None = None
    beyond: Length | None = None
    hull: Length | None = None
    polygon: GeoDataFrame | str | Path | Any = None
    outside_envelope: str | Sequence[str] = ()
    quantile: float = 0.0

    def __post_init__(self) -> None:
        """Check lengths and quantile."""
        near, far = self.km("beyond"), self.km("within")
        self.km("hull")
        if near is not None and far is not None and near >= far:
            raise SettingError(
                f"beyond='{as_text(near)}' must be less than within='{as_text(far)}'; no place is both"
            )
        check_number(
            "quantile",
            self.quantile,
            requirement="must be at least 0 and below 0.5",
            accepts=lambda q: 0 <= q < 0.5,
            hint="0.05 leaves out the lowest and highest 5 % of the presences",
        )
        if self.quantile and not self.variables:
            raise SettingError(
                f"quantile={self.quantile} has no effect without variables; pass outside_envelope= as well"
            )

    @property
    def variables(self) -> tuple[str, ...]:
        """Variables of the envelope."""
        names = self.outside_envelope
        return (names,) if isinstance(names, str) else tuple(names)

    def km(self, name: str) -> float | None:
        """Return one of the lengths in km."""
        value = getattr(self, name)
        return None if value is None else kilometres(value, name, zero=name == "hull")

    @property
    def around_presences(self) -> bool:
        """Whether a restriction depends on the presences."""
        return bool(set(self.texts()) - {"polygon"})

    def opened(self) -> BackgroundArea:
        """Return the area with the polygons of its file."""
        is_path = isinstance(self.polygon, (str, Path))
        return replace(self, polygon=_read(self.polygon)) if is_path else self

    def texts(self) -> dict[str, str]:
        """Return the restrictions that are set, in words."""
        within, beyond, hull = (self.km(n) for n in ("within", "beyond", "hull"))
        texts = {}
        if self.variables:
            limits = f"quantiles {self.quantile:g} to {1 - self.quantile:g}"
            limits = limits if self.quantile else "minimum to maximum"
            names = ", ".join(self.variables)
            texts["outside_envelope"] = (
                f"outside the envelope of the presences ({limits}) in {names}"
            )
        if self.polygon is not None:
            is_path = isinstance(self.polygon, (str, Path))
            texts["polygon"] = f"in a polygon{f' ({Path(self.polygon).name})' if is_path else ''}"
        if hull is not None:
            enlarged = f" enlarged by {as_text(hull)}" if hull else ""
            texts["hull"] = f"in the convex hull of the presences{enlarged}"
        if within is not None:
            texts["within"] = f"within {as_text(within)} of the presences"
        if beyond is not None:
            texts["beyond"] = f"at least {as_text(beyond)} from the presences"
        return texts


@dataclass(frozen=True, eq=False)
class Restrictions:
    """The restrictions of an area for given presences."""

    tests: Mapping[str, Test] = field(default_factory=dict)
    envelope: Mapping[str, tuple[xr.DataArray, xr.DataArray]] = field(default_factory=dict)
    """Lowest and highest value of each variable at the presences ``(*own dims)``."""
    to_degrees: Any = None
    """Transformer from the CRS of the places to degrees."""

    @classmethod
    def of(
        cls, area: BackgroundArea | None, sites: xr.Dataset, present: np.ndarray, crs: Any
    ) -> Restrictions:
        """Return the restrictions of places in a CRS, for the presences at sites ``(site,)``."""
        from pyproj import Transformer

        if area is None:
            return cls()
        if area.around_presences and not present.any():
            raise LabelError(
                "the area depends on the presences, and the sites have none; use gm.BackgroundArea(polygon=...) only"
            )
        to_degrees = Transformer.from_crs(crs.proj, "EPSG:4326", always_xy=True)
        records = np.stack(to_degrees.transform(*site_coordinates(sites)[present].T), 1)
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
        return cls(tests, _envelope(area, sites, present), to_degrees)

    def outside(self, ds: xr.Dataset) -> xr.DataArray:
        """Return where cells or sites are outside the envelope; lazy."""
        if unknown := [v for v in self.envelope if v not in ds]:
            raise SelectionError(
                f"outside_envelope={unknown} is not in the cube, which has {list(ds.data_vars)}"
            )
        return reduce(or_, [_outside(ds, v, *ends) for v, ends in self.envelope.items()])

    def allowed(self, xy: np.ndarray) -> tuple[np.ndarray, Removed]:
        """Return whether coordinates ``(n, 2)`` are allowed, apart from the envelope."""
        keep, removed = np.ones(len(xy), bool), {}
        degrees = np.stack(self.to_degrees.transform(*xy.T), 1) if self.tests else xy
        for name, test in self.tests.items():
            rows = np.flatnonzero(keep)
            keep[rows] = test(xy[rows], degrees[rows])
            removed[name] = len(rows) - int(keep.sum())
        return keep, removed

    def of_sites(self, sites: xr.Dataset) -> tuple[np.ndarray, Removed]:
        """Return whether sites are allowed ``(site,)``."""
        outside, removed = np.ones(sites.sizes[SITE], bool), {}
        if self.envelope:
            outside = self.outside(sites).values
            removed["outside_envelope="] = int((~outside).sum())
        rows = np.flatnonzero(outside)
        keep, later = self.allowed(site_coordinates(sites)[rows])
        outside[rows] = keep
        return outside, removed | later

    def clear(self, mask: np.ndarray, grid: xr.Dataset) -> Removed:
        """Clear the cells of a mask ``(y, x)`` that are not allowed, apart from the envelope."""
        y, x = (grid[d].values.astype(float) for d in spatial_dims(grid))
        removed = dict.fromkeys(self.tests, 0)
        step = max(1, CELLS // len(x))
        for start in range(0, len(y), step) if self.tests else ():
            rows, columns = np.nonzero(mask[start : start + step])
            keep, counts = self.allowed(np.stack([x[columns], y[start + rows]], 1))
            mask[start + rows, columns] = keep
            removed = {k: n + counts[k] for k, n in removed.items()}
        return removed


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


def _shapes(polygon: Any, crs: Any) -> tuple[np.ndarray, Any]:
    """Return the geometries of a polygon, table or vector file, and their CRS."""
    table = _read(polygon) if isinstance(polygon, (str, Path)) else polygon
    if hasattr(table, "geom_type"):
        shapes = np.atleast_1d(np.asarray(getattr(table, "geometry", table), object))
        shapes = np.array([s for s in shapes if s is not None and not s.is_empty], object)
        kinds = {s.geom_type for s in shapes}
        has_crs = hasattr(table, "crs")
        if (
            kinds
            and kinds <= {"Polygon", "MultiPolygon"}
            and getattr(table, "crs", crs) is not None
        ):
            return shapes, as_crs(table.crs, "the CRS of the polygon") if has_crs else crs
        problem = f"geometries {sorted(kinds)}" if kinds - {"Polygon", "MultiPolygon"} else "no CRS"
        found = problem if kinds else "no geometry"
    else:
        found = type(table).__name__
    raise SettingError(
        f"polygon= needs polygons with a CRS, found {found}; pass a path such as 'area.gpkg', a GeoDataFrame with its CRS, or "
        "a shapely polygon in the CRS of the cube"
    )


def _read(path: str | Path) -> Any:
    """Return the table of a vector file."""
    if not str(path).lower().endswith((*VECTOR, *PARQUET)):
        raise SettingError(
            f"polygon='{path}' is not a vector file; pass one of {', '.join(VECTOR)}, or a GeoDataFrame"
        )
    if not Path(expand(path)).exists():
        raise InputNotFound(f"there is no file of polygons at {path}; check the path")
    return read_table(path)


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
    outside = (values < low) | (values > high)  # False for NaN
    return outside.any([d for d in outside.dims if d not in place_dims(ds)])
