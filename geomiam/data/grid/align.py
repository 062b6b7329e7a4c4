"""Alignment of sources to one grid."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from geomiam.checks.files import refusing, regular_file
from geomiam.checks.sizes import check_raster
from geomiam.data.dataset import NETCDF
from geomiam.data.grid.grid import Source, empty, geobox, merge, restore, spatial_dims
from geomiam.data.grid.warp import onto
from geomiam.data.store.chunk_reader import guarded
from geomiam.data.values import is_categorical
from geomiam.errors import GridError, UnreadableFile

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox


NO_RASTER = "cannot be read as a raster; check the path and the format"
KEEPS_CODES = ("nearest", "mode")
"""Resampling that returns only values of the source, as codes of classes require."""


def align(
    sources: Mapping[str, Source] | Iterable[Source],
    like: xr.Dataset | GeoBox,
    *,
    resampling: str | Mapping[str, str] = "nearest",
) -> xr.Dataset:
    """Resample sources to one grid and return one float32 Dataset with NaN where data are missing.

    Parameters
    ----------
    sources
        Mapping from a name to a DataArray, a Dataset or the path of a raster; or a list of named
        DataArrays, Datasets and paths. Variables of a Dataset keep their names, and the key of the
        mapping becomes their attribute ``modality``.
    like
        The cube whose grid, dim names and coordinates the result has, or a ``GeoBox``.
    resampling
        One GDAL method for all variables (``"nearest"``, ``"bilinear"``, ``"average"``, ``"mode"``, …),
        or a mapping from variables to methods; the default of a variable is ``"nearest"``. Categorical
        variables allow ``"nearest"`` and ``"mode"`` only.

    Returns
    -------
    xr.Dataset
        Each variable has the dims of its source; spatial dims have the names of ``like``. The result
        is lazy where the source is, and does not depend on chunks. A source that lies on the grid
        is not resampled.

    Raises
    ------
    GridError
        When a source has no grid, two variables have one name, or a method would mix classes.

    Warns
    -----
    MissingModality
        When a source does not overlap the grid.

    See Also
    --------
    geomiam.open_cube : open files as one cube, on the grid of one of them.
    geomiam.build_cube : build a cube of any size from a catalog.

    Notes
    -----
    GDAL approximates transforms between two CRS: values may be displaced by up to an eighth of a
    source cell.

    Examples
    --------
    >>> import geomiam as gm, numpy as np, xarray as xr
    >>> import odc.geo.xr
    >>> coarse = xr.DataArray(
    ...     np.array([[1.0, 2.0], [3.0, np.nan]]),
    ...     dims=("y", "x"),
    ...     coords={"y": [1.5, 0.5], "x": [0.5, 1.5]},
    ...     name="bio1",
    ... ).odc.assign_crs("EPSG:4326")
    >>> grid = odc.geo.geobox.GeoBox.from_bbox((0, 0, 2, 2), "EPSG:4326", shape=(4, 4))
    >>> aligned = gm.align([coarse], grid)
    >>> aligned["bio1"].values[0].tolist()
    [1.0, 1.0, 2.0, 2.0]
    """
    arrays = _collect(sources)
    method_of = methods(arrays, resampling)
    template = _template(like)
    box, dims = geobox(template), spatial_dims(template)
    parts = [
        onto(a, box, dims=dims, resampling=method_of[n]).to_dataset(name=n)
        for n, a in arrays.items()
    ]
    return restore(merge(parts), template)


def _template(like: object) -> xr.Dataset:
    """Return a Dataset on the grid of ``like``."""
    from odc.geo.geobox import GeoBox

    if isinstance(like, GeoBox):
        return empty(like)
    if isinstance(like, xr.DataArray):
        return like.to_dataset(name="like") if like.name is None else like.to_dataset()
    if isinstance(like, xr.Dataset):
        return like
    raise GridError(
        f"like= must be a cube or a GeoBox, found {type(like).__name__}; for the grid of a file pass "
        "rioxarray.open_rasterio(path), for the grid of a Zarr store gm.open_cube(path)"
    )


def _collect(sources: Mapping[str, Source] | Iterable[Source]) -> dict[str, xr.DataArray]:
    """Return every variable of the sources by name."""
    if isinstance(sources, (xr.Dataset, xr.DataArray, str, Path)):
        sources = [sources]
    pairs = sources.items() if isinstance(sources, Mapping) else ((None, s) for s in sources)
    arrays: dict[str, xr.DataArray] = {}
    for key, source in pairs:
        for name, array in _variables(key, source):
            if name in arrays:
                raise GridError(
                    f"two sources have a variable '{name}'; rename one, e.g. ds.rename({name}='{name}_2')"
                )
            arrays[name] = array
    return arrays


def _variables(key: str | None, source: Source) -> list[tuple[str, xr.DataArray]]:
    is_path = isinstance(source, (str, Path))
    data = _open(source) if isinstance(source, (str, Path)) else source
    if isinstance(data, xr.Dataset):
        attrs = {"modality": key} if key else {}
        return [(str(n), a.assign_attrs({**attrs, **a.attrs})) for n, a in data.data_vars.items()]
    name = key or (Path(str(source)).stem if is_path else data.name)
    if not name:
        raise GridError(
            "a DataArray without a name; give one with array.rename('elevation') or pass a mapping"
        )
    return [(str(name), data)]


def _open(path: str | Path) -> xr.Dataset | xr.DataArray:
    """Open a raster lazily, with NaN where it is masked and with its scale and offset applied."""
    import rasterio
    import rioxarray

    if os.path.exists(path) and not os.path.isdir(path):
        regular_file(path)
    with warnings.catch_warnings(), refusing(UnreadableFile, f"{path} {NO_RASTER}"):
        warnings.simplefilter("ignore")  # rioxarray repeats the warnings of GDAL
        with rasterio.open(path) as file:
            check_raster(file, location=str(path))
    with refusing(UnreadableFile, f"{path} {NO_RASTER}"):
        raster: Any = rioxarray.open_rasterio(path, cache=False, masked=True, mask_and_scale=True)
    if isinstance(raster, list):
        raise GridError(
            f"{path} contains rasters on several grids; open them with rioxarray and pass them one by one"
        )
    if raster.rio.crs is None:
        text, suffix = str(path), Path(path).suffix.lower()
        call = (
            f"rioxarray.open_rasterio({text!r}, masked=True).squeeze().rio.write_crs('EPSG:4326')"
        )
        source = f"{{{Path(path).stem!r}: {call}}}"
        if suffix in NETCDF:
            source = f"[gm.open_cube(xr.open_dataset({text!r}), crs='EPSG:4326')]"
        raise GridError(f"{path} has no CRS; pass it with one: gm.align({source}, like)")
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


def methods(
    arrays: Mapping[str, xr.DataArray], resampling: str | Mapping[str, str]
) -> dict[str, str]:
    """Return the resampling of each variable; GridError for unknown methods, and for those that mix classes."""
    from rasterio.enums import Resampling

    requests = (
        dict.fromkeys(arrays, resampling) if isinstance(resampling, str) else dict(resampling)
    )
    if unknown := sorted(set(requests) - set(arrays)):
        raise GridError(f"resampling= names {unknown}, which no source has; found {sorted(arrays)}")
    method_of = {name: requests.get(name, "nearest") for name in arrays}
    for name, method in method_of.items():
        if method not in Resampling.__members__:
            raise GridError(
                f"resampling '{method}' is not known; use one of {', '.join(Resampling.__members__)}"
            )
        if is_categorical(arrays[name]) and method not in KEEPS_CODES:
            raise GridError(
                f"'{name}' is categorical: '{method}' would mix its classes into codes that do not exist; "
                f"use resampling={{'{name}': 'mode'}} or 'nearest'"
            )
    return method_of
