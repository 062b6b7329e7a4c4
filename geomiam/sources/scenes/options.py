"""Options for the reading of scenes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from geomiam.sources.scenes.asset_reader import Loader
from geomiam.sources.scenes.clouds import AUTO, Mask


@dataclass(frozen=True, kw_only=True)
class SceneOptions:
    """Options of :func:`geomiam.sentinel2`, :func:`geomiam.sources.landsat` and :func:`geomiam.sources.sentinel1`.

    Parameters
    ----------
    mask
        ``"auto"``: the mask of the collection. Sentinel-2, ``"scl"``: clouds, their shadows, cirrus,
        saturated pixels. Landsat, ``"qa_pixel"``: clouds and a margin, their shadows, cirrus. Sentinel-1:
        none. Or classes of SCL or of Sentinel-1's ``mask``, or bits of QA_PIXEL; or None; or a function
        of a part of a scene (Dataset of the bands and the asset of the mask) that returns booleans, True
        = hidden. The parts are the chunks of the grid, so that it must decide pixel by pixel.
    snow
        ``"mask"``: with ``mask="auto"``, hide snow, which in lowlands is mostly tops of clouds.
    dilate
        Metres by which hidden areas grow.
    resample
        Resampling method of GDAL, if the grid is not a part of the scene's grid.
    overviews
        Read bands from overviews of the files where a cell is wider than four pixels. A pixel of an
        overview is at most half as wide as a cell; with a mask, at most four pixels. It is hidden if one
        of the pixels below it is, so that no cloud is averaged; a cell without such a clear pixel is
        NaN. Not used with a function as ``mask=`` or with ``loader=``.
    on_error
        ``"nan"``: a file that cannot be read becomes NaN, with a warning and a line in
        ``attrs["failed_assets"]``. ``"raise"``: it ends the computation.
    loader
        Function of items, asset keys and a GeoBox that returns a Dataset on the GeoBox. It is called in
        a dask task with one item and one asset, once for each file under a chunk. Default: GeoTIFF.
    hosts
        Further hosts of files, such as ``["data.example.org"]``, patterns such as
        ``"*.example.org"``, or buckets such as ``"s3://name"``. Without it, items of a STAC catalog may
        point only to its host and, for the presets, to the hosts of their files. Items that you pass
        may point to any host except those of private networks. Redirects may stay on the same host.

    Examples
    --------
    >>> gm.sources.SceneOptions(snow="keep").dilate
    '20m'
    """

    mask: Mask = AUTO
    snow: Literal["mask", "keep"] = "mask"
    dilate: str | float = "20m"
    resample: str = "average"
    overviews: bool = False
    on_error: Literal["nan", "raise"] = "nan"
    loader: Loader | None = None
    hosts: Sequence[str] = ()
