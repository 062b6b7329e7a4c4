"""Scenes: STAC items that match a search, with the assets of the bands.

Servers may ignore conditions, dates and extents, or return an item twice. All are therefore checked
here.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from geomiam.errors import SourceError
from geomiam.sources.sentinel2.reflectance import Rule, baseline, rule
from geomiam.sources.stac.extent import overlap
from geomiam.sources.stac.item_checks import checked_item, is_level_1, moment, number, seconds
from geomiam.sources.stac.search import Search, Unread
from geomiam.sources.stac.stac_source import StacSource
from geomiam.sources.web.allow_list import REMOTE, AllowList, scheme, scrub

if TYPE_CHECKING:
    import pystac

SCL = "scl"
BANDS = {
    "coastal": "B01",
    "blue": "B02",
    "green": "B03",
    "red": "B04",
    "rededge1": "B05",
    "rededge2": "B06",
    "rededge3": "B07",
    "nir": "B08",
    "nir08": "B8A",
    "nir09": "B09",
    "cirrus": "B10",
    "swir16": "B11",
    "swir22": "B12",
    SCL: "SCL",
}
OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "neq": operator.ne,
    "lt": operator.lt,
    "lte": operator.le,
    "gt": operator.gt,
    "gte": operator.ge,
    "in": lambda value, options: value in options,
}


@dataclass(frozen=True)
class Scene:
    """One item, with the assets of the bands."""

    # the item has absolute links to files in use and no others, so that dask sends little to workers
    item: pystac.Item
    time: pd.Timestamp  # of acquisition, UTC
    assets: Mapping[str, str]  # key of the asset by band, as the user names it
    rules: Mapping[str, Rule]  # scale and offset of reflectance by band
    lost: Mapping[str, str]  # reason by band that cannot be read, from metadata
    absent: tuple[str, ...] = ()  # bands without an asset
    offered: tuple[str, ...] = field(default=(), repr=False)  # keys of all assets of the item

    @property
    def id(self) -> str:
        """The item's id."""
        return self.item.id

    @property
    def cloud_cover(self) -> float:
        """Cloud cover in percent, NaN if unknown."""
        return number(self.item.properties.get("eo:cloud_cover"))

    @property
    def baseline(self) -> float:
        """Processing baseline, NaN if unknown."""
        value = baseline(self.item.properties, self.id)
        return np.nan if value is None else value

    @property
    def processed(self) -> tuple[float, ...]:
        """Order of processing: baseline, then times and sequence numbers of processing."""
        p = self.item.properties
        moments = [seconds(p.get(k)) for k in ("s2:generation_time", "created", "updated")]
        order = (self.baseline, moments[0], number(p.get("s2:sequence")), *moments[1:])
        return tuple(-math.inf if math.isnan(v) else v for v in order)


def check_query(query: Mapping[str, Any]) -> None:
    """Check conditions on properties before a STAC catalog is searched."""
    for key, conditions in dict(query).items():
        if not isinstance(conditions, Mapping):
            raise SourceError(
                f"query of '{key}' is {conditions!r}; write {{'{key}': {{'eq': {conditions!r}}}}}"
            )
        if unknown := set(conditions) - set(OPERATORS):
            raise SourceError(
                f"query operators {sorted(unknown)} are not supported; use {list(OPERATORS)}"
            )


def read_items(
    raw: Iterable[Any],
    search: Search,
    bands: Sequence[str],
    *,
    source: StacSource | None,
    allow_list: AllowList,
) -> tuple[list[Scene], list[str], list[str]]:
    """Return the scenes that match a search, lines on items that cannot be used, and notes.

    ``bands`` includes SCL where the mask needs it.
    """
    items: dict[Any, tuple[pystac.Item, str]] = {}
    unusable, notes, count = [], [], 0
    for entry in raw:
        try:
            if isinstance(entry, Unread):
                raise SourceError(str(entry))
            item, origin = checked_item(entry)
        except SourceError as error:
            unusable.append(str(error))
            continue
        count += 1
        if _matches(item, search, source.query if source else {}):
            # servers with faulty paging return an item twice
            items[item.collection_id, item.id] = (item, origin)
    latest = sorted(items.values(), key=lambda pair: (moment(pair[0]), pair[0].id))
    if dropped_count := count - len(latest):
        notes.append(
            f"{dropped_count} of {count} items of the STAC catalog are duplicates or do not match the request"
        )
    if level_1_count := sum(is_level_1(item.properties) for item, _ in latest):
        notes.append(
            f"{level_1_count} of {len(latest)} items are Level-1C, without atmospheric correction"
        )
    scenes = []
    offset = source.offset if source else None
    for item, origin in latest:
        try:
            scenes.append(_scene(item, bands, offset=offset, allow_list=allow_list, origin=origin))
        except Exception as error:  # one invalid item must not end the map
            text = f"{type(error).__name__}: {scrub(error)[:200]}"
            unusable.append(f"{item.id}: cannot be used: {text}")
    return scenes, unusable, notes


