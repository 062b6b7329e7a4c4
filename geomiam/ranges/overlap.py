"""Niche overlap of two maps, and agreement of maps of several models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import xarray as xr

from geomiam.data.grid.grid import restore, spatial_dims
from geomiam.errors import SelectionError, SettingError
from geomiam.ranges.areas import cell_areas
from geomiam.ranges.presence import Threshold, on_one_grid, one_map, presence_of

Weights = Literal["area", "cells"]


def overlap(
    first: xr.Dataset | xr.DataArray,
    second: xr.Dataset | xr.DataArray,
    *,
    weights: Weights = "area",
) -> xr.Dataset:
    """Return Schoener's D and Warren's I of two maps of suitability.

    Both are 0 for maps without a common suitable cell, and 1 for maps that are proportional to each other.

    Parameters
    ----------
    first, second : xarray.Dataset or xarray.DataArray
        Suitability of two species, times or models on one grid, at least 0. Equal species are compared with
        each other; for two species, select each:
        ``overlap(maps["suitability"].sel(species="a"), maps["suitability"].sel(species="b"))``.
    weights : {"area", "cells"}
        ``"area"``: suitability counts per area. ``"cells"``: per cell, as in ENMTools and dismo. The two
        are equal on equal-area grids.

    Returns
    -------
    xarray.Dataset
        ``schoener_d`` and ``warren_i``, 0 to 1, with the dims of the maps other than the spatial ones; over
        cells with a value in both maps, whose number is ``cells``. NaN if a map is 0 everywhere.

    Raises
    ------
    GridError
        If the maps lie on different grids.
    SettingError
        If suitability is negative, such as log-odds, or ``weights`` is unknown.

    References
    ----------
    Schoener (1968), Ecology 49, 704-726; Warren et al. (2008), Evolution 62, 2868-2883, with its correction
    (Evolution 65, 1215): I = 1 − H² / 2, where H is the Hellinger distance, as in ENMTools, dismo and
    fuzzySim. The ``I`` of tidysdm is another quantity, 1 − H / √2.

    Examples
    --------
    >>> suitability = gm.predict(cube, model)["suitability"]
    >>> a, b = (suitability.sel(species=f"species {i}") for i in (0, 1))
    >>> bool(0 < gm.ranges.overlap(a, b)["schoener_d"] < 1)
    True
    """
    if weights not in ("area", "cells"):
        raise SettingError(f"weights={weights!r}; use 'area' or 'cells'")
    a, b = on_one_grid(one_map(first, "first"), one_map(second, "second"))
    dims = spatial_dims(a)
    is_common = a.notnull() & b.notnull()
    if any("logit" in str(m.attrs.get("scale")) for m in (a, b)) or _is_negative(a, b):
        raise SettingError(
            "niche overlap needs suitability of at least 0: predict with scale='probability'"
        )
    size: Any = cell_areas(a).reset_coords(drop=True) if weights == "area" else 1.0
    p, q = ((m.astype(np.float64) * size).where(is_common) for m in (a, b))
    p, q = (m / m.sum(dims).where(m.sum(dims) > 0) for m in (p, q))
    d = 1 - np.abs(p - q).sum(dims, min_count=1) / 2
    i = 1 - ((np.sqrt(p) - np.sqrt(q)) ** 2).sum(dims, min_count=1) / 2
    out = xr.Dataset(
        {"schoener_d": d.clip(0, 1), "warren_i": i.clip(0, 1), "cells": is_common.sum(dims)}
    )
    out["schoener_d"].attrs = {"long_name": "Schoener's D", "units": "1"}
    out["warren_i"].attrs = {"long_name": "Warren's I", "units": "1"}
    return out.reset_coords(drop=True).assign_attrs(weights=weights)


def _is_negative(*maps: xr.DataArray) -> bool:
    """Return whether maps in memory have negative values."""
    return any(m.chunks is None and bool((m < 0).any()) for m in maps)


def agreement(
    maps: xr.DataArray | xr.DataTree | Mapping[str, Any] | Sequence[Any],
    *,
    threshold: Threshold = None,
    dim: str = "scenario",
) -> xr.Dataset:
    """Return how far maps of several climate models agree on the presence of a species.

    Parameters
    ----------
    maps : xarray.DataArray, xarray.DataTree, mapping or sequence
        Maps of suitability or of presence on one grid: an array with the dim ``dim``, the leaves of a tree
        such as ``projection.maps``, or several maps.
    threshold : float or mapping of str to float, optional
        Least suitability of a presence, for maps of suitability.
    dim : str
        Dim of an array along which the maps differ.

    Returns
    -------
    xarray.Dataset
        ``present_share(species, y, x)``: share of the models that predict presence, of those with a value;
        ``agreement``: share of the models on the side of the majority, 0.5 to 1; ``majority``: 1 where more
        than half predict presence; ``models``: number of models with a value; ``mean`` and ``spread``
        (standard deviation) of the values.

    Raises
    ------
    GridError
        If maps lie on different grids.
    SelectionError
        If there is no map, or no dim of this name.
    SettingError
        If maps of suitability have no threshold.

    See Also
    --------
    geomiam.project : maps under several climates.
    geomiam.ranges.change : two maps.

    References
    ----------
    Araújo and New (2007), Trends in Ecology & Evolution 22, 42-47, for ensembles of forecasts.

    Examples
    --------
    >>> maps = [gm.predict(cube, model), gm.predict(cube.shift(x=1), model)]
    >>> result = gm.ranges.agreement(maps, threshold=0.5)
    >>> float(result["agreement"].min())
    0.5
    """
    joined_maps = _stacked(maps, dim)
    present = presence_of(joined_maps, threshold, "maps")
    models = present.notnull().sum(dim)
    share = present.mean(dim)
    out = xr.Dataset(
        {
            "present_share": share,
            "agreement": xr.where(share > 0.5, share, 1 - share),
            "majority": (share > 0.5).where(share.notnull()).astype(np.float32),
            "models": models,
            "mean": joined_maps.mean(dim),
            "spread": joined_maps.std(dim),
        }
    )
    texts = {
        "present_share": "share of the models that predict presence",
        "agreement": "share of the models on the side of the majority",
        "majority": "presence in more than half of the models",
        "models": "models with a value",
        "mean": "mean over models",
        "spread": "standard deviation over models",
    }
    for name, text in texts.items():
        out[name].attrs = {"long_name": text, "units": "1"}
    return restore(out, joined_maps.isel({dim: 0}, drop=True))


def _stacked(maps: Any, dim: str) -> xr.DataArray:
    """Return the maps along one dim."""
    if isinstance(maps, xr.DataArray):
        if dim not in maps.dims:
            raise SelectionError(
                f"the maps have no dim '{dim}'; their dims are {maps.dims}: pass dim="
            )
        return maps
    if isinstance(maps, xr.DataTree):
        maps = {n.path: n.to_dataset() for n in maps.leaves if n.data_vars}
    by_name = dict(maps) if isinstance(maps, Mapping) else dict(enumerate(maps))
    if not by_name:
        raise SelectionError("there is no map: pass at least one")
    arrays = [one_map(m, f"map {n}") for n, m in by_name.items()]
    first = arrays[0]
    on_grid = [first, *(on_one_grid(first, m)[1] for m in arrays[1:])]
    names = [str(n) for n in by_name]
    attrs = dict(first.attrs)
    out = xr.concat(on_grid, dim=dim, coords="minimal", compat="override", join="exact")
    return out.assign_coords({dim: names}).assign_attrs(attrs)
