"""Mosaics of scenes on the grid: scenes are masked on their pixels, combined, and then resampled.

In the reverse order, a cell with one cloudy pixel would be missing, or include the cloud.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from geomiam.errors import SourceError
from geomiam.sources.sentinel2.asset_reader import LoadOptions, read_asset
from geomiam.sources.sentinel2.clouds import CloudMask, grow, hidden_by_scl
from geomiam.sources.sentinel2.reflectance import to_reflectance
from geomiam.sources.sentinel2.windows import GriddedScene, Window, touches, widen
from geomiam.sources.stac.scene import SCL

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

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
    """Return the scenes of one day on the grid.

    Returns
    -------
    tuple
        Array ``(band + 1, y, x)``, whose last plane is the clear share; and the number of failed files
        for each band and SCL. Both are dask.

    Notes
    -----
    Where scenes of two UTM zones overlap, a cell has the values of the scene with the larger clear
    share.
    """
    planes, failures = zip(*(_window(w, grid, settings=settings) for w in windows), strict=True)
    best = planes[0]
    for plane in planes[1:]:
        best = _clearer(best, plane)
    return best, sum(failures[1:], failures[0])


def _clearer(a: Any, b: Any) -> Any:
    import dask.array as da

    first, second = da.where(b[-1] > a[-1], b, a), da.where(b[-1] > a[-1], a, b)
    return da.where(da.isnan(first), second, first)


def _window(window: Window, grid: GeoBox, *, settings: SceneSettings) -> tuple[Any, Any]:
    import dask.array as da

    margin = settings.clouds.radius(abs(window.box.resolution.x))
    wide = widen(window, margin)
    parts, failures = zip(
        *(_scene(p, wide.box, margin=margin, settings=settings) for p in window.scenes), strict=True
    )
    planes = parts[0]
    for part in parts[1:]:
        planes = da.map_blocks(_first_valid, planes, part, dtype="float32")
    if not window.aligned:
        planes = _resampled(planes, window.box, grid[window.cells], method=settings.resample)
    return _embedded(planes, window.cells, grid), sum(failures[1:], failures[0])


def _embedded(part: Any, cells: tuple[slice, slice], grid: GeoBox) -> Any:
    """Return an array on the whole grid with a part of it, NaN elsewhere, in the chunks of all days."""
    import dask.array as da

    rows, cols = (_spans(n) for n in grid.shape.yx)
    return da.block([[_chunk(part, cells, (r, c)) for c in cols] for r in rows])


def _spans(size: int) -> list[slice]:
    return [slice(i, min(i + CHUNK, size)) for i in range(0, size, CHUNK)]


def _chunk(part: Any, cells: tuple[slice, slice], chunk: tuple[slice, slice]) -> Any:
    import dask.array as da

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
    import dask.array as da
    from odc.geo.xr import xr_coords

    from geomiam.data.grid.warp import onto

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
    bands, clouds = settings.bands, settings.clouds
    bands_to_read = (*bands, SCL) if clouds.needs_scl or clouds.function else bands
    raw = {b: _asset(scene_on_grid, b, box, options=settings.loading) for b in bands_to_read}
    values = {b: _reflectance(raw[b][0], scene_on_grid, b) for b in bands}
    hidden = _hidden(values, raw, box, margin=margin, clouds=clouds)
    inner = slice(margin, -margin or None)
    failures = [raw[b][1] if b in raw else 0 for b in (*bands, SCL)]
    return _masked([v[inner, inner] for v in values.values()], hidden), _stacked(failures)


def _stacked(flags: Sequence[Any]) -> Any:
    import dask.array as da

    return da.stack([da.asarray(f, dtype="int16") for f in flags])


def _reflectance(numbers: Any, scene_on_grid: GriddedScene, band: str) -> Any:
    rule = scene_on_grid.scene.rules.get(band)
    if rule is None or band in scene_on_grid.scene.lost:
        return numbers
    return numbers.map_blocks(to_reflectance, rule.scale, rule.offset, dtype="float32")


def _masked(values: Sequence[Any], hidden: Any) -> Any:
    """Stack bands with hidden pixels NaN, and the clear share: 1 where a band has data."""
    import dask.array as da

    stack = da.stack(list(values)).rechunk({0: -1})
    out = da.map_blocks(
        _mask_block,
        stack,
        hidden[None].rechunk((1, *stack.chunks[1:])),
        dtype="float32",
        chunks=((len(values) + 1,), *stack.chunks[1:]),
    )
    return out


def _mask_block(stack: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    visible = np.where(hidden, np.float32(np.nan), stack)
    clear = np.isfinite(visible).any(axis=0, keepdims=True).astype("float32")
    return np.concatenate([visible, clear])


def _hidden(
    values: Mapping[str, Any],
    raw: Mapping[str, tuple[Any, Any]],
    box: GeoBox,
    *,
    margin: int,
    clouds: CloudMask,
) -> Any:
    """Return where a scene is hidden, in a window without its margin."""
    import dask.array as da

    inner = slice(margin, -margin or None)
    if clouds.needs_scl:
        return _overlapping(
            partial(hidden_by_scl, classes=clouds.classes, radius=margin), raw[SCL][0], margin
        )[inner, inner]
    if clouds.function:
        bad = _user_mask(clouds.function, {**values, SCL: raw[SCL][0]}, box)
        return _overlapping(partial(grow, radius=margin), bad, margin)[inner, inner]
    return da.zeros_like(next(iter(values.values())), dtype=bool)


def _overlapping(function: Callable[..., Any], array: Any, depth: int) -> Any:
    import dask.array as da

    return da.map_overlap(
        function, array, depth=depth, boundary="none", dtype=bool, meta=np.empty((0, 0), bool)
    )


def _user_mask(
    function: Callable[[xr.Dataset], Any], layers: Mapping[str, Any], box: GeoBox
) -> Any:
    """Return the mask of the user's function for a scene, True = hidden."""
    import dask.array as da
    from odc.geo.xr import xr_coords

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
    import dask.array as da

    scene, sizes = scene_on_grid.scene, [_pieces(n) for n in box.shape.yx]
    if band in scene.lost:
        gap = da.full(tuple(box.shape), np.float32(np.nan), dtype="float32", chunks=sizes)
        return gap, 1
    starts = [np.cumsum((0, *s))[:-1] for s in sizes]
    tiles = {
        (r, c): box[y : y + h, x : x + w]
        for (r, (y, h)), (c, (x, w)) in itertools.product(
            enumerate(zip(starts[0], sizes[0])), enumerate(zip(starts[1], sizes[1]))
        )
    }
    tile_arrays = {
        at: _tile(scene_on_grid, scene.assets[band], t, options=options) for at, t in tiles.items()
    }
    rows, cols = (range(len(s)) for s in sizes)
    block = da.block([[tile_arrays[r, c][0] for c in cols] for r in rows])
    flags = [f for _, f in tile_arrays.values() if f is not None]
    return block, _any(flags) if flags else 0


def _pieces(size: int) -> tuple[int, ...]:
    return tuple(min(CHUNK, size - i) for i in range(0, size, CHUNK))


def _tile(
    scene_on_grid: GriddedScene, key: str, box: GeoBox, *, options: LoadOptions
) -> tuple[Any, Any]:
    import dask
    import dask.array as da

    shape = tuple(box.shape)
    if not touches(box, scene_on_grid.box):
        return da.full(shape, np.float32(np.nan), dtype="float32", chunks=shape), None
    result = dask.delayed(read_asset, traverse=False, pure=False)(
        scene_on_grid.scene.item, key, box, options=options
    )
    return da.from_delayed(result[0], shape=shape, dtype="float32"), result[1]


def _any(flags: Sequence[Any]) -> Any:
    import dask
    import dask.array as da

    return da.from_delayed(dask.delayed(_one_if_any)(flags), shape=(), dtype="int16")


def _one_if_any(flags: Sequence[bool]) -> np.ndarray:
    return np.array(any(flags), dtype="int16")
