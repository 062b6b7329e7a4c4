"""Warping of sources onto a grid, one tile of the result at a time.

Tiles depend on the two grids only, and each reads the margin that GDAL's kernels need. The lazy
``reproject`` of odc-geo reads no margin, so its values depend on chunks (opendatacube/odc-geo#238).
"""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from geomiam.checks.files import refusing, regular_file
from geomiam.checks.sizes import check_raster
from geomiam.data.dataset import NETCDF
from geomiam.data.grid.grid import Source, geobox, slack, spatial_dims
from geomiam.data.grid.lattice import same_grid, snapped
from geomiam.data.grid.source_windows import (
    Part,
    cells_across,
    cells_of_half,
    columns,
    reach,
    sample,
)
from geomiam.data.store.chunk_reader import guarded
from geomiam.data.values.missing import as_float, is_categorical
from geomiam.errors import GridError, MissingModality, UnreadableFile, warn
from geomiam.geo.crs import CRS_ATTRIBUTES, crs_name, same_crs
from geomiam.geo.longitude import full_turn

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

NO_RASTER = "cannot be read as a raster; check the path and the format"
KEEPS_CODES = ("nearest", "mode")
"""Resampling that returns only values of the source, as codes of classes require."""
KERNELS = ("nearest", "bilinear", "cubic", "cubic_spline", "lanczos", "gauss")
"""Resampling by a kernel around a point; other methods use all pixels under a cell."""
TILE = 1024
"""Largest number of rows and columns of a tile of the result."""
WINDOW = 4096
"""Approximate rows and columns of the source that a tile may need: 64 MiB as float32."""


def collect(sources: Mapping[str, Source] | Iterable[Source]) -> dict[str, xr.DataArray]:
    """Return every variable of the sources by name.

    Raises
    ------
    GridError
        When two variables have one name, or an array in a list has no name.
    """
    if isinstance(sources, (xr.Dataset, xr.DataArray, str, Path)):
        sources = [sources]
    pairs = sources.items() if isinstance(sources, Mapping) else ((None, s) for s in sources)
    arrays: dict[str, xr.DataArray] = {}
    for name, array in itertools.chain.from_iterable(_variables(k, s) for k, s in pairs):
        if name in arrays:
            raise GridError(
                f"two sources have a variable '{name}'; rename one, e.g. ds.rename({name}='{name}_2')"
            )
        arrays[name] = array
    return arrays


def _variables(key: str | None, source: Source) -> Iterator[tuple[str, xr.DataArray]]:
    data = _open(source) if isinstance(source, (str, Path)) else source
    if isinstance(data, xr.Dataset):
        for name, array in data.data_vars.items():
            modality = {"modality": key} if key else {}
            yield str(name), array.assign_attrs({**modality, **array.attrs})
        return
    name = key or (Path(source).stem if isinstance(source, (str, Path)) else data.name)
    if not name:
        raise GridError(
            "a DataArray without a name; give one with array.rename('elevation') or pass a mapping"
        )
    yield str(name), data


def _open(path: str | Path) -> xr.Dataset | xr.DataArray:
    """Open a raster lazily, with NaN where it is masked and with its scale and offset applied."""
    import rioxarray

    _check_raster(path)
    with refusing(UnreadableFile, f"{path} {NO_RASTER}"):
        raster: Any = rioxarray.open_rasterio(path, cache=False, masked=True, mask_and_scale=True)
    if isinstance(raster, list):
        raise GridError(
            f"{path} contains rasters on several grids; open them with rioxarray and pass them one by one"
        )
    if raster.rio.crs is None:
        raise GridError(f"{path} has no CRS; {_with_crs(path)}")
    if raster.rio.transform().is_identity:
        raise GridError(
            f"{path} has no transform from pixels to coordinates; write one, e.g. gdal_translate -a_ullr "
            "west north east south in.tif out.tif, or warp it by its control points: gdalwarp in.tif out.tif"
        )
    raster = _in_chunks(raster, path)
    return raster.squeeze("band", drop=True) if raster.sizes.get("band") == 1 else raster


def _in_chunks(raster: Any, path: str | Path) -> Any:
    """Return a raster as dask arrays; a block that cannot be read is an error with file and place."""
    from dask.base import tokenize

    message = f"a block of {path} cannot be read: the file is damaged; fetch it again"
    if isinstance(raster, xr.Dataset):
        raster = raster.assign({k: guarded(v, message) for k, v in raster.data_vars.items()})
    else:
        raster = guarded(raster, message)
    sides = {d: 2048 if d in ("y", "x") else 1 for d in raster.dims}
    state = os.stat(path).st_mtime_ns if os.path.exists(path) else None
    return raster.chunk(sides, token=tokenize(str(path), state))


def _with_crs(path: str | Path) -> str:
    """Return the call that aligns a file without a CRS."""
    if Path(path).suffix.lower() in NETCDF:
        opened = f"gm.open_cube(xr.open_dataset({str(path)!r}), crs='EPSG:4326')"
        return f"pass it with one: gm.align([{opened}], like)"
    opened = (
        f"rioxarray.open_rasterio({str(path)!r}, masked=True).squeeze().rio.write_crs('EPSG:4326')"
    )
    return f"pass it with one: gm.align({{{Path(path).stem!r}: {opened}}}, like)"


