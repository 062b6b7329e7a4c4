"""GeoTIFFs opened for reading: local ones by GDAL, those of the web by ranges of bytes.

GDAL's own reader of web addresses follows redirects to any host and remembers failures for the life
of the process. Here each range is asked for by :mod:`geomiam.sources.web.requests`, and nothing is remembered.
"""

from __future__ import annotations

import io
import os
import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from geomiam.errors import SourceError
from geomiam.sources.web.allowed import REMOTE, Reach, host_of, scheme
from geomiam.sources.web.requests import Answer, Limits, Request, ask

GDAL = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_CONNECTTIMEOUT": "10",
    "GDAL_HTTP_TIMEOUT": "60",
    "GDAL_HTTP_MAX_RETRY": "3",
    "GDAL_HTTP_RETRY_DELAY": "0.5",
}
"""GDAL's settings for reading; environment variables of the same names go before."""
BLOCK = 2**15
"""Bytes of which ranges are multiples."""
AHEAD = 64
"""Blocks that are read ahead at most, where each read continues the one before."""
WHOLE = 2**27
"""Bytes of a file that may be read as a whole, from a server that answers no ranges."""


@contextmanager
def gdal() -> Any:
    """Set what reading over a network needs, wherever the user has not."""
    import rasterio

    with rasterio.Env(**{k: v for k, v in GDAL.items() if k not in os.environ}):
        yield


@dataclass(frozen=True)
class Access:
    """How files of one source are opened.

    Attributes
    ----------
    reach
        Hosts and files that may be opened.
    sign
        Makes a URL readable at the moment of reading.
    headers
        Sent to ``home``, and to no other host.
    home
        The host of the catalogue.
    """

    reach: Reach = field(default_factory=lambda: Reach(files=True, named=True))
    sign: Any = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    home: str = ""

    @contextmanager
    def open(self, href: str, **options: Any) -> Iterator[Any]:
        """Open a GeoTIFF; no other format, as others name further files.

        Options of the driver, such as ``overview_level``, are passed on.

        Raises
        ------
        SourceError, OSError
            When the file is refused, cannot be fetched, or is no GeoTIFF.
        """
        if why := self.reach.refusal(href):
            raise SourceError(why)
        where = self.sign(href) if self.sign and scheme(href) else href
        if scheme(href) in REMOTE:
            headers = self.headers if host_of(href) == self.home else {}
            with _by_ranges(where, self.reach, headers, options) as file:
                yield file
            return
        with gdal(), _fresh(where), _opened(where, **options) as file:
            yield file


@contextmanager
def _fresh(where: str) -> Any:
    """Do not let GDAL answer for a bucket from what it remembers of an earlier failure."""
    import rasterio

    kind, _, name = where.partition("://")
    if not name:
        yield
        return
    folder = {"az": "/vsiaz/", "abfs": "/vsiadls/"}.get(kind, f"/vsi{kind}/")
    with rasterio.Env(CPL_VSIL_CURL_NON_CACHED=folder + name.partition("?")[0]):
        yield


def _opened(where: str, **more: Any) -> Any:
    import rasterio

    return rasterio.open(where, driver="GTiff", sharing=False, **more)


@contextmanager
def _by_ranges(
    url: str, reach: Reach, headers: Mapping[str, str], options: Mapping[str, Any]
) -> Iterator[Any]:
    from rasterio.errors import RasterioError

    source = RemoteFile(url, reach, {**_headers(), **headers})
    source.fetch(0, BLOCK)
    try:
        with gdal(), _opened(f"{uuid.uuid4().hex}.tif", opener=source.opener, **options) as file:
            yield file
        if source.problem is not None:
            raise source.problem
    except (RasterioError, SystemError) as error:  # what GDAL reports of a read that failed
        if source.problem is not None:
            raise source.problem from None
        text = re.sub(r"['\"]?/vsi\S+|\w+\.tif:?['\"]?", "", str(error)).strip()
        raise OSError(f"no GeoTIFF, or a damaged one: {text}") from None


