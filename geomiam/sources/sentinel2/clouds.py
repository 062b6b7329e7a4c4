"""What of a scene is hidden: classes of Sentinel-2's scene classification (SCL), grown by a margin.

Classes: 0 no data, 1 saturated, 2 dark, 3 cloud shadow, 4 vegetation, 5 bare, 6 water, 7 unclassified,
8 and 9 cloud, 10 thin cirrus, 11 snow or ice. In lowlands much that is called snow is the top of a cloud.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr

from geomiam.errors import SourceError
from geomiam.sources.stac.plain import number

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
class Clouds:
    """What is hidden in each scene.

    Attributes
    ----------
    classes
        SCL codes; empty where SCL is not asked for.
    function
        A mask of the user's own: from a Dataset to booleans, True = hidden.
    margin
        Metres by which what is hidden grows in all directions.
    """

    classes: tuple[int, ...] = ()
    function: Callable[[xr.Dataset], Any] | None = None
    margin: float = 0.0

    @property
    def needs_scl(self) -> bool:
        """Whether a scene without SCL cannot be masked."""
        return bool(self.classes)

    def radius(self, resolution: float) -> int:
        """Return the margin in pixels, rounded up."""
        return math.ceil(self.margin / resolution - 1e-6)


def clouds(mask: Mask, *, snow: Literal["mask", "keep"], dilate: str | float) -> Clouds:
    """Understand ``mask=``, ``snow=`` and ``dilate=``.

    Raises
    ------
    SourceError
        For values that are none of the forms allowed.
    """
    margin = _metres(dilate)
    if snow not in ("mask", "keep"):
        raise SourceError(f"snow={snow!r} is not known; use 'mask' or 'keep'")
    if mask is None:
        return Clouds()
    if callable(mask):
        return Clouds(function=mask, margin=margin)
    if isinstance(mask, str):
        if mask != "scl":
            raise SourceError(
                f"mask={mask!r} is not known; use 'scl', a list of SCL classes, a function or None"
            )
        return Clouds((*CLOUDY, SNOW) if snow == "mask" else CLOUDY, margin=margin)
    return Clouds(_classes(mask), margin=margin)


def _classes(mask: Sequence[int]) -> tuple[int, ...]:
    codes = tuple(int(c) for c in mask)
    if not codes or not set(codes) <= {NODATA, *SHARES}:
        raise SourceError(f"mask={list(mask)} are not classes of SCL, which go from 0 to 11")
    return codes


def _metres(dilate: str | float) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*m?", str(dilate).strip())
    if not found:
        raise SourceError(f"dilate={dilate!r} is no distance; write metres, e.g. '20m', or 0")
    return float(found[1])


def hidden_by_scl(scl: np.ndarray, *, classes: Sequence[int], radius: int) -> np.ndarray:
    """Return what SCL hides: its classes grown by ``radius`` pixels, and where there is no SCL.

    No data is not grown: the edge of a scene casts no shadow.

    Parameters
    ----------
    scl
        Codes, NaN or 0 where there are none.
    classes, radius
        What to hide, and by how many pixels it grows, diagonals included.
    """
    bad = np.isin(scl, [c for c in classes if c != NODATA])
    return grow(bad, radius) | ~(scl > NODATA)


def grow(bad: np.ndarray, radius: int) -> np.ndarray:
    """Return a mask grown by ``radius`` pixels in all eight directions."""
    from scipy.ndimage import maximum_filter

    if radius == 0:
        return bad
    return maximum_filter(bad, size=2 * radius + 1, mode="constant", cval=False)


def clear_share(properties: Mapping[str, Any], clouds: Clouds) -> float:
    """Return the share of a scene that metadata say is clear, before any pixel; NaN where unknown.

    From the percentages of the classes, or else from ``eo:cloud_cover``; of the whole scene, not of
    the part on the grid.
    """
    shares = [number(properties.get(SHARES[c])) for c in clouds.classes if c in SHARES]
    stated = [v for v in shares if not math.isnan(v)]
    if stated:
        return max(0.0, 1 - sum(stated) / 100)
    return 1 - number(properties.get("eo:cloud_cover")) / 100