def _check_raster(path: str | Path) -> None:
    """Refuse a device, a damaged file, and blocks that are too large to be decoded."""
    import rasterio

    if os.path.exists(path) and not os.path.isdir(path):
        regular_file(path)
    with warnings.catch_warnings(), refusing(UnreadableFile, f"{path} {NO_RASTER}"):
        warnings.simplefilter("ignore")  # rioxarray repeats the warnings of GDAL
        with rasterio.open(path) as file:
            check_raster(file, location=str(path))


def methods(
    arrays: Mapping[str, xr.DataArray], resampling: str | Mapping[str, str]
) -> dict[str, str]:
    """Return the resampling of each variable.

    Raises
    ------
    GridError
        For names that GDAL does not support, and for methods that would mix classes.
    """
    requests = (
        dict.fromkeys(arrays, resampling) if isinstance(resampling, str) else dict(resampling)
    )
    if unknown := sorted(set(requests) - set(arrays)):
        raise GridError(f"resampling= names {unknown}, which no source has; found {sorted(arrays)}")
    method_of = {name: requests.get(name, "nearest") for name in arrays}
    for name, method in method_of.items():
        _check_method(arrays[name].rename(name), method)
    return method_of


def _check_method(array: xr.DataArray, method: str) -> None:
    from rasterio.enums import Resampling

    if method not in Resampling.__members__:
        raise GridError(
            f"resampling '{method}' is not known; use one of {', '.join(Resampling.__members__)}"
        )
    if is_categorical(array) and method not in KEEPS_CODES:
        raise GridError(
            f"'{array.name}' is categorical: '{method}' would mix its classes into codes that do not exist; "
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
        Names of the spatial dims of the result, rows first.
    resampling
        A resampling method of GDAL.
    """
    place_names = spatial_dims(array)
    own_box = snapped(geobox(array), box, within=slack(array))
    new_names = dict(zip(place_names, dims, strict=True))
    order = [new_names.get(str(d), d) for d in array.dims]
    array = _without_place(as_float(array), place_names).rename(new_names)
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
        if set(c.dims) & set(dims) or CRS_ATTRIBUTES & set(c.attrs)
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


def _edge(src: GeoBox, dst: GeoBox) -> int:
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
    return min(edge, int(np.clip(WINDOW // max(scale, 1e-9), 16, TILE)))


def _tile(data: Any, parts: Sequence[Part], *, dst: GeoBox, resampling: str) -> Any:
    """Return one tile of the result; where two parts overlap, the first observed value counts."""
    module, lead = _module(data), data.shape[:-2]
    if not parts:
        return module.full((*lead, *dst.shape.yx), np.float32(np.nan), dtype="float32")
    tile, *rest = (_warped(p, data, dst=dst, resampling=resampling) for p in parts)
    for part_tile in rest:
        tile = module.where(module.isnan(tile), part_tile, tile)
    return tile


def _warped(part: Part, data: Any, *, dst: GeoBox, resampling: str) -> Any:
    piece = part.take(data, _module(data))
    options: dict[str, Any] = {"part": replace(part, cols=()), "dst": dst, "resampling": resampling}
    if isinstance(data, np.ndarray):
        return _block(piece, **options)
    piece = piece.rechunk({piece.ndim - 2: -1, piece.ndim - 1: -1})
    chunks = (*piece.chunks[:-2], (dst.shape.y,), (dst.shape.x,))
    meta = np.empty((0,) * piece.ndim, "float32")
    return piece.map_blocks(_block, **options, chunks=chunks, dtype="float32", meta=meta)


def _block(piece: np.ndarray, *, part: Part, dst: GeoBox, resampling: str) -> np.ndarray:
    """Warp pixels.

    GDAL treats a cell across the edge of a world map as if it covered the whole belt. Such cells
    take the nearest pixel.
    """
    out = _reprojected(piece, part.box, dst=dst, resampling=resampling)
    if part.half is not None:
        out = np.where(cells_of_half(part.half, part.box, dst), out, np.float32(np.nan))
    if part.seam is not None and resampling not in KERNELS:
        nearest = _reprojected(piece, part.box, dst=dst, resampling="nearest")
        out = np.where(cells_across(part.seam, part.box, dst), nearest, out)
    return out


def _reprojected(piece: np.ndarray, src: GeoBox, *, dst: GeoBox, resampling: str) -> np.ndarray:
    from odc.geo.warp import rio_reproject

    out = np.full((*piece.shape[:-2], *dst.shape.yx), np.nan, dtype="float32")
    # odc-geo makes kernels one source cell wide, as GDAL's own width depends on the window; where
    # pixels are counted, that would lose cells of which only a part is covered.
    scale = {} if resampling in KERNELS else {"XSCALE": None, "YSCALE": None}
    pixels = np.ascontiguousarray(piece)
    return rio_reproject(pixels, out, src, dst, resampling, ydim=piece.ndim - 2, **scale)
