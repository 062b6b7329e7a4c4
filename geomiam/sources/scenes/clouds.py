"""Cloud masks: classes of Sentinel-2's scene classification (SCL), grown by a margin.

Classes: 0 no data, 1 saturated, 2 dark, 3 cloud shadow, 4 vegetation, 5 bare, 6 water, 7 unclassified,
8 and 9 cloud, 10 thin cirrus, 11 snow or ice. In lowlands many pixels of class 11 are tops of clouds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr
from scipy.ndimage import maximum_filter

from geomiam.errors import SourceError
from geomiam.sources.stac.item_checks import number

Mask = str | Sequence[int] | Callable[[xr.Dataset], Any] | None
NODATA = 0
CLOUDY = (1, 3, 8, 9, 10)
SNOW = 11
SHARES = {
    1: "s2:saturated_defective_pixel_percentage",
    2: "s2:dark_features_percentage",
    3: "s2:cloud_shadow_percentage",
    4: "s2:vegetation_percentage",
    5: "s2:not_vegetated_percentage",
    6: "s2:water_percentage",
    7: "s2:unclassified_percentage",
    8: "s2:medium_proba_clouds_percentage",
    9: "s2:high_proba_clouds_percentage",
    10: "s2:thin_cirrus_percentage",
    11: "s2:snow_ice_percentage",
}


@dataclass(frozen=True)
class CloudMask:
    """The pixels of a scene that are hidden."""

    classes: tuple[int, ...] = ()  # of SCL; empty if they are not used
    function: Callable[[xr.Dataset], Any] | None = None  # of the user; True = hidden
    margin: float = 0.0  # metres by which hidden areas grow in all directions

    @property
    def reads_scl(self) -> bool:
        """Whether SCL is read: for its classes, or for the function."""
        return bool(self.classes) or self.function is not None

    def radius(self, resolution: float) -> int:
        """Return the margin in pixels, rounded up."""
        return math.ceil(self.margin / resolution - 1e-6)


def cloud_mask(mask: Mask, *, snow: Literal["mask", "keep"], dilate: str | float) -> CloudMask:
    """Return the mask of ``mask=``, ``snow=`` and ``dilate=``."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*m?", str(dilate).strip())
    if not match:
        raise SourceError(f"dilate={dilate!r} is not a distance; write metres, e.g. '20m', or 0")
    margin = float(match[1])
    if snow not in ("mask", "keep"):
        raise SourceError(f"snow={snow!r} is not supported; use 'mask' or 'keep'")
    if mask is None:
        return CloudMask()
    if callable(mask):
        return CloudMask(function=mask, margin=margin)
    if isinstance(mask, str):
        if mask != "scl":
            raise SourceError(
                f"mask={mask!r} is not supported; use 'scl', a list of SCL classes, a function or None"
            )
        return CloudMask((*CLOUDY, SNOW) if snow == "mask" else CLOUDY, margin=margin)
    codes = tuple(int(c) for c in mask)
    if not codes or not set(codes) <= {NODATA, *SHARES}:
        raise SourceError(f"mask={list(mask)} are not classes of SCL, which go from 0 to 11")
    return CloudMask(codes, margin=margin)


def hidden_by_scl(scl: np.ndarray, *, classes: Sequence[int], radius: int) -> np.ndarray:
    """Return where SCL hides pixels: its classes grown by ``radius`` pixels, and missing SCL.

    Missing SCL (NaN or 0) is not grown: at the edge of a scene there is no cloud.
    """
    bad = np.isin(scl, [c for c in classes if c != NODATA])
    return grow(bad, radius) | ~(scl > NODATA)


def grow(bad: np.ndarray, radius: int) -> np.ndarray:
    """Return a mask grown by ``radius`` pixels in all eight directions."""
    if radius == 0:
        return bad
    return np.asarray(maximum_filter(bad, size=2 * radius + 1, mode="constant", cval=False))


def clear_share(properties: Mapping[str, Any], clouds: CloudMask) -> float:
    """Return the clear share of a whole scene from its metadata, NaN if unknown.

    It is computed from the percentages of the SCL classes, otherwise from ``eo:cloud_cover``.
    """
    shares = [number(properties.get(SHARES[c])) for c in clouds.classes if c in SHARES]
    percentages = [v for v in shares if not math.isnan(v)]
    if percentages:
        return max(0.0, 1 - sum(percentages) / 100)
    return 1 - number(properties.get("eo:cloud_cover")) / 100
