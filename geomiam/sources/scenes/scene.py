"""Scenes: STAC items that match a search, with the files of the bands.

Servers may ignore conditions, dates and extents, or return an item twice. All are therefore checked
here. Items are read one by one, and a scene has only what reading its pixels requires, so that a plan
of 100,000 scenes fits into memory.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from odc.geo.geobox import GeoBox

from geomiam.errors import SourceError
from geomiam.sources.scenes.clouds import CloudMask, clear_share
from geomiam.sources.scenes.profile import CollectionProfile
from geomiam.sources.scenes.reflectance import Rule, baseline, fixed_rule, rule
from geomiam.sources.scenes.scene_grid import AssetFile, asset_file, scene_grid
from geomiam.sources.stac.extent import overlap
from geomiam.sources.stac.item_checks import CheckedItem, checked_item, is_level_1, number, seconds
from geomiam.sources.stac.search import Search, Unread
from geomiam.sources.stac.stac_source import StacSource
from geomiam.sources.web.allow_list import REMOTE, AllowList, scheme, scrub
from geomiam.sources.web.ranges import Access

REMEDY = "; settle it with geomiam.StacSource(..., offset=0 or -0.1)"
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
class SceneRequest:
    """Checked arguments of a call."""

    grid: GeoBox
    search: Search
    bands: tuple[str, ...]
    profile: CollectionProfile
    clouds: CloudMask
    query: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # conditions on properties
    items: bool = False  # scenes keep their items, which the loader of a user receives
    overview: int = 1  # most pixels along a pixel of an overview; 1 for full resolution

    @property
    def assets(self) -> tuple[str, ...]:
        """Bands and, where it is read, the asset of the mask."""
        return (*self.bands, self.clouds.rule.asset) if self.clouds.reads_asset else self.bands


@dataclass(frozen=True, eq=False)
class Scene:
    """One item, with the files of the bands."""

    id: str
    collection: str
    time: pd.Timestamp  # of acquisition, UTC
    files: Mapping[str, AssetFile]  # by band, as the user names it
    rules: Mapping[str, Rule]  # scale and offset by band
    lost: Mapping[str, str]  # reason by band that cannot be read, from metadata
    absent: tuple[str, ...]  # bands without an asset
    offered: tuple[str, ...] = field(repr=False)  # keys of all assets of the item
    cloud_cover: float  # percent, NaN if unknown
    clear: float  # share by metadata, NaN if unknown
    baseline: float  # of processing, NaN if unknown
    processed: tuple[float, ...]  # order of processing
    level_1: bool
    labels: Mapping[str, str]  # by column of the plan; empty text if unknown
    box: GeoBox | None = None  # grid of the finest file; None if there is none
    gridless: str = ""  # reason why there is no grid
    item: Any = field(default=None, repr=False)  # of pystac, only for the loader of a user

    def key(self, band: str) -> str:
        """Return the key of a band's asset, or the band's name without one."""
        return self.files[band].key if band in self.files else band


def processing_order(properties: Mapping[str, Any], number_of_baseline: float) -> tuple[float, ...]:
    """Return the order of processing: baseline, then times and sequence numbers of processing."""
    keys = ("s2:generation_time", "created", "updated")
    moments = [seconds(properties.get(k)) for k in keys]
    order = (number_of_baseline, moments[0], number(properties.get("s2:sequence")), *moments[1:])
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
    raw: Iterable[Any], request: SceneRequest, *, source: StacSource | None, access: Access
) -> tuple[list[Scene], list[str], list[str]]:
    """Return the scenes that match a search, lines on items that cannot be used, and notes."""
    # servers with faulty paging return an item twice
    scenes: dict[Any, Scene | str] = {}
    unusable, notes, count = [], [], 0
    matches = _matcher(request.search, {**(source.query if source else {}), **request.query})
    for entry in raw:
        try:
            if isinstance(entry, Unread):
                raise SourceError(str(entry))
            item = checked_item(entry)
        except SourceError as error:
            unusable.append(str(error))
            continue
        count += 1
        if matches(item):
            offset = source.offset if source else None
            scenes[item.collection, item.id] = _usable(item, request, offset=offset, access=access)
    if dropped_count := count - len(scenes):
        notes.append(
            f"{dropped_count} of {count} items of the STAC catalog are duplicates or do not match the request"
        )
    usable = [s for s in scenes.values() if isinstance(s, Scene)]
    if level_1_count := sum(s.level_1 for s in usable):
        notes.append(
            f"{level_1_count} of {len(scenes)} items are Level-1C, without atmospheric correction"
        )
    unusable += [s for s in scenes.values() if isinstance(s, str)]
    return sorted(usable, key=lambda s: (s.time, s.id)), unusable, notes


def _matcher(
    search: Search, query: Mapping[str, Mapping[str, Any]]
) -> Callable[[CheckedItem], bool]:
    """Return a function that decides whether an item matches a search.

    An item without cloud cover matches; an item without another property of the query does not.
    """
    start, end = (pd.Timestamp(t.removesuffix("Z")) for t in (search.start, search.end))

    def matches(item: CheckedItem) -> bool:
        cloud = number(item.properties.get("eo:cloud_cover"))
        return (
            start <= item.time.floor("s") <= end
            and overlap(item.bbox, search.bbox)
            and not (search.max_cloud is not None and cloud > search.max_cloud)
            and all(_satisfies(item.properties.get(k), c) for k, c in query.items())
        )

    return matches


def _satisfies(value: Any, conditions: Mapping[str, Any]) -> bool:
    try:
        return value is not None and all(OPERATORS[op](value, v) for op, v in conditions.items())
    except TypeError:  # text against a number
        return False


def _usable(
    item: CheckedItem, request: SceneRequest, *, offset: float | None, access: Access
) -> Scene | str:
    """Return the scene of an item, or a line on an item that cannot be used."""
    try:
        return _scene(item, request, offset=offset, access=access)
    except Exception as error:  # one invalid item must not end the map
        return f"{item.id}: cannot be used: {type(error).__name__}: {scrub(error)[:200]}"


def _scene(
    item: CheckedItem, request: SceneRequest, *, offset: float | None, access: Access
) -> Scene:
    """Return the scene of an item; bands that cannot be used are in ``lost``."""
    profile = request.profile
    files, problems = _files(item, request, access.allow_list)
    rules = {
        b: _rule(item, f.key, profile, band=b, offset=offset)
        for b, f in files.items()
        if b != profile.mask.asset
    }
    remedy = REMEDY if profile.by_baseline else ""
    problems |= {b: f"{r.doubt}{remedy}" for b, r in rules.items() if r.doubt}
    value = baseline(item.properties, item.id) if profile.by_baseline else None
    number_of_baseline = np.nan if value is None else value
    box, gridless, files = scene_grid(item, files, access)
    return Scene(
        item.id,
        item.collection or "",
        item.time,
        files,
        rules,
        problems,
        tuple(b for b in request.assets if _asset_key(item, b, profile) is None),
        _shared(tuple(sorted(map(str, item.assets)))),
        number(item.properties.get("eo:cloud_cover")),
        clear_share(item.properties, request.clouds),
        number_of_baseline,
        processing_order(item.properties, number_of_baseline),
        is_level_1(item.properties),
        {k: scrub(item.properties.get(p, ""))[:60] for k, p in profile.labels.items()},
        box,
        gridless,
        item.as_pystac([f.key for f in files.values()]) if request.items else None,
    )


def _rule(
    item: CheckedItem, key: str, profile: CollectionProfile, *, band: str, offset: float | None
) -> Rule:
    """Return the conversion of one asset."""
    asset = item.assets[key]
    if profile.by_baseline:
        return rule(item.properties, asset, offset=offset, name=item.id)
    fixed = profile.band(band)
    return fixed_rule(asset, scale=fixed.scale, offset=fixed.offset)


@lru_cache(4096)
def _shared(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return one object for equal names, since the assets of most items have the same keys."""
    return names


