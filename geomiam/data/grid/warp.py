"""Warping of sources onto a grid, one tile of the result at a time.

Tiles depend on the two grids only, and each reads the margin that GDAL's kernels need. The lazy
``reproject`` of odc-geo reads no margin, so its values depend on chunks (opendatacube/odc-geo#238).
"""

from __future__ import annotations

import itertools
import math
import threading
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from geomiam.data.grid.grid import geobox, same_grid, slack, snapped, spatial_dims
from geomiam.data.grid.source_windows import (
    Part,
    cells_across,
    cells_of_half,
    columns,
    reach,
    sample,
)
from geomiam.data.values import as_float
from geomiam.errors import MissingModality, warn
from geomiam.geo.crs import CRS_ATTRIBUTES, crs_name, same_crs
from geomiam.geo.longitude import full_turn

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

KERNELS = ("nearest", "bilinear", "cubic", "cubic_spline", "lanczos", "gauss")
"""Resampling by a kernel around a point; other methods use all pixels under a cell."""
TILE = 1024  # largest number of rows and columns of a tile of the result
WINDOW = 4096  # approximate rows and columns of the source that a tile may need: 64 MiB as float32
DEPTH = 4  # planes in a chunk of the source, from which a tile needs fewer rows and columns of it


def onto(
    array: xr.DataArray, box: GeoBox, *, dims: tuple[str, str], resampling: str
) -> xr.DataArray:
    """Return a float32 array on a grid, without spatial coordinates; ``dims`` name those of the result."""
    place_names = spatial_dims(array)
    own_box = snapped(geobox(array), box, within=slack(array))
    new_names = dict(zip(place_names, dims, strict=True))
    order = [new_names.get(str(d), d) for d in array.dims]
    array = as_float(array)
    places = [
        k
        for k, c in array.coords.items()
        if set(c.dims) & set(place_names) or CRS_ATTRIBUTES & set(c.attrs)
    ]
    array = array.drop_vars(places).rename(new_names)
    array.attrs = {k: v for k, v in array.attrs.items() if k not in ("grid_mapping", "crs")}
    array.encoding = {}
    if same_grid(own_box, box):
        return array
    planes = array.transpose(..., *dims)
    data = warp(planes.data, own_box, dst=box, resampling=resampling, name=str(array.name))
    out = xr.DataArray(data, coords=dict(planes.coords), dims=planes.dims, attrs=array.attrs)
    return out.transpose(*order)


def warp(data: Any, src: GeoBox, *, dst: GeoBox, resampling: str, name: str) -> Any:
    """Return planes ``(..., y, x)``, numpy or dask, of one grid on another."""
    from odc.geo.geobox import GeoboxTiles

    edge = tile_side(src, dst, window=_window(data))
    tiles: Any = GeoboxTiles(dst, (edge, edge))
    rows, cols = tiles.shape.yx
    parts = {at: reach(src, tiles[at]) for at in itertools.product(range(rows), range(cols))}
    if not any(parts.values()):
        warn(elsewhere(name, src, dst), MissingModality)
    cut = [
        [_tile(data, parts[r, c], dst=tiles[r, c], resampling=resampling) for c in range(cols)]
        for r in range(rows)
    ]
    return _module(data).block(cut)


def elsewhere(name: str, src: GeoBox, dst: GeoBox) -> str:
    """Return the message for a source that does not overlap a grid, with the extents of both."""
    return (
        f"'{name}' has no data on the grid, because the two do not overlap: '{name}' covers {extent(src)}, the "
        f"grid covers {extent(dst)}; check its CRS and the units of its coordinates"
    )


def extent(box: GeoBox) -> str:
    """Return the bounds of a grid in its CRS, as text."""
    west, south, east, north = box.extent.boundingbox.bbox
    return f"x {west:g} to {east:g}, y {south:g} to {north:g} in {crs_name(box.crs)}"


def _module(data: Any) -> Any:
    if isinstance(data, np.ndarray):
        return np
    import dask.array

    return dask.array


