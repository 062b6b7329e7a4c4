"""Reading the pixels of one asset: GeoTIFF only, on the scene's own grid, failures named.

A file that cannot be read becomes NaN, a line that names scene and file, and a flag that is computed
with the pixels; common loaders return zeros for it, or an error without a name.
"""

from __future__ import annotations

import threading
import uuid
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from geomiam.errors import AssetFailed, AssetsFailed, GeomiamError, warn
from geomiam.sources.web.ranges import Access
from geomiam.sources.web.text import scrub

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

Loader = Callable[[Sequence[Any], Sequence[str], Any], xr.Dataset]
BLOCK_LIMIT = 2**28
"""Bytes of a block of a file, after decompression."""
FINER = 4.0
"""How much finer than the scene's grid a file may be; it is never finer where metadata are right."""


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
    warn(line, AssetsFailed)


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
        line = f"{item.id} / {key}: {_problem(error, item.assets[key].href)}"
    if how.on_error == "raise":
        raise AssetFailed(f"{line}; on_error='nan' leaves it out") from None
    tell(how.report, line)
    return np.full(box.shape, np.nan, dtype="float32"), True


def _problem(error: Exception, href: str) -> str:
    """Return what went wrong with a file, and which file it is."""
    text, where = scrub(error)[:300], scrub(href)
    text = text if isinstance(error, GeomiamError) else f"{type(error).__name__}: {text}"
    return text if where in text else f"{text} ({where})"


def _values(loaded: xr.Dataset, key: str, box: GeoBox) -> np.ndarray:
    array = loaded[key]
    values = np.asarray(array.values, dtype="float32").reshape(-1, *array.shape[-2:])
    if values.shape != (1, *box.shape):
        raise ValueError(f"the loader returned {array.shape} for a window of {tuple(box.shape)}")
    nodata = array.attrs.get("nodata")
    return values[0] if nodata is None else np.where(values[0] == nodata, np.nan, values[0])


@dataclass(frozen=True)
class GeoTiffs:
    """The loader that is used by default."""

    access: Access = field(default_factory=Access)

    def __call__(self, items: Sequence[Any], bands: Sequence[str], box: GeoBox) -> xr.Dataset:
        """Return the pixels of assets of one item in a window, NaN outside."""
        assets = {key: items[0].assets[key] for key in bands}
        return xr.Dataset({k: (("y", "x"), self._pixels(a, box)) for k, a in assets.items()})

    def _pixels(self, asset: Any, box: GeoBox) -> np.ndarray:
        with self.access.open(asset.href) as file:
            check_place(file, asset.extra_fields)
            return nearest(file, box)


def check_place(file: Any, stated: Mapping[str, Any]) -> None:
    """Compare a file with the place and size that its metadata state.

    Raises
    ------
    ValueError
        When they differ by more than half a pixel: one of the two is wrong.
    """
    transform, shape = stated.get("proj:transform"), stated.get("proj:shape")
    if transform:
        differences = np.abs(np.array(transform[:6]) - np.array(file.transform[:6]))
        if (differences > abs(file.transform.a) * np.array([0.001, 0.001, 0.5] * 2)).any():
            raise ValueError(
                f"the file's transform is {tuple(file.transform)[:6]}, the item's metadata state "
                f"{tuple(transform[:6])}"
            )
    if shape and list(shape) != list(file.shape):
        raise ValueError(
            f"the file has {file.shape} rows and columns, its metadata state {tuple(shape)}"
        )


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
    _check_cost(file, box, band)
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


def _check_cost(file: Any, box: GeoBox, band: int) -> None:
    """Refuse files of which a window would need far more memory than its pixels."""
    rows, cols = file.block_shapes[band - 1]
    size = rows * cols * np.dtype(file.dtypes[band - 1]).itemsize
    if size > BLOCK_LIMIT:
        raise ValueError(f"its blocks of {rows} × {cols} pixels are larger than 256 MiB")
    step = ~file.transform * box.affine
    if max(abs(step.b), abs(step.d)) > 1e-6:
        raise ValueError("the file is rotated against the grid that its metadata state")
    if max(abs(step.a), abs(step.e)) > FINER:
        raise ValueError(
            f"the file's pixels of {file.res} are far finer than those of its metadata"
        )


def header(href: str, access: Access) -> GeoBox:
    """Return the grid of a file, for items that do not state it."""
    from odc.geo.geobox import GeoBox

    with access.open(href) as file:
        return GeoBox(file.shape, file.transform, file.crs)
