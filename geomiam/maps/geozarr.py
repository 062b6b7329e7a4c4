"""Maps as GeoZarr: Zarr v3 with the conventions spatial, proj and multiscales."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from geomiam._version import __version__
from geomiam.data.grid.grid import geobox, restore, spatial_dims
from geomiam.data.store.encoding import encodable, netcdf_attributes
from geomiam.maps.geotiff import is_classes, layers_of, north_up
from geomiam.outputs.kinds import MAP, MARK
from geomiam.outputs.paths import check_names
from geomiam.progress import dask_progress

CHUNK = 512
"""Cells along the side of a chunk; the coarsest level is at most one chunk."""
UUIDS = {
    "multiscales": ("d35379db-88df-4056-af3a-620245f8e347", "Multiscale layout of zarr datasets"),
    "proj": (
        "f17cb550-5864-4468-aeb7-f3180cfb622f",
        "Coordinate reference system information for geospatial data",
    ),
    "spatial": ("689b58e2-cf7b-45e0-9fff-9cfc0883d6b4", "Spatial coordinate information"),
}
"""Zarr conventions (github.com/zarr-conventions, v0.1 of June 2026): identifier and description."""


def write_geozarr(
    maps: xr.Dataset,
    path: Path,
    *,
    layers: Sequence[str] | None,
    attrs: Mapping[str, Any],
) -> None:
    """Write a map at full resolution into the group ``0``, and at half of the resolution each into ``1``, ``2``, …

    A level is read from the level before, so that memory does not grow with the map.
    """
    import zarr

    maps = north_up(maps)
    names = layers_of(maps, layers)
    level = maps[names].assign_attrs(netcdf_attributes({**maps.attrs, **attrs}))
    check_names(level.variables)
    root = zarr.open_group(path, mode="w-", zarr_format=3)
    layout: list[dict[str, Any]] = []
    while True:
        number = len(layout)
        box = geobox(level)
        _write_level(level, path, str(number), box)
        entry: dict[str, Any] = {"asset": str(number)}
        if number:
            entry |= {
                "derived_from": str(number - 1),
                "transform": {"scale": [2.0, 2.0], "translation": [0.0, 0.0]},
            }
        layout.append(
            {**entry, "spatial:shape": list(box.shape.yx), "spatial:transform": _affine(box)}
        )
        if max(box.shape.yx) <= CHUNK:
            break
        finer_level = xr.open_zarr(path, group=str(number), consolidated=False, decode_coords="all")
        level = _halved(finer_level)
    method = "nearest" if all(is_classes(maps[n]) for n in names) else "average"
    root.attrs.update(
        {
            **netcdf_attributes({**maps.attrs, **attrs}),
            "zarr_conventions": [_convention(n) for n in UUIDS],
            "multiscales": {"layout": layout, "resampling_method": method},
            **_proj(geobox(maps)),
            "spatial:dimensions": list(spatial_dims(maps)),
            "spatial:bbox": list(geobox(maps).boundingbox.bbox),
            MARK: MAP.name,
            "software": f"geomiam {__version__}",
        }
    )
    with warnings.catch_warnings():
        # The multiscales convention recommends consolidated metadata; zarr-python warns of all.
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(str(path), zarr_format=3)


def _write_level(level: xr.Dataset, path: Path, group: str, box: Any) -> None:
    y, x = spatial_dims(level)
    sizes: dict[str, int] = {y: CHUNK, x: CHUNK}
    level = level.chunk({d: sizes.get(str(d), -1) for d in level.dims})
    for name in level.data_vars:  # one layer in each chunk, since viewers read entire chunks
        array = level[name]
        level[name] = array.chunk({d: 1 for d in array.dims if d not in sizes})
    level = encodable(level)
    for var in level.variables.values():
        var.attrs = netcdf_attributes(var.attrs)
    for name in level.data_vars:
        level[name].encoding["chunks"] = tuple(
            min(sizes.get(str(d), 1), n) for d, n in level[name].sizes.items()
        )
    level = level.assign_attrs(
        {
            "zarr_conventions": [_convention(n) for n in ("proj", "spatial")],
            **_proj(box),
            "spatial:dimensions": [y, x],
            "spatial:shape": list(box.shape.yx),
            "spatial:transform_type": "affine",
            "spatial:transform": _affine(box),
            "spatial:bbox": list(box.boundingbox.bbox),
            "spatial:registration": "pixel",
        }
    )
    with dask_progress(f"writing level {group}"):
        level.to_zarr(path, group=group, mode="a", zarr_format=3, consolidated=False)


def _halved(level: xr.Dataset) -> xr.Dataset:
    """Return a map at half of its resolution: means of the observed cells, and every second code of classes."""
    y, x = spatial_dims(level)
    layers = {}
    for name, array in level.data_vars.items():
        if is_classes(array):
            layers[name] = array.isel({y: slice(None, None, 2), x: slice(None, None, 2)}).drop_vars(
                [y, x]
            )
        else:
            blocks = array.drop_vars([y, x]).coarsen({y: 2, x: 2}, boundary="pad")
            layers[name] = blocks.mean().astype(array.dtype).assign_attrs(array.attrs)
    box = geobox(level)
    coarse = box.zoom_out(2) if not (box.shape.y % 2 or box.shape.x % 2) else None
    rows, cols = (-(-n // 2) for n in box.shape.yx)
    if coarse is None:
        coarse = type(box)((rows, cols), box.affine * box.affine.scale(2), box.crs)
    template = coarse.coordinates
    out = xr.Dataset(layers).assign_coords(
        {d: (d, np.asarray(template[k].values), level[d].attrs) for d, k in zip((y, x), template)}
    )
    return restore(out, level)


def _affine(box: Any) -> list[float]:
    return [float(v) for v in tuple(box.affine)[:6]]


def _proj(box: Any) -> dict[str, Any]:
    """Return the CRS as the convention proj states it."""
    code = {"proj:code": f"EPSG:{box.crs.epsg}"} if box.crs.epsg else {}
    return {**code, "proj:wkt2": box.crs.to_wkt(version="WKT2_2019")}


def _convention(name: str) -> dict[str, str]:
    uuid, description = UUIDS[name]
    home = f"zarr-conventions/{name}"
    return {
        "schema_url": f"https://raw.githubusercontent.com/{home}/refs/tags/v0.1/schema.json",
        "spec_url": f"https://github.com/{home}/blob/v0.1/README.md",
        "uuid": uuid,
        "name": name,
        "description": description,
    }
