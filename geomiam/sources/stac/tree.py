"""Trees of linked documents: static STAC catalogs, collections, single items and lists of items."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from geomiam.errors import SourceError
from geomiam.sources.stac.documents import Reader
from geomiam.sources.stac.stac_source import StacSource, choose_collection
from geomiam.sources.web.allow_list import REMOTE, scheme
from geomiam.sources.web.scrub import scrub

DOCUMENTS = 100_000
"""Most documents of a tree: links may form endless chains."""


class Unread(str):
    """Line on a document of a STAC catalog that cannot be read."""


Document = tuple[str, Mapping[str, Any]]


def items_below(
    start: str, top: Mapping[str, Any], *, source: StacSource, reader: Reader
) -> Iterator[Mapping[str, Any] | Unread]:
    """Yield the items below a document, and a line for each that cannot be read.

    Raises
    ------
    SourceError
        If there are too many documents, or the collection does not exist.
    """
    unread: list[Unread] = []
    stack = list(_start_documents(source, reader, (start, top), unread))
    visited_links = {start, *(href for href, _ in stack)}
    while stack:
        href, document = stack.pop()
        if len(visited_links) > DOCUMENTS:
            raise SourceError(f"its links do not end: {DOCUMENTS:,} documents were read")
        links = [link for link in _links(href, document) if link not in visited_links]
        visited_links.update(links)
        stack.extend(_read_all(reader, links[::-1], unread))
        yield from _features(href, document, source)
    yield from unread


def _start_documents(
    source: StacSource, reader: Reader, top: Document, unread: list[Unread]
) -> Iterator[Document]:
    """Yield the documents to start from: only one collection, since several may contain the same scenes."""
    href, document = top
    links = [x for x in _links(href, document, kinds=("child",)) if x != href]
    if document.get("type") in ("Collection", "Feature", "FeatureCollection") or not links:
        yield top
        return
    children = list(_read_all(reader, links, unread))
    collections = {str(d.get("id")): (h, d) for h, d in children if d.get("type") == "Collection"}
    if not collections:
        yield href, {**document, "links": _items_of(document)}
        yield from children
    else:
        yield collections[choose_collection(list(collections), source)]


def _items_of(document: Mapping[str, Any]) -> list[Any]:
    links = document.get("links")
    entries = links if isinstance(links, list) else []
    return [x for x in entries if isinstance(x, Mapping) and x.get("rel") == "item"]


def _read_all(reader: Reader, links: Sequence[str], unread: list[Unread]) -> Iterator[Document]:
    for href in links:
        try:
            yield href, reader.document(href)
        except (SourceError, OSError, ValueError, RecursionError) as error:
            unread.append(Unread(f"{scrub(href)[:200]} cannot be read: {scrub(error)[:200]}"))


def _links(
    base: str, document: Mapping[str, Any], kinds: Sequence[str] = ("child", "item")
) -> list[str]:
    """Return absolute links to the documents below one."""
    links = document.get("links")
    entries = [x for x in links if isinstance(x, Mapping)] if isinstance(links, list) else []
    hrefs = [x["href"] for x in entries if x.get("rel") in kinds and isinstance(x.get("href"), str)]
    return list(dict.fromkeys(_absolute(base, href) for href in hrefs))


def _absolute(base: str, href: str) -> str:
    """Return an absolute link; in a STAC catalog of the web, a path is a path on its server."""
    if scheme(base) in REMOTE or scheme(href):
        return urljoin(base, href)
    return str((Path(base).parent / href).resolve())


def _features(
    href: str, document: Mapping[str, Any], source: StacSource
) -> Iterator[Mapping[str, Any]]:
    """Yield the items of a document: the document itself, or those of a FeatureCollection."""
    if document.get("type") == "Feature":
        entries = [document]
    else:
        features = document.get("features")
        entries = features if isinstance(features, list) else []
    for item in entries:
        if not isinstance(item, Mapping) or not is_other(item, source.collection):
            yield _with_link(item, href)


def _with_link(item: Any, href: str) -> Any:
    """Add the link to an item that its relative links start from."""
    return {**item, "links": [{"rel": "self", "href": href}]} if isinstance(item, Mapping) else item


def is_other(item: Mapping[str, Any], collection: str | None) -> bool:
    """Return whether an item states that it is of another collection."""
    return bool(collection) and item.get("collection") not in (None, collection)
