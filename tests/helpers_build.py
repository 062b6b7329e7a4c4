"""Small GeoTIFFs, NetCDF and Zarr files, and catalogs that name them."""

from __future__ import annotations

import warnings
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import rasterio
import xarray as xr
import yaml
import zarr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

UTM = GeoBox.from_bbox((500000, 5500000, 500600, 5500600), crs="EPSG:32631", resolution=20)
"""The grid of most tests: 30 × 30 cells."""
FINE = GeoBox.from_bbox((499900, 5499900, 500700, 5500700), crs="EPSG:32631", resolution=10)
"""A grid of sources: two cells along a side of a cell, with more around."""


def field(box: GeoBox, *, bands: int = 1, seed: int = 0) -> np.ndarray:
    """Smooth numbers with noise ``(band, y, x)``."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : box.shape.y, 0 : box.shape.x]
    wave = 100 + 10 * np.sin(y / 9) + 5 * np.cos(x / 7)
    return (wave + rng.normal(size=(bands, *box.shape.yx))).astype("float32")


def tif(path: Path, values: np.ndarray, box: GeoBox, **profile: Any) -> Path:
    """Write a GeoTIFF; ``scales``, ``offsets`` and ``names`` go into its header."""
    values = values[None] if values.ndim == 2 else values
    header = {k: profile.pop(k) for k in ("scales", "offsets", "names") if k in profile}
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = {"count": len(values), "height": box.shape.y, "width": box.shape.x}
    place = {"crs": str(box.crs), "transform": box.affine, "dtype": values.dtype}
    tiles = {"tiled": True, "blockxsize": 16, "blockysize": 16}
    with rasterio.open(path, "w", driver="GTiff", **shape, **place, **tiles, **profile) as file:
        file.write(values)
        for key, attribute in {"scales": "scales", "offsets": "offsets"}.items():
            if key in header:
                setattr(file, attribute, header[key])
        for band, name in enumerate(header.get("names", ()), 1):
            file.set_band_description(band, name)
    return path


def tile_table(path: Path, rows: list[tuple[str, GeoBox, int]]) -> Path:
    """Write a table of tiles with the columns of the index of AlphaEarth, from paths, grids and years."""
    table = []
    for name, box, year in rows:
        place = box.extent.to_crs("EPSG:4326", resolution=box.resolution.x * 10).boundingbox
        utm = {"crs": str(box.crs), "utm_zone": "31N", "WKT": box.extent.wkt, "year": year}
        degrees = dict(zip(("west", "south", "east", "north"), place.bbox))
        table.append({"path": name, **utm, **{f"wgs84_{k}": v for k, v in degrees.items()}})
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(table).to_parquet(path)
    return path


def zone_store(path: Path, zones: dict[int, GeoBox], *, bands: int = 128) -> Path:
    """Write a store as that of TESSERA: a group for each UTM zone, shards, and a factor for each pixel.

    The embedding of a pixel is (band number + 1) times (its year - 2000), scaled by 0.5; the first column of
    a zone is water (NaN), the second was not written (inf). Only the root has consolidated metadata.
    """
    years = (2023, 2024)
    root = zarr.open_group(path, mode="w", zarr_format=3)
    for zone, box in zones.items():
        group, (rows, cols) = root.create_group(f"utm{zone:02d}"), box.shape.yx
        axes = {"y": box.coordinates["y"].values, "x": box.coordinates["x"].values}
        axes |= {"time": np.array(years, "int32"), "band": np.arange(bands, dtype="int32")}
        for name, values in axes.items():
            group.create_array(name, data=values, dimension_names=[name])
        factors = np.full((len(years), rows, cols), 0.5, "float32")
        factors[:, :, 0], factors[:, :, 1] = np.nan, np.inf
        steps = (np.array(years) - 2000)[:, None] * 1.0
        values = np.clip(np.arange(1, bands + 1)[None, :] * steps, 0, 127).astype("int8")
        values = np.broadcast_to(values[:, :, None, None], (len(years), bands, rows, cols))
        common = {"shards": (1, bands, 64, 64), "chunks": (1, bands, 32, 32)}
        names = ["time", "band", "y", "x"]
        group.create_array("embeddings", data=values, dimension_names=names, **common)
        flat = {k: (v[0], *v[2:]) for k, v in common.items()}
        group.create_array(
            "scales", data=factors, fill_value=np.inf, dimension_names=names[:1] + names[2:], **flat
        )
        group.attrs.update({"proj:code": str(box.crs), "spatial:dimensions": ["y", "x"]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zarr-python warns of consolidated metadata
        zarr.consolidate_metadata(path)
    return path


def vrt(path: Path, tiles: dict[str, GeoBox]) -> Path:
    """Write a VRT of tiles on one lattice, as gdalbuildvrt does."""
    boxes = list(tiles.values())
    union = GeoBox.from_bbox(
        reduce(or_, (b.boundingbox for b in boxes)), boxes[0].crs, resolution=boxes[0].resolution.x
    )
    entries = []
    for name, box in tiles.items():
        x, y = (round(v) for v in ~union.affine * (box.affine.c, box.affine.f))
        place = f'xSize="{box.shape.x}" ySize="{box.shape.y}"'
        entries.append(
            f'<ComplexSource><SourceFilename relativeToVRT="1">{name}</SourceFilename>'
            f'<SourceBand>1</SourceBand><SrcRect xOff="0" yOff="0" {place} />'
            f'<DstRect xOff="{x}" yOff="{y}" {place} /><NODATA>-32768</NODATA></ComplexSource>'
        )
    numbers = ", ".join(f"{v:.16e}" for v in union.affine.to_gdal())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'<VRTDataset rasterXSize="{union.shape.x}" rasterYSize="{union.shape.y}">'
        f'<SRS dataAxisToSRSAxisMapping="1,2">{union.crs.to_wkt()}</SRS>'
        f"<GeoTransform>{numbers}</GeoTransform>"
        f'<VRTRasterBand dataType="Int16" band="1"><NoDataValue>-32768</NoDataValue>'
        f"{''.join(entries)}</VRTRasterBand></VRTDataset>",
        encoding="utf-8",
    )
    return path


def labelled(box: GeoBox, name: str = "v", *, times: int = 0, seed: int = 0) -> xr.Dataset:
    """Return a Dataset as NetCDF files have it: CRS in a coordinate, perhaps a time axis."""
    values = field(box, bands=max(times, 1), seed=seed)
    coords = xr_coords(box)
    place = tuple(d for d in coords if d != "spatial_ref")
    dims = ("time", *place) if times else place
    if times:
        coords = {
            **coords,
            "time": np.arange("2019", str(2019 + times), dtype="M8[Y]").astype("M8[ns]"),
        }
    ds = xr.Dataset({name: (dims, values if times else values[0])}, coords)
    ds[name].encoding["grid_mapping"] = "spatial_ref"
    return ds


def catalog(folder: Path, sources: dict, modalities: dict, **options: Any) -> Path:
    """Write a catalog."""
    path = folder / "catalog.yaml"
    text = {"name": "small", "sources": sources, "modalities": modalities, **options}
    path.write_text(yaml.safe_dump(text, sort_keys=False), encoding="utf-8")
    return path


def one(folder: Path, source: dict, variable: dict | None = None, *, name: str = "layer") -> Path:
    """Write a catalog of one variable from one source ``s``."""
    return catalog(folder, {"s": source}, {"m": {"from": "s", "variables": {name: variable or {}}}})


def warped(
    values: np.ndarray, src: GeoBox, dst: GeoBox, method: str, nodata: float = np.nan
) -> np.ndarray:
    """Return what rasterio makes of the whole field at once, kernels being one source cell wide."""
    scale = {} if method == "average" else {"XSCALE": 1, "YSCALE": 1}
    out = np.full((*values.shape[:-2], *dst.shape.yx), np.nan, "float32")
    for at in np.ndindex(values.shape[:-2]):
        rasterio.warp.reproject(
            values[at].astype("float32"),
            out[at],
            src_transform=src.affine,
            src_crs=str(src.crs),
            dst_transform=dst.affine,
            dst_crs=str(dst.crs),
            src_nodata=nodata,
            dst_nodata=np.nan,
            resampling=rasterio.enums.Resampling[method],
            **scale,
        )
    return out


def static(folder: Path, items: list[dict[str, Any]]) -> None:
    """Write a static STAC catalog of items."""
    import pystac

    catalog = pystac.Catalog("small", "three scenes")
    for item in items:
        catalog.add_item(pystac.Item.from_dict(item))
    catalog.normalize_and_save(str(folder / "stac"), pystac.CatalogType.ABSOLUTE_PUBLISHED)
