"""Maps of suitability as maps of presence, on one grid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from geomiam.checks.settings import check_number
from geomiam.data.grid.grid import geobox, same_grid, spatial_dims
from geomiam.errors import GridError, SelectionError, SettingError

Threshold = float | Mapping[str, float] | xr.DataArray | None
"""Least suitability of a presence: one number, or one per species."""


def one_map(maps: xr.Dataset | xr.DataArray, setting: str) -> xr.DataArray:
    """Return the suitability or the presence of a Dataset, or the array itself."""
    if isinstance(maps, xr.Dataset):
        name = next((n for n in ("suitability", "presence") if n in maps), None)
        if name is None:
            raise SelectionError(
                f"{setting} has neither 'suitability' nor 'presence' (found {list(maps.data_vars)}): pass one of "
                "its variables"
            )
        maps = maps[name]
    spatial_dims(maps)
    return maps


def presence_of(maps: xr.DataArray, threshold: Threshold, setting: str) -> xr.DataArray:
    """Return 1 where the species is present, 0 where it is absent, and NaN where nothing is predicted."""
    if threshold is None:
        if maps.dtype.kind == "b":
            return maps.astype(np.float32)
        is_lazy = maps.chunks is not None
        if maps.attrs.get("scale") or not (is_lazy or _is_binary(maps.values)):
            raise SettingError(
                f"{setting} is not a map of 0 and 1: pass threshold=, the least suitability of a presence, as one "
                "number or as a mapping from species to number, or use maps of gm.classify(maps, model)"
            )
        return maps.astype(np.float32)
    limit = _limits(maps, threshold)
    return (maps >= limit).where(maps.notnull()).astype(np.float32)


def _is_binary(values: np.ndarray) -> bool:
    return bool(
        np.isin(values, (0, 1)).all()
        if values.dtype.kind in "iu"
        else np.isin(values[~np.isnan(values)], (0, 1)).all()
    )


def _limits(maps: xr.DataArray, threshold: Any) -> Any:
    if isinstance(threshold, Mapping):
        species = [str(s) for s in np.atleast_1d(maps["species"].values)]
        if missing := [s for s in species if s not in threshold]:
            raise SelectionError(f"threshold= has no number for {missing[:5]}")
        values = [float(threshold[s]) for s in species]
        if "species" not in maps.dims:
            return values[0]
        return xr.DataArray(values, dims="species", coords={"species": maps["species"].values})
    if isinstance(threshold, (xr.DataArray, np.ndarray)):
        return threshold
    check_number(
        "threshold",
        threshold,
        requirement="must be a number",
        accepts=lambda t: t == t,
        hint="it is the least suitability of a presence, such as 0.5",
    )
    return threshold


def on_one_grid(first: xr.DataArray, second: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Return two maps with the same spatial coordinates; GridError if their grids differ."""
    dims, second_dims = spatial_dims(first), spatial_dims(second)
    boxes = geobox(first), geobox(second)
    if boxes[0].shape != boxes[1].shape or not same_grid(*boxes):
        raise GridError(
            f"the maps lie on different grids, {_describe(boxes[0])} and {_describe(boxes[1])}: predict both on one, or "
            "align the predictors with gm.align(sources, like=cube)"
        )
    second = second.rename({b: a for a, b in zip(dims, second_dims) if a != b})
    return _bare(first), _bare(second).assign_coords({d: first[d] for d in dims})


def _bare(maps: xr.DataArray) -> xr.DataArray:
    """Return a map with the coordinates of its dims and its CRS only."""
    scalar_names = [k for k, c in maps.coords.items() if c.ndim == 0 and not c.attrs]
    return maps.drop_vars(scalar_names)


def _describe(box: Any) -> str:
    return f"{box.shape.y} × {box.shape.x} cells ({box.crs})"
