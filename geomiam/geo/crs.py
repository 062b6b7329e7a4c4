"""Coordinate reference systems: parsing, comparison, and short names for messages."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from geomiam.checks.files import reason
from geomiam.errors import GridError
from geomiam.geo.dims import SITE

if TYPE_CHECKING:
    import xarray as xr
    from odc.geo.crs import CRS

CRS_NAME = "spatial_ref"  # name of the CRS coordinate in files that geomiam writes

CRS_ATTRIBUTES = frozenset(("spatial_ref", "crs_wkt", "grid_mapping_name"))
"""A scalar with any of these attributes is a grid mapping of the CF conventions."""


def as_crs(value: Any, setting: str) -> CRS:
    """Return a horizontal CRS from a code, WKT, or any other value that :class:`odc.geo.crs.CRS` accepts.

    Raises GridError, with the name of the setting, for an unknown CRS and one without horizontal axes.
    """
    from odc.geo.crs import CRS

    try:
        crs = CRS(value)
        is_horizontal = crs.geographic or crs.projected
    except Exception as error:  # pyproj, odc-geo and sqlite raise errors of several classes
        raise GridError(
            f"{setting}: '{str(value)[:80]}' is not a known CRS ({reason(error)[:160]}); use a code such as EPSG:4326"
        ) from None
    if not is_horizontal:
        raise GridError(
            f"{setting}: '{str(value)[:80]}' is neither geographic nor projected; use a code of a "
            "horizontal CRS, such as EPSG:4326"
        )
    return crs


def crs_name(crs: Any) -> str:
    """Return ``EPSG:…`` where there is a code, else the text of the CRS."""
    from odc.geo.crs import CRS

    code = CRS(crs).to_epsg()
    return f"EPSG:{code}" if code else str(crs)


def in_degrees(xy: np.ndarray, crs: Any) -> np.ndarray:
    """Return coordinates ``(n, 2)`` in a CRS as longitude and latitude."""
    from pyproj import Transformer

    to_degrees = Transformer.from_crs(crs.proj, "EPSG:4326", always_xy=True)
    return np.stack(to_degrees.transform(*xy.T), 1)


def equal_area_around(degrees: np.ndarray) -> str:
    """Return the Lambert azimuthal equal-area projection that is centred on places in degrees ``(n, 2)``."""
    lon, lat = np.deg2rad(degrees).T
    x, y, z = np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)
    centre = np.rad2deg(
        [np.arctan2(y.mean(), x.mean()), np.arctan2(z.mean(), np.hypot(x.mean(), y.mean()))]
    )
    return f"+proj=laea +lon_0={centre[0]:.9f} +lat_0={centre[1]:.9f} +datum=WGS84 +units=m"


def same_crs(a: CRS | None, b: CRS | None) -> bool:
    """Return whether two CRS assign the same x and y to every place, independent of their notation.

    Axis order is ignored, because xarray names its axes. Names, such as those in ESRI's WKT, are ignored.
    """
    if a is None or b is None or a == b:
        return a is b or a == b
    return _same_place(a.to_wkt(), b.to_wkt())


@lru_cache(maxsize=256)
def _same_place(a: str, b: str) -> bool:
    import pyproj

    crs_a, crs_b = pyproj.CRS(a), pyproj.CRS(b)
    codes = crs_a.to_epsg(), crs_b.to_epsg()
    if crs_a.equals(crs_b, ignore_axis_order=True) or (codes[0] == codes[1] and all(codes)):
        return True
    geodetic_a, geodetic_b = crs_a.geodetic_crs, crs_b.geodetic_crs
    if None not in codes or geodetic_a is None or geodetic_b is None:
        return False
    if not geodetic_a.equals(geodetic_b, ignore_axis_order=True):
        return False
    lon, lat = (v.ravel() for v in np.mgrid[-180:181:15, -90:91:15].astype(float))
    (x, y), (u, v) = (
        pyproj.Transformer.from_crs(c.geodetic_crs, c, always_xy=True).transform(lon, lat)
        for c in (crs_a, crs_b)
    )
    return bool(np.allclose(x, u, rtol=1e-9, atol=1e-6) and np.allclose(y, v, rtol=1e-9, atol=1e-6))


def crs_coordinate(ds: xr.Dataset | xr.DataArray) -> str | None:
    """Return the name of the coordinate with the CRS, or None."""
    names = [str(k) for k, c in ds.coords.items() if c.ndim == 0 and CRS_ATTRIBUTES & set(c.attrs)]
    return CRS_NAME if CRS_NAME in names else next(iter(names), None)


def crs_of(ds: xr.Dataset | xr.DataArray) -> CRS:
    """Return the CRS of a cube or of sites; GridError, with the call that sets one, when there is none."""
    import odc.geo.xr  # noqa: F401 (registers .odc)
    from odc.geo.crs import CRS
    from pyproj import CRS as Projection
    from pyproj.exceptions import CRSError

    if name := crs_coordinate(ds):
        attrs = ds.coords[name].attrs
        text = attrs.get("crs_wkt") or attrs.get("spatial_ref")
        try:  # from text, or from CF parameters, such as those of a rotated pole
            return CRS(text or Projection.from_cf(dict(attrs)))
        except (CRSError, KeyError, TypeError, ValueError) as error:
            raise GridError(
                f"grid mapping '{name}' does not define a CRS: {str(error)[:200]}; set one, e.g. "
                "open_cube(ds, crs='EPSG:4326'), or crs: in the catalog"
            ) from None
    crs = ds.attrs.get("crs") if SITE in ds.dims else ds.odc.uncached.crs
    if crs is None:
        raise GridError(
            "the data have no CRS: no 'spatial_ref' coordinate and no 'crs' attribute found; set it, e.g. "
            'ds.odc.assign_crs("EPSG:4326") after import odc.geo.xr, or gm.open_cube(ds, crs="EPSG:4326")'
        )
    return as_crs(crs, "the CRS of the data")
