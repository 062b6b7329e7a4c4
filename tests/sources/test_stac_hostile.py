"""Hostile inputs of STAC, by the hundred: items, links, responses and files; none does damage.

Each input is put beside a good scene. Its outcome is one of

- ``handled``: the right pixels, or NaN with a line that names the scene;
- ``refused``: a GeomiamError;
- ``unclear``: any other error;
- ``silent``: wrong pixels without a word, or the good scene lost;
- ``damage``: more than so many seconds or bytes of memory, or a host contacted that nobody named.
"""

from __future__ import annotations

import collections
import contextlib
import gzip
import json
import os
import queue
import random
import threading
import time
import warnings

import dask
import numpy as np
import psutil
import pytest

import geomiam as gm

pytest.importorskip("odc.stac", reason="needs pip install 'geomiam[stac]'")
pytest.importorskip("pystac_client", reason="needs pip install 'geomiam[stac]'")

from helpers_stac import GRID, JUNE, answering, api_root, at, numbers, page, reply, scene

from geomiam.errors import GeomiamError
from geomiam.sources.stac import search

pytestmark = pytest.mark.slow

SHARE = float(os.environ.get("GEOMIAM_HOSTILE_SHARE", "0.1"))
"""Share of the inputs that are tried, drawn with a fixed seed; 1 takes some minutes."""
SECONDS, MEMORY = 60.0, 2**29
C1 = "sentinel-2-c1-l2a"
DEEP = json.loads("[" * 500 + "]" * 500)
NASTY = [
    *(None, "", "x", "\x00", "../../../etc/passwd", "A" * 50_000, "\ud800", "<script>", "%s{0}"),
    *(0, -1, 1, 2**63, 10**400, 1e308, -1e-308, float("nan"), float("inf"), True, False),
    *([], {}, [[]], [None], [1, 2], ["a"] * 4, [float("nan")] * 6, [1e308] * 6, DEEP),
    *({"href": "/dev/zero"}, {"type": "Point", "coordinates": [1e308, 1e308]}),
]
FIELDS = [
    *("id", "type", "stac_version", "stac_extensions", "collection", "links", "assets"),
    *("bbox", "geometry", "geometry.coordinates", "properties", "properties.datetime"),
    *("properties.eo:cloud_cover", "properties.s2:processing_baseline"),
    *("properties.s2:product_uri", "properties.s2:generation_time", "properties.s2:sequence"),
    *("properties.created", "properties.updated", "properties.proj:epsg", "properties.proj:code"),
    *("properties.proj:wkt2", "properties.proj:projjson", "properties.proj:shape"),
    *("properties.start_datetime", "properties.processing:level", "properties.s2:product_type"),
    *("properties.s2:snow_ice_percentage", "properties.earthsearch:boa_offset_applied"),
    *("assets.red", "assets.red.href", "assets.red.type", "assets.red.roles", "assets.red.gsd"),
    *("assets.red.eo:bands", "assets.red.raster:bands", "assets.red.raster:bands.0.scale"),
    *("assets.red.raster:bands.0.offset", "assets.red.proj:shape", "assets.red.proj:transform"),
    *("assets.red.proj:bbox", "assets.red.proj:epsg", "assets.scl.href", "assets.scl.proj:shape"),
    "assets.scl.proj:transform",
]


class Outcomes(collections.Counter):
    """Outcomes, and the inputs behind those that must not be."""

    def __init__(self):
        super().__init__()
        self.bad = []

    def add(self, name, outcome, text=""):
        self[outcome] += 1
        if outcome not in ("handled", "refused"):
            self.bad.append(f"{outcome}: {name}: {text}"[:300])

    def check(self):
        """No damage, nothing silent, fewer than one in a hundred unclear."""
        total = sum(self.values())
        verbose = f"{dict(self)}\n" + "\n".join(self.bad[:20])
        print(verbose)  # with pytest -s: the table of outcomes
        assert not self["damage"] and not self["silent"], verbose
        assert self["unclear"] < 0.01 * total or self["unclear"] == 0, verbose


