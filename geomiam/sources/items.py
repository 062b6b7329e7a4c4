"""Scenes: items of a catalogue, made plain, held against the search here, with their files found.

Servers may ignore what they were asked (conditions, dates, places) or give an item twice; nothing
is taken on trust.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from geomiam.errors import SourceError
from geomiam.sources.catalogue import REMOTE, Search, StacSource, scheme, scrub
from geomiam.sources.reflectance import Rule, baseline, rule

if TYPE_CHECKING:
    import pystac

SCL = "scl"
SCHEMES = (*REMOTE, "s3", "gs", "az", "abfs")
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


_UNUSABLE = (AttributeError, KeyError, TypeError, ValueError)


@dataclass(frozen=True)
class Scene:
    """One item: what it says of itself, and which of its assets hold the bands.

    Attributes
    ----------
    item
        With absolute links to files and no links to the catalogue, so that it travels lightly.
    assets
        Band as the user named it → key of the asset.
    rules
        Band → how its numbers become reflectance.
    lost
        Band → why it cannot be read; known before any pixel.
    """

    item: pystac.Item
    time: pd.Timestamp
    assets: Mapping[str, str]
    rules: Mapping[str, Rule]
    lost: Mapping[str, str]

    @property
    def id(self) -> str:
        """The item's id."""
        return self.item.id

    @property
    def cloud_cover(self) -> float:
        """Percent, NaN where unknown."""
        return float(self.item.properties.get("eo:cloud_cover", np.nan))

    @property
    def baseline(self) -> float:
        """Processing baseline, NaN where unknown."""
        number = baseline(self.item.properties)
        return np.nan if number is None else number

    @property
    def day(self) -> str:
        """The solar day: a pass over one place falls on one, wherever midnight in UTC is."""
        west, _, east, _ = self.item.bbox or (0, 0, 0, 0)
        return str((self.time + pd.Timedelta(hours=(west + east) / 30)).date())


def plain(raw: Any, *, local: bool | None = None) -> tuple[pystac.Item, bool]:
    """Return an item of one's own with absolute links, and whether its files may be local.

    Parameters
    ----------
    raw
        A pystac Item or the mapping of its JSON.
    local
        Whether the catalogue is; default: unless the item says that it comes from the web.

    Raises
    ------
    SourceError
        When it is no item with a place and a time.
    """
    import pystac

    try:
        item = pystac.Item.from_dict(dict(raw)) if isinstance(raw, Mapping) else raw.clone()
        href = item.get_self_href() or ""
        absolute = {k: a.get_absolute_href() or a.href for k, a in item.assets.items()}
        for key, asset in item.assets.items():
            asset.href = absolute[key]
        item.clear_links()
        if item.datetime is None or item.bbox is None:
            raise ValueError("no datetime or no bbox")
    except (*_UNUSABLE, pystac.STACError, pystac.STACTypeError) as error:
        name = raw.get("id", "?") if isinstance(raw, Mapping) else getattr(raw, "id", "?")
        raise SourceError(f"{name}: no STAC item that can be used: {scrub(error)[:200]}") from None
    return item, scheme(href) not in REMOTE if local is None else local


def moment(item: pystac.Item) -> pd.Timestamp:
    """Return when a scene was taken, UTC without a time zone."""
    stamp = pd.Timestamp(item.datetime)
    return stamp.tz_convert("UTC").tz_localize(None) if stamp.tzinfo else stamp


def period(time: Any) -> tuple[str, str]:
    """Understand ``time=``: one text such as ``"2018-03"`` or ``"2018-03/2018-08"``, or a pair.

    Raises
    ------
    SourceError
        When a moment cannot be read, or the end lies before the start.
    """
    pair = time.split("/") if isinstance(time, str) else list(time)
    pair = pair * 2 if len(pair) == 1 else pair
    try:
        first, last = pair
        start, end = _edge(first).start_time, _edge(last).end_time
    except (ValueError, TypeError) as error:
        raise SourceError(
            f"time={time!r} is no period ({error}); pass a pair such as ('2018-03', '2018-08')"
        ) from None
    if end < start:
        raise SourceError(f"time={time!r} ends before it starts")
    return f"{start.isoformat()}Z", f"{end.floor('s').isoformat()}Z"


