"""Change of a range between two maps: gain, loss, stable parts, and the shift of the centroid."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from geomiam.data.grid.grid import geobox, restore, spatial_dims
from geomiam.ranges.areas import areas_of, cell_areas
from geomiam.ranges.presence import Threshold, on_one_grid, one_map, presence_of

CLASSES = {"stable_absent": 0.0, "gain": 1.0, "loss": 2.0, "stable_present": 3.0}
"""Codes of range change: 2 × before + after."""
POINTS = "N NNE NE ENE E ESE SE SSE S SSW SW WSW W WNW NW NNW".split()
"""Directions of the compass, 22.5° apart."""

Map = xr.Dataset | xr.DataArray


def change(before: Map, after: Map, *, threshold: Threshold = None) -> xr.Dataset:
    """Return where a range is gained, lost or stable, and the areas in km².

    Parameters
    ----------
    before, after : xarray.Dataset or xarray.DataArray
        Maps of suitability, or of presence such as those of :func:`geomiam.classify`, on one grid. Further
        dims, such as scenarios of ``after``, are kept.
    threshold : float or mapping of str to float, optional
        Least suitability of a presence, for maps of suitability.

    Returns
    -------
    xarray.Dataset
        ``change(species, y, x)``: 0 stable absent, 1 gain, 2 loss, 3 stable present, NaN where one of the
        maps has no value. ``area(class, species)`` in km². ``area_before``, ``area_after`` and
        ``percent_loss``, ``percent_gain`` and ``percent_change``, in per cent of the area before, over
        cells with a value in both maps.

    Raises
    ------
    GridError
        If the maps lie on different grids.
    SettingError
        If a map of suitability has no threshold.

    See Also
    --------
    geomiam.classify : maps of presence.
    geomiam.plot.range_change : plot the map.
    geomiam.ranges.shift : how far a range moves.

    References
    ----------
    Thuiller (2004), Global Change Biology 10, 2020-2027, and ``BIOMOD_RangeSize`` of the R package biomod2.

    Examples
    --------
    >>> now, later = gm.predict(cube, model), gm.predict(cube.shift(x=1), model)
    >>> result = gm.ranges.change(now, later, threshold=0.5)
    >>> result["area"].sizes["class"]
    4
    """
    first, second = on_one_grid(one_map(before, "before"), one_map(after, "after"))
    was = presence_of(first, threshold, "before")
    becomes = presence_of(second, threshold, "after")
    codes = (2 * was + becomes).astype(np.float32)
    codes.attrs = {
        "long_name": "range change",
        "flag_values": list(CLASSES.values()),
        "flag_meanings": " ".join(CLASSES),
    }
    area = areas_of(codes, CLASSES)
    gain, loss, stable = (
        area.sel({"class": c}, drop=True) for c in ("gain", "loss", "stable_present")
    )
    before_area = (loss + stable).where(loss + stable > 0)
    percent = {"loss": loss, "gain": gain, "change": gain - loss}
    out = restore(xr.Dataset({"change": codes}), first)
    out["area"] = area
    out["area_before"] = (loss + stable).assign_attrs(area.attrs)
    out["area_after"] = (gain + stable).assign_attrs(area.attrs)
    for name, part in percent.items():
        text = {"long_name": f"{name} of the range area", "units": "percent"}
        out[f"percent_{name}"] = (100 * part / before_area).assign_attrs(text)
    return out


def shift(before: Map, after: Map, *, threshold: Threshold = None) -> xr.Dataset:
    """Return the distance and the direction by which the centroid of a range moves.

    Parameters
    ----------
    before, after : xarray.Dataset or xarray.DataArray
        Maps of suitability or of presence (0, 1) on one grid.
    threshold : float or mapping of str to float, optional
        With it, the centroid is that of the range. Without it, cells are weighted by their suitability.

    Returns
    -------
    xarray.Dataset
        ``lon`` and ``lat`` of the centroids (``lon_before``, …) in degrees, ``distance`` in km along the
        ellipsoid, ``azimuth`` in degrees clockwise from north at the first centroid, and ``direction``, one
        of 16 points of the compass. Cells without a value in one of the maps do not count. NaN if a range
        is empty.

    Raises
    ------
    GridError
        If the maps lie on different grids.

    See Also
    --------
    geomiam.ranges.change : gain, loss and stable parts.

    Notes
    -----
    The centroid is the mean of the unit vectors that are normal to the ellipsoid, weighted by the areas of
    the cells, so it is right across the antimeridian and at the poles too (Gade 2010, Journal of Navigation
    63, 395-417).

    Examples
    --------
    >>> now, later = gm.predict(cube, model), gm.predict(cube.shift(x=1), model)
    >>> gm.ranges.shift(now, later)["distance"].dims
    ('species',)
    """
    from pyproj import Geod

    first, second = on_one_grid(one_map(before, "before"), one_map(after, "after"))
    if threshold is not None:
        first = presence_of(first, threshold, "before")
        second = presence_of(second, threshold, "after")
    is_common = first.notnull() & second.notnull()
    vectors, areas = _normals(first), cell_areas(first).reset_coords(drop=True)
    centres = []
    for values in (first, second):
        weights = (values.astype(np.float64) * areas).where(is_common)
        centre = xr.concat(
            [(weights * v).sum(spatial_dims(first)) for v in vectors], dim="axis"
        ).reset_coords(drop=True)
        centres.append(_degrees(centre.compute()))
    (lon, lat), (lon_after, lat_after) = centres
    ends = [c.values for c in (lon, lat, lon_after, lat_after)]
    azimuth, _, metres = Geod(ellps="WGS84").inv(ends[0], ends[1], ends[2], ends[3])
    out = xr.Dataset(
        {"lon_before": lon, "lat_before": lat, "lon_after": lon_after, "lat_after": lat_after}
    )
    azimuth = np.where(np.isfinite(metres), np.mod(azimuth, 360), np.nan)
    out["distance"] = (lon.dims, np.asarray(metres) / 1000, {"long_name": "shift", "units": "km"})
    out["azimuth"] = (lon.dims, azimuth, {"long_name": "direction", "units": "degrees"})
    out["direction"] = (lon.dims, _names(azimuth))
    return out


def _normals(maps: xr.DataArray) -> list[xr.DataArray]:
    """Return the components ``(y, x)`` of the unit vectors normal to the ellipsoid at the centres of cells."""
    from pyproj import Transformer

    box, dims = geobox(maps), spatial_dims(maps)
    assert box.crs is not None
    columns, rows = np.meshgrid(np.arange(box.shape.x) + 0.5, np.arange(box.shape.y) + 0.5)
    x, y = box.affine * (columns, rows)
    to_degrees = Transformer.from_crs(box.crs.proj, "EPSG:4326", always_xy=True)
    lon, lat = np.deg2rad(to_degrees.transform(x, y))
    components: Any = (np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat))
    coords = {d: maps[d].values for d in dims}
    finite = np.isfinite(lon) & np.isfinite(lat)
    return [xr.DataArray(np.where(finite, c, 0.0), dims=dims, coords=coords) for c in components]


def _degrees(vector: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Return longitude and latitude of vectors ``(axis, …)``; NaN for the null vector."""
    x, y, z = (vector.isel(axis=i, drop=True) for i in range(3))
    length = np.sqrt(x**2 + y**2 + z**2)
    lon = xr.DataArray(np.rad2deg(np.arctan2(y, x))).where(length > 0)
    lat = xr.DataArray(np.rad2deg(np.arctan2(z, np.hypot(x, y)))).where(length > 0)
    return lon.assign_attrs(units="degrees_east"), lat.assign_attrs(units="degrees_north")


def _names(azimuth: np.ndarray) -> np.ndarray:
    """Return the point of the compass of each direction; empty for NaN."""
    number = np.nan_to_num(np.rint(azimuth / 22.5)).astype(int) % 16
    return np.where(np.isfinite(azimuth), np.array(POINTS)[number], "")
