"""Items of STAC, which are text from elsewhere, made plain: checked, copied, with absolute links."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from geomiam.errors import SourceError
from geomiam.sources.stac.extent import of_item
from geomiam.sources.web.allowed import local_path
from geomiam.sources.web.text import scrub

if TYPE_CHECKING:
    import pystac

LONGEST_ID = 500
"""Characters."""


def plain(raw: Any) -> tuple[pystac.Item, str]:
    """Return a copy of an item with absolute links to its files, and the item's own link.

    Parameters
    ----------
    raw
        A pystac Item or the mapping of its JSON.

    Raises
    ------
    SourceError
        When it is no item with an id, a place and a time.
    """
    try:
        item = _copied(raw)
        href = item.get_self_href() or ""
        for asset in item.assets.values():
            asset.href = local_path(asset.get_absolute_href() or asset.href)
        item.clear_links()
        item.bbox = list(of_item(item.bbox, item.geometry))
        moment(item)
    except Exception as error:  # an item is text from elsewhere: anything may be in it
        raise SourceError(f"{_name(raw)}: no STAC item that can be used: {_why(error)}") from None
    return item, href


def _why(error: Exception) -> str:
    text = scrub(error)[:200]
    return text if isinstance(error, SourceError) else f"{type(error).__name__}: {text}"


def _copied(raw: Any) -> pystac.Item:
    import pystac

    if isinstance(raw, pystac.Item):
        raw = raw.to_dict(include_self_link=True, transform_hrefs=False)
    if not isinstance(raw, Mapping):
        raise SourceError(f"a {type(raw).__name__} where an item was expected")
    data = {**raw, "id": _id(raw.get("id")), "collection": _collection(raw.get("collection"))}
    for key in ("properties", "assets"):
        if not isinstance(data.get(key), Mapping):
            raise SourceError(f"its '{key}' are {_kind(data.get(key))}, expected an object")
    links = data.get("links")
    data["links"] = [] if not isinstance(links, list) else [x for x in links if _is_self(x)]
    data["assets"] = {k: a for k, a in data["assets"].items() if _is_file(a)}
    return pystac.Item.from_dict(data)


def _is_self(link: Any) -> bool:
    return isinstance(link, Mapping) and link.get("rel") == "self" and bool(link.get("href"))


def _is_file(asset: Any) -> bool:
    return isinstance(asset, Mapping) and isinstance(asset.get("href"), str)


def _kind(value: Any) -> str:
    return "missing" if value is None else f"a {type(value).__name__}"


def _id(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise SourceError(f"its id is {_kind(value)}; give it one, which names its scene")
    if len(str(value)) > LONGEST_ID:
        raise SourceError(f"its id has {len(str(value))} characters, more than {LONGEST_ID}")
    return scrub(value)


def _collection(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise SourceError(f"its collection is {_kind(value)}, expected text")
    return None if value is None else scrub(value)


def _name(raw: Any) -> str:
    """Return what an item can be named by, its id or its date."""
    data = raw if isinstance(raw, Mapping) else {"id": getattr(raw, "id", None)}
    properties = data.get("properties")
    stamp = properties.get("datetime") if isinstance(properties, Mapping) else None
    return scrub(data.get("id") or f"an item without an id, of {stamp or 'unknown date'}")[:200]


def moment(item: pystac.Item) -> pd.Timestamp:
    """Return when a scene was taken, or began to be, UTC without a time zone.

    Raises
    ------
    SourceError
        When the item has no time.
    """
    stamp = item.datetime or item.common_metadata.start_datetime
    if stamp is None:
        raise SourceError("it has neither a datetime nor a start_datetime")
    time = pd.Timestamp(stamp)
    return time.tz_convert("UTC").tz_localize(None) if time.tzinfo else time


def number(value: Any) -> float:
    """Return a number, also one written as text; NaN for anything else."""
    try:
        return np.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return np.nan


def seconds(value: Any) -> float:
    """Return a time in text as seconds, NaN where it is none."""
    try:
        moment = pd.Timestamp(value) if isinstance(value, str) else pd.NaT
        return np.nan if moment is pd.NaT else moment.timestamp()
    except (ValueError, OverflowError):
        return np.nan


def level_1(properties: Mapping[str, Any]) -> bool:
    """Return whether an item states that it is of Level-1C: seen through the atmosphere."""
    kinds = [str(properties.get(k)).upper() for k in ("processing:level", "s2:product_type")]
    return kinds[0] in ("L1", "L1C") or kinds[1] == "S2MSI1C"
