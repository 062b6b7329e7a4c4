"""The files that references lead to: which may be opened, and the reading of their bytes.

A file of references is untrusted text. Without a check, it could read any file of this machine into a
cube, or send requests into the local network.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from geomiam.checks.files import regular_file
from geomiam.checks.sizes import MAX_BLOCK
from geomiam.errors import SourceError, printable
from geomiam.outputs.check import within
from geomiam.outputs.paths import real_path
from geomiam.sources.paths import MOST_PATH
from geomiam.sources.web.allow_list import (
    REMOTE,
    SCHEMES,
    AllowList,
    host_of,
    is_plain,
    scheme,
    scrub,
)
from geomiam.sources.web.ranges import fetch_range


@dataclass(frozen=True)
class Targets:
    """The folder of a file of references, and further folders and URLs that its references may lead to."""

    location: str
    """Path or URL of the references, for messages."""
    home: str
    """Folder or URL that relative references start from. Hidden files below it are not opened."""
    allow: tuple[str, ...] = ()

    def address(self, text: Any) -> str:
        """Return the real path or the URL of a file; SourceError if it must not be opened."""
        if not isinstance(text, str) or not 0 < len(text) <= MOST_PATH or printable(text) != text:
            raise SourceError(
                f"{scrub(self.location)} refers to {ascii(text)[:80]}, which is no path or URL; write the "
                "references again"
            )
        kind = scheme(text)
        if kind not in ("", "file", *SCHEMES) or "::" in text:
            raise SourceError(
                f"{scrub(self.location)} refers to {scrub(text)[:200]}; only files and URLs of "
                f"{', '.join(SCHEMES)} are opened: write the references again with plain paths"
            )
        if kind in SCHEMES or (not kind and scheme(self.home)):
            return self._url(urljoin(f"{self.home}/", text) if not kind else text)
        return self._path(text)

    def _url(self, url: str) -> str:
        places = [p for p in (self.home, *self.allow) if scheme(p)]
        if is_plain(url) and any(_is_below(url, place) for place in places):
            return url
        raise self._outside(url, url.partition("?")[0].rpartition("/")[0])

    def _path(self, text: str) -> str:
        if scheme(self.home):  # the references are from the web
            raise self._outside(text, os.path.dirname(text))
        folders = [p for p in self.allow if not scheme(p)]
        # Windows sends the password of the user to a server in a path, even for a look at it
        is_on_server = text.replace("\\", "/").startswith("//")
        if is_on_server and not any(Path(text).is_relative_to(p) for p in folders):
            raise self._outside(text, text)
        real = real_path(text if scheme(text) else os.path.join(self.home, text))
        if any(within(real, real_path(p)) for p in folders):
            return str(real)
        home = real_path(self.home)
        if within(real, home) and not any(
            part.startswith(".") for part in Path(os.path.relpath(real, home)).parts
        ):
            return str(real)
        raise self._outside(text, str(real.parent))

    def _outside(self, text: str, folder: str) -> SourceError:
        return SourceError(
            f"{scrub(self.location)} refers to {scrub(text)[:200]}, which is not a file below "
            f"{scrub(self.home)}; if it may be read, list its folder: gm.open_cube(path, "
            f"allow=['{scrub(folder)[:200]}']), in a catalog allow: ['{scrub(folder)[:200]}']"
        )

    def read(self, text: Any, start: Any = 0, size: Any = None, *, limit: int = MAX_BLOCK) -> bytes:
        """Return bytes of a file that a reference names, at most ``limit``; the entire file without ``size``."""
        address = self.address(text)
        numbers = [start, *([] if size is None else [size])]
        if any(isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in numbers):
            raise SourceError(
                f"{scrub(self.location)} refers to {size!r} bytes from {start!r} of {scrub(text)[:200]}, which "
                "are no numbers of bytes; write the references again"
            )
        size_of = _size_of(address) if size is None else size
        self.check_size(size_of, limit)
        data = self._bytes(address, start, size_of)
        if len(data) != size_of:
            raise SourceError(
                f"{scrub(address)} has {len(data):,} of {size_of:,} bytes from byte {start:,}: it has changed "
                "since the references were written; write them again"
            )
        return data

    def check_size(self, size: int, limit: int) -> None:
        """Refuse the bytes of a chunk that are more than its values can need."""
        if size > limit:
            raise SourceError(
                f"{scrub(self.location)} has a chunk of {size:,} bytes, more than the {limit:,} that its values can "
                "need; write the references again, with chunks of at most 512 x 512 cells"
            )

    def _bytes(self, address: str, start: int, size: int) -> bytes:
        kind = scheme(address)
        if not size:
            return b""
        if kind in REMOTE:
            hosts = tuple(host_of(p) for p in (self.home, *self.allow) if scheme(p))
            first, body, _ = fetch_range(address, (start, start + size), AllowList(hosts))
            return body[start - first : start - first + size]
        if kind:
            data: bytes = _bucket(kind).cat_file(address, start=start, end=start + size)
            return data
        with regular_file(address, error=SourceError).open("rb") as file:
            file.seek(start)
            return file.read(size)


def _size_of(address: str) -> int:
    """Return the size of a file in bytes."""
    kind = scheme(address)
    if kind in REMOTE:
        hosts = AllowList((host_of(address),))
        return fetch_range(address, (0, 1), hosts)[2]
    return int(_bucket(kind).size(address)) if kind else os.stat(regular_file(address)).st_size


def _bucket(kind: str) -> Any:
    """Return the file system of an object store, with the settings of its package and of fsspec."""
    import fsspec

    return fsspec.filesystem(kind)


def _is_below(url: str, place: str) -> bool:
    """Return whether a URL lies at or below another one."""
    parts, of_place = urlsplit(url), urlsplit(place)
    path = unquote(parts.path)
    is_same = (parts.scheme.lower(), parts.netloc) == (of_place.scheme.lower(), of_place.netloc)
    folder = unquote(of_place.path).rstrip("/") + "/"
    return is_same and ".." not in path.split("/") and f"{path}/".startswith(folder)
