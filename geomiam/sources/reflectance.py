"""From digital numbers to reflectance: which scale and offset an item's pixels need.

Since processing baseline 04.00 (2022-01-25) ESA adds 1000 to every digital number, so that
reflectance = (DN - 1000) / 10000. Dates do not tell: old scenes are processed anew, and catalogues
take the 1000 off again and say so in different ways. The rules below read what each item says;
where an item contradicts itself there is no offset, but an account of the contradiction.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

SCALE = 1e-4
OFFSET = -0.1
FIRST_WITH_OFFSET = 4.0
APPLIED = ("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied")
BASELINES = ("s2:processing_baseline", "sentinel:processing_baseline", "processing:version")
PRODUCTS = ("s2:product_uri", "sentinel:product_id", "s2:tile_id", "s2:datatake_id")


@dataclass(frozen=True)
class Rule:
    """How an asset's numbers become reflectance.

    Attributes
    ----------
    scale, offset
        Reflectance = DN * scale + offset where DN > 0; DN 0 is nodata.
    why
        What decided, in words.
    doubt
        What contradicts it; such an asset is not read. Empty: nothing.
    """

    scale: float
    offset: float
    why: str
    doubt: str = ""


def rule(
    properties: Mapping[str, Any], asset: Mapping[str, Any], *, offset: float | None = None
) -> Rule:
    """Decide the scale and offset of one asset of one item.

    Parameters
    ----------
    properties
        The item's.
    asset
        The asset as a mapping, as in the item's JSON (STAC 1.0 ``raster:bands`` or 1.1 ``bands``).
    offset
        Settles the matter against whatever the item says.

    Returns
    -------
    Rule
        With a ``doubt`` where metadata contradict each other.
    """
    raster = _raster(asset)
    scale = SCALE if raster.get("scale") is None else float(raster["scale"])
    if offset is not None:
        return Rule(scale, float(offset), "offset given by the caller")
    stated = None if raster.get("offset") is None else float(raster["offset"])
    number, why, doubt = _offset(properties, stated)
    return Rule(scale, number, why, doubt)


def _offset(properties: Mapping[str, Any], stated: float | None) -> tuple[float, str, str]:
    applied = next((properties[k] for k in APPLIED if k in properties), None)
    number = baseline(properties)
    if applied is True:
        return 0.0, "the item says that the offset has been applied to the pixels", ""
    if applied is False and number is not None and number >= FIRST_WITH_OFFSET:
        doubt = (
            f"baseline {number:05.2f} with boa_offset_applied false; pixels of such items have been "
            "found with the offset applied as well as without"
        )
        return np.nan, "", doubt
    if stated is None:
        return _by_baseline(number)
    return stated, f"the asset states offset {stated:g}", _clash(stated, number)


def _by_baseline(number: float | None) -> tuple[float, str, str]:
    if number is None:
        return np.nan, "", "the item states neither a raster offset nor a processing baseline"
    if number >= FIRST_WITH_OFFSET:
        return OFFSET, f"no offset stated, baseline {number:05.2f} has one", ""
    return 0.0, f"no offset stated, baseline {number:05.2f} has none", ""


def _clash(stated: float, number: float | None) -> str:
    if number is None or (stated != 0) == (number >= FIRST_WITH_OFFSET):
        return ""
    return f"offset {stated:g} is stated, which baseline {number:05.2f} contradicts"


def baseline(properties: Mapping[str, Any]) -> float | None:
    """Return the processing baseline of an item as a number, such as 5.11, or None where unknown."""
    for key in BASELINES:
        if re.fullmatch(r"\d{1,2}\.\d{1,2}", str(properties.get(key, ""))):
            return float(properties[key])
    for key in PRODUCTS:
        if found := re.search(r"_N(\d{2})\.?(\d{2})(?:_|$|\.)", str(properties.get(key, ""))):
            return float(f"{found[1]}.{found[2]}")
    return None


def _raster(asset: Mapping[str, Any]) -> dict[str, Any]:
    """Scale and offset of the first band, old style over new style."""
    bands = asset.get("raster:bands") or asset.get("bands") or [{}]
    new = {k: asset.get(f"raster:{k}", bands[0].get(f"raster:{k}")) for k in ("scale", "offset")}
    old = {k: bands[0].get(k) for k in ("scale", "offset")}
    return {k: new[k] if old[k] is None else old[k] for k in new}


def to_reflectance(dn: Any, scale: float, offset: float) -> Any:
    """Return float32 reflectance; DN 0 and NaN become NaN, never the offset."""
    scaled = np.float32(scale) * dn + np.float32(offset)
    return np.where(dn > 0, scaled, np.float32(np.nan)).astype("float32")