def outcome(work, canary=lambda: 0):
    """Run one input: its outcome, and what happened."""
    results, process = queue.Queue(1), psutil.Process()
    before, peak, contacts = process.memory_info().rss, 0, canary()

    def run():
        try:
            results.put(("handled", work()))
        except GeomiamError as error:
            results.put(("refused", error))
        except AssertionError as error:
            results.put(("silent", error))
        except BaseException as error:
            results.put(("unclear", f"{type(error).__name__}: {error}"))

    threading.Thread(target=run, daemon=True).start()
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        peak = max(peak, process.memory_info().rss - before)
        with contextlib.suppress(queue.Empty):
            result = results.get(timeout=0.02)
            if peak > MEMORY:
                return "damage", f"{peak / 2**20:.0f} MiB"
            return ("damage", "another host was contacted") if canary() > contacts else result
    return "damage", f"more than {SECONDS:g} s"


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(search, "PAUSES", (0.0,))
    for name, value in {"MAX_RETRY": 0, "TIMEOUT": 2, "CONNECTTIMEOUT": 1}.items():
        monkeypatch.setenv(f"GDAL_HTTP_{name}", str(value))
    with warnings.catch_warnings(), dask.config.set(scheduler="synchronous"):
        warnings.simplefilter("ignore")
        yield


@pytest.fixture
def pair(tmp_path):
    """A good scene and another one, with their pixels."""
    good = scene(tmp_path, "good", bands={"red": numbers(1)})
    bad = scene(tmp_path, "bad", date="2020-06-02T10:50:00Z", bands={"red": numbers(2)})
    pixels = {n: numbers(i) * np.float32(1e-4) for i, n in enumerate(("good", "bad"), 1)}
    return good, bad, pixels


def compute(source, pixels, *, good=True, **settings):
    """Read a source and compare the pixels of each scene with what they are."""
    options = gm.sources.SceneOptions(**settings)
    lazy = gm.sentinel2(GRID, JUNE, bands=["red"], source=source, options=options)
    ds = lazy.compute()
    messages = " ".join(map(str, [*ds.attrs["failed_assets"], *ds.attrs["notes"]]))
    first = [np.allclose(v, pixels["good"], atol=1e-6) for v in ds.red.values]
    assert not good or any(first), "the good scene is lost"
    for values, same in zip(ds.red.values, first, strict=True):
        values_result = np.isfinite(values)
        right = np.allclose(values[values_result], pixels["bad"][values_result], atol=1e-6)
        assert same or right, "wrong pixels"
        assert same or values_result.all() or messages, "pixels are lost without a word"
    return ds.sizes["time"]


def put(item, field, value):
    """Return a copy of an item with one field replaced; numbers are places in lists."""
    copy = json.loads(json.dumps(item))
    *path, last = field.split(".")
    target = copy
    for key in path:
        target = target[int(key)] if key.isdigit() else target[key]
    target[last] = value
    return copy


def test_items(pair):
    good, bad, pixels = pair
    rng, results = random.Random(13), Outcomes()
    cases = [(f, v) for f in FIELDS for v in NASTY]
    for field, value in rng.sample(cases, round(260 * SHARE)):
        item = put(bad, field, value)
        result = outcome(lambda item=item: compute([good, item], pixels))
        results.add(f"{field} = {str(value)[:40]!r}", *result)
    for junk in [*NASTY, "good", [good], {"type": "Feature"}, object()]:
        result = outcome(lambda junk=junk: compute([good, junk], pixels))
        results.add(f"an item that is {str(junk)[:40]!r}", *result)
    results.check()


