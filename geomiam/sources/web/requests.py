"""HTTP requests with deadlines, limits of size, retries, and redirects to allowed hosts only."""

from __future__ import annotations

import email.utils
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import urljoin

import requests
from requests.adapters import HTTPAdapter

from geomiam.errors import SourceError
from geomiam.sources.web.allow_list import REMOTE, AllowList, host_of, scheme, scrub

BUSY = (408, 425, 429, 500, 502, 503, 504)
"""Status codes after which a request is repeated."""
HOPS = 5
"""Most redirects that are followed."""
LONGEST_WAIT = 60.0
"""Most seconds of ``Retry-After`` before one attempt."""
PATIENCE = 180.0
"""Most seconds of such waits for one request."""
PIECE = 2**16


class NoResponse(SourceError):
    """A server returns no usable response; ``status`` is its code, 0 without one."""

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class Limits:
    """Limits of time in seconds, and of size in bytes."""

    pauses: tuple[float, ...]  # before each attempt; its length is the number of attempts
    seconds: float  # until the last byte of a response
    size: int  # of a response, after decompression
    connect: float = 10.0  # until there is a connection


@dataclass(frozen=True)
class Request:
    """A request to a server; ``headers`` are sent to the first host only."""

    url: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    json: Any = None
    byte_range: tuple[int, int] | None = None


@dataclass(frozen=True)
class Response:
    """Status, headers and body of a response."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def send(request: Request, *, allow_list: AllowList, limits: Limits) -> Response:
    """Return the response to a request, which is repeated after temporary failures.

    ``Retry-After`` is respected, up to a minute for an attempt.
    """
    attempts, total_wait = iter(limits.pauses), 0.0
    time.sleep(next(attempts, 0.0))
    while True:
        response: Response | None = None
        line = ""
        try:
            response = with_deadline(limits.seconds, lambda: _exchange(request, allow_list, limits))
        except TimeoutError:
            line = f"no complete response within {limits.seconds:g} s from {scrub(request.url)}"
        except (requests.RequestException, OSError) as error:
            line = f"{type(error).__name__}: {scrub(error)[:200]} ({scrub(request.url)})"
        if response is not None and 200 <= response.status < 300:
            return response
        if response is not None and response.status not in BUSY:
            raise _refused(response, request)
        wait = _retry_after(response)
        pause = next(attempts, None) if wait is None or total_wait > PATIENCE else 0.0
        if pause is None or (wait or 0.0) > LONGEST_WAIT:
            if response is None:
                raise NoResponse(line)
            detail = f", which requires a wait of {wait:g} s" if wait else ""
            raise _refused(response, request, detail)
        # a server that always requires 0 s must not be repeated forever
        total_wait += max(wait or 0.0, 1.0)
        time.sleep(max(pause, wait or 0.0))


def with_deadline(seconds: float, work: Callable[[], Any]) -> Any:
    """Return the result of a function, or raise its error or TimeoutError within some seconds.

    Timeouts of sockets apply between two bytes; a server that sends one byte a second never exceeds
    them. The thread of a function that takes longer continues.
    """
    results: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(1)

    def run() -> None:
        try:
            results.put((work(), None))
        except BaseException as error:
            results.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        value, error = results.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"not within {seconds:g} s") from None
    if error is not None:
        raise error
    return value


def _exchange(request: Request, allow_list: AllowList, limits: Limits) -> Response:
    """Send a request and follow its redirects, each to an allowed host."""
    url, method = request.url, request.method
    byte_range = {}
    if request.byte_range:
        start, stop = request.byte_range
        byte_range = {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
    for _ in range(HOPS + 1):
        if refusal := allow_list.refusal(url):
            raise NoResponse(f"{scrub(url)} is refused: {refusal}")
        if scheme(url) not in REMOTE or (scheme(request.url), scheme(url)) == REMOTE[::-1]:
            raise NoResponse(f"{scrub(url)} is refused: a redirect from {scheme(request.url)}")
        headers = dict(request.headers) if host_of(url) == host_of(request.url) else {}
        with _session(os.getpid()).request(
            method,
            url,
            headers={**headers, **byte_range},
            json=request.json if method == "POST" else None,
            timeout=(min(limits.connect, limits.seconds), limits.seconds),
            allow_redirects=False,
            stream=True,
        ) as response:
            if not response.is_redirect:
                return _read(response, request, limits)
            method = "GET" if response.status_code == 303 else method
            url = urljoin(url, response.headers["location"])
            # a redirect is no link of the user: it may lead to the same host and to listed ones only
            allow_list = AllowList((host_of(request.url), *allow_list.hosts))
    raise NoResponse(f"{scrub(request.url)} has more than {HOPS} redirects")


@cache
def _session(process: int) -> Any:
    """Return the session of this process: connections do not survive a fork."""
    session = requests.Session()
    for prefix in ("http://", "https://"):
        session.mount(prefix, HTTPAdapter(pool_maxsize=32))
    return session


def _read(response: Any, request: Request, limits: Limits) -> Response:
    """Read a body; it is refused as soon as it exceeds the limit."""
    parts, size = [], 0
    for part in response.iter_content(PIECE):
        size += len(part)
        if size > limits.size:
            raise NoResponse(
                f"the response of {scrub(request.url)} is larger than {limits.size / 2**20:g} MiB"
            )
        parts.append(part)
    return Response(response.status_code, response.headers, b"".join(parts))


def _refused(response: Response, request: Request, detail: str = "") -> NoResponse:
    text = scrub(response.body[:200].decode("utf-8", "replace").strip())
    body = f": {text}" if text and "<" not in text else ""
    message = f"HTTP {response.status} from {scrub(request.url)}{detail}{body}"
    return NoResponse(message, response.status)


def _retry_after(response: Response | None) -> float | None:
    """Return the seconds of ``Retry-After``, which is a number or a date."""
    value = "" if response is None else str(response.headers.get("Retry-After") or "").strip()
    if value.isdigit():
        return float(value)
    try:
        moment = email.utils.parsedate_to_datetime(value)
        return max(0.0, moment.timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None
