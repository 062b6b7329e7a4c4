"""Search of a STAC catalog: an API, or a tree of linked documents, within limits and allowed hosts."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests

from geomiam.errors import SourceError
from geomiam.sources.stac.extent import Box, halves
from geomiam.sources.stac.link_dates import LinkDates
from geomiam.sources.stac.stac_source import PREFERRED, StacSource, choose_collection
from geomiam.sources.web.allow_list import REMOTE, AllowList, host_of, scheme, scrub
from geomiam.sources.web.requests import Limits, NoResponse, Request, send

LIMITS = (250, 100)
"""Items of a page; the second number if a server refuses the first."""
PAGES = 2_000
"""Most pages of a search: a server may link pages in a circle."""
SIZE = 2**26
"""Most bytes of one page or document."""
DOCUMENTS = 200_000
"""Most documents of a tree: links may form endless chains."""
PAUSES = (0.0, 0.5, 1.5, 4.0)
"""Seconds before each attempt to read a page or document."""
ITEM_SEARCH = "item-search"
Document = tuple[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Search:
    """Conditions of a search.

    ``bbox`` is in degrees, with west > east across the antimeridian; ``start`` and ``end`` are the first
    and last second in UTC; ``max_cloud`` is in percent.
    """

    bbox: Box
    start: str
    end: str
    max_cloud: float | None
    collections: tuple[str, ...] = PREFERRED  # collections, if the source names none


class Unread(str):
    """Line on a document of a STAC catalog that cannot be read."""


def search_items(
    source: StacSource, search: Search, allow_list: AllowList, notes: list[str]
) -> Iterator[Mapping[str, Any] | Unread]:
    """Yield items as JSON, and append notes on the search.

    Servers that ignore conditions also return other items.
    """
    reader = Reader(source, allow_list)
    try:
        start = source.url
        if source.local:
            path = Path(start).resolve()
            start = str(path / "catalog.json" if path.is_dir() else path)
        top = reader.document(start)
        classes = None if source.local else top.get("conformsTo")
        if isinstance(classes, list) and any(ITEM_SEARCH in str(c) for c in classes):
            yield from _from_api(source, search, reader, notes)
        else:
            yield from _below((start, top), source, reader, search=search, notes=notes)
    except Exception as error:  # libraries raise errors of any type for invalid responses
        text = scrub(error)[:300]
        detail = text if isinstance(error, SourceError) else f"{type(error).__name__}: {text}"
        raise SourceError(
            f"the STAC catalog {scrub(source.url)} could not be searched: {detail}; try again, raise "
            "geomiam.StacSource(timeout=...), or use another source"
        ) from None  # the original error may have secrets of the URL


class Reader:
    """Reader of the documents of one STAC catalog, within limits, from allowed hosts and files only."""

    def __init__(self, source: StacSource, allow_list: AllowList) -> None:
        self._source, self._allow_list = source, allow_list
        self._pages: set[str] = set()

    def document(self, href: str) -> dict[str, Any]:
        """Return a JSON object from a file or a URL."""
        self._check(href)
        if scheme(href) in REMOTE:
            text = self.text(Request(href))
        else:
            path = Path(href)
            if not path.is_file():
                raise FileNotFoundError(f"no file at {path}")
            if path.stat().st_size > SIZE:
                raise SourceError(f"{path} is larger than {SIZE / 2**20:g} MiB")
            text = path.read_text(encoding="utf-8")
        data = json.loads(text)
        if not isinstance(data, dict):
            raise ValueError(f"{scrub(href)} is not a JSON object")
        return data

    def text(self, request: Request) -> str:
        """Return the response of a server; headers of the source are sent to its host only."""
        self._check(request.url)
        if scheme(request.url) not in REMOTE:
            raise SourceError(f"{scrub(request.url)} is refused: a STAC catalog is read by http(s)")
        if host_of(request.url) == host_of(self._source.url):
            request = replace(request, headers={**request.headers, **self._source.headers})
        limits = Limits(PAUSES, self._source.timeout, SIZE)
        return send(request, allow_list=self._allow_list, limits=limits).body.decode("utf-8")

    def page(self, request: Request) -> str:
        """Return a response; a page is requested only once, and pages are limited."""
        if urlsplit(request.url).path.endswith(("search", "collections", "items")):
            parts = [request.url, request.method, request.json]
            key = json.dumps(parts, sort_keys=True, default=str)
            if key in self._pages:
                raise SourceError(
                    "its pages repeat: a 'next' link leads to a page that was read before"
                )
            if len(self._pages) >= PAGES:
                raise SourceError(
                    f"its pages do not end: {PAGES:,} were read; narrow time= or like="
                )
            self._pages.add(key)
        return self.text(request)

    def _check(self, href: str) -> None:
        if refusal := self._allow_list.refusal(href):
            raise SourceError(f"{scrub(href)} is refused: {refusal}")


# APIs ---------------------------------------------------------------------------------------------


def _from_api(
    source: StacSource, search: Search, reader: Reader, notes: list[str]
) -> Iterator[Mapping[str, Any] | Unread]:
    import pystac_client
    from pystac_client import ConformanceClasses

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of servers without the links that they should have
        client = pystac_client.Client.open(source.url, stac_io=_io(reader))
        collection = source.collection or choose_collection(
            [c.id for c in client.get_collections()], source, candidates=search.collections
        )
    cloud = {} if search.max_cloud is None else {"eo:cloud_cover": {"lte": search.max_cloud}}
    query: dict[str, Any] = {**cloud, **source.query}
    if query and not client.conforms_to(ConformanceClasses.QUERY):
        notes.append("the server supports no conditions on properties; they were applied here")
        query = {}
    conditions = {
        "collections": [collection],
        "datetime": f"{search.start}/{search.end}",
        "query": query or None,
    }
    foreign_items = 0
    for box in halves(search.bbox):
        for page in _pages(client, {**conditions, "bbox": box}):
            for item in page.get("features", []):
                if isinstance(item, Mapping) and _is_foreign(item, collection):
                    foreign_items += 1
                else:
                    yield item
    if foreign_items:
        notes.append(
            f"the server returned {foreign_items} items of other collections; they were dropped"
        )


def _pages(client: Any, conditions: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the pages of a search, smaller ones if the server refuses the usual size."""
    for limit in LIMITS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of servers without the links that they should have
            pages = client.search(**conditions, limit=limit).pages_as_dicts()
        try:
            first = next(pages, None)
        except NoResponse as error:
            if error.status not in (400, 413, 422) or limit == LIMITS[-1]:
                raise
            continue
        if first is not None:
            yield first
            yield from pages
        return