def hostile_links(folder, second):
    pipe = folder / "pipe"
    if not pipe.exists() and hasattr(os, "mkfifo"):
        os.mkfifo(pipe)
    return [
        *(f"{second}/bad/red.tif", f"{second.upper()}/bad/red.tif", f"{second}/?127.0.0.1"),
        *(second.replace("//", "//127.0.0.1@"), second.replace("//", "//127.0.0.1:1@")),
        *(second.replace("//", "//127.0.0.1\\@"), second.replace("//", "/ /"), f" {second}/x"),
        *("http://169.254.169.254/latest", "http://2852039166/", "http://[fe80::1]/x"),
        *("http://metadata.google.internal/x", "http://0.0.0.0:1/x", "http://[::]:1/x"),
        *("/dev/zero", "/dev/stdin", "/proc/self/environ", "file:///dev/zero", f"file://{pipe}"),
        *(
            str(pipe),
            "..",
            ".",
            "",
            "/",
            "//",
            "~",
            "-",
            "\x00",
            "a\nb",
            "A" * 10_000,
            "http:",
            "http://",
        ),
        *("/vsicurl/" + second, "/vsizip//a.zip", "/vsimem/x", "/vsistdin/", "vrt://" + second),
        *(
            f"GTIFF_DIR:1:/vsicurl/{second}",
            f"/vsicurl_streaming/{second}",
            f"zip+{second}/a.zip!x",
        ),
        *("ftp://127.0.0.1/x", "gopher://127.0.0.1/x", "javascript:alert(1)", "data:,x"),
        *(
            "s3://169.254.169.254/x",
            "http://127.0.0.1:99999/x",
            "http://127.0.0.1:x/",
            "http://[/x",
        ),
        *("<VRTDataset/>", '{"type": "proj:"}', "WMTS:" + second, "MVT:" + second),
    ]


def test_links_of_a_catalog(pair, tmp_path):
    good, bad, pixels = pair
    results, contacts = Outcomes(), []
    with answering(lambda h, b: contacts.append(h.path) or b"") as second:
        links = hostile_links(tmp_path, second.replace("127.0.0.1", "localhost"))
        current = {}

        def server(handler, body):
            url = f"http://{handler.headers['Host']}"
            link = current["link"]
            if handler.path.startswith("/turn"):
                return reply(handler, b"", 302, Location=link.encode("ascii", "ignore").decode())
            if handler.path == "/child.json":
                links = [{"rel": "child", "href": link}, {"rel": "item", "href": link}]
                return {"type": "Catalog", "id": "c", "links": links, "features": [at(good, url)]}
            if handler.path.endswith(".tif"):
                return (tmp_path / handler.path.lstrip("/")).read_bytes()
            if handler.path != "/search":
                return api_root(url)
            items = [at(good, url), put(at(bad, url), "assets.red.href", current["asset"])]
            return page(items, **({"href": link} if current["next"] else {}))

        with answering(server) as url:
            for link in random.Random(15).sample(links, round(SHARE * len(links))):
                ways = {
                    "asset": (link, False, url),
                    "redirect": (f"{url}/turn.tif", False, url),
                    "next page": (f"{url}/bad/red.tif", True, url),
                    "child": ("", False, f"{url}/child.json"),
                }
                for name, (asset, following, start) in ways.items():
                    current.update(link=link, asset=asset, next=following)
                    source = gm.StacSource(start, timeout=2, collection=C1)
                    result = outcome(
                        lambda source=source: compute(source, pixels), lambda: len(contacts)
                    )
                    results.add(f"{name} {link[:60]!r}", *result)
    results.check()


ABOUT = {"type": "Catalog", "id": "c", "stac_version": "1.0.0", "description": "x"}


def hostile_responses(good):
    """What a server may answer: JSON, bytes, or a function of the request."""
    text = json.dumps(good).encode()
    bomb = gzip.compress(b" " * 2**28)
    plain = [
        None,
        0,
        "x",
        [],
        [[]],
        DEEP,
        {},
        ABOUT,
        {**ABOUT, "links": 3},
        {**ABOUT, "links": [3]},
    ]
    plain += [
        {**ABOUT, "links": [{"rel": "child", "href": v}]} for v in (3, None, [], {}, "?", "#")
    ]
    plain += [
        {"type": "FeatureCollection", "features": v} for v in (3, None, "x", {}, [3, [], None])
    ]
    plain += [page([good], href=v) for v in (3, None, [], {}, "", "x", "/search?a=1")]
    plain += [page([good], href="/search", body=v) for v in (3, "x", [], DEEP)]
    plain += [page([good], href="/search", method=v) for v in ("DELETE", 3, None, "GET\r\nX: y")]
    plain += [page([good], href="/search", headers=v) for v in (3, {"a\r\nb": "c"}, {"Host": "x"})]
    plain += [{**api_root("x"), "conformsTo": v} for v in (3, None, "x", [None], DEEP)]
    raw = [b"", b"<html>", b"\xff\xfe", b"{", b"[" * 200_000, text[: len(text) // 2], b"NaN"]
    raw += [b'{"a":' * 100_000, b"9" * 100_000, b'"' + b"a" * 2**20 + b'"', text + b"x"]
    special = [
        lambda h: reply(h, bomb, Content_Encoding="gzip"),
        lambda h: reply(h, b"x" * 99, Content_Encoding="gzip"),
        lambda h: reply(h, text, Content_Type="text/html; charset=no-such"),
        lambda h: reply(h, b"", 302, Location=h.path),
        lambda h: reply(h, b"", 302, Location="http://[x"),
        lambda h: reply(h, b"", 302),
        *(lambda h, s=s: reply(h, b"x", s) for s in (204, 206, 304, 401, 404, 418, 500, 599)),
        *(lambda h, v=v: reply(h, b"x", 503, Retry_After=v) for v in ("-1", "x", "1e9", "9" * 400)),
        lambda h: h.wfile.write(b"rubbish\r\n\r\n"),
        lambda h: h.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\nx"),
        lambda h: h.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nx"),
        lambda h: h.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 5000 + b"\r\n{}"),
        lambda h: h.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        _drip,
        _endless,
    ]
    return plain + raw, special


def _drip(handler):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n")
    with contextlib.suppress(OSError):
        for _ in range(60):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.1)


