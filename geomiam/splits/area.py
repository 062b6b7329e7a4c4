"""The prediction area as random points, beside the places of sites and in their CRS."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from geomiam.errors import GridError
from geomiam.geo.dims import spatial_pair
from geomiam.geo.places import Places, places
from geomiam.splits.blocks import Seed
from geomiam.splits.reading import Where, coordinates, site_crs


def site_and_area_places(
    X: Where, groups: ArrayLike | None, area: Where, *, points: int, rng: Seed, crs: Any
) -> tuple[Places, Places]:
    """Return the places of sites and random points of the prediction area, in one CRS."""
    draws = np.random.default_rng(rng)
    xy, names = coordinates(X, groups), _names(X if groups is None else None)
    system = _system(X if groups is None else None, crs)
    if isinstance(area, xr.Dataset) and "site" not in area.dims:
        area_xy = _cells(area, points, draws)
    else:
        area_xy = coordinates(area, None)
        area_xy = area_xy[np.sort(draws.permutation(len(area_xy))[:points])]
    area_xy = _transformed(area_xy, _system(area, crs), system)
    if not len(area_xy):
        raise GridError(
            "the prediction area has no place with coordinates; pass a cube, sites or coordinates (m, 2)"
        )
    both_places = places(np.vstack([xy, area_xy]), system, names=names)
    rows = np.arange(len(both_places))
    return both_places.take(rows[: len(xy)]), both_places.take(rows[len(xy) :])


def _names(X: Any) -> tuple[str, str]:
    y, x = (spatial_pair(X.variables) if isinstance(X, xr.Dataset) else None) or ("y", "x")
    return x, y


def _system(X: Any, default: Any) -> Any:
    """Return the CRS of sites or a cube; the default for coordinates."""
    return site_crs(X, default) if isinstance(X, xr.Dataset) else default


def _transformed(xy: np.ndarray, source: Any, target: Any) -> np.ndarray:
    """Return coordinates in another CRS; unchanged if either is unknown or both are equal."""
    from pyproj import CRS, Transformer

    if source is None or target is None:
        return xy
    first, second = CRS.from_user_input(source), CRS.from_user_input(target)
    if first.equals(second, ignore_axis_order=True):
        return xy
    xy = np.stack(Transformer.from_crs(first, second, always_xy=True).transform(*xy.T), 1)
    return xy[np.isfinite(xy).all(1)]


def _cells(cube: xr.Dataset, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return random cells of a cube with any value; few cells are read at a time."""
    pair = spatial_pair(cube.variables)
    if pair is None or any(cube[n].ndim != 1 for n in pair):
        raise GridError(
            f"the prediction area has no coordinates of a grid (found {list(cube.coords)}): pass a cube, sites "
            "or coordinates (m, 2)"
        )
    y, x = pair
    rows, columns = cube.sizes[cube[y].dims[0]], cube.sizes[cube[x].dims[0]]
    cells = rng.permutation(rows * columns)
    names = [
        n for n, v in cube.data_vars.items() if {cube[y].dims[0], cube[x].dims[0]} <= set(v.dims)
    ]
    parts: list[np.ndarray] = []
    for start in range(0, len(cells), 4 * count):
        row, column = np.divmod(cells[start : start + 4 * count], columns)
        at = {
            cube[y].dims[0]: xr.DataArray(row, dims="cell"),
            cube[x].dims[0]: xr.DataArray(column, dims="cell"),
        }
        has_value = np.full(len(row), not names)
        for name in names:
            values = cube[name].isel(at)
            has_value |= values.notnull().any([d for d in values.dims if d != "cell"]).values
        parts.append(np.stack([cube[x].values[column], cube[y].values[row]], 1)[has_value])
        if sum(map(len, parts)) >= count:
            break
    xy = np.concatenate(parts)[:count].astype(float)
    if not len(xy):
        raise GridError("the prediction area has no cell with a value")
    return xy
