"""Search of a STAC catalog: an API, or a tree of linked files, with bounded numbers of requests."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from geomiam.errors import SourceError
from geomiam.sources.stac.documents import Reader
from geomiam.sources.stac.extent import halves
from geomiam.sources.stac.stac_source import Search, StacSource, choose_collection
from geomiam.sources.stac.tree import Unread, is_other, items_below
from geomiam.sources.web.allow_list import REMOTE, AllowList, scheme
from geomiam.sources.web.requests import NoResponse, Request
from geomiam.sources.web.scrub import scrub

LIMITS = (250, 100)
"""Items of a page; the second number if a server refuses the first."""
ITEM_SEARCH = "item-search"


def search_items(
    source: StacSource, search: Search, allow_list: AllowList
) -> tuple[Iterator[Mapping[str, Any] | Unread], list[str]]:
    """Search a STAC catalog.

    Returns
    -------
    tuple
        Items as JSON, also others than requested if a server ignores conditions; and notes on the
        search, which grow while items are read.

    Raises
    ------
    SourceError
        While items are read, if the STAC catalog does not respond or its response is not valid.
    """
    notes: list[str] = []
    return _with_url_in_errors(
        source, _items(source, search, Reader(source, allow_list), notes)
    ), notes


def _with_url_in_errors(
    source: StacSource, items: Iterator[Mapping[str, Any] | Unread]
) -> Iterator[Mapping[str, Any] | Unread]:
    """Yield items; errors of any type become SourceError with the URL of the STAC catalog."""
    try:
        yield from items
    except Exception as error:  # libraries raise errors of any type for invalid responses
        text = scrub(error)[:300]
        detail = text if isinstance(error, SourceError) else f"{type(error).__name__}: {text}"
        raise SourceError(
            f"the STAC catalog {scrub(source.url)} could not be searched: {detail}; try again, raise "
            "geomiam.StacSource(timeout=...), or use another source"
        ) from None  # the original error may have secrets of the URL


def _items(
    source: StacSource, search: Search, reader: Reader, notes: list[str]
) -> Iterator[Mapping[str, Any] | Unread]:
    start = _start(source)
    top = reader.document(start)
    classes = top.get("conformsTo") if not source.local else None
    if isinstance(classes, list) and any(ITEM_SEARCH in str(c) for c in classes):
        yield from _from_api(source, search, reader, notes)
    else:
        yield from items_below(start, top, source=source, reader=reader)


def _start(source: StacSource) -> str:
    if not source.local:
        return source.url
    path = Path(source.url).resolve()
    return str(path / "catalog.json" if path.is_dir() else path)


# APIs --------------------------------------------------------------------------------------------


def _from_api(
    source: StacSource, search: Search, reader: Reader, notes: list[str]
) -> Iterator[Mapping[str, Any] | Unread]:
    import pystac_client
    from pystac_client import ConformanceClasses

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of servers without the links that they should have
        client = pystac_client.Client.open(source.url, stac_io=_io(reader))
        collection = source.collection or choose_collection(
            [c.id for c in client.get_collections()], source
        )
    query = _query(source, search)
    if query and not client.conforms_to(ConformanceClasses.QUERY):
        notes.append("the server supports no conditions on properties; they were applied here")
        query = {}
    foreign_items = 0
    for box in halves(search.bbox):
        for page in _pages(client, search, (collection, box, query)):
            for item in page.get("features", []):
                foreign_items += isinstance(item, Mapping) and is_other(item, collection)
                if not isinstance(item, Mapping) or not is_other(item, collection):
                    yield item
    if foreign_items:
        notes.append(
            f"the server returned {foreign_items} items of other collections; they were dropped"
        )


def _pages(client: Any, search: Search, conditions: tuple[Any, ...]) -> Iterator[dict[str, Any]]:
    """Yield the pages of a search, smaller ones if the server refuses the usual size."""
    collection, box, query = conditions
    for limit, smaller in zip(LIMITS, (*LIMITS[1:], None)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of servers without the links that they should have
            answer = client.search(
                collections=[collection],
                bbox=box,
                datetime=f"{search.start}/{search.end}",
                query=query or None,
                limit=limit,
            )
        pages = answer.pages_as_dicts()
        try:
            first = next(pages, None)
        except NoResponse as error:
            if error.status not in (400, 413, 422) or smaller is None:
                raise
            continue
        if first is not None:
            yield first
            yield from pages
        return


def _query(source: StacSource, search: Search) -> dict[str, Any]:
    cloud = {} if search.max_cloud is None else {"eo:cloud_cover": {"lte": search.max_cloud}}
    return {**cloud, **source.query}


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
            verb = str(method or "GET").upper()
            url = href if verb == "POST" else _with_parameters(href, parameters)
            body = parameters if verb == "POST" else None
            request = Request(url, verb, _headers(headers), body)
            if _is_page(request):
                reader.once(request)
            return reader.text(request)

    return BoundedIO()


def _is_page(request: Request) -> bool:
    return urlsplit(request.url).path.endswith(("search", "collections", "items"))


def _headers(headers: Any) -> dict[str, str]:
    return {str(k): str(v) for k, v in dict(headers or {}).items()}


def _with_parameters(href: str, parameters: Any) -> str:
    import requests

    return str(requests.Request("GET", href, params=parameters or None).prepare().url)
