"""Opening GeoTIFFs: local files with GDAL, files of the web by ranges of bytes.

GDAL's reader of URLs follows redirects to any host and caches failures for the life of the process.
Here each range is requested by :mod:`geomiam.sources.web.requests`, without a cache.
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

import rasterio
from rasterio.errors import RasterioError

from geomiam.checks.files import regular_file
from geomiam.errors import SourceError
from geomiam.sources.web.allow_list import REMOTE, AllowList, host_of, scheme
from geomiam.sources.web.requests import Limits, Request, send

GDAL = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_CONNECTTIMEOUT": "10",
    "GDAL_HTTP_TIMEOUT": "60",
    "GDAL_HTTP_MAX_RETRY": "3",
    "GDAL_HTTP_RETRY_DELAY": "0.5",
}
"""GDAL's settings for reading; environment variables of the same names replace them."""
BLOCK = 2**15
"""Ranges are multiples of so many bytes."""
AHEAD = 64
"""Most blocks that are read ahead when reads are consecutive."""
WHOLE = 2**27
"""Most bytes of a file of a server that does not support ranges."""


@contextmanager
def gdal() -> Any:
    """Set GDAL's options for reading over a network, except those that the user has set."""
    with rasterio.Env(**{k: v for k, v in GDAL.items() if k not in os.environ}):
        yield


@dataclass(frozen=True)
class Access:
    """Settings for opening files of one source."""

    allow_list: AllowList = field(default_factory=lambda: AllowList(files=True, named=True))
    sign: Any = None  # function that signs a URL when a file is read
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)  # for home only
    home: str = ""  # host of the STAC catalog

    @contextmanager
    def open(self, href: str, **options: Any) -> Iterator[Any]:
        """Open a GeoTIFF; other formats are refused, since they can refer to further files.

        Options of the driver, such as ``overview_level``, are passed on.
        """
        if refusal := self.allow_list.refusal(href):
            raise SourceError(refusal)
        location = self.sign(href) if self.sign and scheme(href) else href
        options = {"driver": "GTiff", "sharing": False, **options}
        if scheme(href) in REMOTE:
            headers = self.headers if host_of(href) == self.home else {}
            source = RemoteFile(location, self.allow_list, headers)
            with _opened(source, options) as file:
                yield file
            return
        kind, _, name = location.partition("://")
        cache_options = {}
        if name:
            # GDAL's cache of a file in a bucket would repeat an earlier failure
            folder = {"az": "/vsiaz/", "abfs": "/vsiadls/"}.get(kind, f"/vsi{kind}/")
            cache_options = {"CPL_VSIL_CURL_NON_CACHED": folder + name.partition("?")[0]}
        with gdal(), rasterio.Env(**cache_options), rasterio.open(location, **options) as file:
            yield file


@contextmanager
def _opened(source: RemoteFile, options: Mapping[str, Any]) -> Iterator[Any]:
    """Open a file of the web; the first problem of a request replaces errors of GDAL."""
    source.fetch(0, BLOCK)
    name = f"{uuid.uuid4().hex}.tif"
    try:
        with gdal(), rasterio.open(name, opener=source.opener, **options) as file:
            yield file
        if source.problem is not None:
            raise source.problem
    except (RasterioError, SystemError) as error:  # GDAL reports failed reads by both
        if source.problem is not None:
            raise source.problem from None
        text = re.sub(r"['\"]?/vsi\S+|\w+\.tif:?['\"]?", "", str(error)).strip()
        raise OSError(f"not a GeoTIFF, or damaged: {text}") from None


@contextmanager
def open_bytes(path: str, allow_list: AllowList) -> Iterator[Any]:
    """Open a local file, or a file of the web by ranges of bytes, as a stream of bytes.

    Raises NoResponse or OSError if a file of the web cannot be read, in place of the error of its reader.
    """
    if scheme(path) not in REMOTE:
        with regular_file(path, error=SourceError).open("rb") as file:
            yield file
        return
    source = RemoteFile(path, allow_list, {})
    source.fetch(0, BLOCK)
    try:
        yield source.opener(path)
    finally:
        if source.problem is not None:
            raise source.problem from None


