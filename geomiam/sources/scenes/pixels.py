"""Pixels of the scenes of one lattice in a window: read, scaled, masked and combined.

Scenes are masked on their pixels before they are combined and resampled. In the reverse order, a cell
with one cloudy pixel would be missing, or include the cloud.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from geomiam.errors import SourceError
from geomiam.sources.scenes.asset_reader import LoadOptions, SceneFiles, read_asset
from geomiam.sources.scenes.clouds import CloudMask, grow, hidden_by_asset
from geomiam.sources.scenes.overviews import any_below, finer
from geomiam.sources.scenes.reflectance import to_reflectance
from geomiam.sources.scenes.windows import shared_pixels

NAN = np.float32(np.nan)
TRIAL = 64
"""Rows and columns of the scene without pixels with which a function of the user is checked."""


@dataclass(frozen=True, eq=False)
class SceneSettings:
    """Bands, mask, resampling and loading, which are the same for every scene."""

    bands: tuple[str, ...]
    clouds: CloudMask
    resample: str
    loading: LoadOptions

    @property
    def assets(self) -> tuple[str, ...]:
        """Bands and, unless no item has it, the asset of the mask."""
        return (*self.bands, self.clouds.rule.asset) if self.clouds.offered else self.bands


def combined(
    scenes: Sequence[SceneFiles], box: GeoBox, settings: SceneSettings
) -> tuple[np.ndarray, set[tuple[int, str]]]:
    """Return scenes in a window of their lattice ``(band + 1, y, x)``, and the files that failed.

    The last plane is 1 where a band has data, otherwise 0. A pixel has the first value of the scenes,
    so that only one scene at a time is in memory. Failed files are pairs of the number of the scene in
    its day, and the band.
    """
    planes = np.full((len(settings.bands) + 1, *box.shape), NAN, dtype="float32")
    planes[-1] = 0
    failures: set[tuple[int, str]] = set()
    for scene in scenes:
        inside = shared_pixels(box, scene.box)
        if inside is None:
            continue
        target = planes[(slice(None), *inside)]
        if not np.isnan(target[:-1]).any():  # scenes before it have all pixels
            continue
        values, bands = _scene(scene, box[inside], settings)
        failures |= {(scene.number, band) for band in bands}
        if values is not None:
            target[:-1] = np.where(np.isnan(target[:-1]), values, target[:-1])
            np.maximum(target[-1], np.isfinite(values).any(axis=0), out=target[-1])
    return planes, failures


def _scene(
    scene: SceneFiles, box: GeoBox, settings: SceneSettings
) -> tuple[np.ndarray | None, list[str]]:
    """Return the bands of one scene in a window, NaN where they are hidden; and the bands that failed.

    Where all pixels are hidden, bands are not read: None.
    """
    clouds, options, overview = settings.clouds, settings.loading, scene.overview
    pixels = box if overview == 1 else finer(box, overview)
    margin = clouds.radius(abs(pixels.resolution.x))
    wide, inner = pixels.pad(margin), slice(margin, -margin or None)
    failures: list[str] = []

    def read(band: str, window: GeoBox, step: int = 1) -> np.ndarray:
        values, has_failed = read_asset(scene, band, window, options=options, overview=step)
        failures.extend([band] * has_failed)
        scale = scene.scales.get(band)
        return values if scale is None else to_reflectance(values, *scale)

    if clouds.function:
        layers = {b: read(b, wide) for b in settings.assets}
        hidden = grow(user_mask(clouds.function, layers, wide), margin)[inner, inner]
        values = np.stack([layers[b][inner, inner] for b in settings.bands])
        return np.where(hidden, NAN, values), failures
    if not clouds.codes:
        return np.stack([read(b, box, overview) for b in settings.bands]), failures
    hidden = hidden_by_asset(read(clouds.rule.asset, wide), clouds, margin)[inner, inner]
    hidden = any_below(hidden, overview)
    if hidden.all() and not failures:  # otherwise the report names the bands that fail as well
        return None, failures
    return np.stack(
        [np.where(hidden, NAN, read(b, box, overview)) for b in settings.bands]
    ), failures


def user_mask(function: Any, layers: dict[str, np.ndarray], box: GeoBox) -> np.ndarray:
    """Return the mask of the user's function for a part of a scene, True = hidden."""
    coords = xr_coords(box)
    dims = tuple(map(str, coords))[:2]
    scene = xr.Dataset({k: (dims, v) for k, v in layers.items()}, coords)
    try:
        mask = function(scene)
        hidden = np.asarray(mask.transpose(*dims) if isinstance(mask, xr.DataArray) else mask)
    except Exception as error:  # the user's function may raise errors of any type
        raise SourceError(
            f"mask= raised {type(error).__name__}: {error}; its argument is a Dataset of {list(layers)}"
        ) from error
    if hidden.shape != tuple(box.shape) or hidden.dtype != bool:
        raise SourceError(
            f"mask= returned {hidden.shape} of {hidden.dtype} for a scene of {tuple(box.shape)}; return "
            "booleans of that shape, True = hidden"
        )
    return hidden


def try_mask(settings: SceneSettings, box: GeoBox) -> None:
    """Call the user's function with a scene without pixels, so that its errors come before any reading."""
    if settings.clouds.function:
        part = box[:TRIAL, :TRIAL]
        gaps = {b: np.full(part.shape, NAN) for b in settings.assets}
        user_mask(settings.clouds.function, gaps, part)
