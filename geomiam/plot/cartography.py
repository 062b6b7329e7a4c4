"""Outlines and scale bars on maps."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from geomiam.errors import GeomiamError, GridError
from geomiam.geo.crs import crs_of
from geomiam.plot.canvas import INK

if TYPE_CHECKING:
    import geopandas
    from matplotlib.axes import Axes

    Coastline = str | Path | geopandas.GeoDataFrame | None
else:
    Coastline = Any

DEGREE = 111_195.0
"""Metres along a degree of latitude on a sphere of the mean radius of the earth."""
LINE: dict[str, Any] = {"colors": INK, "linewidths": 0.6}


def units_of(data: xr.Dataset | xr.DataArray, dim: str) -> str:
    """Return the units of a coordinate: those of its attribute or of the CRS, or no text."""
    if units := data[dim].attrs.get("units"):
        return str(units)
    try:
        return str(crs_of(data).proj.axis_info[0].unit_name)
    except GridError:  # a figure needs no CRS
        return ""


def frame_map(ax: Axes, units: str, y: Any) -> None:
    """Give equal distances along x and y the same length, and write degrees or km at the ticks."""
    from matplotlib.ticker import MaxNLocator

    is_degrees = "degree" in units
    latitude = min(abs(float(np.mean(y))), 80.0)  # at a pole the aspect would be infinite
    ax.set_aspect(1 / np.cos(np.radians(latitude)) if is_degrees else 1)
    ax.tick_params(labelsize=8)
    if not is_degrees:
        ax.ticklabel_format(style="plain", useOffset=False)
    for axis, signs in ((ax.xaxis, "WE"), (ax.yaxis, "SN")):
        axis.set_major_locator(MaxNLocator(5))
        if is_degrees:
            axis.set_major_formatter(partial(_degrees, signs))
        elif units in ("m", "metre", "meter"):
            axis.set_major_formatter(lambda v, _: f"{v / 1000:,.10g} km")


def _degrees(signs: str, value: float, position: int | None = None) -> str:
    return f"{abs(value):.10g}°{signs[int(value > 0)] if value else ''}"


def decorate(ax: Axes, array: xr.DataArray, *, coastline: Any, scale_bar: bool) -> None:
    """Draw an outline and a scale bar over a map; the limits of the axes stay as they are."""
    if coastline is not None:
        limits = ax.get_xlim(), ax.get_ylim()
        if isinstance(coastline, str) and coastline == "cells":
            _draw_outline(ax, array)
        else:
            _draw_lines(ax, array, coastline)
        ax.set(xlim=limits[0], ylim=limits[1])
    if scale_bar:
        _draw_scale_bar(ax, array)


def _draw_outline(ax: Axes, array: xr.DataArray) -> None:
    """Draw a line around the cells with a value."""
    y, x = array.dims[-2:]
    has_value = np.isfinite(array.transpose(y, x).values)
    if has_value.any() and not has_value.all() and min(has_value.shape) > 1:
        ax.contour(array[x], array[y], has_value.astype(float), levels=[0.5], **LINE)


def _draw_lines(ax: Axes, array: xr.DataArray, coastline: Any) -> None:
    """Draw lines, or the boundaries of polygons, in the CRS of the map."""
    from matplotlib.collections import LineCollection

    try:
        import geopandas
        import shapely
    except ImportError:
        raise GeomiamError("coastline= needs geopandas: pip install 'geomiam[vector]'") from None
    table = geopandas.read_file(coastline) if isinstance(coastline, (str, Path)) else coastline
    if table.crs is not None:
        table = table.to_crs(crs_of(array).to_wkt())
    west, east = sorted(ax.get_xlim())
    south, north = sorted(ax.get_ylim())
    shapes = shapely.clip_by_rect(_lines(table.geometry), west, south, east, north)
    parts = [p for p in shapely.get_parts(shapes) if not p.is_empty]
    segments = [shapely.get_coordinates(line) for p in parts for line in shapely.get_parts(p)]
    ax.add_collection(LineCollection([s for s in segments if len(s) > 1], **LINE))


def _lines(geometry: Any) -> np.ndarray:
    """Return lines, with the boundaries of polygons in their place."""
    is_polygon = geometry.geom_type.isin(("Polygon", "MultiPolygon"))
    return np.asarray(geometry.where(~is_polygon, geometry.boundary).values)


def _draw_scale_bar(ax: Axes, array: xr.DataArray) -> None:
    """Draw a bar of 1, 2 or 5 times a power of ten, at most a quarter of the width of the map."""
    left, right = ax.get_xlim()
    bottom, top = ax.get_ylim()
    unit = _metres_per_unit(array)
    width = abs(right - left) * unit
    exponent = np.floor(np.log10(width / 4))
    length = max(f * 10**exponent for f in (1, 2, 5) if f * 10**exponent <= width / 4)
    label = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
    start = left + 0.05 * (right - left)
    end = start + np.sign(right - left) * length / unit
    height = bottom + 0.05 * (top - bottom)
    ax.plot([start, end], [height, height], color=INK, lw=2.5, solid_capstyle="butt")
    middle = (start + end) / 2
    ax.text(middle, height + 0.012 * (top - bottom), label, ha="center", va="bottom", fontsize=8)


def _metres_per_unit(array: xr.DataArray) -> float:
    """Return metres along a unit of x in the middle of the map."""
    crs = crs_of(array)
    if not crs.geographic:
        return float(crs.proj.axis_info[0].unit_conversion_factor)
    return DEGREE * float(np.cos(np.radians(float(array[array.dims[-2]].mean()))))
