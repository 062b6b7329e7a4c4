"""Checks of STAC items, which are untrusted text: their fields are read with checks of their types.

Items are not parsed by pystac: it copies every field of every asset, which takes most of the time of a
plan with many items.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from geomiam.errors import SourceError
from geomiam.sources.stac.extent import Box, extent_of_item
from geomiam.sources.web.allow_list import REMOTE, local_path, scheme, scrub

LONGEST_ID = 500
"""Most characters of an id."""
DATE = re.compile(r"\d{4}")
"""Start of a time; pandas would also read words such as "now"."""


@dataclass(frozen=True, eq=False)
class CheckedItem:
    """An item with valid fields; properties and assets are its JSON, which must not be changed."""

    id: str
    collection: str | None
    bbox: Box
    time: pd.Timestamp  # of acquisition, UTC, without a time zone
    properties: Mapping[str, Any]
    assets: Mapping[str, Mapping[str, Any]]
    link: str  # of the item, absolute; empty if it has none
    raw: Mapping[str, Any]

    def href(self, key: str) -> str:
        """Return the absolute link of an asset, relative if the item has no link."""
        from pystac.utils import make_absolute_href

        href = str(self.assets[key]["href"])
        # in a STAC catalog of the web, a path is a path on its server
        on_web = scheme(self.link) in REMOTE
        if self.link and not scheme(href) and (on_web or not Path(href).is_absolute()):
            href = make_absolute_href(href, self.link)
        return local_path(href)

    def as_pystac(self, keys: list[str]) -> Any:
        """Return a copy for programs that expect pystac, with absolute links of some assets and no others."""
        import pystac

        assets = {k: {**copy.deepcopy(self.assets[k]), "href": self.href(k)} for k in keys}
        fields = {k: v for k, v in self.raw.items() if k not in ("assets", "links")}
        texts = {"id": self.id, "collection": self.collection, "bbox": list(self.bbox)}
        data = {**copy.deepcopy(fields), **texts, "links": [], "assets": assets}
        return pystac.Item.from_dict(data, preserve_dict=False)


def checked_item(raw: Any) -> CheckedItem:
    """Return an item of pystac, or its JSON, with checked fields."""
    try:
        data = _as_mapping(raw)
        assets = {
            k: a
            for k, a in data["assets"].items()
            if isinstance(a, Mapping) and isinstance(a.get("href"), str)
        }
        return CheckedItem(
            scrub(data["id"]),
            None if data.get("collection") is None else scrub(data["collection"]),
            extent_of_item(data.get("bbox"), data.get("geometry")),
            moment(data["properties"]),
            data["properties"],
            assets,
            _link(data.get("links")),
            data,
        )
    except Exception as error:  # an item is untrusted text: its fields may have any type
        text = scrub(error)[:200]
        text = text if isinstance(error, SourceError) else f"{type(error).__name__}: {text}"
        raise SourceError(f"{_name(raw)}: not a usable STAC item: {text}") from None


def _as_mapping(raw: Any) -> Mapping[str, Any]:
    """Return the JSON of an item, of which the required fields have the right types."""
    if hasattr(raw, "to_dict") and not isinstance(raw, Mapping):
        raw = raw.to_dict(include_self_link=True, transform_hrefs=False)
    if not isinstance(raw, Mapping):
        raise SourceError(f"a {type(raw).__name__}, expected an item")
    if raw.get("type") != "Feature":
        raise SourceError(f"its type is {scrub(raw.get('type'))[:40]!r}, expected 'Feature'")
    name, collection = raw.get("id"), raw.get("collection")
    if isinstance(name, bool) or not isinstance(name, (str, int)) or name == "":
        raise SourceError(f"its id is {_kind(name)}; add one, which identifies its scene")
    if len(str(name)) > LONGEST_ID:
        raise SourceError(f"its id has {len(str(name))} characters, more than {LONGEST_ID}")
    if collection is not None and not isinstance(collection, str):
        raise SourceError(f"its collection is {_kind(collection)}, expected text")
    for key in ("properties", "assets"):
        if not isinstance(raw.get(key), Mapping):
            raise SourceError(f"its '{key}' are {_kind(raw.get(key))}, expected an object")
    return raw


def _link(links: Any) -> str:
    """Return the absolute link of an item to itself, empty if it has none."""
    from pystac.utils import make_absolute_href

    mappings = [x for x in links if isinstance(x, Mapping)] if isinstance(links, list) else []
    hrefs = [x.get("href") for x in mappings if x.get("rel") == "self"]
    href = next((h for h in hrefs if isinstance(h, str) and h), "")
    is_absolute = not href or scheme(href) or Path(href).is_absolute()
    return href if is_absolute else make_absolute_href(href)


def _kind(value: Any) -> str:
    return "missing" if value is None else f"a {type(value).__name__}"


def _name(raw: Any) -> str:
    """Return a text that identifies an item: its id, or its date."""
    data = raw if isinstance(raw, Mapping) else {"id": getattr(raw, "id", None)}
    properties = data.get("properties")
    stamp = properties.get("datetime") if isinstance(properties, Mapping) else None
    return scrub(data.get("id") or f"an item without an id, of {stamp or 'unknown date'}")[:200]


def moment(properties: Mapping[str, Any]) -> pd.Timestamp:
    """Return the time of acquisition, or its start, in UTC without a time zone."""
    stamp = properties.get("datetime") or properties.get("start_datetime")
    if stamp is None:
        raise SourceError("it has neither a datetime nor a start_datetime")
    if not isinstance(stamp, str) or not DATE.match(stamp):
        raise SourceError(f"its datetime is {scrub(stamp)[:40]!r}, which is not a time")
    time = pd.Timestamp(stamp).as_unit("us")
    return time.tz_convert("UTC").tz_localize(None) if time.tzinfo else time


def number(value: Any) -> float:
    """Return a number, also of text; NaN for anything else."""
    try:
        return np.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
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
