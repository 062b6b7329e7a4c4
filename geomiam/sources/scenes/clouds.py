"""Cloud masks: codes of the mask of a collection, or a function of the user, grown by a margin."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr
from scipy.ndimage import maximum_filter

from geomiam.errors import SourceError
from geomiam.sources.scenes.profile import MaskRule
from geomiam.sources.stac.item_checks import number

Mask = str | Sequence[int] | Callable[[xr.Dataset], Any] | None
AUTO = "auto"
"""The mask of the collection."""


@dataclass(frozen=True)
class CloudMask:
    """The pixels of a scene that are hidden."""

    rule: MaskRule
    codes: tuple[int, ...] = ()  # of the mask's asset; empty if they are not used
    function: Callable[[xr.Dataset], Any] | None = None  # of the user; True = hidden
    margin: float = 0.0  # metres by which hidden areas grow in all directions
    offered: bool = True  # whether an item has the mask's asset

    @property
    def reads_asset(self) -> bool:
        """Whether the mask's asset is read: for its codes, or for the function."""
        return self.offered and (bool(self.codes) or self.function is not None)

    def radius(self, resolution: float) -> int:
        """Return the margin in pixels, rounded up."""
        return math.ceil(self.margin / resolution - 1e-6)


def cloud_mask(
    mask: Mask, *, rule: MaskRule, snow: Literal["mask", "keep"], dilate: str | float
) -> CloudMask:
    """Return the mask of ``mask=``, ``snow=`` and ``dilate=`` for the mask of a collection."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*m?", str(dilate).strip())
    if not match:
        raise SourceError(f"dilate={dilate!r} is not a distance; write metres, e.g. '20m', or 0")
    margin = float(match[1])
    if snow not in ("mask", "keep"):
        raise SourceError(f"snow={snow!r} is not supported; use 'mask' or 'keep'")
    if mask is None:
        return CloudMask(rule)
    if callable(mask):
        return CloudMask(rule, function=mask, margin=margin)
    if isinstance(mask, str):
        if mask not in (AUTO, rule.asset):
            names = f"'{rule.asset}' or 'auto'" if rule.hidden else "'auto'"
            raise SourceError(
                f"mask={mask!r} is not supported; use {names}, a list of its "
                f"{'bits' if rule.bits else 'classes'}, a function or None"
            )
        if mask != AUTO and not rule.hidden:
            raise SourceError(
                f"mask={mask!r} would hide nothing: the codes of {rule.title} differ between providers; pass "
                "those to hide, such as mask=[1, 2, 3]"
            )
        codes = (*rule.hidden, *rule.snow) if snow == "mask" else rule.hidden
        return CloudMask(rule, codes, margin=margin)
    return CloudMask(rule, _codes(mask, rule), margin=margin)


def _codes(mask: Any, rule: MaskRule) -> tuple[int, ...]:
    """Return the codes of a list, each of which the mask's asset may have."""
    is_list = isinstance(mask, Iterable)
    codes = tuple(mask) if is_list else ()
    if not codes or not set(codes) <= set(rule.codes):
        raise SourceError(
            f"mask={list(codes) if is_list else mask}: use a list of {'bits' if rule.bits else 'classes'} of "
            f"{rule.asset}, which are {min(rule.codes)} to {max(rule.codes)}"
        )
    return tuple(int(c) for c in codes)


def hidden_by_asset(values: np.ndarray, clouds: CloudMask, radius: int) -> np.ndarray:
    """Return where the mask's asset hides pixels: its codes grown by ``radius`` pixels, and missing data.

    Missing data are not grown: at the edge of a scene there is no cloud.
    """
    bad = clouds.rule.matches(values, [c for c in clouds.codes if c not in clouds.rule.nodata])
    hidden: np.ndarray = grow(bad, radius) | clouds.rule.missing(values)
    return hidden


def grow(bad: np.ndarray, radius: int) -> np.ndarray:
    """Return a mask grown by ``radius`` pixels in all eight directions."""
    if radius == 0:
        return bad
    return np.asarray(maximum_filter(bad, size=2 * radius + 1, mode="constant", cval=False))


def clear_share(properties: Mapping[str, Any], clouds: CloudMask) -> float:
    """Return the clear share of a whole scene from its metadata, NaN if unknown.

    It is computed from the percentages of the codes, otherwise from ``eo:cloud_cover``.
    """
    keys = clouds.rule.shares
    shares = [number(properties.get(keys[c])) for c in clouds.codes if c in keys]
    percentages = [v for v in shares if not math.isnan(v)]
    if percentages:
        return max(0.0, 1 - sum(percentages) / 100)
    return 1 - number(properties.get("eo:cloud_cover")) / 100
