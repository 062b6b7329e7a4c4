"""Chips: images of the finer cells inside each cell of a grid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from geomiam.data.grid.grid import empty, geobox, merge, restore, same_grid, spatial_dims
from geomiam.data.values import as_float
from geomiam.errors import GridError

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

CHIP = ("v", "u")  # dims of rows and columns inside a cell
BLOCK = 512  # approximate rows and columns of fine cells in a dask chunk


def chips(fine: xr.Dataset, like: GeoBox | xr.Dataset | xr.DataArray) -> xr.Dataset:
    """Return a finer cube as chips ``(…, y, x, v, u)`` of the cells of a coarser grid, lazily.

    Imagery can be stored separately on a finer grid. Its chip becomes one image token of each cell.

    Parameters
    ----------
    fine
        A cube whose cells divide those of ``like`` evenly. Both cover the same extent.
    like
        The coarser grid: a GeoBox or any georeferenced Dataset or DataArray.

    Returns
    -------
    xr.Dataset
        Float32 on the grid of ``like``; ``v`` and ``u`` are the row and column inside a cell.

    Raises
    ------
    GridError
        When the cells of ``fine`` do not divide those of ``like``; resample them with
        :func:`geomiam.align` first.

    See Also
    --------
    geomiam.sample : one value per site and predictor.

    Examples
    --------
    >>> fine = gm.demo.load_cube()[["altitude"]].isel(y=slice(0, 8), x=slice(0, 6))
    >>> images = gm.chips(fine, fine.odc.geobox.zoom_out(2))["altitude"]
    >>> images.sizes["v"], images.sizes["u"], images.size == fine["altitude"].size
    (2, 2, True)
    """
    template: Any = like if isinstance(like, (xr.Dataset, xr.DataArray)) else empty(like)
    box, fine_box = geobox(template), geobox(fine)
    times = round(abs(box.resolution.x / fine_box.resolution.x))
    if times < 1 or not same_grid(fine_box, finer(box, times)):
        raise GridError(
            f"cells of {abs(fine_box.resolution.x):g} ({fine_box.shape.y} × {fine_box.shape.x}) do not divide cells of "
            f"{abs(box.resolution.x):g} ({box.shape.y} × {box.shape.x}) evenly; first resample them to the grid "
            "geomiam.data.grid.chips.finer(grid, n) with geomiam.align"
        )
    grid_names = dict(zip(spatial_dims(fine), ("y", "x"), strict=True))
    template_names = dict(zip(("y", "x"), spatial_dims(template), strict=True))
    parts = []
    for name, array in fine.data_vars.items():
        if set(grid_names) <= set(array.dims):
            bare = as_float(array).drop_vars([c for c in array.coords if c not in array.dims])
            chip = fold(bare.rename(grid_names), times).rename(template_names)
            parts.append(chip.to_dataset(name=name))
    return restore(merge(parts), template).assign_attrs(fine.attrs)


def finer(box: GeoBox, times: int) -> GeoBox:
    """Return the grid with each cell split into ``times × times`` cells."""
    from odc.geo.geobox import GeoBox

    if times == 1:
        return box
    rows, cols = box.shape.yx
    return GeoBox((rows * times, cols * times), box.affine * box.affine.scale(1 / times), box.crs)


def fold(array: xr.DataArray, times: int, *, dims: tuple[str, str] = CHIP) -> xr.DataArray:
    """Fold ``times × times`` cells into one: ``(…, y, x)`` becomes ``(…, y, x, v, u)``, for other ``dims`` too.

    The sizes of ``y`` and ``x`` are multiples of ``times``; their coordinates are dropped.
    """
    rows, cols = dims
    if array.chunks is not None:
        array = array.chunk(dict.fromkeys(("y", "x"), -(-BLOCK // times) * times))
    place = [c for c in array.coords if {"y", "x"} & set(array[c].dims)]
    blocks = array.drop_vars(place).coarsen(y=times, x=times)
    chip_array = blocks.construct(y=("y", rows), x=("x", cols))
    labels = {rows: np.arange(times), cols: np.arange(times)}
    return chip_array.assign_coords(labels).transpose(..., "y", "x", rows, cols)
