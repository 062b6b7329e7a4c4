"""Requests with an end: deadlines, limits of size, retries, and redirects only to hosts that are allowed."""

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

from geomiam.errors import SourceError
from geomiam.sources.web.allowed import REMOTE, Reach, along, host_of, scheme
from geomiam.sources.web.text import scrub

BUSY = (408, 425, 429, 500, 502, 503, 504)
"""Answers after which asking again may help."""
HOPS = 5
"""Redirects that are followed."""
LONGEST_WAIT = 60.0
"""Seconds that a server may ask to wait before one attempt."""
PATIENCE = 180.0
"""Seconds of such waits altogether, for one request."""
PIECE = 2**16


class Unanswered(SourceError):
    """A server gives no usable answer; ``status`` is its code, 0 without one."""

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class Limits:
    """How long and how much.

    Attributes
    ----------
    pauses
        Seconds before each attempt, so as many attempts.
    seconds
        That an answer may take, from the first to the last byte.
    connect
        Seconds until there is a connection.
    size
        Bytes of an answer, after decompression.
    """

    pauses: tuple[float, ...]
    seconds: float
    size: int
    connect: float = 10.0


@dataclass(frozen=True)
class Request:
    """What is asked of a server; ``headers`` go to the first host only."""

    url: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    json: Any = None
    byte_range: tuple[int, int] | None = None


@dataclass(frozen=True)
class Answer:
    """Status, headers and body of an answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def ask(request: Request, *, reach: Reach, limits: Limits) -> Answer:
    """Return the answer to a request, asked again after failures that may pass.

    ``Retry-After`` is obeyed, up to a minute an attempt.

    Raises
    ------
    Unanswered
        When all attempts failed, an answer is too large, or a redirect is refused.
    """
    attempts, waited = iter(limits.pauses), 0.0
    time.sleep(next(attempts, 0.0))
    while True:
        answer, problem = _attempt(request, reach, limits)
        if answer is not None and answer.status not in BUSY:
            return _checked(answer, request)
        wait = _retry_after(answer)
        pause = next(attempts, None) if wait is None or waited > PATIENCE else 0.0
        if pause is None or (wait or 0.0) > LONGEST_WAIT:
            wait_text = f", which asks to wait {wait:g} s" if wait else ""
            raise problem or _refused(answer, request, wait_text)
        waited += max(wait or 0.0, 1.0)  # a wait of nothing must come to an end too
        time.sleep(max(pause, wait or 0.0))


def _attempt(
    request: Request, reach: Reach, limits: Limits
) -> tuple[Answer | None, Unanswered | None]:
    import requests

    try:
        return within(limits.seconds, lambda: _exchange(request, reach, limits)), None
    except TimeoutError:
        line = f"no complete answer within {limits.seconds:g} s from {scrub(request.url)}"
    except (requests.RequestException, OSError) as error:
        line = f"{type(error).__name__}: {scrub(error)[:200]} ({scrub(request.url)})"
    return None, Unanswered(line)


def within(seconds: float, work: Callable[[], Any]) -> Any:
    """Return what a function returns, or raise what it raises, after at most so many seconds.

    Time limits of sockets count between two bytes; a server that sends one byte a second never
    reaches them.

    Raises
    ------
    TimeoutError
        When it takes longer; the thread is left behind.
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


def _exchange(request: Request, reach: Reach, limits: Limits) -> Answer:
    """Send a request and follow its redirects, each to an allowed host."""
    url, method = request.url, request.method
    for _ in range(HOPS + 1):
        if why := reach.refusal(url):
            raise Unanswered(f"{scrub(url)} is refused: {why}")
        if scheme(url) not in REMOTE or (scheme(request.url), scheme(url)) == REMOTE[::-1]:
            raise Unanswered(f"{scrub(url)} is refused: {scheme(request.url)} leads to it")
        with _send(request, url, method, limits) as response:
            if not response.is_redirect:
                return _read(response, request, limits)
            method = "GET" if response.status_code == 303 else method
            url, reach = urljoin(url, response.headers["location"]), along(reach, request.url)
    raise Unanswered(f"{scrub(request.url)} leads through more than {HOPS} redirects")


def _send(request: Request, url: str, method: str, limits: Limits) -> Any:
    first, here = host_of(request.url), host_of(url)
    headers = dict(request.headers) if here == first else {}
    if request.byte_range:
        start, stop = request.byte_range
        headers |= {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
    return _session(os.getpid()).request(
        method,
        url,
        headers=headers,
        json=request.json if method == "POST" else None,
        timeout=(min(limits.connect, limits.seconds), limits.seconds),
        allow_redirects=False,
        stream=True,
    )


@cache
def _session(process: int) -> Any:
    """Return connections that are kept, of this process: they do not survive a fork."""
    import requests
    from requests.adapters import HTTPAdapter

    session = requests.Session()
    for prefix in ("http://", "https://"):
        session.mount(prefix, HTTPAdapter(pool_maxsize=32))
    return session


def _read(response: Any, request: Request, limits: Limits) -> Answer:
    """Read a body; one that is larger than the limit is refused while it comes."""
    parts, size = [], 0
    for part in response.iter_content(PIECE):
        size += len(part)
        if size > limits.size:
            raise Unanswered(
                f"the answer of {scrub(request.url)} is larger than {limits.size / 2**20:g} MiB"
            )
        parts.append(part)
    return Answer(response.status_code, response.headers, b"".join(parts))


def _checked(answer: Answer, request: Request) -> Answer:
    if not 200 <= answer.status < 300:
        raise _refused(answer, request)
    return answer


def _refused(answer: Answer | None, request: Request, more: str = "") -> Unanswered:
    assert answer is not None
    text = scrub(answer.body[:200].decode("utf-8", "replace").strip())
    about = f": {text}" if text and "<" not in text else ""
    where = scrub(request.url)
    return Unanswered(f"HTTP {answer.status} from {where}{more}{about}", answer.status)


def _retry_after(answer: Answer | None) -> float | None:
    """Return the seconds that a server asks to wait: a number, or a date."""
    value = "" if answer is None else str(answer.headers.get("Retry-After") or "").strip()
    if value.isdigit():
        return float(value)
    try:
        moment = email.utils.parsedate_to_datetime(value)
        return max(0.0, moment.timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None
