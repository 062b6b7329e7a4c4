"""Small Sentinel-2 scenes as real GeoTIFFs with STAC items, and a web server with faults to order."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.warp import transform_bounds

import geomiam as gm

SIZE = 40
ORIGIN = (500000.0, 5600040.0)
GRID = GeoBox((SIZE, SIZE), Affine(10, 0, ORIGIN[0], 0, -10, ORIGIN[1]), "EPSG:32631")
JUNE = "2020-06"
KEYS = {"red": "B04", "nir": "B08", "swir16": "B11", "scl": "SCL"}


def read(
    items, grid=GRID, *, bands=("red", "nir"), time=JUNE, composite=None, max_cloud=None, **settings
) -> xr.Dataset:
    """Read scenes onto the grid of a scene; ``settings`` are those of ``SceneOptions``."""
    options = gm.sources.SceneOptions(**settings)
    scenes = {"bands": bands, "source": items, "composite": composite, "max_cloud": max_cloud}
    return gm.sentinel2(grid, time, **scenes, options=options)


def numbers(seed: int = 0, *, low: int = 1200, high: int = 5000, size: int = SIZE) -> np.ndarray:
    """Digital numbers of one band."""
    return np.random.default_rng(seed).integers(low, high, (size, size)).astype("uint16")


def sky(*clouds: tuple[int, int, int], size: int = SIZE // 2) -> np.ndarray:
    """An SCL of 20 m pixels: vegetation, with (row, column, class) where there is something else."""
    scl = np.full((size, size), 4, "uint8")
    for row, col, code in clouds:
        scl[row, col] = code
    return scl


def write_tif(
    path: Path,
    values: np.ndarray,
    *,
    res: float,
    origin: tuple[float, float],
    crs: str,
    nodata: float | None = 0,
) -> None:
    """Write one band, tiled so that damage hits some of it."""
    rows, cols = values.shape
    location = Affine(res, 0, origin[0], 0, -res, origin[1])
    profile = {"driver": "GTiff", "height": rows, "width": cols, "count": 1, "dtype": values.dtype}
    tiles = {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate"}
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", **profile, **tiles, nodata=nodata, crs=crs, transform=location
    ) as file:
        file.write(values, 1)


def scene(
    folder: Path,
    name: str = "s",
    *,
    date: str = "2020-06-01T10:50:00Z",
    origin: tuple[float, float] = ORIGIN,
    crs: str = "EPSG:32631",
    offset: float | None = 0.0,
    properties: Mapping[str, Any] | None = None,
    bands: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Any]:
    """Write a scene and return its item; the largest bands are 10 m, those of half of it 20 m."""
    band_values = {"red": numbers(1), "nir": numbers(2), "scl": sky()} | dict(bands or {})
    width, assets = max(map(len, band_values.values())), {}
    for key, values in band_values.items():
        res = 10.0 * width / len(values)
        path = folder / name / f"{key}.tif"
        write_tif(path, values, res=res, origin=origin, crs=crs)
        raster = {"nodata": 0, "data_type": str(values.dtype)}
        if key != "scl" and offset is not None:
            raster |= {"scale": 1e-4, "offset": offset}
        assets[key] = {
            "href": str(path),
            "type": "image/tiff; application=geotiff; profile=cloud-optimized",
            "roles": ["data"],
            "gsd": res,
            "eo:bands": [{"name": KEYS.get(key, key)}],
            "raster:bands": [raster],
            "proj:shape": list(values.shape),
            "proj:transform": [res, 0, origin[0], 0, -res, origin[1]],
        }
    width = 10.0 * len(band_values["red"])
    west, south, east, north = transform_bounds(
        crs, "EPSG:4326", origin[0], origin[1] - width, origin[0] + width, origin[1]
    )
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [
            "https://stac-extensions.github.io/projection/v1.0.0/schema.json",
            "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
            "https://stac-extensions.github.io/eo/v1.0.0/schema.json",
        ],
        "id": name,
        "collection": "sentinel-2-c1-l2a",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": [west, south, east, north],
        "properties": {
            "datetime": date,
            "proj:epsg": int(crs.split(":")[1]),
            "eo:cloud_cover": 10.0,
            **(properties or {}),
        },
        "links": [],
        "assets": assets,
    }


def five(tmp_path: Path) -> list[dict[str, Any]]:
    """Write five scenes on five days, s0 to s4."""
    return [
        scene(tmp_path, f"s{i}", date=f"2020-06-0{i + 1}T10:50:00Z", bands={"red": numbers(i)})
        for i in range(5)
    ]


def at(item: Mapping[str, Any], base: str) -> dict[str, Any]:
    """Return an item of which the files are on a server."""
    assets = {
        k: {**a, "href": f"{base}/{'/'.join(Path(a['href']).parts[-2:])}"}
        for k, a in item["assets"].items()
    }
    return {**item, "assets": assets}


Fault = Callable[[BaseHTTPRequestHandler, bytes], None]


class QuietHandler(BaseHTTPRequestHandler):
    """A handler that prints no log."""

    def log_message(self, *args: Any) -> None:
        """Print nothing."""


def not_there(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    """Answer 404."""
    handler.send_error(404)


def broken(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    """Answer 500."""
    handler.send_error(500)


def slow(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    """Answer too late."""
    time.sleep(1.5)


def cut_short(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    """Promise the whole body and close the line after half of it."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[: len(body) // 2])
    handler.wfile.flush()
    handler.close_connection = True