class RemoteFile:
    """The bytes of a file on a web server, fetched when they are read.

    ``problem`` is the first failure, since a reader inside GDAL must not raise errors.
    """

    def __init__(self, url: str, allow_list: AllowList, headers: Mapping[str, str]) -> None:
        pairs = (h.partition(":") for h in os.environ.get("GDAL_HTTP_HEADERS", "").split(","))
        of_gdal = {k.strip(): v.strip() for k, colon, v in pairs if colon}
        self._url, self._allow_list, self._headers = url, allow_list, {**of_gdal, **headers}
        self._blocks: dict[int, bytes] = {}
        self._next, self._ahead = 0, 1
        self.size = 0
        self.problem: Exception | None = None

    def opener(self, path: str, mode: str = "rb", **_: Any) -> io.RawIOBase:
        """Return a view of the file with a separate position, as rasterio requires."""
        return _View(self)

    def read(self, start: int, stop: int) -> bytes:
        """Return bytes: fewer at the end of the file, none after a failure."""
        stop = min(stop, self.size)
        first, last = start // BLOCK, -(-stop // BLOCK)
        lacking = [n for n in range(first, last) if n not in self._blocks]
        if self.problem is None and lacking:
            # twice as far ahead with each consecutive read
            self._ahead = min(2 * self._ahead, AHEAD) if lacking[0] == self._next else 1
            self._next = max(lacking[-1] + 1, lacking[0] + self._ahead)
            try:
                self.fetch(lacking[0] * BLOCK, self._next * BLOCK)
            except Exception as error:
                self.problem = error
        if self.problem is not None or stop <= start:
            return b""
        data = b"".join(self._blocks[n] for n in range(first, last))
        return data[start - first * BLOCK : stop - first * BLOCK]

    def fetch(self, start: int, stop: int) -> None:
        """Fetch a range of whole blocks, and check that range and file are the requested ones."""
        stop = min(stop, self.size) if self.size else stop
        start, body, size = fetch_range(self._url, (start, stop), self._allow_list, self._headers)
        if self.size not in (0, size):
            raise OSError(f"the file changed while it was read, from {self.size} to {size} bytes")
        self.size = size
        for at in range(0, len(body), BLOCK):
            self._blocks[(start + at) // BLOCK] = body[at : at + BLOCK]


def fetch_range(
    url: str, span: tuple[int, int], allow_list: AllowList, headers: Mapping[str, str] | None = None
) -> tuple[int, bytes, int]:
    """Return the first byte of a response, its bytes, and the size of the file; fewer bytes at its end.

    A server that does not support ranges sends the whole file. Raises OSError if it sends another range.
    """
    keys = ("CONNECTTIMEOUT", "TIMEOUT", "MAX_RETRY", "RETRY_DELAY")
    names = [f"GDAL_HTTP_{k}" for k in keys]
    connect, seconds, retries, delay = (float(os.environ.get(n, GDAL[n])) for n in names)
    pauses = (0.0, *(delay * 2**n for n in range(int(retries))))
    request = Request(url, headers=headers or {}, byte_range=span)
    start, stop = span
    limits = Limits(pauses, seconds, max(WHOLE, stop - start), connect)
    response = send(request, allow_list=allow_list, limits=limits)
    if response.status != 206:
        return 0, response.body, len(response.body)
    content_range = str(response.headers.get("Content-Range", "")).removeprefix("bytes ")
    range_in_file, _, total = content_range.partition("/")
    size = int(total) if total.isdigit() else 0
    end = min(stop, size)
    if range_in_file != f"{start}-{end - 1}" or len(response.body) != end - start:
        raise OSError(f"the server returned range '{content_range[:60]}' for {start}-{end - 1}")
    return start, response.body, size


class _View(io.RawIOBase):
    """A position in a remote file, with the methods of a file."""

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
