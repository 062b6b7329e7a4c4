"""Reading the pixels of one asset, a GeoTIFF, on the grid of the scene.

The pixels of a file that cannot be read are NaN. A line reports scene and file, and a flag is computed
with the pixels. Common loaders return zeros instead, or an error without the file.
"""

from __future__ import annotations

import math
import threading
import uuid
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.windows import Window

from geomiam.errors import AssetFailed, AssetsFailed, GeomiamError, SourceError, warn
from geomiam.sources.scenes.overviews import finer, mean_below
from geomiam.sources.scenes.scene_grid import AssetFile
from geomiam.sources.scenes.zarr_raster import METADATA, ZarrRaster
from geomiam.sources.web.allow_list import scrub
from geomiam.sources.web.ranges import Access
from geomiam.workers import received_lines, send_line

Loader = Callable[[Sequence[Any], Sequence[str], Any], xr.Dataset]
BLOCK_LIMIT = 2**28
"""Most bytes of a block of a file, after decompression."""
FINER = 4.0
"""Most times that a file may be finer than the scene's grid; with correct metadata it is not finer."""


class FailedAssets(list[str]):
    """Lines on files that could not be read; the list grows while pixels are computed in this process.

    :meth:`collect` adds the lines of the workers of a cluster.
    """

    def __init__(self, lines: Sequence[str] = ()) -> None:
        super().__init__(lines)
        self.key = uuid.uuid4().hex
        _REPORTS[self.key] = self

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)

    def collect(self) -> FailedAssets:
        """Add the lines that workers of the active dask client have sent, each once."""
        self.extend(line for line in received_lines(self.key) if line not in self)
        return self


_REPORTS: weakref.WeakValueDictionary[str, FailedAssets] = weakref.WeakValueDictionary()
_LOCK = threading.Lock()


def record_failure(key: str, line: str) -> None:
    """Add a line to a report, once, and warn; a worker of a cluster sends it to the scheduler."""
    with _LOCK:
        report = _REPORTS.get(key)
        if report is not None and line in report:
            return
        if report is not None:
            report.append(line)
    if report is None:
        send_line(key, line)
    warn(line, AssetsFailed)


@dataclass(frozen=True)
class LoadOptions:
    """Loader of pixels, effect of a failure, and key of the report on failures."""

    access: Access
    loader: Loader | None  # of the user; None for GeoTIFF and Zarr
    on_error: str
    report: str


@dataclass(frozen=True, eq=False)
class SceneFiles:
    """The files of a scene for a task: links and numbers, about a kilobyte."""

    id: str
    number: int  # of the scene in its day
    box: GeoBox  # of the overview that is read
    overview: int  # pixels along a pixel of the overview; 1 for full resolution
    files: Mapping[str, AssetFile]  # by band, of those that can be read
    scales: Mapping[str, tuple[float, float]]  # scale and offset of reflectance by band
    item: Any = None  # of pystac, only for the loader of a user


def read_asset(
    scene: SceneFiles, band: str, box: GeoBox, *, options: LoadOptions, overview: int = 1
) -> tuple[np.ndarray, bool]:
    """Return the values of a band in a window, NaN = missing, and whether reading failed.

    The pixels of the window are means of ``overview`` × ``overview`` pixels of the scene. A band without a file is NaN, and has not failed here: its failure is reported with the plan.
    """
    file = scene.files.get(band)
    if file is None:
        return np.full(box.shape, np.nan, dtype="float32"), False
    try:
        if options.loader is None:
            return read_file(file, box, options.access, overview=overview), False
        return _loaded(options.loader, scene, file.key, box), False
    except MemoryError:
        raise
    except Exception as error:  # loaders raise errors of any type; one file must not end the map
        text, location = scrub(error)[:300], scrub(file.href)
        text = text if isinstance(error, GeomiamError) else f"{type(error).__name__}: {text}"
        line = f"{scene.id} / {file.key}: {text if location in text else f'{text} ({location})'}"
    if options.on_error == "raise":
        raise AssetFailed(f"{line}; on_error='nan' leaves it out") from None
    record_failure(options.report, line)
    return np.full(box.shape, np.nan, dtype="float32"), True


def _loaded(loader: Loader, scene: SceneFiles, key: str, box: GeoBox) -> np.ndarray:
    """Return the values of an asset by the loader of a user, NaN = missing."""
    array = loader([scene.item], [key], box)[key]
    values = np.asarray(array.values, dtype="float32").reshape(-1, *array.shape[-2:])
    if values.shape != (1, *box.shape):
        raise ValueError(f"the loader returned {array.shape} for a window of {tuple(box.shape)}")
    nodata = array.attrs.get("nodata")
    return values[0] if nodata is None else np.where(values[0] == nodata, np.nan, values[0])


