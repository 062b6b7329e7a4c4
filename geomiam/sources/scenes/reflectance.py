"""Scale and offset that convert the digital numbers (DN) of an item to reflectance.

Since processing baseline 04.00 (2022-01-25) ESA adds 1000 to every DN, so that
reflectance = (DN - 1000) / 10000. The date of a scene is no evidence: old scenes are processed again,
and some STAC catalogs subtract the 1000 and declare this in different ways. The rules below use the
metadata of each item. If they contradict each other, the rule has no offset, but the contradiction.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from geomiam.sources.web.allow_list import scrub

SCALE = 1e-4
OFFSET = -0.1
FIRST_WITH_OFFSET = 4.0
SCALES = (1e-6, 1e-2)
"""Plausible scales of reflectance; Sentinel-2's is 0.0001, Landsat's 0.0000275."""
OFFSETS = (-0.3, 0.0)
"""Plausible offsets of reflectance; Sentinel-2's are 0 and -0.1, Landsat's is -0.2."""
APPLIED = ("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied")
BASELINES = ("s2:processing_baseline", "sentinel:processing_baseline")
PRODUCTS = ("s2:product_uri", "sentinel:product_id")
OTHERS = ("processing:version", "s2:tile_id", "s2:datatake_id")
"""Properties that may contain a baseline if neither the item nor its product states one."""


@dataclass(frozen=True)
class Rule:
    """Conversion of an asset's digital numbers: DN * scale + offset where DN > 0; DN 0 is nodata."""

    scale: float
    offset: float
    reason: str  # metadata that determine the offset
    doubt: str = ""  # contradiction in the metadata, with which the asset is not read


def rule(
    properties: Mapping[str, Any],
    asset: Mapping[str, Any],
    *,
    offset: float | None = None,
    name: str = "",
) -> Rule:
    """Decide the scale and offset of one asset of one item, with a doubt if metadata are not plausible.

    ``asset`` is its JSON (STAC 1.0 ``raster:bands`` or 1.1 ``bands``); ``offset`` replaces that of the
    item; ``name`` is the id of the item, which may contain the processing baseline.
    """
    scale, stated_offset = None, None
    try:
        scale, stated_offset = _stated(asset)
        doubt = _implausible(scale, stated_offset)
    except (TypeError, ValueError, AttributeError) as error:
        doubt = f"its scale and offset cannot be read: {scrub(error)[:200]}"
    if offset is not None:
        usable = SCALE if doubt or scale is None else scale
        return Rule(usable, float(offset), "offset given by the caller")
    if not doubt:
        value, reason, doubt = _offset(properties, stated_offset, name)
    if doubt:
        return Rule(SCALE, np.nan, "", doubt)
    return Rule(SCALE if scale is None else scale, value, reason)


def fixed_rule(asset: Mapping[str, Any], *, scale: float, offset: float) -> Rule:
    """Return the scale and offset of a collection, with a doubt if an asset states others."""
    try:
        numbers = _stated(asset)
    except (TypeError, ValueError, AttributeError) as error:
        return Rule(scale, np.nan, "", f"its scale and offset cannot be read: {scrub(error)[:200]}")
    if any(
        v is not None and abs(v - w) > 1e-6 * max(abs(w), 1e-3)
        for v, w in zip(numbers, (scale, offset), strict=True)
    ):
        doubt = (
            f"scale {numbers[0]} and offset {numbers[1]} are stated; those of the collection are "
            f"{scale:g} and {offset:g}"
        )
        return Rule(scale, np.nan, "", doubt)
    return Rule(scale, offset, "scale and offset of the collection")


def _implausible(scale: float | None, stated_offset: float | None) -> str:
    """Return a text on a scale or offset that reflectance cannot have, such as 1, -1000 or +0.1."""
    if scale is not None and not SCALES[0] <= scale <= SCALES[1]:
        return f"scale {scale:g} is stated, which does not convert integers to reflectance"
    if stated_offset is not None and not OFFSETS[0] <= stated_offset <= OFFSETS[1]:
        return (
            f"offset {stated_offset:g} is stated, which is not plausible: Sentinel-2's is 0 or -0.1"
        )
    return ""


