"""STAC sources: presets, APIs, static STAC catalogs and lists of items; and the search."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from geomiam.errors import SourceError
from geomiam.sources.web.allow_list import REMOTE, local_path, scheme, scrub

PREFERRED = ("sentinel-2-c1-l2a", "sentinel-2-l2a")
LONGEST_PATH = 4096


@dataclass(frozen=True)
class StacSource:
    """A STAC catalog, and settings for reading its files.

    Attributes
    ----------
    url
        URL of an API or a static STAC catalog, or the path of a local one.
    collection
        Id of the collection. Default: the only collection, or the first of those of the presets of
        :func:`geomiam.sentinel2`, :func:`geomiam.sources.landsat` or :func:`geomiam.sources.sentinel1`.
    offset
        Sentinel-2 only: reflectance offset of all items, 0 or -0.1, for items with wrong metadata.
    query
        Conditions on properties, such as ``{"s2:processing_baseline": {"gte": "05.00"}}``. They are
        sent to servers that support them, and always applied to the returned items. Operators: eq,
        neq, lt, lte, gt, gte, in.
    sign
        Function that signs a URL when a file is read, such as ``planetary_computer.sign``.
    timeout
        Seconds within which the response to a search must be complete.
    headers
        HTTP headers for the host of ``url`` only, such as ``{"Authorization": "Bearer ..."}``.
    hosts
        Further hosts of documents and files: names, patterns such as ``"*.example.org"``, or buckets
        such as ``"s3://name"``. Without it, items may point only to the host of ``url`` and, for the
        presets, to the hosts of their files.

    Examples
    --------
    >>> import geomiam as gm
    >>> gm.StacSource("https://example.org/stac", collection="sentinel-2-l2a").timeout
    30.0
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
        """Whether the STAC catalog is on this machine, so that its files may be local."""
        return scheme(self.url) not in REMOTE


EARTH_SEARCH = "https://earth-search.aws.element84.com/v1"
PLANETARY = "https://planetarycomputer.microsoft.com/api/stac/v1"
PRESETS = {
    "earth-search": StacSource(EARTH_SEARCH, "sentinel-2-c1-l2a"),
    "earth-search-l2a": StacSource(EARTH_SEARCH, "sentinel-2-l2a"),
    "planetary-computer": StacSource(PLANETARY, "sentinel-2-l2a"),
}


def as_source(
    source: Any, presets: Mapping[str, StacSource] = PRESETS
) -> StacSource | Iterable[Any]:
    """Return the StacSource of ``source=``, or items, which a search returns page by page."""
    if isinstance(source, StacSource):
        return source
    if isinstance(source, (str, Path)):
        return _named(str(source), presets)
    if hasattr(source, "items_as_dicts"):  # a search of pystac-client
        return cast(Iterable[Any], source.items_as_dicts())
    if hasattr(source, "get_items"):  # a catalog or collection of pystac
        return cast(Iterable[Any], source.get_items(recursive=True))
    problem = f"source= is a {type(source).__name__}"
    if isinstance(source, Mapping):
        features = source.get("features")
        if source.get("type") == "FeatureCollection" and isinstance(features, list):
            return features
        if source.get("type") == "Feature":
            return [source]
        kind = scrub(source.get("type") or "without a type")[:40]
        problem = f"source= is a mapping of type '{kind}'"
    elif hasattr(source, "assets"):
        return [source]
    elif isinstance(source, Iterable):
        return source
    raise SourceError(
        f"{problem}; pass one of {sorted(presets)}, a URL, a path, "
        "geomiam.StacSource(url, collection), an item, or a list or search of items"
    )


def _named(text: str, presets: Mapping[str, StacSource]) -> StacSource:
    if text in presets:
        signer = _planetary_signer() if text == "planetary-computer" else None
        return replace(presets[text], sign=signer)
    if scheme(text) in REMOTE:
        return StacSource(text)
    path = local_path(text)
    if len(path) < LONGEST_PATH and Path(path).exists():
        return StacSource(path)
    raise SourceError(
        f"source={scrub(text)[:200]!r} is neither a name ({', '.join(presets)}), nor an http(s) URL, "
        "nor a path that exists"
    )


def _planetary_signer() -> Callable[[str], str]:
    try:
        import planetary_computer
    except ImportError as error:
        raise SourceError(
            "Planetary Computer signs its URLs: pip install planetary-computer, or pass "
            "geomiam.StacSource(url, collection, sign=...)"
        ) from error
    sign_url: Callable[[str], str] = planetary_computer.sign_url
    return sign_url


def choose_collection(
    ids: Sequence[str], source: StacSource, *, candidates: Sequence[str] = PREFERRED
) -> str:
    """Return the id of the collection to read: only one, since several may contain the same scenes."""
    candidates = (source.collection,) if source.collection else tuple(candidates)
    matches = [c for c in candidates if c in ids] or (list(ids) if not source.collection else [])
    if not matches or (len(matches) > 1 and matches[0] not in candidates):
        raise SourceError(
            f"collection {source.collection or 'not set'}; {scrub(source.url)} has {sorted(ids)}; "
            "pass geomiam.StacSource(url, collection='...')"
        )
    return matches[0]