def _matches(item: pystac.Item, search: Search, query: Mapping[str, Mapping[str, Any]]) -> bool:
    """Return whether an item matches a search.

    An item without cloud cover matches; an item without another property of the query does not.
    """
    start, end = (pd.Timestamp(t.removesuffix("Z")) for t in (search.start, search.end))
    cloud = number(item.properties.get("eo:cloud_cover"))
    return (
        start <= moment(item).floor("s") <= end
        and overlap(tuple(item.bbox or ()), search.bbox)  # type: ignore[arg-type]  # four numbers
        and not (search.max_cloud is not None and cloud > search.max_cloud)
        and all(_satisfies(item.properties.get(k), c) for k, c in query.items())
    )


def _satisfies(value: Any, conditions: Mapping[str, Any]) -> bool:
    try:
        return value is not None and all(OPERATORS[op](value, v) for op, v in conditions.items())
    except TypeError:  # text against a number
        return False


def _scene(
    item: pystac.Item,
    bands: Sequence[str],
    *,
    offset: float | None,
    allow_list: AllowList,
    origin: str,
) -> Scene:
    """Return the scene of an item; bands that cannot be used are in ``lost``."""
    assets: dict[str, str] = {}
    rules: dict[str, Rule] = {}
    problems: dict[str, str] = {}
    absent = []
    asset_keys = tuple(sorted(map(str, item.assets)))
    for band in bands:
        key = _asset_key(item, band)
        if key is None:
            absent.append(band)
            problems[band] = f"no such asset; the item has {list(asset_keys[:20])}"
            continue
        if refusal := _refusal(item.assets[key].href, allow_list, origin):
            problems[band] = refusal
            continue
        assets[band] = key
        if band == SCL:
            continue
        rules[band] = rule(item.properties, item.assets[key].to_dict(), offset=offset, name=item.id)
        if doubt := rules[band].doubt:
            problems[band] = f"{doubt}; settle it with geomiam.StacSource(..., offset=0 or -0.1)"
    item.assets = {k: a for k, a in item.assets.items() if k in assets.values()}
    return Scene(item, moment(item), assets, rules, problems, tuple(absent), asset_keys)


def _refusal(href: str, allow_list: AllowList, origin: str) -> str:
    """Return the reason why a file must not be opened; items of the web must not name local files."""
    if scheme(origin) in REMOTE:
        return replace(allow_list, files=False).refusal(href, origin=origin)
    if not scheme(href) and allow_list.files and not Path(href).is_absolute():
        return f"its link '{scrub(href)}' is relative, and the item has no 'self' link; pass absolute links"
    return allow_list.refusal(href)


def _asset_key(item: pystac.Item, band: str) -> str | None:
    """Return the key of a band's asset, by key or by the two sets of names of Sentinel-2's bands."""
    names = next(({n, b} for n, b in BANDS.items() if band.lower() in (n, b.lower())), set())
    for name in (band, *sorted(names)):
        if name in item.assets:
            return name
    for key, asset in item.assets.items():
        bands: Any = asset.extra_fields.get("eo:bands") or asset.extra_fields.get("bands")
        single = isinstance(bands, list) and len(bands) == 1 and isinstance(bands[0], Mapping)
        # a JPEG 2000 asset is a copy of another
        if single and "jp2" not in str(asset.media_type):
            name = bands[0].get("name")
            if isinstance(name, str) and name in {band, *names}:
                return str(key)
    return None