def _io(reader: Reader) -> Any:
    """Return the I/O of pystac-client with limits, retries of single pages, and allowed hosts."""
    from pystac_client.stac_api_io import StacApiIO

    class BoundedIO(StacApiIO):
        def read_text(self, source: Any, *args: Any, **kwargs: Any) -> str:
            if isinstance(source, str) and scheme(source) not in REMOTE:
                raise SourceError(
                    f"{scrub(source)} is refused: a STAC catalog of the web must not name a local path"
                )
            return super().read_text(source, *args, **kwargs)

        def request(
            self, href: str, method: Any = None, headers: Any = None, parameters: Any = None
        ) -> str:
            verb, body = str(method or "GET").upper(), parameters
            if verb != "POST":
                query = requests.Request("GET", href, params=parameters or None)
                href, body = str(query.prepare().url), None
            headers_as_text = {str(k): str(v) for k, v in dict(headers or {}).items()}
            return reader.page(Request(href, verb, headers_as_text, body))

    return BoundedIO()


# trees: static STAC catalogs, collections, single items and lists of items -------------------------


def _below(
    top: Document, source: StacSource, reader: Reader, *, search: Search, notes: list[str]
) -> Iterator[Mapping[str, Any] | Unread]:
    """Yield the items below a document, and a line for each document that cannot be read."""
    unread: list[Unread] = []
    dates = LinkDates(top[0], search.start, search.end)
    starts = _start_documents(
        source, reader, top, candidates=search.collections, dates=dates, unread=unread
    )
    stack: list[tuple[str, Any]] = list(starts)
    visited_links = {top[0], *(href for href, _ in stack)}
    while stack:
        href, document = stack.pop()
        if document is None:  # read when its turn comes, so that few documents are in memory
            document = next((d for _, d in _read_all(reader, [href], unread)), None)
            if document is None:
                continue
        if len(visited_links) > DOCUMENTS:
            raise SourceError(f"its links do not end: {DOCUMENTS:,} documents were read")
        entries = dates.selected(href, _entries(document, "child", "item"))
        links = [x for x in _absolute(href, entries) if x not in visited_links]
        visited_links.update(links)
        stack.extend((link, None) for link in links[::-1])
        features = [document] if document.get("type") == "Feature" else document.get("features")
        for item in features if isinstance(features, list) else []:
            if not isinstance(item, Mapping):
                yield item
            elif not _is_foreign(item, source.collection):
                # relative links of an item start from its document
                yield {**item, "links": [{"rel": "self", "href": href}]}
    if note := dates.note():
        notes.append(note)
    yield from unread


def _start_documents(
    source: StacSource,
    reader: Reader,
    top: Document,
    *,
    candidates: Sequence[str],
    dates: LinkDates,
    unread: list[Unread],
) -> Iterator[Document]:
    """Yield the documents to start from: only one collection, since several may contain the same scenes."""
    href, document = top
    entries = _entries(document, "child")
    if document.get("type") in ("Collection", "Feature", "FeatureCollection") or not entries:
        yield top
        return
    links = [x for x in _absolute(href, dates.selected(href, entries)) if x != href]
    children = list(_read_all(reader, links, unread))
    collections = {str(d.get("id")): (h, d) for h, d in children if d.get("type") == "Collection"}
    if not collections:
        yield href, {**document, "links": _entries(document, "item")}
        yield from children
    else:
        yield collections[choose_collection(list(collections), source, candidates=candidates)]


def _read_all(reader: Reader, links: Sequence[str], unread: list[Unread]) -> Iterator[Document]:
    for href in links:
        try:
            yield href, reader.document(href)
        except (SourceError, OSError, ValueError, RecursionError) as error:
            unread.append(Unread(f"{scrub(href)[:200]} cannot be read: {scrub(error)[:200]}"))


def _entries(document: Mapping[str, Any], *kinds: str) -> list[Mapping[str, Any]]:
    links = document.get("links")
    entries = links if isinstance(links, list) else []
    return [x for x in entries if isinstance(x, Mapping) and x.get("rel") in kinds]


def _absolute(base: str, entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the absolute links of entries of a document, each once."""
    hrefs = [x.get("href") for x in entries]
    links = {}
    for href in (h for h in hrefs if isinstance(h, str)):
        # in a STAC catalog of the web, a path is a path on its server
        on_web = scheme(base) in REMOTE or scheme(href)
        links[urljoin(base, href) if on_web else str((Path(base).parent / href).resolve())] = True
    return list(links)


def _is_foreign(item: Mapping[str, Any], collection: str | None) -> bool:
    """Return whether an item states that it is of another collection."""
    return bool(collection) and item.get("collection") not in (None, collection)
