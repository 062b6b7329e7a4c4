"""Reading the pixels of one asset: GeoTIFF only, on the scene's own grid, failures named.

Loaders turn a file that cannot be read into a plane of zeros or into an error without a name.
Here it becomes NaN, a line that names scene and file, and a flag that outlives the process.
"""

from __future__ import annotations

import os
import threading
import uuid
import warnings
import weakref
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from geomiam.errors import AssetFailed, AssetsFailed
from geomiam.sources.catalogue import scheme, scrub

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

Loader = Callable[[Sequence[Any], Sequence[str], Any], xr.Dataset]
GDAL = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_CONNECTTIMEOUT": "10",
    "GDAL_HTTP_TIMEOUT": "60",
    "GDAL_HTTP_MAX_RETRY": "3",
    "GDAL_HTTP_RETRY_DELAY": "0.5",
}
"""GDAL's settings for reading; environment variables of the same names go before."""


class FailedAssets(list):
    """Lines about files that could not be read; grows while pixels are computed in this process."""

    def __init__(self, lines: Sequence[str] = ()) -> None:
        super().__init__(lines)
        self.key = uuid.uuid4().hex
        _REPORTS[self.key] = self

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)


_REPORTS: weakref.WeakValueDictionary[str, FailedAssets] = weakref.WeakValueDictionary()
_LOCK = threading.Lock()


def tell(key: str, line: str) -> None:
    """Add a line to a report, once, and warn; elsewhere than in its own process only warn."""
    with _LOCK:
        report = _REPORTS.get(key)
        if report is not None and line in report:
            return
        if report is not None:
            report.append(line)
    warnings.warn(line, AssetsFailed, stacklevel=2)


@dataclass(frozen=True)
class Reading:
    """How pixels are read: by which loader, what a failure does, and where it is told."""

    loader: Loader
    on_error: str
    report: str


def read(item: Any, key: str, box: GeoBox, *, how: Reading) -> tuple[np.ndarray, bool]:
    """Return the numbers of an asset in a window, NaN where it has none, and whether it failed.

    Raises
    ------
    AssetFailed
        With ``on_error="raise"``, naming scene, asset and file.
    """
    try:
        return _values(how.loader([item], [key], box), key, box), False
    except MemoryError:
        raise
    except Exception as error:  # whatever a loader raises, one file must not end the map
        href = scrub(item.assets[key].href)
        line = f"{item.id} / {key}: {type(error).__name__}: {scrub(error)[:200]} ({href})"
    if how.on_error == "raise":
        raise AssetFailed(f"{line}; on_error='nan' leaves it out") from None
    tell(how.report, line)
    return np.full(box.shape, np.nan, dtype="float32"), True


def _values(loaded: xr.Dataset, key: str, box: GeoBox) -> np.ndarray:
    array = loaded[key]
    values = np.asarray(array.values, dtype="float32").reshape(-1, *array.shape[-2:])
    if values.shape != (1, *box.shape):
        raise ValueError(f"the loader returned {array.shape} for a window of {tuple(box.shape)}")
    nodata = array.attrs.get("nodata")
    return values[0] if nodata is None else np.where(values[0] == nodata, np.nan, values[0])


def odc_loader(sign: Callable[[str], str] | None = None) -> Loader:
    """Return the loader that is used by default: odc-stac, with a reader that opens GeoTIFF only."""
    return partial(_load, sign=sign)


def _load(
    items: Sequence[Any], bands: Sequence[str], box: GeoBox, *, sign: Callable[[str], str] | None
) -> xr.Dataset:
    import odc.stac

    with gdal():
        return odc.stac.load(
            list(items),
            list(bands),
            geobox=box,
            groupby="id",
            dtype="float32",
            nodata=float("nan"),
            patch_url=sign,
            driver=_driver(),
        )


@contextmanager
def gdal() -> Any:
    """Set what reading over a network needs, wherever the user has not."""
    import rasterio

    with rasterio.Env(**{k: v for k, v in GDAL.items() if k not in os.environ}):
        yield


def _driver() -> Any:
    from odc.loader._rio import RioDriver

    class GeoTiffDriver(RioDriver):
        def open(self, src: Any, ctx: Any) -> Any:
            return _Reader(src.uri, src.band)

    return GeoTiffDriver()


class _Reader:
    """Reads by GDAL's GeoTIFF driver alone, and passes errors on; odc's own would log the URL."""

    def __init__(self, uri: str, band: int) -> None:
        self._uri, self._band = uri, band

    def read(
        self, cfg: Any, dst_geobox: GeoBox, *, dst: Any = None, selection: Any = None
    ) -> tuple[tuple[slice, slice], np.ndarray]:
        """Return where pixels go in the window, and the pixels."""
        import rasterio

        with rasterio.open(self._uri, driver="GTiff", sharing=False) as file:
            pixels = nearest(file, dst_geobox, band=self._band)
        out = pixels if dst is None else dst
        out[...] = pixels
        return (slice(0, dst_geobox.shape.y), slice(0, dst_geobox.shape.x)), out


def nearest(file: Any, box: GeoBox, *, band: int = 1) -> np.ndarray:
    """Return the pixels of an open raster that hold the centres of a window's; NaN outside.

    Scenes are read on their own lattice or on that of their finest band, so that this copies
    pixels and never displaces one.

    Raises
    ------
    ValueError
        When the file has another CRS than its metadata say.
    """
    from odc.geo.crs import CRS
    from rasterio.windows import Window

    if file.crs is None or CRS(file.crs) != box.crs:
        raise ValueError(f"the file's CRS is {file.crs}, the item's metadata say {box.crs}")
    step = ~file.transform * box.affine
    rows = np.floor(step.e * (np.arange(box.shape.y) + 0.5) + step.f + 1e-6).astype(int)
    cols = np.floor(step.a * (np.arange(box.shape.x) + 0.5) + step.c + 1e-6).astype(int)
    inside = [(i >= 0) & (i < n) for i, n in ((rows, file.height), (cols, file.width))]
    out = np.full(box.shape, np.nan, dtype="float32")
    if not all(i.any() for i in inside):
        return out
    r, c = rows[inside[0]], cols[inside[1]]
    top, left = r.min(), c.min()
    window = Window(left, top, int(np.ptp(c)) + 1, int(np.ptp(r)) + 1)
    pixels = file.read(band, window=window).astype("float32")
    if file.nodata is not None:
        pixels[pixels == file.nodata] = np.nan
    out[np.ix_(*inside)] = pixels[np.ix_(r - top, c - left)]
    return out


def header(href: str, *, sign: Callable[[str], str] | None) -> GeoBox:
    """Return the grid of a file, for items that do not say it."""
    import rasterio
    from odc.geo.geobox import GeoBox

    where = sign(href) if sign and scheme(href) else href
    with gdal(), rasterio.open(where, driver="GTiff", sharing=False) as file:
        return GeoBox(file.shape, file.transform, file.crs)