def _headers() -> dict[str, str]:
    """Return the headers that the environment variable of GDAL asks for."""
    pairs = (h.partition(":") for h in os.environ.get("GDAL_HTTP_HEADERS", "").split(","))
    return {k.strip(): v.strip() for k, colon, v in pairs if colon}


def _limits(size: int) -> Limits:
    number = {k: float(os.environ.get(f"GDAL_HTTP_{k}", GDAL[f"GDAL_HTTP_{k}"])) for k in _NUMBERS}
    delays = [number["RETRY_DELAY"] * 2**n for n in range(int(number["MAX_RETRY"]))]
    return Limits((0.0, *delays), number["TIMEOUT"], size, number["CONNECTTIMEOUT"])


_NUMBERS = ("CONNECTTIMEOUT", "TIMEOUT", "MAX_RETRY", "RETRY_DELAY")


class RemoteFile:
    """The bytes of a file on a web server, fetched when they are read.

    ``problem`` is the first failure: a reader inside GDAL must not raise.
    """

    def __init__(self, url: str, reach: Reach, headers: Mapping[str, str]) -> None:
        self._url, self._reach, self._headers = url, reach, headers
        self._blocks: dict[int, bytes] = {}
        self._next, self._ahead = 0, 1
        self.size = 0
        self.problem: Exception | None = None

    def opener(self, path: str, mode: str = "rb", **_: Any) -> io.RawIOBase:
        """Return a view of the file with a separate position, as rasterio needs it."""
        return _View(self)

    def read(self, start: int, stop: int) -> bytes:
        """Return bytes, fewer at the end of the file and none after a failure."""
        stop = min(stop, self.size)
        first, last = start // BLOCK, -(-stop // BLOCK)
        lacking = [n for n in range(first, last) if n not in self._blocks]
        if self.problem is None and lacking:
            try:
                self.fetch(lacking[0] * BLOCK, self._end(lacking[0], lacking[-1] + 1) * BLOCK)
            except Exception as error:
                self.problem = error
        if self.problem is not None or stop <= start:
            return b""
        joined = b"".join(self._blocks[n] for n in range(first, last))
        return joined[start - first * BLOCK : stop - first * BLOCK]

    def _end(self, first: int, last: int) -> int:
        """Return where to stop: further ahead each time that a read continues the one before."""
        self._ahead = min(2 * self._ahead, AHEAD) if first == self._next else 1
        self._next = max(last, first + self._ahead)
        return self._next

    def fetch(self, start: int, stop: int) -> None:
        """Fetch a range, of whole blocks.

        Raises
        ------
        SourceError, OSError
            When the server does not answer, or not with this range.
        """
        stop = min(stop, self.size) if self.size else stop
        request = Request(self._url, headers=self._headers, byte_range=(start, stop))
        answer = ask(request, reach=self._reach, limits=_limits(WHOLE))
        if answer.status == 206:
            self._keep(answer, start, stop)
        else:
            self._cut(answer.body, 0)
            self.size = len(answer.body)

    def _keep(self, answer: Answer, start: int, stop: int) -> None:
        """Keep the blocks of a range, if it is the one that was asked for and of the same file."""
        stated = str(answer.headers.get("Content-Range", "")).removeprefix("bytes ")
        span, _, total = stated.partition("/")
        size = int(total) if total.isdigit() else 0
        end = min(stop, size)
        if span != f"{start}-{end - 1}" or len(answer.body) != end - start:
            raise OSError(f"the server answered range '{stated[:60]}' to {start}-{end - 1}")
        if self.size not in (0, size):
            raise OSError(f"the file changed while it was read, from {self.size} to {size} bytes")
        self.size = size
        self._cut(answer.body, start)

    def _cut(self, body: bytes, start: int) -> None:
        for at in range(0, len(body), BLOCK):
            self._blocks[(start + at) // BLOCK] = body[at : at + BLOCK]


class _View(io.RawIOBase):
    """A place in a remote file, with the methods of a file."""

    def __init__(self, file: RemoteFile) -> None:
        super().__init__()
        self._file, self._at = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_CUR: self._at, io.SEEK_END: self._file.size}.get(whence, 0)
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        stop = self._file.size if size < 0 else self._at + size
        part = self._file.read(self._at, stop)
        self._at += len(part)
        return part