def _edge(text: Any) -> pd.Period:
    return pd.Period(text) if isinstance(text, str) else pd.Period(pd.Timestamp(text), freq="s")


def holds(item: pystac.Item, search: Search, query: Mapping[str, Mapping[str, Any]]) -> bool:
    """Return whether an item is what was searched for.

    Unknown cloud cover is no reason to leave a scene out; other properties that are missing are.
    """
    start, end = (pd.Timestamp(t.removesuffix("Z")) for t in (search.start, search.end))
    cloud = item.properties.get("eo:cloud_cover")
    return (
        start <= moment(item).floor("s") <= end
        and _meet(item.bbox or [], search.bbox)
        and (search.max_cloud is None or cloud is None or cloud <= search.max_cloud)
        and all(_meets(item.properties.get(k), c) for k, c in query.items())
    )


def _meet(a: Sequence[float], b: Sequence[float]) -> bool:
    if a[0] > a[2]:  # across the antimeridian; the pixels decide later
        return a[1] <= b[3] and b[1] <= a[3]
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]


def _meets(value: Any, conditions: Mapping[str, Any]) -> bool:
    if unknown := set(conditions) - set(OPERATORS):
        raise SourceError(f"query operators {sorted(unknown)} are not known; use {list(OPERATORS)}")
    return value is not None and all(OPERATORS[op](value, v) for op, v in conditions.items())


def scene(
    item: pystac.Item, bands: Sequence[str], *, source: StacSource | None, local: bool
) -> Scene:
    """Find the bands' assets and rules; what cannot be used is said in ``lost``."""
    offset = source.offset if source else None
    assets: dict[str, str] = {}
    rules: dict[str, Rule] = {}
    lost: dict[str, str] = {}
    for band in bands:
        key = asset_key(item, band)
        if key is None:
            lost[band] = f"no such asset; the item has {sorted(item.assets)[:20]}"
            continue
        if refusal := refused(item.assets[key].href, local=local):
            lost[band] = refusal
            continue
        assets[band] = key
        if band == SCL:
            continue
        rules[band] = rule(item.properties, item.assets[key].to_dict(), offset=offset)
        if rules[band].doubt:
            lost[band] = (
                f"{rules[band].doubt}; settle it with geomiam.StacSource(..., offset=0 or -0.1)"
            )
    return Scene(item, moment(item), assets, rules, lost)


def asset_key(item: pystac.Item, band: str) -> str | None:
    """Return the key of a band's asset: by key, or by Sentinel-2's two sets of names."""
    names = next(({n, b} for n, b in BANDS.items() if band.lower() in (n, b.lower())), set())
    for name in (band, *sorted(names)):
        if name in item.assets:
            return name
    return next((k for k, a in item.assets.items() if _own_name(a) in {band, *names}), None)


def _own_name(asset: pystac.Asset) -> str | None:
    """The name of the one band of an asset, unless it is a jp2 twin of another."""
    bands = asset.extra_fields.get("eo:bands") or asset.extra_fields.get("bands") or []
    twin = "jp2" in str(asset.media_type)
    return bands[0].get("name") if len(bands) == 1 and not twin else None


def refused(href: str, *, local: bool) -> str:
    """Return why a file must not be opened, empty when it may."""
    kind = scheme(href)
    if kind in SCHEMES:
        return ""
    if kind:
        return f"scheme '{kind}' is not opened; allowed: {', '.join(SCHEMES)}"
    if href.startswith("/vsi") or not local:
        return "a path on this machine, named by a catalogue that is not"
    return ""


def unique(items: Iterable[pystac.Item]) -> list[pystac.Item]:
    """Drop items given twice, as by servers that page wrongly; in order of time, then id."""
    found = {(i.collection_id, i.id): i for i in items}
    return sorted(found.values(), key=lambda i: (moment(i), i.id))
