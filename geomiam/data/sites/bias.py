"""Sampling bias of background: weights of cells from a layer, or the kernel density of records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from geomiam.data.dataset import as_dataset
from geomiam.data.grid.grid import spatial_dims
from geomiam.data.records.cells import cells_of
from geomiam.data.records.coordinates import Points
from geomiam.data.values import as_float
from geomiam.errors import LabelError, LengthError, SelectionError
from geomiam.geo.crs import crs_of, in_degrees
from geomiam.geo.dims import SITE
from geomiam.geo.lengths import Length, as_text, kilometres
from geomiam.splits import site_coordinates

LAYER = "background_bias"
ROUNDS = 100
"""Rounds of n draws after which drawing from a kernel density stops: then few of its cells are left."""


@dataclass(frozen=True, eq=False)
class Bias:
    """Weights of cells: a layer, or the kernel density of the records with a bandwidth."""

    text: str
    layer: xr.DataArray | None = None
    """Weights per area ``(y, x)``; numpy or dask."""
    km: float = 0.0
    """Standard deviation of the Gaussian kernel."""
    records: np.ndarray = field(default_factory=lambda: np.empty((0, 2)))
    """Longitude and latitude of every presence ``(record, 2)``."""

    @classmethod
    def of(cls, bias: str | Length | xr.DataArray, grid: xr.Dataset, sites: xr.Dataset) -> Bias:
        """Return the bias by a variable of the cube, a layer on its grid, or a bandwidth of the presences."""
        dims = spatial_dims(grid)
        if isinstance(bias, xr.DataArray):
            stack = as_dataset([grid, bias.to_dataset(name=LAYER)])
            layer, text = stack[LAYER], f"weighted by the layer '{bias.name or 'bias'}'"
        elif isinstance(bias, str) and bias in grid.data_vars:
            layer, text = grid[bias], f"weighted by the layer '{bias}'"
        else:
            try:
                km = kilometres(bias, "bias")
            except LengthError as error:
                raise SelectionError(
                    f"bias={bias!r} is neither a variable of the cube, which has {list(grid.data_vars)}, nor a bandwidth such "
                    f"as '50 km': {error}"
                ) from None
            text = f"weighted by the kernel density of the presences (bandwidth {as_text(km)})"
            return cls(text, km=km, records=_records(sites, crs_of(grid)))
        if set(layer.dims) != set(dims):
            raise SelectionError(
                f"{text.removeprefix('by ')} has the dims {layer.dims}, and weights of cells have {dims}; select one step"
            )
        return cls(text, as_float(layer.reset_coords(drop=True)).transpose(*dims))


def _records(sites: xr.Dataset, crs: Any) -> np.ndarray:
    rows = np.repeat(np.arange(sites.sizes[SITE]), (sites["presence"] == 1).sum("species").values)
    if not len(rows):
        raise LabelError(
            "the sites have no presences, so they have no density; pass bias= a variable of the cube or a layer"
        )
    return in_degrees(site_coordinates(sites)[rows], crs)


def rows_of(layer: xr.DataArray) -> Callable[[int, int], np.ndarray]:
    """Return a function that reads rows of a layer ``(stop - start, x)``; each chunk once if in order."""
    y = layer.dims[0]
    sizes = layer.chunksizes.get(y) or (layer.sizes[y],)
    edges = np.concatenate([[0], np.cumsum(sizes)])

    @lru_cache(maxsize=2)
    def band(number: int) -> np.ndarray:
        return layer.isel({y: slice(edges[number], edges[number + 1])}).values

    def rows(start: int, stop: int) -> np.ndarray:
        first, last = np.searchsorted(edges, [start, stop - 1], side="right") - 1
        bands = np.concatenate([band(i) for i in range(first, last + 1)])
        return bands[start - edges[first] : stop - edges[first]]

    return rows


def draw_near(
    mask: np.ndarray,
    n: int,
    *,
    records: np.ndarray,
    km: float,
    box: Any,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draw at most n cells of a mask ``(y, x)`` from the kernel density of records in degrees ``(r, 2)``.

    Each drawn cell is cleared in the mask. Returns rows and columns ``(k, 2)``.
    """
    # A random record moved by a Gaussian step is a draw from the kernel density. Repeated cells are dropped, so this is
    # sampling without replacement with probabilities proportional to the density over each cell.
    from pyproj import Geod

    geod, open_cells = Geod(ellps="WGS84"), mask.reshape(-1)
    drawn_cells, size = np.empty(0, int), max(n, 1000)
    for _ in range(ROUNDS):
        lon, lat = records[rng.integers(len(records), size=size)].T
        azimuth, metres = rng.uniform(0, 360, size), 1000 * km * rng.rayleigh(size=size)
        lon, lat, _ = geod.fwd(lon, lat, azimuth, metres)
        cells = cells_of(Points(lon, lat, "EPSG:4326", ("lon", "lat")), box)
        cells = pd.unique(cells[:, 0] * mask.shape[1] + cells[:, 1])
        cells = cells[cells >= 0]
        cells = cells[open_cells[cells]]
        open_cells[cells] = False
        drawn_cells = np.append(drawn_cells, cells)
        if len(drawn_cells) >= n:
            break
    return np.stack(np.divmod(drawn_cells[:n], mask.shape[1]), axis=1)