@contextlib.contextmanager
def serve(folder: Path, faults: Mapping[str, Fault] | None = None) -> Iterator[str]:
    """Serve files with HTTP ranges; paths that end as a key of ``faults`` misbehave."""
    ordered_items = dict(faults or {})

    class Handler(QuietHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            file = folder / path.lstrip("/")
            body = file.read_bytes() if file.is_file() else b""
            fault = next((f for end, f in ordered_items.items() if path.endswith(end)), None)
            if fault or not body:
                return (fault or not_there)(self, body)
            self._send(body)

        do_HEAD = do_GET

        def _send(self, body: bytes) -> None:
            first, last = 0, len(body) - 1
            if byte_range := self.headers.get("Range"):
                start, _, stop = byte_range.removeprefix("bytes=").partition("-")
                if start:
                    first, last = int(start), min(last, int(stop or last))
                else:  # the last bytes
                    first = max(0, len(body) - int(stop))
            part = body[first : last + 1]
            self.send_response(206 if byte_range else 200)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(part)))
            if byte_range:
                self.send_header("Content-Range", f"bytes {first}-{last}/{len(body)}")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(part)

    yield from _running(Handler)


@contextlib.contextmanager
def careless_api(items: list[dict[str, Any]], *, conforms: tuple[str, ...] = ()) -> Iterator[str]:
    """Serve a STAC API that returns all of its items to every search."""

    def answer(handler: BaseHTTPRequestHandler, body: Any) -> dict[str, Any]:
        root = api_root(f"http://{handler.headers['Host']}", conforms=conforms)
        return root if body is None else page(items)

    with answering(answer) as url:
        yield url


@contextlib.contextmanager
def answering(answer: Callable[[BaseHTTPRequestHandler, Any], Any]) -> Iterator[str]:
    """Serve what a function of a request and its JSON returns: JSON, bytes, or None if it has responded."""

    class Handler(QuietHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            result = answer(self, body)
            if result is not None:
                reply(self, result)

        do_POST = do_HEAD = do_GET

    yield from _running(Handler)


def reply(handler: BaseHTTPRequestHandler, result: Any, status: int = 200, **headers: str) -> None:
    """Send JSON or bytes with a status and headers, ``Retry_After`` for ``Retry-After``."""
    body = result if isinstance(result, bytes) else json.dumps(result).encode()
    handler.send_response(status)
    for key, value in {"Content-Type": "application/json", **headers}.items():
        handler.send_header(key.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)


def api_root(url: str, *, conforms: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the first page of an API that can be searched."""
    classes = [f"https://api.stacspec.org/v1.0.0/{c}" for c in ("core", "item-search", *conforms)]
    link = {"rel": "search", "href": f"{url}/search", "method": "POST"}
    about = {"type": "Catalog", "id": "api", "stac_version": "1.0.0", "description": "an API"}
    return {**about, "conformsTo": classes, "links": [{"rel": "self", "href": url}, link]}


def page(items: list[Any], **next_link: Any) -> dict[str, Any]:
    """Return a page of a search, with a link to the next one."""
    links = [{"rel": "next", "method": "POST", "merge": True, **next_link}] if next_link else []
    return {"type": "FeatureCollection", "features": items, "links": links}


def _running(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
