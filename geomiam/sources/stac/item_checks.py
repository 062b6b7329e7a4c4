"""Checks of STAC items, which are untrusted text: a copy has valid fields and absolute links."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from geomiam.errors import SourceError
from geomiam.sources.stac.extent import extent_of_item
from geomiam.sources.web.allow_list import local_path, scrub

if TYPE_CHECKING:
    import pystac

LONGEST_ID = 500
"""Most characters of an id."""


def checked_item(raw: Any) -> tuple[pystac.Item, str]:
    """Return a copy of an item, or of its JSON, with absolute links to its files; and its link."""
    try:
        item = _copied(raw)
        href = item.get_self_href() or ""
        for asset in item.assets.values():
            asset.href = local_path(asset.get_absolute_href() or asset.href)
        item.clear_links()
        item.bbox = list(extent_of_item(item.bbox, item.geometry))
        moment(item)
    except Exception as error:  # an item is untrusted text: its fields may have any type
        text = scrub(error)[:200]
        text = text if isinstance(error, SourceError) else f"{type(error).__name__}: {text}"
        raise SourceError(f"{_name(raw)}: not a usable STAC item: {text}") from None
    return item, href


def _copied(raw: Any) -> pystac.Item:
    import pystac

    if isinstance(raw, pystac.Item):
        raw = raw.to_dict(include_self_link=True, transform_hrefs=False)
    if not isinstance(raw, Mapping):
        raise SourceError(f"a {type(raw).__name__}, expected an item")
    name, collection = raw.get("id"), raw.get("collection")
    if isinstance(name, bool) or not isinstance(name, (str, int)) or name == "":
        raise SourceError(f"its id is {_kind(name)}; add one, which identifies its scene")
    if len(str(name)) > LONGEST_ID:
        raise SourceError(f"its id has {len(str(name))} characters, more than {LONGEST_ID}")
    if collection is not None and not isinstance(collection, str):
        raise SourceError(f"its collection is {_kind(collection)}, expected text")
    texts = {"id": scrub(name), "collection": None if collection is None else scrub(collection)}
    data = {**raw, **texts}
    for key in ("properties", "assets"):
        if not isinstance(data.get(key), Mapping):
            raise SourceError(f"its '{key}' are {_kind(data.get(key))}, expected an object")
    links = data.get("links")
    mappings = [x for x in links if isinstance(x, Mapping)] if isinstance(links, list) else []
    data["links"] = [x for x in mappings if x.get("rel") == "self" and x.get("href")]
    files = {k: a for k, a in data["assets"].items() if isinstance(a, Mapping)}
    data["assets"] = {k: a for k, a in files.items() if isinstance(a.get("href"), str)}
    return pystac.Item.from_dict(data)


def _kind(value: Any) -> str:
    return "missing" if value is None else f"a {type(value).__name__}"


def _name(raw: Any) -> str:
    """Return a text that identifies an item: its id, or its date."""
    data = raw if isinstance(raw, Mapping) else {"id": getattr(raw, "id", None)}
    properties = data.get("properties")
    stamp = properties.get("datetime") if isinstance(properties, Mapping) else None
    return scrub(data.get("id") or f"an item without an id, of {stamp or 'unknown date'}")[:200]


def moment(item: pystac.Item) -> pd.Timestamp:
    """Return the time of acquisition, or its start, in UTC without a time zone."""
    stamp = item.datetime or item.common_metadata.start_datetime
    if stamp is None:
        raise SourceError("it has neither a datetime nor a start_datetime")
    time = pd.Timestamp(stamp)
    return time.tz_convert("UTC").tz_localize(None) if time.tzinfo else time


def number(value: Any) -> float:
    """Return a number, also of text; NaN for anything else."""
    try:
        return np.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return np.nan


def seconds(value: Any) -> float:
    """Return the seconds of a time in text, NaN for anything else."""
    try:
        moment = pd.Timestamp(value) if isinstance(value, str) else pd.NaT
        return np.nan if moment is pd.NaT else moment.timestamp()
    except (ValueError, OverflowError):
        return np.nan


def is_level_1(properties: Mapping[str, Any]) -> bool:
    """Return whether an item states Level-1C: reflectance without atmospheric correction."""
    kinds = [str(properties.get(k)).upper() for k in ("processing:level", "s2:product_type")]
    return kinds[0] in ("L1", "L1C") or kinds[1] == "S2MSI1C"
