"""Places on the earth, and distances between them in km in any coordinate reference system."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from geomiam.errors import CRSAssumed, GridError, warn
from geomiam.geo.lengths import EQUATOR, MERIDIAN

DEGREE_NAMES = {"lon", "lat", "longitude", "latitude", "lng", "long"}
SEMI_AXIS, ECCENTRICITY = 6378.137, 0.00669437999014
"""WGS 84 ellipsoid: semi-major axis in km and squared eccentricity."""
RADIUS = 6371.0088  # mean radius of the earth in km (IUGG)
DISTORTION = 0.1  # largest relative scale error of a projection in which distances are measured
TESTED = 200  # largest number of places at which the scale of a projection is tested


@dataclass(frozen=True)
class Places:
    """Coordinates of n places, with distances between them in km."""

    xy: np.ndarray
    """``(n, 2)``: longitudes and latitudes in degrees if ``geodesic``, otherwise km in a plane."""
    geodesic: bool
    crs: str  # name of the CRS, for reports

    def __len__(self) -> int:
        return len(self.xy)

    def take(self, rows: np.ndarray) -> Places:
        """Return the places at the given rows."""
        return replace(self, xy=self.xy[rows])

    def distinct(self) -> Places:
        """Return each place once; coordinates are compared to 8 decimals, which is about a millimetre."""
        xy = self.xy.round(8)
        if self.geodesic:
            xy[:, 0] %= 360
        return replace(self, xy=np.unique(xy, axis=0))

    def points(self) -> np.ndarray:
        """Return Cartesian coordinates in km: ``(n, 3)`` from the centre of the earth, ``(n, 2)`` in a plane."""
        if not self.geodesic:
            return self.xy
        lon, lat = np.deg2rad(self.xy).T
        normal = SEMI_AXIS / np.sqrt(1 - ECCENTRICITY * np.sin(lat) ** 2)
        x, y = normal * np.cos(lat) * np.cos(lon), normal * np.cos(lat) * np.sin(lon)
        return np.stack([x, y, normal * (1 - ECCENTRICITY) * np.sin(lat)], 1)

    def along_surface(self, chords: np.ndarray) -> np.ndarray:
        """Convert straight-line distances to distances along the surface, in km."""
        if not self.geodesic:
            return chords
        return 2 * RADIUS * np.arcsin(np.clip(chords / (2 * RADIUS), 0, 1))

    def distance_to(self, rows: np.ndarray) -> np.ndarray:
        """Return the distance of each place to the nearest of the places at ``rows``, ``(n,)`` in km.

        Geodesic distances have an error of at most 0.02 % up to 5,000 km.
        """
        points = self.points()
        if len(rows) == 1:  # faster than a search tree
            return self.along_surface(np.linalg.norm(points - points[rows], axis=1))
        from scipy.spatial import cKDTree

        return self.along_surface(cKDTree(points[rows]).query(points)[0])

    def span(self) -> np.ndarray:
        """Return width and height of the extent ``(2,)`` in km, also across the antimeridian."""
        if not self.geodesic:
            extent: np.ndarray = np.ptp(self.xy, axis=0)
            return extent
        lon, lat = np.sort(self.xy[:, 0] % 360), self.xy[:, 1]
        gaps = np.diff(lon, append=lon[0] + 360)
        width = (360 - gaps.max()) / 360 * EQUATOR * np.cos(np.deg2rad((lat.min() + lat.max()) / 2))
        return np.array([width, np.ptp(lat) / 180 * MERIDIAN])

    def squares(self, km: float, *, even: bool = False) -> np.ndarray:
        """Return row and column ``(n, 2)`` of each place on a grid of squares that is independent of the places.

        In a plane the grid starts at the origin of the CRS. On the globe, rows are belts of equal
        height, and each belt has the number of equal columns whose width is nearest to the length.
        With ``even``, that number is even, so that the colours of a checkerboard alternate all around.
        """
        if not self.geodesic:
            return np.floor(self.xy / km).astype(np.int64)
        lon, lat = self.xy.T
        rows = max(1, round(MERIDIAN / km))
        row = np.clip(np.floor((lat + 90) / 180 * rows), 0, rows - 1)
        around = EQUATOR * np.cos(np.deg2rad((row + 0.5) * 180 / rows - 90)) / km
        columns = np.maximum(2 * np.rint(around / 2), 2) if even else np.maximum(np.rint(around), 1)
        column = np.minimum(np.floor(lon % 360 / 360 * columns), columns - 1)
        return np.stack([row, column], 1).astype(np.int64)


def chord(km: float) -> float:
    """Return the straight line through the earth that belongs to a distance along its surface, in km."""
    return float(2 * RADIUS * np.sin(min(km / (2 * RADIUS), np.pi / 2)))


def places(xy: np.ndarray, crs: Any = None, *, names: tuple[str, str] = ("x", "y")) -> Places:
    """Return coordinates as places.

    Distances between geographic coordinates are measured along the earth's surface. Distances between
    projected coordinates are measured in the plane, except where the scale error of the projection
    exceeds a tenth at the places, as in Mercator far from the equator.

    ``xy`` are ``(n, 2)`` finite eastings and northings, or longitudes and latitudes, in any CRS that pyproj
    accepts. Without a CRS, numbers that can be degrees count as degrees, with a warning unless their
    ``names`` are those of longitude and latitude.

    Raises GridError if there is no CRS and the numbers are not degrees, if latitudes are outside -90 to
    90, or if the CRS is unknown or has no horizontal unit of length.

    Examples
    --------
    >>> import numpy as np
    >>> lonlat = places(np.array([[0.0, 0.0], [1.0, 0.0]]), "EPSG:4326")
    >>> lonlat.distance_to([0]).round(1).tolist()
    [0.0, 111.3]
    """
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    is_named_degrees = {n.lower() for n in names} <= DEGREE_NAMES
    if crs is None:
        return _assumed(xy, names=names, is_named_degrees=is_named_degrees)
    try:
        system = CRS.from_user_input(crs)
    except CRSError as error:
        raise GridError(
            f"the CRS {str(crs)[:80]!r} is unknown to PROJ ({str(error)[:80]}): pass for example crs='EPSG:4326'"
        ) from None
    code, is_unnamed = system.to_epsg(), system.name in ("undefined", "unknown", "unnamed")
    label = f"EPSG:{code}" if code else str(system.type_name if is_unnamed else system.name)
    if system.is_geographic and system.type_name.startswith("Derived"):  # such as a rotated pole
        return _globe(_to_degrees(xy, system), label)
    if system.is_geographic or (is_named_degrees and _may_be_degrees(xy)):
        unit = system.axis_info[0].unit_conversion_factor if system.is_geographic else np.pi / 180
        return _globe(xy * np.rad2deg(unit), label)
    axis = system.axis_info[0] if system.axis_info else None
    if axis is None or axis.direction.startswith("geocentric") or not axis.unit_conversion_factor:
        raise GridError(
            f"{label} has no horizontal unit of length: reproject the coordinates, for example to EPSG:4326"
        )
    flat = Places(xy * axis.unit_conversion_factor / 1000, False, label)
    return flat if _true_to_scale(xy, system) else _globe(_to_degrees(xy, system), label)


def _assumed(xy: np.ndarray, *, names: tuple[str, str], is_named_degrees: bool) -> Places:
    """Return coordinates without a CRS as degrees, if they can be degrees."""
    ends = ", ".join(f"{n} from {v.min():g} to {v.max():g}" for n, v in zip(names, xy.T))
    if not _may_be_degrees(xy):
        raise GridError(
            f"the coordinates have no CRS and are not degrees ({ends}), so no distance can be measured: set it "
            "with sites.assign_attrs(crs='EPSG:...'), or pass crs='EPSG:...' with bare coordinates"
        )
    if not is_named_degrees:
        warn(
            f"the coordinates have no CRS ({ends}): they are taken as degrees; if they are not, set the CRS with "
            "sites.assign_attrs(crs='EPSG:...'), or pass crs='EPSG:...' with bare coordinates",
            CRSAssumed,
        )
    return _globe(xy, "degrees (assumed: no CRS)")


def _may_be_degrees(xy: np.ndarray) -> bool:
    return bool((np.abs(xy) <= [360, 90]).all())


def _globe(degrees: np.ndarray, label: str) -> Places:
    if not (np.abs(degrees[:, 1]) <= 90 + 1e-6).all():
        raise GridError(
            f"latitudes from {degrees[:, 1].min():g} to {degrees[:, 1].max():g} in {label} leave -90 to 90: the "
            "coordinates are swapped or of another CRS; set theirs with sites.assign_attrs(crs='EPSG:...')"
        )
    return Places(degrees, True, label)


def _to_degrees(xy: np.ndarray, system: Any) -> np.ndarray:
    from pyproj import Transformer

    to_degrees = Transformer.from_crs(system, "EPSG:4326", always_xy=True)
    return np.stack(to_degrees.transform(*xy.T), 1)


def _true_to_scale(xy: np.ndarray, system: Any) -> bool:
    """Return whether the scale error of a projection at the places is at most a tenth."""
    from pyproj import Proj
    from pyproj.exceptions import ProjError

    if not system.is_projected:
        return True  # a local plane has no relation to the earth
    sample = xy[:: max(1, len(xy) // TESTED)]
    degrees = _to_degrees(sample, system)
    if not np.isfinite(degrees).all():
        return True
    try:
        scale = Proj(system).get_factors(*degrees.T)
    except ProjError:
        return True
    scales = np.array([scale.meridional_scale, scale.parallel_scale])
    return bool((np.abs(scales[np.isfinite(scales)] - 1) <= DISTORTION).all())
