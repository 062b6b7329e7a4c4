"""Scenes: items of a catalogue, made plain, checked against the search here, with their files found.

Servers may ignore what they were asked (conditions, dates, places) or give an item twice; nothing
is taken on trust.
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
from geomiam.sources.stac.extent import meet
from geomiam.sources.stac.plain import moment, number, seconds
from geomiam.sources.stac.stac_source import Search, StacSource
from geomiam.sources.stac.times import period as period
from geomiam.sources.web.allowed import REMOTE, Reach, scheme
from geomiam.sources.web.text import scrub

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
    "in": lambda value, allowed: value in allowed,
}


@dataclass(frozen=True)
class Scene:
    """One item: what its metadata state, and which of its assets hold the bands.

    Attributes
    ----------
    item
        With absolute links to the files in use and no others, so that it travels lightly.
    assets
        Band as the user named it → key of the asset.
    rules
        Band → how its numbers become reflectance.
    lost
        Band → why it cannot be read; known before any pixel.
    absent
        Bands of which the item has no asset.
    offered
        Names of the assets that the item has.
    """

    item: pystac.Item
    time: pd.Timestamp
    assets: Mapping[str, str]
    rules: Mapping[str, Rule]
    lost: Mapping[str, str]
    absent: tuple[str, ...] = ()
    offered: tuple[str, ...] = field(default=(), repr=False)

    @property
    def id(self) -> str:
        """The item's id."""
        return self.item.id

    @property
    def cloud_cover(self) -> float:
        """Percent, NaN where unknown."""
        return number(self.item.properties.get("eo:cloud_cover"))

    @property
    def baseline(self) -> float:
        """Processing baseline, NaN where unknown."""
        value = baseline(self.item.properties, self.id)
        return np.nan if value is None else value

    @property
    def processed(self) -> tuple[float, ...]:
        """How late it was processed: baseline, then times and numbers of processing."""
        p = self.item.properties
        moments = [seconds(p.get(k)) for k in ("s2:generation_time", "created", "updated")]
        order = (self.baseline, moments[0], number(p.get("s2:sequence")), *moments[1:])
        return tuple(-math.inf if math.isnan(v) else v for v in order)


def check_query(query: Any) -> None:
    """Check conditions on properties before a catalogue is asked.

    Raises
    ------
    SourceError
        For operators that are not supported.
    """
    for key, conditions in dict(query).items():
        if not isinstance(conditions, Mapping):
            raise SourceError(
                f"query of '{key}' is {conditions!r}; write {{'{key}': {{'eq': {conditions!r}}}}}"
            )
        if unknown := set(conditions) - set(OPERATORS):
            raise SourceError(
                f"query operators {sorted(unknown)} are not known; use {list(OPERATORS)}"
            )


def holds(item: pystac.Item, search: Search, query: Mapping[str, Mapping[str, Any]]) -> bool:
    """Return whether an item is what was searched for.

    Unknown cloud cover is no reason to leave a scene out; other properties that are missing are.
    """
    start, end = (pd.Timestamp(t.removesuffix("Z")) for t in (search.start, search.end))
    cloud = number(item.properties.get("eo:cloud_cover"))
    return (
        start <= moment(item).floor("s") <= end
        and meet(tuple(item.bbox or ()), search.bbox)  # type: ignore[arg-type]
        and not (search.max_cloud is not None and cloud > search.max_cloud)
        and all(_meets(item.properties.get(k), c) for k, c in query.items())
    )


def _meets(value: Any, conditions: Mapping[str, Any]) -> bool:
    try:
        return value is not None and all(OPERATORS[op](value, v) for op, v in conditions.items())
    except TypeError:  # text against a number
        return False


def scene(
    item: pystac.Item,
    bands: Sequence[str],
    *,
    source: StacSource | None,
    reach: Reach,
    origin: str = "",
) -> Scene:
    """Find the bands' assets and rules; what cannot be used is listed in ``lost``."""
    offset = source.offset if source else None
    assets: dict[str, str] = {}
    rules: dict[str, Rule] = {}
    lost: dict[str, str] = {}
    offered = tuple(sorted(map(str, item.assets)))
    absent = tuple(b for b in bands if asset_key(item, b) is None)
    for band in bands:
        if band in absent:
            lost[band] = f"no such asset; the item has {list(offered[:20])}"
            continue
        key = str(asset_key(item, band))
        if refusal := _refusal(item.assets[key].href, reach, origin):
            lost[band] = refusal
            continue
        assets[band] = key
        if band == SCL:
            continue
        rules[band] = rule(item.properties, item.assets[key].to_dict(), offset=offset, name=item.id)
        if rules[band].doubt:
            lost[band] = (
                f"{rules[band].doubt}; settle it with geomiam.StacSource(..., offset=0 or -0.1)"
            )
    item.assets = {k: a for k, a in item.assets.items() if k in assets.values()}
    return Scene(item, moment(item), assets, rules, lost, absent, offered)


def _refusal(href: str, reach: Reach, origin: str) -> str:
    """Return why a file must not be opened; an item of the web names no file of this machine."""
    if scheme(origin) in REMOTE:
        return replace(reach, files=False).refusal(href, origin=origin)
    if not scheme(href) and reach.files and not Path(href).is_absolute():
        return f"its link '{scrub(href)}' is relative, and the item has no 'self' link; pass absolute links"
    return reach.refusal(href)


def asset_key(item: pystac.Item, band: str) -> str | None:
    """Return the key of a band's asset: by key, or by Sentinel-2's two sets of names."""
    names = next(({n, b} for n, b in BANDS.items() if band.lower() in (n, b.lower())), set())
    for name in (band, *sorted(names)):
        if name in item.assets:
            return name
    return next((k for k, a in item.assets.items() if _own_name(a) in {band, *names}), None)


def _own_name(asset: pystac.Asset) -> str | None:
    """The name of the one band of an asset, unless it is a jp2 twin of another."""
    bands = asset.extra_fields.get("eo:bands") or asset.extra_fields.get("bands")
    if not isinstance(bands, list) or len(bands) != 1 or not isinstance(bands[0], Mapping):
        return None
    name = bands[0].get("name")
    return None if "jp2" in str(asset.media_type) or not isinstance(name, str) else name


def refused(href: str, *, local: bool) -> str:
    """Return why a file of a list of items must not be opened, empty when it may."""
    return Reach(files=local, named=True).refusal(href)


def unique(items: Iterable[pystac.Item]) -> list[pystac.Item]:
    """Drop items given twice, as by servers that page wrongly; in order of time, then id."""
    by_name = {(i.collection_id, i.id): i for i in items}
    return sorted(by_name.values(), key=lambda i: (moment(i), i.id))
