"""Areas of cells and of classes of a map, in km²."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import xarray as xr

from geomiam.data.grid.grid import geobox, spatial_dims
from geomiam.errors import SettingError
from geomiam.ranges.presence import Threshold, one_map, presence_of

NODES = 513
"""Rows and columns at which the areal scale of a projection is computed; it is interpolated between them."""


def cell_areas(cube: xr.Dataset | xr.DataArray) -> xr.DataArray:
    """Return the area of every cell of a grid on the ellipsoid, in km².

    Parameters
    ----------
    cube : xarray.Dataset or xarray.DataArray
        Cube or map with a CRS.

    Returns
    -------
    xarray.DataArray
        ``(y, x)``. In geographic CRS the area between the meridians and parallels of a cell. In projected
        CRS the area in the plane divided by the areal scale of the projection at the centre of the cell: in
        equal-area projections that is the area in the plane. NaN where the projection is not defined.
        Rotated poles count as a sphere of the same ellipsoid, an error of less than 1 %.

    Raises
    ------
    GridError
        If there is no regular grid or no CRS.

    See Also
    --------
    geomiam.ranges.class_areas : sums by class.

    Examples
    --------
    >>> import odc.geo.xr
    >>> world = xr.Dataset(coords={"y": [45.0, -45.0], "x": [-90.0, 90.0]}).odc.assign_crs(
    ...     "EPSG:4326"
    ... )
    >>> float(gm.ranges.cell_areas(world).sum().round(-3))
    510066000.0
    """
    dims, box = spatial_dims(cube), geobox(cube)
    assert box.crs is not None
    shape = (box.shape.y, box.shape.x)
    if box.crs.geographic and not (box.affine.b or box.affine.d):
        areas = np.broadcast_to(_geographic(box)[:, None], shape)
    else:
        areas = _projected(box)
    coords = {d: cube[d] for d in dims}
    attrs = {"long_name": "area of the cell", "units": "km2", "standard_name": "cell_area"}
    return xr.DataArray(areas, dims=dims, coords=coords, attrs=attrs)


def _geographic(box: Any) -> np.ndarray:
    """Return the area of the cells of each row ``(y,)``."""
    crs, affine = box.crs.proj, box.affine
    unit = crs.axis_info[0].unit_conversion_factor if crs.axis_info else np.pi / 180
    edges = affine.f + affine.e * np.arange(box.shape.y + 1)
    lat = np.clip(edges * unit, -np.pi / 2, np.pi / 2)
    major, minor = crs.ellipsoid.semi_major_metre / 1000, crs.ellipsoid.semi_minor_metre / 1000
    e2 = 1 - (minor / major) ** 2
    sine = np.sin(lat)
    # area from the equator to a parallel per radian of longitude, on the ellipsoid (Snyder 1987, eq. 3-12)
    e = np.sqrt(e2)
    tail = np.arctanh(e * sine) / e if e > 1e-9 else sine
    to_parallel = minor**2 / 2 * (sine / (1 - e2 * sine**2) + tail)
    return np.abs(np.diff(to_parallel)) * abs(affine.a) * unit


def _projected(box: Any) -> np.ndarray:
    """Return the area of each cell ``(y, x)`` from the areal scale at nodes of the grid."""
    from pyproj import Proj, Transformer

    crs, affine = box.crs.proj, box.affine
    unit = crs.axis_info[0].unit_conversion_factor if crs.axis_info else 1.0
    if box.crs.geographic:
        raise SettingError("the grid is rotated against its meridians: reproject it first")
    plane = abs(affine.a * affine.e - affine.b * affine.d) * (unit / 1000) ** 2
    rows, columns = (_nodes(n) for n in (box.shape.y, box.shape.x))
    x, y = affine * tuple(np.meshgrid(columns + 0.5, rows + 0.5))
    degrees = Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True).transform(x, y)
    scale = np.asarray(Proj(crs).get_factors(*degrees, errcheck=False).areal_scale)
    scale = np.where(np.isfinite(scale) & (scale > 0), scale, np.nan)
    if "Pseudo Mercator" in crs.coordinate_operation.method_name:
        # web maps project latitudes of the ellipsoid as those of a sphere, and PROJ's scale is that of the sphere
        e2 = 1 - (crs.ellipsoid.semi_minor_metre / crs.ellipsoid.semi_major_metre) ** 2
        scale = scale * (1 - e2 * np.sin(np.deg2rad(degrees[1])) ** 2) ** 2 / (1 - e2)
    if scale.shape == (box.shape.y, box.shape.x):
        return plane / scale
    across = np.stack([np.interp(np.arange(box.shape.x), columns, row) for row in scale])
    return plane / np.stack([np.interp(np.arange(box.shape.y), rows, c) for c in across.T], 1)


def _nodes(count: int) -> np.ndarray:
    """Return rows or columns, of large grids a part of them."""
    return np.unique(np.linspace(0, count - 1, min(count, NODES)).round())


def class_areas(
    maps: xr.Dataset | xr.DataArray,
    *,
    threshold: Threshold = None,
    edges: Sequence[float] | None = None,
) -> xr.DataArray:
    """Return the area of each class of a map, in km².

    Parameters
    ----------
    maps : xarray.Dataset or xarray.DataArray
        Suitability, a map of presence (0, 1), or a map of classes such as that of
        :func:`geomiam.ranges.change`.
    threshold : float or mapping of str to float, optional
        Least suitability of a presence; the classes are then ``absent`` and ``present``.
    edges : sequence of float, optional
        Limits between classes of suitability, ascending: ``[0.2, 0.5]`` has the classes below 0.2, from 0.2
        to below 0.5, and from 0.5.

    Returns
    -------
    xarray.DataArray
        ``(class, species)`` and further dims of the map. Cells without a value are in no class. Lazy for
        dask arrays.

    Raises
    ------
    SettingError
        If both limits are set, ``edges`` are not ascending, or a map of suitability has neither.

    See Also
    --------
    geomiam.ranges.cell_areas : the area of each cell.
    geomiam.classify : maps of presence.

    Examples
    --------
    >>> maps = gm.predict(cube, model)
    >>> areas = gm.ranges.class_areas(maps, edges=[0.3, 0.6])
    >>> areas["class"].values.tolist()
    ['below 0.3', '0.3 to 0.6', 'from 0.6']
    """
    values = one_map(maps, "maps")
    if threshold is not None and edges is not None:
        raise SettingError("threshold= and edges= both set the classes; pass one of them")
    if edges is not None:
        limits = [float(e) for e in edges]
        if not limits or sorted(set(limits)) != limits:
            raise SettingError(f"edges={list(edges)} must be ascending numbers")
        names = [f"below {limits[0]:g}", *(f"{a:g} to {b:g}" for a, b in pairwise(limits))]
        names.append(f"from {limits[-1]:g}")
        codes = sum((values >= e).astype(np.float32) for e in limits)
        values = xr.DataArray(codes).where(values.notnull())
    elif "flag_meanings" in values.attrs and threshold is None:
        codes_of = [float(v) for v in np.atleast_1d(values.attrs["flag_values"])]
        names = str(values.attrs["flag_meanings"]).split()
        return areas_of(values, dict(zip(names, codes_of))).compute()
    else:
        values, names = presence_of(values, threshold, "maps"), ["absent", "present"]
    return areas_of(values, {n: float(i) for i, n in enumerate(names)}).compute()


def areas_of(values: xr.DataArray, codes: dict[str, float]) -> xr.DataArray:
    """Return the area of each code ``(class, …)`` in km²."""
    areas, dims = cell_areas(values), spatial_dims(values)
    areas = areas.reset_coords(drop=True)
    parts = [areas.where(values == code, 0.0).fillna(0.0).sum(dims) for code in codes.values()]
    out = xr.concat(parts, dim="class").assign_coords({"class": list(codes)})
    return out.rename("area").assign_attrs(long_name="area", units="km2")
