"""Mosaics of scenes on the grid: scenes are masked on their pixels, combined, and then resampled.

In the reverse order, a cell with one cloudy pixel would be missing, or include the cloud.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from geomiam.data.grid.warp import onto
from geomiam.errors import SourceError
from geomiam.sources.sentinel2.asset_reader import LoadOptions, read_asset
from geomiam.sources.sentinel2.clouds import CloudMask, grow, hidden_by_scl
from geomiam.sources.sentinel2.reflectance import to_reflectance
from geomiam.sources.sentinel2.scene import SCL
from geomiam.sources.sentinel2.windows import Cells, GriddedScene, Window, touches

CHUNK = 1024
"""Rows and columns of a scene that one dask task reads, and of the chunks of the result."""
PLANE = "plane"


@dataclass(frozen=True)
class SceneSettings:
    """Bands, mask, resampling and loading, which are the same for every scene."""

    bands: tuple[str, ...]
    clouds: CloudMask
    resample: str
    loading: LoadOptions


def mosaic_day(
    windows: Sequence[Window], grid: GeoBox, *, settings: SceneSettings
) -> tuple[Any, Any]:
    """Return the scenes of one day on the grid, and the number of failed files, both dask.

    The array is ``(band + 1, y, x)``, whose last plane is the clear share; failed files are counted
    for each band and SCL.
    """
    planes, failures = zip(*(_window(w, grid, settings=settings) for w in windows), strict=True)
    best = planes[0]
    for mosaic in planes[1:]:
        # where scenes of two UTM zones overlap, a cell has the values of the clearer scene
        clearer = mosaic[-1] > best[-1]
        first, second = da.where(clearer, mosaic, best), da.where(clearer, best, mosaic)
        best = da.where(da.isnan(first), second, first)
    return best, sum(failures[1:], failures[0])


def _window(window: Window, grid: GeoBox, *, settings: SceneSettings) -> tuple[Any, Any]:
    """Return the scenes of one window on the whole grid, NaN elsewhere, and the failed files."""
    margin = settings.clouds.radius(abs(window.box.resolution.x))
    wide = window.box.pad(margin)
    parts, failures = zip(
        *(_scene(p, wide, margin=margin, settings=settings) for p in window.scenes), strict=True
    )
    planes = parts[0]
    for part in parts[1:]:
        planes = da.map_blocks(_first_valid, planes, part, dtype="float32")
    if not window.aligned:
        planes = _resampled(planes, window.box, grid[window.cells], method=settings.resample)
    # in the chunks of all days
    rows, cols = (
        [slice(start, start + size) for start, size in zip(*_pieces(n), strict=True)]
        for n in grid.shape.yx
    )
    blocks = [[_chunk(planes, window.cells, (r, c)) for c in cols] for r in rows]
    return da.block(blocks), sum(failures[1:], failures[0])


def _pieces(size: int) -> tuple[list[int], tuple[int, ...]]:
    """Return the starts and sizes of pieces of at most CHUNK."""
    starts = list(range(0, size, CHUNK))
    return starts, tuple(min(CHUNK, size - i) for i in starts)


def _chunk(part: Any, cells: Cells, chunk: Cells) -> Any:
    shape = (part.shape[0], *(c.stop - c.start for c in chunk))
    overlaps = [(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(cells, chunk)]
    if any(stop <= start for start, stop in overlaps):
        return da.full(shape, np.float32(np.nan), dtype="float32", chunks=shape)
    inside = [slice(lo - c.start, hi - c.start) for (lo, hi), c in zip(overlaps, cells)]
    around = [(lo - c.start, c.stop - hi) for (lo, hi), c in zip(overlaps, chunk)]
    piece = part[(slice(None), *inside)].rechunk(-1)
    return piece.map_blocks(_pad, around=around, chunks=shape, dtype="float32")


def _pad(piece: np.ndarray, *, around: list[tuple[int, int]]) -> np.ndarray:
    return np.pad(piece, [(0, 0), *around], constant_values=np.float32(np.nan))


def _first_valid(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    out = np.where(np.isnan(a), b, a)
    out[-1] = np.maximum(a[-1], b[-1])
    return out


def _resampled(planes: Any, box: GeoBox, grid: GeoBox, *, method: str) -> Any:
    coords = xr_coords(box)
    dims = tuple(map(str, coords))[:2]
    planes = xr.DataArray(planes, dims=(PLANE, *dims), coords=coords)
    put = partial(onto, box=grid, dims=("y", "x"))
    values = put(planes[:-1], resampling=method).data
    clear = da.nan_to_num(put(planes[-1:], resampling="average").data)
    return da.concatenate([values, clear], axis=0)


def _scene(
    scene_on_grid: GriddedScene, box: GeoBox, *, margin: int, settings: SceneSettings
) -> tuple[Any, Any]:
    """Return one scene in a window without its margin, ``(band + 1, y, x)``; and the failed files."""
    bands, clouds, scene = settings.bands, settings.clouds, scene_on_grid.scene
    bands_to_read = (*bands, SCL) if clouds.reads_scl else bands
    raw = {b: _asset(scene_on_grid, b, box, options=settings.loading) for b in bands_to_read}
    values = {}
    for band in bands:
        values[band], rule = raw[band][0], scene.rules.get(band)
        if rule is not None and band not in scene.lost:
            values[band] = values[band].map_blocks(
                to_reflectance, rule.scale, rule.offset, dtype="float32"
            )
    inner = slice(margin, -margin or None)
    hidden = da.zeros_like(values[bands[0]], dtype=bool)
    if clouds.classes:
        by_scl = partial(hidden_by_scl, classes=clouds.classes, radius=margin)
        hidden = _overlapping(by_scl, raw[SCL][0], margin)
    elif clouds.function:
        bad = _user_mask(clouds.function, {**values, SCL: raw[SCL][0]}, box)
        hidden = _overlapping(partial(grow, radius=margin), bad, margin)
    stack = da.stack([v[inner, inner] for v in values.values()]).rechunk({0: -1})
    planes = da.map_blocks(
        _masked,
        stack,
        hidden[inner, inner][None].rechunk((1, *stack.chunks[1:])),
        dtype="float32",
        chunks=((len(values) + 1,), *stack.chunks[1:]),
    )
    failures = [raw[b][1] if b in raw else 0 for b in (*bands, SCL)]
    return planes, da.stack([da.asarray(f, dtype="int16") for f in failures])


def _masked(stack: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Return bands with hidden pixels NaN, and the clear share: 1 where a band has data."""
    visible = np.where(hidden, np.float32(np.nan), stack)
    clear = np.isfinite(visible).any(axis=0, keepdims=True).astype("float32")
    return np.concatenate([visible, clear])