def read_file(file: AssetFile, box: GeoBox, access: Access, *, overview: int = 1) -> np.ndarray:
    """Return the pixels of a GeoTIFF or a Zarr array in a window, or means of them; NaN outside."""
    if file.href.endswith(f"/{METADATA}"):
        if refusal := access.allow_list.refusal(file.href):
            raise SourceError(refusal)
        raster = ZarrRaster.of(file.href)
        _check_grid(raster, file)
        return means(raster, box, overview)
    with access.open(file.href) as raster:
        _check_grid(raster, file)
        return means(raster, box, overview)


def _check_grid(file: Any, metadata: AssetFile) -> None:
    """Refuse a file that differs by more than half a pixel from the transform in its metadata."""
    transform, shape = metadata.transform, metadata.shape
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


def means(file: Any, box: GeoBox, overview: int) -> np.ndarray:
    """Return the means of an open raster below the pixels of a window, from its overviews if it has them."""
    step = ~file.transform * box.affine
    if overview == 1 or max(abs(step.a), abs(step.e)) <= 1:  # the file is coarser than the window
        return nearest(file, box)
    if file.nodata is None or isinstance(file, ZarrRaster):
        # GDAL would average pixels without data
        pixels = nearest(file, finer(box, overview))
        pixels[~(pixels > 0)] = np.nan
        return mean_below(pixels, overview)
    _check_pixels(file, box, step, finest=FINER * overview)
    out = np.full(box.shape, np.nan, dtype="float32")
    spans = [(step.f, step.e, file.height), (step.c, step.a, file.width)]
    slices = [_within(*span, count) for span, count in zip(spans, box.shape.yx, strict=True)]
    shape = tuple(s.stop - s.start for s in slices)
    if min(shape) <= 0:
        return out
    top, left = (a + b * s.start for (a, b, _), s in zip(spans, slices, strict=True))
    window = Window(left, top, step.a * shape[1], step.e * shape[0])
    pixels = file.read(1, window=window, out_shape=shape, resampling=Resampling.average)
    pixels = pixels.astype("float32")
    pixels[pixels == file.nodata] = np.nan
    out[slices[0], slices[1]] = pixels
    return out


def _within(start: float, step: float, size: int, count: int) -> slice:
    """Return which of ``count`` intervals from ``start`` are within ``size`` pixels of a file."""
    first = math.ceil(-start / step - 1e-6)
    last = math.floor((size - start) / step + 1e-6)
    return slice(max(first, 0), min(last, count))


def nearest(file: Any, box: GeoBox) -> np.ndarray:
    """Return the pixels of an open raster at the centres of a window's pixels; NaN outside.

    Scenes are read on their lattice or on that of their finest band, so that pixels are copied and
    never displaced.
    """
    step = ~file.transform * box.affine
    _check_pixels(file, box, step)
    rows = np.floor(step.e * (np.arange(box.shape.y) + 0.5) + step.f + 1e-6).astype(int)
    cols = np.floor(step.a * (np.arange(box.shape.x) + 0.5) + step.c + 1e-6).astype(int)
    inside = [(i >= 0) & (i < n) for i, n in ((rows, file.height), (cols, file.width))]
    out = np.full(box.shape, np.nan, dtype="float32")
    if not all(i.any() for i in inside):
        return out
    r, c = rows[inside[0]], cols[inside[1]]
    top, left = r.min(), c.min()
    window = Window(left, top, int(np.ptp(c)) + 1, int(np.ptp(r)) + 1)
    pixels = file.read(1, window=window).astype("float32")
    if file.nodata is not None:
        pixels[pixels == file.nodata] = np.nan
    out[np.ix_(*inside)] = pixels[np.ix_(r - top, c - left)]
    return out


def _check_pixels(file: Any, box: GeoBox, step: Any, *, finest: float = FINER) -> None:
    """Refuse a file of which the pixels do not match a window; ``step`` is its pixel in those of the file."""
    if file.crs is None or CRS(file.crs) != box.crs:
        raise ValueError(f"the file's CRS is {file.crs}, the item's metadata state {box.crs}")
    # reading a window must not require far more memory than its pixels
    height, width = file.block_shapes[0]
    if height * width * np.dtype(file.dtypes[0]).itemsize > BLOCK_LIMIT:
        raise ValueError(f"its blocks of {height} × {width} pixels are larger than 256 MiB")
    if max(abs(step.b), abs(step.d)) > 1e-6:
        raise ValueError("the file is rotated against the grid that its metadata state")
    if max(abs(step.a), abs(step.e)) > finest:
        raise ValueError(
            f"the file's pixels of {file.res} are far finer than those of its metadata"
        )