def _window(data: Any) -> int:
    """Return the rows and columns of the source that a tile may need; fewer of vectors, read as one chunk."""
    chunk_shape = getattr(data, "chunksize", ())  # numpy arrays are in memory anyway
    return int(WINDOW / max(1.0, math.prod(chunk_shape[:-2]) / DEPTH) ** 0.5)


def tile_side(src: GeoBox, dst: GeoBox, *, window: int = WINDOW) -> int:
    """Return the side of a tile in cells, small enough that a much finer source fits into memory."""
    turn, edge = full_turn(dst.crs), TILE
    if turn is not None and not same_crs(src.crs, dst.crs):
        # Within a quarter turn no longitude is ambiguous.
        edge = max(1, min(edge, int(turn / 4 / max(abs(dst.affine.a), abs(dst.affine.b)))))
    points = sample(src, dst)
    if not np.isfinite(points).all():
        return edge
    if (columns_in_turn := full_turn(src.crs)) is not None:
        width = columns_in_turn / abs(src.affine.a)
        points[:, 1] = columns(src, dst, points[:, 1], turn=width)
    scale = np.max(np.ptp(points, axis=0) / dst.shape.yx)
    return min(edge, int(np.clip(window // max(scale, 1e-9), max(1, 16 * window // WINDOW), TILE)))


def _tile(data: Any, parts: Sequence[Part], *, dst: GeoBox, resampling: str) -> Any:
    """Return one tile of the result; where two parts overlap, the first observed value counts."""
    module, tile, lead = _module(data), None, data.shape[:-2]
    for part in parts:
        piece = part.take(data, module)
        options: dict[str, Any] = {"part": replace(part, cols=()), "dst": dst}
        options["resampling"] = resampling
        if isinstance(data, np.ndarray):
            block = _block(piece, **options)
        else:
            piece = piece.rechunk({piece.ndim - 2: -1, piece.ndim - 1: -1})
            options["chunks"] = (*piece.chunks[:-2], (dst.shape.y,), (dst.shape.x,))
            meta = np.empty((0,) * piece.ndim, "float32")
            block = piece.map_blocks(_block, **options, dtype="float32", meta=meta)
        tile = block if tile is None else module.where(module.isnan(tile), block, tile)
    if tile is None:
        return module.full((*lead, *dst.shape.yx), np.float32(np.nan), dtype="float32")
    return tile


def _block(piece: np.ndarray, *, part: Part, dst: GeoBox, resampling: str) -> np.ndarray:
    out = _reprojected(piece, part.box, dst=dst, resampling=resampling)
    if part.half is not None:
        out = np.where(cells_of_half(part.half, part.box, dst), out, np.float32(np.nan))
    if part.seam is not None and resampling not in KERNELS:
        # GDAL treats a cell across the edge of a world map as if it covered the whole belt.
        nearest = _reprojected(piece, part.box, dst=dst, resampling="nearest")
        out = np.where(cells_across(part.seam, part.box, dst), nearest, out)
    return out


def _reprojected(piece: np.ndarray, src: GeoBox, *, dst: GeoBox, resampling: str) -> np.ndarray:
    from odc.geo.warp import rio_reproject

    out = np.full((*piece.shape[:-2], *dst.shape.yx), np.nan, dtype="float32")
    # odc-geo makes kernels one source cell wide, as GDAL's width depends on the window; where
    # pixels are counted, that would lose cells of which only a part is covered.
    scale = {} if resampling in KERNELS else {"XSCALE": None, "YSCALE": None}
    pixels = np.ascontiguousarray(piece)
    with FILTERS:
        return rio_reproject(pixels, out, src, dst, resampling, ydim=piece.ndim - 2, **scale)


class _KeptFilters:
    """Restores the filters of warnings when the last of several threads leaves.

    rasterio ignores all warnings while it warps. Where threads overlap, it would leave that filter behind,
    and the process would never warn again.
    """

    def __init__(self) -> None:
        self.lock, self.count = threading.Lock(), 0

    def __enter__(self) -> None:
        with self.lock:
            if not self.count:
                self.filters = warnings.catch_warnings()
                self.filters.__enter__()
            self.count += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.count -= 1
            if not self.count:
                self.filters.__exit__(None, None, None)


FILTERS = _KeptFilters()