def _endless(handler):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
    with contextlib.suppress(OSError):
        for _ in range(4096):
            handler.wfile.write(b" " * 2**20)


def test_responses_of_a_catalog(pair, tmp_path):
    good, _, pixels = pair
    results, current = Outcomes(), {}

    def server(handler, body):
        url = f"http://{handler.headers['Host']}"
        if handler.path.endswith(".tif"):
            return (tmp_path / handler.path.lstrip("/")).read_bytes()
        if current["search"] and handler.path != "/search":
            return api_root(url)
        answer = current["answer"]
        if callable(answer):
            return answer(handler)
        return reply(handler, answer if isinstance(answer, bytes) else json.dumps(answer).encode())

    with answering(server) as url:
        plain, special = hostile_responses(at(good, url))
        answers = [*plain, *special]
        for answer in random.Random(16).sample(answers, round(SHARE * len(answers))):
            for search in (True, False):
                current.update(answer=answer, search=search)
                source = gm.StacSource(url, C1, timeout=2)
                result = outcome(lambda source=source: compute(source, pixels, good=False))
                results.add(f"search {search}: {str(answer)[:60]!r}", *result)
    results.check()


def test_files(pair, tmp_path):
    """Damaged files may hold other pixels than they did; they must not do harm or be unclear."""
    good, bad, pixels = pair
    rng, results, current = random.Random(14), Outcomes(), {}
    full = (tmp_path / "bad" / "red.tif").read_bytes()

    def server(handler, body):
        if not handler.path.endswith("bad/red.tif"):
            return (tmp_path / handler.path.lstrip("/")).read_bytes()
        data, headers = current["file"]
        return reply(handler, data, 206 if headers else 200, **headers)

    size = len(full)
    spans = [
        "bytes 0-0/1",
        f"bytes 0-{size - 1}/{size}",
        f"bytes 0-{size - 1}/{10**15}",
        "x",
        "*/0",
    ]
    files = [
        (full, {"Content_Range": s}) for s in [*spans, "bytes */*", "bytes 0-99/" + "9" * 5000]
    ]
    files += [(full[:n], {}) for n in (0, 4, 8, 100, 500, size // 2, size - 1)]
    files += [(b"II*\0" + bytes(99), {}), (b"<VRTDataset/>", {}), (b"PK\3\4" + bytes(99), {})]
    for _ in range(round(120 * SHARE)):
        data = bytearray(full)
        for _ in range(rng.choice((1, 4, 16))):
            data[rng.randrange(8, 700)] = rng.randrange(256)
        files.append((bytes(data), {}))
    with answering(server) as url:
        items = [at(good, url), at(bad, url)]
        for number, file in enumerate(files):
            current["file"] = file
            kind, text = outcome(lambda: compute(items, pixels))
            damaged_file = kind == "silent" and "wrong pixels" in str(text)
            results.add(f"file {number}", "handled" if damaged_file else kind, text)
    results.check()
