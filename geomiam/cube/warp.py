"""Warping of sources onto a grid, tile after tile of the result.

Tiles are fixed by the two grids alone and read what GDAL's kernels need around them. odc-geo's
own lazy ``reproject`` reads no margin, so its values depend on the chunks (opendatacube/odc-geo#238).
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from geomiam.cube.grid import Source, geobox, same_grid, slack, snapped, spatial_dims
from geomiam.cube.values import as_float, is_categorical
from geomiam.errors import GridError, MissingModality

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

KEEPS_CODES = ("nearest", "mode")
KERNELS = ("nearest", "bilinear", "cubic", "cubic_spline", "lanczos", "gauss")
"""Resampling by a kernel around a point; the others look at all pixels under a cell."""
TILE = 1024
"""Rows and columns of a tile of the result, at most."""
WINDOW = 4096
"""Rows and columns of the source that a tile may need, about: 64 MiB as float32."""
MARGIN = 8
"""Source cells read around a tile; the widest kernel (lanczos) reaches three."""


def collect(sources: Mapping[str, Source] | Iterable[Source]) -> dict[str, xr.DataArray]:
    """Return every variable of the sources by name.

    Raises
    ------
    GridError
        When a name is used twice, or an array of a list has none.
    """
    if isinstance(sources, (xr.Dataset, xr.DataArray, str, Path)):
        sources = [sources]
    pairs = sources.items() if isinstance(sources, Mapping) else ((None, s) for s in sources)
    found: dict[str, xr.DataArray] = {}
    for name, array in itertools.chain.from_iterable(_variables(k, s) for k, s in pairs):
        if name in found:
            raise GridError(
                f"two sources have a variable '{name}'; rename one, e.g. ds.rename({name}='{name}_2')"
            )
        found[name] = array
    return found


def _variables(key: str | None, source: Source) -> Iterator[tuple[str, xr.DataArray]]:
    opened = _open(source) if isinstance(source, (str, Path)) else source
    if isinstance(opened, xr.Dataset):
        for name, array in opened.data_vars.items():
            modality = {"modality": key} if key else {}
            yield str(name), array.assign_attrs({**modality, **array.attrs})
        return
    name = key or (Path(source).stem if isinstance(source, (str, Path)) else opened.name)
    if not name:
        raise GridError(
            "a DataArray without a name; give one with array.rename('elevation') or pass a mapping"
        )
    yield str(name), opened


def _open(path: str | Path) -> xr.Dataset | xr.DataArray:
    """Open a raster lazily, NaN where masked, in the units it declares."""
    import rioxarray

    chunks = {"band": 1, "y": 2048, "x": 2048}
    opened: Any = rioxarray.open_rasterio(path, chunks=chunks, masked=True, mask_and_scale=True)
    if isinstance(opened, list):
        raise GridError(
            f"{path} holds rasters on several grids; open them with rioxarray and pass them one by one"
        )
    return opened.squeeze("band", drop=True) if opened.sizes.get("band") == 1 else opened


def methods(
    arrays: Mapping[str, xr.DataArray], resampling: str | Mapping[str, str]
) -> dict[str, str]:
    """Return the resampling of each variable.

    Raises
    ------
    GridError
        For names that GDAL does not know, and for classes that would be mixed.
    """
    given = dict.fromkeys(arrays, resampling) if isinstance(resampling, str) else dict(resampling)
    if unknown := sorted(set(given) - set(arrays)):
        raise GridError(f"resampling= names {unknown}, which no source has; found {sorted(arrays)}")
    chosen = {name: given.get(name, "nearest") for name in arrays}
    for name, how in chosen.items():
        _check_method(arrays[name].rename(name), how)
    return chosen


def _check_method(array: xr.DataArray, how: str) -> None:
    from rasterio.enums import Resampling

    if how not in Resampling.__members__:
        raise GridError(
            f"resampling '{how}' is not known; use one of {', '.join(Resampling.__members__)}"
        )
    if is_categorical(array) and how not in KEEPS_CODES:
        raise GridError(
            f"'{array.name}' is categorical: '{how}' would mix its classes into codes that do not exist; "
            f"use resampling={{'{array.name}': 'mode'}} or 'nearest'"
        )


def onto(
    array: xr.DataArray, box: GeoBox, *, dims: tuple[str, str], resampling: str
) -> xr.DataArray:
    """Return a float32 array on a grid, without spatial coordinates.

    Parameters
    ----------
    array
        Any dims besides the spatial ones; numpy or dask.
    box
        The grid of the result.
    dims
        Names of its spatial dims.
    resampling
        A name of GDAL's.
    """
    own = spatial_dims(array)
    own_box = snapped(geobox(array), box, within=slack(array))
    named = dict(zip(own, dims, strict=True))
    order = [named.get(str(d), d) for d in array.dims]
    array = _without_place(as_float(array), own).rename(named)
    if same_grid(own_box, box):
        return array
    planes = array.transpose(..., *dims)
    data = _warp(planes.data, own_box, dst=box, resampling=resampling, name=str(array.name))
    coords = {k: c for k, c in planes.coords.items()}
    return xr.DataArray(data, coords=coords, dims=planes.dims, attrs=array.attrs).transpose(*order)


def _without_place(array: xr.DataArray, dims: tuple[str, str]) -> xr.DataArray:
    places = [
        k
        for k, c in array.coords.items()
        if set(c.dims) & set(dims) or {"spatial_ref", "crs_wkt"} & set(c.attrs)
    ]
    array = array.drop_vars(places)
    array.attrs = {k: v for k, v in array.attrs.items() if k not in ("grid_mapping", "crs")}
    array.encoding = {}
    return array


def _warp(data: Any, src: GeoBox, *, dst: GeoBox, resampling: str, name: str) -> Any:
    from odc.geo.geobox import GeoboxTiles

    edge = _edge(src, dst)
    tiles: Any = GeoboxTiles(dst, (edge, edge))
    rows, cols = tiles.shape.yx
    windows = {at: window(src, tiles[at]) for at in itertools.product(range(rows), range(cols))}
    if not any(windows.values()):
        warnings.warn(
            f"'{name}' has no data on the grid: it lies elsewhere", MissingModality, stacklevel=5
        )
    cut = [
        [_tile(data, windows[r, c], src=src, dst=tiles[r, c], how=resampling) for c in range(cols)]
        for r in range(rows)
    ]
    return _module(data).block(cut)


def _module(data: Any) -> Any:
    if isinstance(data, np.ndarray):
        return np
    import dask.array

    return dask.array


def _edge(src: GeoBox, dst: GeoBox) -> int:
    """Choose the tile so that a much finer source does not fill the memory."""
    spans = _footprint(src, dst)
    if spans is None:
        return TILE
    scale = max((hi - lo) / n for (lo, hi), n in zip(spans, dst.shape.yx, strict=True))
    return int(np.clip(WINDOW // max(scale, 1e-9), 16, TILE))


def window(src: GeoBox, tile: GeoBox) -> tuple[slice, slice] | None:
    """Return the rows and columns of a source that a tile needs, or None when it has none."""
    spans = _footprint(src, tile)
    if spans is None:
        return slice(0, src.shape.y), slice(0, src.shape.x)
    slices = []
    for (lo, hi), size in zip(spans, src.shape.yx, strict=True):
        pad = MARGIN + (hi - lo) / 16
        start, stop = max(0, int(np.floor(lo - pad))), min(size, int(np.ceil(hi + pad)))
        if stop <= start:
            return None
        slices.append(slice(start, stop))
    return slices[0], slices[1]


def _footprint(src: GeoBox, tile: GeoBox) -> list[tuple[float, float]] | None:
    """Rows and columns of ``src`` under ``tile``; None when part of it has no place in ``src``'s CRS.

    Points inside count as well as the edge: a tile around a pole has its highest latitude inside.
    """
    from odc.geo.overlap import native_pix_transform
    from odc.geo.types import xy_

    ys, xs = (np.linspace(0, n, 17) for n in tile.shape.yx)
    back = native_pix_transform(src, tile).back([xy_(x, y) for y in ys for x in xs])
    cells = np.array([p.yx for p in back])
    if not np.isfinite(cells).all():
        return None
    return [(float(c.min()), float(c.max())) for c in cells.T]


def _tile(
    data: Any, cells: tuple[slice, slice] | None, *, src: GeoBox, dst: GeoBox, how: str
) -> Any:
    lead = data.shape[:-2]
    if cells is None:
        return _module(data).full((*lead, *dst.shape.yx), np.float32(np.nan), dtype="float32")
    piece, box = data[(..., *cells)], src[cells]
    if isinstance(data, np.ndarray):
        return _block(piece, src=box, dst=dst, how=how)
    piece = piece.rechunk({piece.ndim - 2: -1, piece.ndim - 1: -1})
    chunks = (*piece.chunks[:-2], (dst.shape.y,), (dst.shape.x,))
    meta = np.empty((0,) * piece.ndim, "float32")
    return piece.map_blocks(
        _block, src=box, dst=dst, how=how, chunks=chunks, dtype="float32", meta=meta
    )


def _block(piece: np.ndarray, *, src: GeoBox, dst: GeoBox, how: str) -> np.ndarray:
    from odc.geo.warp import rio_reproject

    out = np.full((*piece.shape[:-2], *dst.shape.yx), np.nan, dtype="float32")
    # odc-geo makes kernels one source cell wide, as GDAL's own width depends on the window; where
    # pixels are counted, that would lose cells of which only a part is covered.
    scale = {} if how in KERNELS else {"XSCALE": None, "YSCALE": None}
    pixels = np.ascontiguousarray(piece)
    return rio_reproject(pixels, out, src, dst, how, ydim=piece.ndim - 2, **scale)
