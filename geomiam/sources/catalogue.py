"""STAC catalogues: presets, APIs, static catalogues, lists of items; searching them for scenes."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from geomiam.errors import SourceError

if TYPE_CHECKING:
    import pystac

PREFERRED = ("sentinel-2-c1-l2a", "sentinel-2-l2a")
PAGE = 250
PAUSES = (0.0, 0.5, 1.5)
"""Seconds before each attempt. The libraries' own retries log the URL with whatever signs it."""
REMOTE = ("http", "https")


@dataclass(frozen=True)
class StacSource:
    """A STAC catalogue and what must be known to read its pixels.

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
        Seconds that an answer to a search may take.
    """

    url: str
    collection: str | None = None
    offset: float | None = None
    query: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: MappingProxyType({}))
    sign: Callable[[str], str] | None = None
    timeout: float = 30.0

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
    """What is searched for: place in degrees, first and last moment (UTC), cloud cover in percent."""

    bbox: tuple[float, float, float, float]
    start: str
    end: str
    max_cloud: float | None


def scheme(href: str) -> str:
    """Return the scheme of a URL in lower case, empty for paths."""
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", str(href))
    return found[1].lower() if found else ""


def scrub(text: object) -> str:
    """Return a text without what signs its URLs: query strings, fragments, user names, passwords."""
    bare = re.sub(r"(://)[^/\s@'\"]*@", r"\1", str(text))
    return re.sub(r"[?#][\w.~%+-]+=[^\s'\"]*", "", bare)


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
    if isinstance(source, Iterable):
        return list(source)
    raise SourceError(
        f"source= is a {type(source).__name__}; pass one of {sorted(PRESETS)}, a URL, a path, "
        "geomiam.StacSource(url, collection) or a list of items"
    )


def _named(text: str) -> StacSource:
    if text == "planetary-computer":
        return replace(PRESETS[text], sign=_planetary_signer())
    if text in PRESETS:
        return PRESETS[text]
    if scheme(text) in (*REMOTE, "file"):
        return StacSource(text.removeprefix("file://"))
    if Path(text).exists():
        return StacSource(text)
    raise SourceError(
        f"source={scrub(text)!r} is neither a name ({', '.join(PRESETS)}), nor an http(s) URL, nor a "
        "path that exists"
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


def find(source: StacSource, search: Search) -> tuple[Iterator[Any], list[str]]:
    """Ask a catalogue.

    Returns
    -------
    tuple
        Items, more than were asked for where a server ignores conditions; and what was noteworthy.

    Raises
    ------
    SourceError
        When the catalogue does not answer, or not as a catalogue does.
    """
    import requests
    from pystac import STACError
    from pystac_client.exceptions import APIError

    last: Exception | None = None
    for pause in PAUSES:
        time.sleep(pause)
        try:
            return _find(source, search)
        except (APIError, STACError, requests.RequestException, OSError) as error:
            last = error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            last = error  # an answer, but not a catalogue's; asking again changes nothing
            break
    raise SourceError(
        f"the catalogue {scrub(source.url)} could not be searched: {type(last).__name__}: "
        f"{scrub(last)[:300]}; try again, raise geomiam.StacSource(timeout=...), or use another source"
    ) from None  # the original names the URL in full


def _find(source: StacSource, search: Search) -> tuple[Iterator[Any], list[str]]:
    notes: list[str] = []
    found = _static(source) if _is_static(source) else _ask(source, search, notes=notes)
    return iter(list(found)), notes


def _is_static(source: StacSource) -> bool:
    return source.local or source.url.partition("?")[0].endswith(".json")


def _static(source: StacSource) -> Iterator[pystac.Item]:
    import pystac

    href = str(_file(source.url) if source.local else source.url)
    top = pystac.Catalog.from_file(href, stac_io=_patient(source.timeout))
    return _collection(top, source).get_items(recursive=True)


def _patient(timeout: float) -> Any:
    """Make pystac wait no longer than this; by itself it waits for ever."""
    import requests
    from pystac.stac_io import DefaultStacIO

    class PatientIO(DefaultStacIO):
        def read_text_from_href(self, href: str) -> str:
            if scheme(href) not in REMOTE:
                return super().read_text_from_href(href)
            answer = requests.get(href, timeout=timeout)
            answer.raise_for_status()
            return answer.text

    return PatientIO()


def _file(url: str) -> Path:
    path = Path(url)
    return path / "catalog.json" if path.is_dir() else path


def _collection(top: Any, source: StacSource) -> Any:
    import pystac

    if isinstance(top, pystac.Collection):
        return top
    inside = {c.id: c for c in top.get_children()}
    return inside[choose(list(inside), source)] if inside else top


def choose(ids: Sequence[str], source: StacSource) -> str:
    """Return the collection to read: one only, as the same scenes may be in several.

    Raises
    ------
    SourceError
        When it is not there, or several are and none is known.
    """
    wanted = (source.collection,) if source.collection else PREFERRED
    found = [c for c in wanted if c in ids] or (list(ids) if not source.collection else [])
    if not found or (len(found) > 1 and found[0] not in wanted):
        raise SourceError(
            f"collection {source.collection or 'not given'}; {scrub(source.url)} has {sorted(ids)}; "
            "pass geomiam.StacSource(url, collection='...')"
        )
    return found[0]


def _ask(source: StacSource, search: Search, *, notes: list[str]) -> Iterator[dict[str, Any]]:
    import pystac_client
    from pystac_client import ConformanceClasses
    from pystac_client.stac_api_io import StacApiIO

    patient = StacApiIO(timeout=source.timeout, max_retries=None)
    client = pystac_client.Client.open(source.url, stac_io=patient)
    if not client.conforms_to(ConformanceClasses.ITEM_SEARCH):
        return _collection(client, source).get_items(recursive=True)
    collection = source.collection or choose([c.id for c in client.get_collections()], source)
    query = _query(source, search)
    if query and not client.conforms_to(ConformanceClasses.QUERY):
        notes.append("the server takes no conditions on properties; they were applied here")
        query = {}
    return client.search(
        collections=[collection],
        bbox=search.bbox,
        datetime=f"{search.start}/{search.end}",
        query=query or None,
        limit=PAGE,
    ).items_as_dicts()


def _query(source: StacSource, search: Search) -> dict[str, Any]:
    cloud = {} if search.max_cloud is None else {"eo:cloud_cover": {"lte": search.max_cloud}}
    return {**cloud, **source.query}