def _offset(
    properties: Mapping[str, Any], stated_offset: float | None, name: str
) -> tuple[float, str, str]:
    """Return the offset with the metadata that determine it, or NaN with their contradiction."""
    # flags may be text or numbers
    flags = {"true": True, "1": True, "false": False, "0": False}
    texts = [str(properties.get(k)).lower() for k in APPLIED]
    offset_applied = next((flags[t] for t in texts if t in flags), None)
    number = baseline(properties, name)
    if doubt := _two_baselines(properties):
        return np.nan, "", doubt
    if offset_applied:
        return 0.0, "the item states that the offset has been applied to the pixels", ""
    expected = OFFSET if number is not None and number >= FIRST_WITH_OFFSET else 0.0
    if offset_applied is False and expected:
        doubt = (
            f"baseline {number:05.2f} with boa_offset_applied false; pixels of such items have been "
            "found with the offset applied as well as without"
        )
        return np.nan, "", doubt
    if stated_offset is not None:
        reason, doubt = f"the asset states offset {stated_offset:g}", ""
        if number is not None and not abs(stated_offset - expected) < 1e-6:
            doubt = f"offset {stated_offset:g} is stated, which baseline {number:05.2f} contradicts"
        return stated_offset, reason, doubt
    if number is None:
        return np.nan, "", "the item states neither a raster offset nor a processing baseline"
    has = "one" if expected else "none"
    return expected, f"no offset stated, baseline {number:05.2f} has {has}", ""


def baseline(properties: Mapping[str, Any], name: str = "") -> float | None:
    """Return the processing baseline of an item as a number, such as 5.11, or None if unknown.

    It is read from the item, then from its product, then from the names of tiles and data takes, and
    last from its id.
    """
    values = [_number(properties.get(k)) for k in BASELINES]
    values += [_in_name(properties.get(k)) for k in PRODUCTS]
    values += [_number(properties.get(OTHERS[0]), strict=True)]
    values += [_in_name(properties.get(k)) for k in OTHERS[1:]]
    return next((v for v in (*values, _in_name(name)) if v is not None), None)


def _two_baselines(properties: Mapping[str, Any]) -> str:
    """Return a text on different offsets by the baselines of an item and of its product."""
    item_values = [v for k in BASELINES if (v := _number(properties.get(k))) is not None]
    in_names = [v for k in PRODUCTS if (v := _in_name(properties.get(k))) is not None]
    if not (item_values and in_names):
        return ""
    item, product = item_values[0], in_names[0]
    if (item >= FIRST_WITH_OFFSET) == (product >= FIRST_WITH_OFFSET):
        return ""
    return f"baseline {item:05.2f} is stated, but the product's name has {product:05.2f}"


def _number(value: Any, *, strict: bool = False) -> float | None:
    """Return a baseline such as 05.11, N0511 or 5.11; strict: only the first of these forms."""
    forms = r"(\d{2})\.(\d{2})" if strict else r"N?(\d{2})\.?(\d{2})|(\d{1,2})\.(\d{1,2})"
    match = re.fullmatch(forms, "" if isinstance(value, bool) else str(value))
    if match is None:
        return None
    return float(".".join(g for g in match.groups() if g is not None))


def _in_name(value: Any) -> float | None:
    match = re.search(r"_N(\d{2})\.?(\d{2})(?:_|$|\.)", str(value or ""))
    return float(f"{match[1]}.{match[2]}") if match else None


def _stated(asset: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """Return the scale and offset of the first band of an asset."""
    bands = asset.get("raster:bands") or asset.get("bands") or [{}]
    if not isinstance(bands, list) or not isinstance(bands[0], Mapping):
        raise TypeError(f"its bands are '{scrub(bands)[:60]}', expected a list of objects")
    new = {k: asset.get(f"raster:{k}", bands[0].get(f"raster:{k}")) for k in ("scale", "offset")}
    old = {k: bands[0].get(k) for k in ("scale", "offset")}
    values = [new[k] if old[k] is None else old[k] for k in ("scale", "offset")]
    numbers = [None if v is None or isinstance(v, bool) else float(v) for v in values]
    if any(v is not None and not np.isfinite(v) for v in numbers):
        raise ValueError(f"scale and offset are {values}")
    return numbers[0], numbers[1]


def to_reflectance(dn: Any, scale: float, offset: float) -> Any:
    """Return float32 reflectance; DN 0 and NaN become NaN, never the offset."""
    reflectance = np.float32(scale) * dn + np.float32(offset)
    return np.where(dn > 0, reflectance, np.float32(np.nan)).astype("float32")