def _overlapping(function: Callable[..., Any], array: Any, depth: int) -> Any:
    return da.map_overlap(
        function, array, depth=depth, boundary="none", dtype=bool, meta=np.empty((0, 0), bool)
    )


def _user_mask(
    function: Callable[[xr.Dataset], Any], layers: Mapping[str, Any], box: GeoBox
) -> Any:
    """Return the mask of the user's function for a scene, True = hidden."""
    coords = xr_coords(box)
    dims = tuple(map(str, coords))[:2]
    scene = xr.Dataset({k: (dims, v) for k, v in layers.items()}, coords)
    try:
        mask = function(scene)
        bad = mask.transpose(*dims).data if isinstance(mask, xr.DataArray) else mask
        bad = da.asarray(bad)
    except Exception as error:  # the user's function may raise errors of any type
        raise SourceError(
            f"mask= raised {type(error).__name__}: {error}; its argument is a Dataset of {list(layers)}"
        ) from error
    if bad.shape != tuple(box.shape) or bad.dtype != bool:
        raise SourceError(
            f"mask= returned {bad.shape} of {bad.dtype} for a scene of {tuple(box.shape)}; return "
            "booleans of that shape, True = hidden"
        )
    return bad.rechunk(next(iter(layers.values())).chunks)


def _asset(
    scene_on_grid: GriddedScene, band: str, box: GeoBox, *, options: LoadOptions
) -> tuple[Any, Any]:
    """Return an asset in a window, NaN without pixels, and whether reading it failed."""
    scene = scene_on_grid.scene
    rows, cols = (_pieces(n) for n in box.shape.yx)
    if band in scene.lost:
        chunks = (rows[1], cols[1])
        gap = da.full(tuple(box.shape), np.float32(np.nan), dtype="float32", chunks=chunks)
        return gap, 1
    read = dask.delayed(read_asset, traverse=False, pure=False)
    blocks: list[list[Any]] = []
    flags = []
    for y, height in zip(*rows, strict=True):
        blocks.append([])
        for x, width in zip(*cols, strict=True):
            tile, shape = box[y : y + height, x : x + width], (height, width)
            if not touches(tile, scene_on_grid.box):
                block = da.full(shape, np.float32(np.nan), dtype="float32", chunks=shape)
            else:
                result = read(scene.item, scene.assets[band], tile, options=options)
                block = da.from_delayed(result[0], shape=shape, dtype="float32")
                flags.append(result[1])
            blocks[-1].append(block)
    if not flags:
        return da.block(blocks), 0
    any_failure = da.from_delayed(dask.delayed(_one_if_any)(flags), shape=(), dtype="int16")
    return da.block(blocks), any_failure


def _one_if_any(flags: Sequence[bool]) -> np.ndarray:
    return np.array(any(flags), dtype="int16")
