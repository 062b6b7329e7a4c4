"""Diagnosis of occurrences outside the grid: the probable cause and the call that corrects it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from geomiam.data.records.cells import cells_of
from geomiam.data.records.coordinates import Points
from geomiam.geo.crs import crs_name


def explain_outside(points: Points, box: Any, *, outside: int, of: int) -> str:
    """Return the message for points that lie mostly outside the grid."""
    crs = points.crs if points.crs is not None else box.crs
    counts = f"{outside} of {of} points lie outside the grid"
    extents = f"points: {_span(points)} taken as {crs_name(crs)}; grid: {_bounds(box)} in {crs_name(box.crs)}"
    return f"{counts}. {_cause(points, box, crs=crs)} ({extents})"


def _cause(points: Points, box: Any, *, crs: Any) -> str:
    from odc.geo.crs import CRS

    first, second = points.names
    geographic = CRS(crs).geographic
    if _inside(replace(points, x=points.y, y=points.x), box):
        return (
            f"With x and y swapped they lie inside: pass to gm.read_records as x= the column that was read as "
            f"'{second}', and as y= the column that was read as '{first}'"
        )
    if not geographic and _degrees(points):
        return "They look like degrees: pass crs='EPSG:4326' to gm.read_records"
    if geographic and not _degrees(points):
        return f"They look like metres, not degrees: pass crs= to gm.read_records, e.g. crs='{crs_name(_metric(box))}'"
    return "Pass their crs= to gm.read_records, or a cube that covers them"


def _inside(points: Points, box: Any) -> bool:
    """Return whether more than half of the points with coordinates are on the grid."""
    has_coordinates = np.isfinite(points.x) & np.isfinite(points.y)
    return bool(2 * (cells_of(points, box) >= 0).all(axis=1).sum() > has_coordinates.sum())


def _degrees(points: Points) -> bool:
    x, y = np.abs(points.x), np.abs(points.y)
    return bool(np.nanmedian(x) <= 360 and np.nanmedian(y) <= 90)


def _metric(box: Any) -> Any:
    return "EPSG:32633" if box.crs.geographic else box.crs


def _span(points: Points) -> str:
    ends = (np.nanmin(points.x), np.nanmax(points.x), np.nanmin(points.y), np.nanmax(points.y))
    return "x {:g} to {:g}, y {:g} to {:g}".format(*ends)


def _bounds(box: Any) -> str:
    left, bottom, right, top = box.extent.boundingbox.bbox
    return f"x {left:g} to {right:g}, y {bottom:g} to {top:g}"
