"""Reading the documents of a STAC catalog within limits, from allowed hosts and files only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from geomiam.errors import SourceError
from geomiam.sources.stac import stac_source
from geomiam.sources.stac.stac_source import StacSource
from geomiam.sources.web.allow_list import REMOTE, AllowList, host_of, scheme
from geomiam.sources.web.requests import Limits, Request, send
from geomiam.sources.web.scrub import scrub

PAGES = 2_000
"""Most pages of a search: a server may link pages in a circle."""
SIZE = 2**26
"""Most bytes of one page or document."""


class Reader:
    """Reader of the documents of one STAC catalog, within limits, from allowed hosts and files only."""

    def __init__(self, source: StacSource, allow_list: AllowList) -> None:
        self._source, self._allow_list = source, allow_list
        self.pages: set[str] = set()

    def document(self, href: str) -> dict[str, Any]:
        """Return a JSON object from a file or a URL.

        Raises
        ------
        SourceError, ValueError, OSError
            If it is refused, cannot be read, or is not a JSON object.
        """
        data = json.loads(self.text(Request(href)) if scheme(href) in REMOTE else self._file(href))
        if not isinstance(data, dict):
            raise ValueError(f"{scrub(href)} is not a JSON object")
        return data

    def text(self, request: Request) -> str:
        """Return the response of a server; headers of the source are sent to its host only."""
        if refusal := self._allow_list.refusal(request.url):
            raise SourceError(f"{scrub(request.url)} is refused: {refusal}")
        if scheme(request.url) not in REMOTE:
            raise SourceError(f"{scrub(request.url)} is refused: a STAC catalog is read by http(s)")
        same_host = host_of(request.url) == host_of(self._source.url)
        headers = {**request.headers, **(self._source.headers if same_host else {})}
        limits = Limits(stac_source.PAUSES, self._source.timeout, SIZE)
        with_headers = Request(request.url, request.method, headers, request.json)
        return send(with_headers, allow_list=self._allow_list, limits=limits).body.decode("utf-8")

    def once(self, request: Request) -> None:
        """Record a page that is requested.

        Raises
        ------
        SourceError
            If the page was requested before, or there are too many pages.
        """
        key = json.dumps([request.url, request.method, request.json], sort_keys=True, default=str)
        if key in self.pages:
            raise SourceError(
                "its pages repeat: a 'next' link leads to a page that was read before"
            )
        if len(self.pages) >= PAGES:
            raise SourceError(f"its pages do not end: {PAGES:,} were read; narrow time= or like=")
        self.pages.add(key)

    def _file(self, href: str) -> str:
        path = Path(href)
        if refusal := self._allow_list.refusal(href):
            raise SourceError(f"{scrub(href)} is refused: {refusal}")
        if not path.is_file():
            raise FileNotFoundError(f"no file at {path}")
        if path.stat().st_size > SIZE:
            raise SourceError(f"{path} is larger than {SIZE / 2**20:g} MiB")
        return path.read_text(encoding="utf-8")
