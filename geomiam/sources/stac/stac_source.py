"""STAC sources: presets, APIs, static catalogues, lists of items; and what is searched for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from geomiam.errors import SourceError
from geomiam.sources.stac.extent import Box
from geomiam.sources.web.allowed import REMOTE, local_path, scheme
from geomiam.sources.web.text import scrub

PREFERRED = ("sentinel-2-c1-l2a", "sentinel-2-l2a")
PAUSES = (0.0, 0.5, 1.5, 4.0)
"""Seconds before each attempt to read a page or document."""
LONGEST_PATH = 4096


@dataclass(frozen=True)
class StacSource:
    """A STAC catalogue and what is needed to read its pixels.

    Attributes
    ----------
    url
        Of an API or a static catalogue, or a local path of one.
    collection
        Its id; default: the one collection there is, or the first known one of Sentinel-2 Level-2A.
    offset
        Settles the reflectance offset of all items, where their metadata are wrong: 0 or -0.1.
    query
        Conditions on properties, such as ``{"s2:processing_baseline": {"gte": "05.00"}}``; sent to
        servers that take them, and held here in any case. Operators: eq, neq, lt, lte, gt, gte, in.
    sign
        Makes a URL readable at the moment of reading, e.g. ``planetary_computer.sign``.
    timeout
        Seconds that an answer to a search may take, to its last byte.
    headers
        Sent to the host of ``url``, such as ``{"Authorization": "Bearer ..."}``; to no other host.
    hosts
        Further hosts that documents and files may be read from: names, patterns such as
        ``"*.example.org"``, or buckets such as ``"s3://name"``. Items may point to the host of
        ``url``, and for well-known catalogues to where their files are; nowhere else.
    """

    url: str
    collection: str | None = None
    offset: float | None = None
    query: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: MappingProxyType({}))
    sign: Callable[[str], str] | None = None
    timeout: float = 30.0
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    hosts: tuple[str, ...] = ()

    @property
    def local(self) -> bool:
        """Whether the catalogue is on this machine, so that its files may be too."""
        return scheme(self.url) not in REMOTE


EARTH_SEARCH = "https://earth-search.aws.element84.com/v1"
PLANETARY = "https://planetarycomputer.microsoft.com/api/stac/v1"
PRESETS = {
    "earth-search": StacSource(EARTH_SEARCH, "sentinel-2-c1-l2a"),
    "earth-search-l2a": StacSource(EARTH_SEARCH, "sentinel-2-l2a"),
    "planetary-computer": StacSource(PLANETARY, "sentinel-2-l2a"),
}


@dataclass(frozen=True)
class Search:
    """What is searched for: place in degrees (west > east across the antimeridian), first and last moment (UTC), cloud cover in percent."""

    bbox: Box
    start: str
    end: str
    max_cloud: float | None


def as_source(source: Any) -> StacSource | list[Any]:
    """Understand ``source=``.

    Raises
    ------
    SourceError
        For an unknown name, and for Planetary Computer without its package.
    """
    if isinstance(source, StacSource):
        return source
    if isinstance(source, (str, Path)):
        return _named(str(source))
    if hasattr(source, "items_as_dicts"):  # a search of pystac-client
        return list(source.items_as_dicts())
    if hasattr(source, "get_items"):  # a catalogue or collection of pystac
        return list(source.get_items(recursive=True))
    if hasattr(source, "assets"):
        return [source]
    if isinstance(source, Mapping):
        return _items_of(source)
    if isinstance(source, Iterable):
        return list(source)
    raise SourceError(_advice(f"source= is a {type(source).__name__}"))


def _items_of(data: Mapping[str, Any]) -> list[Any]:
    """Return the items of a mapping of JSON: an item, or a FeatureCollection."""
    features = data.get("features")
    if data.get("type") == "Feature":
        return [data]
    if data.get("type") == "FeatureCollection" and isinstance(features, list):
        return features
    kind = scrub(data.get("type") or "without a type")[:40]
    raise SourceError(_advice(f"source= is a mapping of type '{kind}'"))


def _advice(problem: str) -> str:
    return (
        f"{problem}; pass one of {sorted(PRESETS)}, a URL, a path, "
        "geomiam.StacSource(url, collection), an item, or a list or search of items"
    )


def _named(text: str) -> StacSource:
    if text == "planetary-computer":
        return replace(PRESETS[text], sign=_planetary_signer())
    if text in PRESETS:
        return PRESETS[text]
    if scheme(text) in REMOTE:
        return StacSource(text)
    path = local_path(text)
    if len(path) < LONGEST_PATH and Path(path).exists():
        return StacSource(path)
    raise SourceError(
        f"source={scrub(text)[:200]!r} is neither a name ({', '.join(PRESETS)}), nor an http(s) URL, "
        "nor a path that exists"
    )


def _planetary_signer() -> Callable[[str], str]:
    try:
        from planetary_computer import sign_url
    except ImportError as error:
        raise SourceError(
            "Planetary Computer signs its URLs: pip install planetary-computer, or pass "
            "geomiam.StacSource(url, collection, sign=...)"
        ) from error
    return sign_url


def choose(ids: Sequence[str], source: StacSource) -> str:
    """Return the collection to read: one only, as the same scenes may be in several.

    Raises
    ------
    SourceError
        When it is not there, or there are several, none of which is known.
    """
    wanted = (source.collection,) if source.collection else PREFERRED
    matches = [c for c in wanted if c in ids] or (list(ids) if not source.collection else [])
    if not matches or (len(matches) > 1 and matches[0] not in wanted):
        raise SourceError(
            f"collection {source.collection or 'not given'}; {scrub(source.url)} has {sorted(ids)}; "
            "pass geomiam.StacSource(url, collection='...')"
        )
    return matches[0]
