"""Hostile GeoTIFF, NetCDF and Zarr files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import rasterio
import xarray as xr
import yaml
from rasterio.transform import from_origin

import geomiam as gm

from . import nasty
from .run import Input

FILES = {"raster": "v.tif", "netcdf": "v.nc", "zarr": "v.zarr"}
HUGE = (2**31, 2**40, 2**62, 0, -1, 1, 10**6)


def inputs(rng: np.random.Generator, count: int) -> Iterator[Input]:
    for number in range(count):
        yield _one(np.random.default_rng(rng.integers(2**63)), number)


def _one(rng: np.random.Generator, number: int) -> Input:
    kind = nasty.pick(rng, ("raster", "netcdf", "netcdf3", "zarr", "zarr"))
    seed = int(rng.integers(2**31))

    def prepare(folder: Path) -> None:
        _write(folder, kind)
        _spoil(np.random.default_rng(seed), folder, kind)
        source = {"path": FILES.get(kind, "v.nc"), "kind": kind.replace("3", ""), "variable": "v"}
        catalog = {
            "name": "c",
            "grid": {
                "crs": "EPSG:32631",
                "resolution": 20,
                "bounds": [500000, 5500000, 500320, 5500320],
            },
            "sources": {"s": source if kind != "raster" else {"path": "v.tif"}},
            "modalities": {"m": {"from": "s", "variables": {"v": {}}}},
        }
        (folder / "c.yaml").write_text(yaml.safe_dump(catalog))

    def call(folder: Path) -> bool:
        if kind == "zarr" and seed % 2:
            cube = gm.open_cube(folder / "v.zarr")
            if cube.nbytes < 10**8:
                cube.load()
                gm.infer_schema(cube)
            return True
        gm.build_cube(folder / "c.yaml", out=folder / "out", progress=False)
        return True

    return Input("rasters", f"#{number} {kind} seed {seed}", prepare, call)


def _write(folder: Path, kind: str) -> None:
    values = np.arange(256, dtype="f4").reshape(16, 16)
    if kind == "raster":
        place = {"crs": "EPSG:32631", "transform": from_origin(500000, 5500320, 20, 20)}
        shape = {"count": 1, "height": 16, "width": 16, "dtype": "float32", "compress": "deflate"}
        with rasterio.open(
            folder / "v.tif",
            "w",
            driver="GTiff",
            tiled=True,
            blockxsize=16,
            blockysize=16,
            **shape,
            **place,
        ) as file:
            file.write(values[None])
        return
    axes = {"y": 5500310 - 20.0 * np.arange(16), "x": 500010 + 20.0 * np.arange(16)}
    cube = xr.Dataset({"v": (("y", "x"), values)}, axes).odc.assign_crs("EPSG:32631")
    if kind == "zarr":
        gm.write_cube(cube, folder / "v.zarr", chunks={"y": 8, "x": 8})
    elif kind == "netcdf":
        cube.to_netcdf(
            folder / "v.nc", engine="h5netcdf", encoding={"v": {"zlib": True, "chunksizes": (8, 8)}}
        )
    else:
        cube.to_netcdf(folder / "v.nc", engine="scipy")


def _spoil(rng: np.random.Generator, folder: Path, kind: str) -> None:
    if kind == "zarr":
        _spoil_zarr(rng, folder / "v.zarr")
        return
    path = folder / FILES.get(kind, "v.nc")
    action = nasty.pick(rng, ("bytes", "bytes", "bytes", "file", "huge"))
    if action == "file":
        nasty.replace(path, nasty.special(rng)[0])
    elif action == "huge" and kind == "netcdf":
        _huge_hdf5(rng, path)
    elif action == "huge" and kind == "raster":
        _huge_tiff(rng, path)
    else:
        for _ in range(int(rng.integers(1, 4))):
            path.write_bytes(nasty.scrambled(rng, path.read_bytes() or b"x")[0] or b"x")


def _huge_hdf5(rng: np.random.Generator, path: Path) -> None:
    import h5py

    with h5py.File(path, "a") as file:
        name = nasty.pick(rng, ("v", "x", "y"))
        del file[name]
        size = int(2 ** rng.integers(20, 40))
        shape = (size, size) if name == "v" else (size,)
        chunk = tuple(min(n, int(2 ** rng.integers(3, 15))) for n in shape)
        file.create_dataset(name, shape=shape, chunks=chunk, dtype="f4", compression="gzip")


def _huge_tiff(rng: np.random.Generator, path: Path) -> None:
    side = int(2 ** rng.integers(10, 17)) // 16 * 16
    is_tiled = bool(rng.random() < 0.5)
    tiling = {"tiled": is_tiled, "blockysize": side} | ({"blockxsize": side} if is_tiled else {})
    place = {"crs": "EPSG:32631", "transform": from_origin(500000, 5500320, 20, 20)}
    shape = {"count": 1, "height": side, "width": side, "dtype": "float32", "compress": "deflate"}
    with rasterio.open(path, "w", driver="GTiff", SPARSE_OK=True, **tiling, **shape, **place):
        pass


def _spoil_zarr(rng: np.random.Generator, store: Path) -> None:
    files = sorted(p for p in store.rglob("*") if p.is_file())
    action = nasty.pick(rng, ("meta", "meta", "meta", "huge", "bytes", "file", "link"))
    metas = [p for p in files if p.name == "zarr.json"]
    if action in ("meta", "huge"):
        path = nasty.pick(
            rng, metas if action == "meta" else [p for p in metas if p.parent != store]
        )
        data = json.loads(path.read_text())
        if action == "meta":
            data = nasty.changed(rng, data)[0]
        elif data["shape"]:
            choice = nasty.pick(rng, ("shape", "chunks"))
            sizes = [nasty.pick(rng, HUGE) for _ in data["shape"]]
            if choice == "shape":
                data["shape"] = sizes
            else:
                data["chunk_grid"]["configuration"]["chunk_shape"] = sizes
        path.write_text(json.dumps(data))
    elif action == "bytes":
        path = nasty.pick(rng, files)
        path.write_bytes(nasty.scrambled(rng, path.read_bytes() or b"x")[0])
    elif action == "file":
        nasty.replace(nasty.pick(rng, files), nasty.special(rng)[0])
    else:
        os.symlink(nasty.pick(rng, ("..", "/", "v", "/dev")), store / "more")
