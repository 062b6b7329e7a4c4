"""Sentinel-2 products of the Earth Observation Processing Framework (EOPF), which are Zarr stores.

A product states its STAC item, and each array its grid, scale and offset. The link of an asset is the
file of metadata of its array, by which :mod:`geomiam.sources.scenes.zarr_raster` opens it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import zarr
from affine import Affine
from odc.geo.geobox import GeoBox

from geomiam.data.store.chunk_reader import guarded_store
from geomiam.errors import SourceError
from geomiam.outputs.paths import expand
from geomiam.sources.scenes.zarr_raster import METADATA
from geomiam.sources.web.allow_list import allow_list_of, scheme, scrub

REFLECTANCE = "measurements/reflectance"
ARRAYS = {
    **{b: f"{REFLECTANCE}/r10m/{b.lower()}" for b in ("B02", "B03", "B04", "B08")},
    **{b: f"{REFLECTANCE}/r20m/{b.lower()}" for b in ("B01", "B05", "B06", "B07")},
    **{b: f"{REFLECTANCE}/r20m/{b.lower()}" for b in ("B8A", "B11", "B12")},
    "B09": f"{REFLECTANCE}/r60m/b09",
    "SCL": "conditions/mask/l2a_classification/r20m/scl",
}
"""Arrays of a Level-2A product by band, each at the resolution of its instrument."""
EXTENSIONS = (
    "https://stac-extensions.github.io/projection/v1.0.0/schema.json",
    "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
)
ITEM = "stac_discovery"
"""Attribute of a product with its STAC item."""


def eopf_items(
    products: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
) -> list[dict[str, Any]]:
    """Return STAC items of Sentinel-2 products in the Zarr format of EOPF.

    Parameters
    ----------
    products
        Path or https URL of a Level-2A product (``.zarr``, Zarr format 2 with consolidated metadata), or
        several of them. Only metadata are read.

    Returns
    -------
    list of dict
        Items for ``source=`` of :func:`geomiam.sentinel2`. Scale and offset are those of the arrays.

    Raises
    ------
    SourceError
        If a product cannot be read, or is none of Sentinel-2 Level-2A.

    See Also
    --------
    geomiam.sentinel2 : the cube of these scenes.

    Examples
    --------
    >>> gm.sources.eopf_items([])
    []
    >>> items = gm.sources.eopf_items("S2C_MSIL2A_20250811T112131.zarr")  # doctest: +SKIP
    >>> s2 = gm.sentinel2(cube, "2025-08", source=items)  # doctest: +SKIP
    """
    paths = [products] if isinstance(products, (str, os.PathLike)) else list(products)
    return [_item(expand(os.fspath(path)).rstrip("/")) for path in paths]


def _item(path: str) -> dict[str, Any]:
    """Return the item of a product; SourceError if it is none."""
    refusal = allow_list_of("").refusal(path) if scheme(path) else ""
    if refusal:
        raise SourceError(f"{scrub(path)} is refused: {refusal}")
    try:
        return _item_of(zarr.open_group(guarded_store(path), mode="r"), path)
    except (SourceError, MemoryError):
        raise
    except Exception as error:  # metadata are untrusted: their fields may have any type
        raise SourceError(
            f"{scrub(path)} is no Sentinel-2 Level-2A product of EOPF in Zarr format 2: "
            f"{type(error).__name__}: {scrub(error)[:200]}"
        ) from None


def _item_of(group: zarr.Group, path: str) -> dict[str, Any]:
    stated_item: Any = group.attrs[ITEM]
    pairs = ((band, _asset(group, path, name)) for band, name in ARRAYS.items())
    assets = {band: asset for band, asset in pairs if asset is not None}
    # the bbox that a product states runs from east to west
    extent = _box(next(iter(assets.values()))).extent.to_crs("EPSG:4326").boundingbox
    west, south, east, north = extent.bbox
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": list(EXTENSIONS),
        "id": str(stated_item["id"]).removesuffix(".SAFE"),
        "bbox": [west, south, east, north],
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": dict(stated_item["properties"]),
        "links": [],
        "assets": assets,
    }


def _asset(group: zarr.Group, path: str, name: str) -> dict[str, Any] | None:
    """Return the asset of an array, with the metadata of its attributes; None if there is no such array."""
    if name not in group:
        return None
    array: Any = group[name]
    attrs = dict(array.attrs)
    raster = {"nodata": 0, "data_type": str(array.dtype)}
    if "scale_factor" in attrs:
        raster |= {"scale": attrs["scale_factor"], "offset": attrs.get("add_offset", 0.0)}
    return {
        "href": f"{path}/{name}/{METADATA}",
        "roles": ["data"],
        "gsd": attrs["proj:transform"][0],
        "raster:bands": [raster],
        "proj:epsg": attrs["proj:epsg"],
        "proj:shape": list(array.shape),
        "proj:transform": attrs["proj:transform"],
    }


def _box(asset: Mapping[str, Any]) -> GeoBox:
    rows, cols = asset["proj:shape"]
    return GeoBox((rows, cols), Affine(*asset["proj:transform"][:6]), f"EPSG:{asset['proj:epsg']}")
