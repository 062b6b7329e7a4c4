"""Reading the documents of a catalogue: within limits, and only from where the user allows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from geomiam.errors import SourceError
from geomiam.sources.stac import stac_source as catalogue
from geomiam.sources.stac.stac_source import StacSource
from geomiam.sources.web.allowed import REMOTE, Reach, host_of, scheme
from geomiam.sources.web.requests import Limits, Request, ask
from geomiam.sources.web.text import scrub

PAGES = 2_000
"""Pages of a search after which a catalogue counts as endless."""
SIZE = 2**26
"""Bytes of one page or document."""


class Reader:
    """Reads documents of one catalogue, within limits and only from where the user allows."""

    def __init__(self, source: StacSource, reach: Reach) -> None:
        self._source, self._reach = source, reach
        self.asked: set[str] = set()

    def document(self, href: str) -> dict[str, Any]:
        """Return a JSON object from a file or a URL.

        Raises
        ------
        SourceError, ValueError, OSError
            When it is refused, does not come, or is no JSON object.
        """
        data = json.loads(self.text(Request(href)) if scheme(href) in REMOTE else self._file(href))
        if not isinstance(data, dict):
            raise ValueError(f"{scrub(href)} is no object of JSON")
        return data

    def text(self, request: Request) -> str:
        """Return the answer of a server; headers of the source go to its own host alone."""
        if why := self._reach.refusal(request.url):
            raise SourceError(f"{scrub(request.url)} is refused: {why}")
        if scheme(request.url) not in REMOTE:
            raise SourceError(f"{scrub(request.url)} is refused: a catalogue is read by http(s)")
        same_host = host_of(request.url) == host_of(self._source.url)
        headers = {**request.headers, **(self._source.headers if same_host else {})}
        limits = Limits(catalogue.PAUSES, self._source.timeout, SIZE)
        with_headers = Request(request.url, request.method, headers, request.json)
        return ask(with_headers, reach=self._reach, limits=limits).body.decode("utf-8")

    def once(self, request: Request) -> None:
        """Note a page that is asked for.

        Raises
        ------
        SourceError
            When it was asked for before, or there are too many.
        """
        key = json.dumps([request.url, request.method, request.json], sort_keys=True, default=str)
        if key in self.asked:
            raise SourceError(
                "its pages repeat: a 'next' link leads to a page that was read before"
            )
        if len(self.asked) >= PAGES:
            raise SourceError(f"its pages do not end: {PAGES:,} were read; narrow time= or like=")
        self.asked.add(key)

    def _file(self, href: str) -> str:
        path = Path(href)
        if why := self._reach.refusal(href):
            raise SourceError(f"{scrub(href)} is refused: {why}")
        if not path.is_file():
            raise FileNotFoundError(f"no file at {path}")
        if path.stat().st_size > SIZE:
            raise SourceError(f"{path} is larger than {SIZE / 2**20:g} MiB")
        return path.read_text(encoding="utf-8")