def _files(
    item: CheckedItem, request: SceneRequest, allow_list: AllowList
) -> tuple[dict[str, AssetFile], dict[str, str]]:
    """Return the files of bands, and the reasons why bands have none."""
    files: dict[str, AssetFile] = {}
    problems: dict[str, str] = {}
    of_item = item.properties if request.profile.one_grid else {}
    for band in request.assets:
        key = _asset_key(item, band, request.profile)
        if key is None:
            problems[band] = f"no such asset; the item has {sorted(map(str, item.assets))[:20]}"
            continue
        file = asset_file(key, item.href(key), item.assets[key], of_item)
        if refusal := _refusal(file.href, allow_list, item.link):
            problems[band] = refusal
        else:
            files[band] = file
    return files, problems


def _refusal(href: str, allow_list: AllowList, origin: str) -> str:
    """Return the reason why a file must not be opened; items of the web must not name local files."""
    if scheme(origin) in REMOTE:
        return replace(allow_list, files=False).refusal(href, origin=origin)
    if not scheme(href) and allow_list.files and not Path(href).is_absolute():
        return f"its link '{scrub(href)}' is relative, and the item has no 'self' link; pass absolute links"
    return allow_list.refusal(href)


def _asset_key(item: CheckedItem, band: str, profile: CollectionProfile) -> str | None:
    """Return the key of a band's asset, by key or by the names of the collection's bands."""
    names = _names(profile, band)
    for name in (band, *sorted(names)):
        if name in item.assets:
            return name
    for key, asset in item.assets.items():
        bands: Any = asset.get("eo:bands") or asset.get("bands")
        single = isinstance(bands, list) and len(bands) == 1 and isinstance(bands[0], Mapping)
        # a JPEG 2000 asset is a copy of another
        if single and "jp2" not in str(asset.get("type")):
            name = bands[0].get("name")
            if isinstance(name, str) and name in {band, *names}:
                return str(key)
    return None


@lru_cache(256)
def _names(profile: CollectionProfile, band: str) -> frozenset[str]:
    return profile.names(band)
