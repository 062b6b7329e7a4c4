"""Searches and files when servers are slow, busy, endless or gone; and after they are well again."""

from __future__ import annotations

import json
import os
import socket
import struct
import time

import numpy as np
import pytest

import geomiam as gm

pytest.importorskip("odc.stac", reason="needs pip install 'geomiam[stac]'")
pytest.importorskip("pystac_client", reason="needs pip install 'geomiam[stac]'")

from helpers_servers import write_stac_catalog
from helpers_stac import (
    GRID,
    JUNE,
    answering,
    api_root,
    at,
    careless_api,
    numbers,
    page,
    read,
    reply,
    scene,
)

from geomiam.errors import AssetsFailed, NoScenes, SourceError
from geomiam.sources.scenes.read import SeriesQuery, scene_request
from geomiam.sources.scenes.sentinel2 import SCL, SENTINEL2
from geomiam.sources.stac import search
from geomiam.sources.stac.stac_source import StacSource
from geomiam.sources.web import requests as web

C1 = "sentinel-2-c1-l2a"


def several(folder, count=6):
    """Items of one scene on several days, and no file at all."""
    item = scene(folder, "s")
    items = []
    for day in range(count):
        copy = json.loads(json.dumps(item))
        copy["id"], copy["properties"]["datetime"] = f"s{day}", f"2020-06-{day + 1:02d}T10:50:00Z"
        items.append(at(copy, "http://127.0.0.1:9"))
    return items


class Api:
    """An API with pages of two items; ``fault`` may answer a search in its place."""

    def __init__(self, items, fault=lambda number, handler, body: None):
        self.items, self.fault, self.searches, self.bodies = items, fault, 0, []

    def __call__(self, handler, body):
        url = f"http://{handler.headers['Host']}"
        if handler.path != "/search":
            return api_root(url)
        self.searches += 1
        self.bodies.append(body)
        if self.fault(self.searches, handler, body):
            return None
        start = int(body.get("token", 0))
        options = {"href": f"{url}/search", "body": {"token": start + 2}}
        return page(
            self.items[start : start + 2], **(options if start + 2 < len(self.items) else {})
        )


def found(url, **settings):
    plan = gm.plan_sentinel2(GRID, JUNE, bands="red", source=StacSource(url, C1, **settings))
    return len(plan.scenes)


def busy(handler, seconds):
    reply(handler, {"message": "busy"}, 503, Retry_After=seconds)
    return True


# Pages -------------------------------------------------------------------------------------------


def test_a_page_that_fails_is_requested_again_after_the_wait_that_the_server_requests(tmp_path):
    moments = []

    def fault(number, handler, body):
        moments.append(time.monotonic())
        return number == 2 and busy(handler, "1")

    api = Api(several(tmp_path), fault)
    with answering(api) as url:
        assert found(url) == 6
    assert [b.get("token", 0) for b in api.bodies] == [0, 2, 2, 4]  # no page twice but the failed
    assert moments[2] - moments[1] >= 1


def test_more_waits_are_obeyed_than_there_are_attempts(tmp_path, monkeypatch):
    monkeypatch.setattr(search, "PAUSES", (0.0,))
    api = Api(several(tmp_path), lambda n, handler, body: n <= 3 and busy(handler, "0"))
    with answering(api) as url:
        assert found(url) == 6


@pytest.mark.parametrize("seconds", ["100000", "Fri, 31 Dec 2999 23:59:59 GMT"])
def test_a_server_that_requests_to_wait_too_long_is_named(tmp_path, seconds):
    api = Api([], lambda n, handler, body: busy(handler, seconds))
    with answering(api) as url, pytest.raises(SourceError, match=r"HTTP 503.*requires a wait"):
        found(url)
    assert api.searches == 1


def test_waits_of_nothing_come_to_an_end(tmp_path, monkeypatch):
    monkeypatch.setattr(web, "PATIENCE", 3.0)
    monkeypatch.setattr(search, "PAUSES", (0.0, 0.01))
    api = Api([], lambda n, handler, body: busy(handler, "0"))
    with answering(api) as url, pytest.raises(SourceError, match="HTTP 503"):
        found(url)
    assert api.searches < 10


def test_what_a_server_refuses_is_not_requested_again(tmp_path):
    def refuse(number, handler, body):
        reply(handler, {"description": "no such field"}, 403)
        return True

    api = Api([], refuse)
    with answering(api) as url, pytest.raises(SourceError, match=r"HTTP 403.*no such field"):
        found(url)
    assert api.searches == 1


def test_a_page_size_that_is_refused_is_made_smaller(tmp_path):
    def refuse(number, handler, body):
        return body["limit"] > 100 and (reply(handler, {"description": "limit"}, 400) or True)

    api = Api(several(tmp_path), refuse)
    with answering(api) as url:
        assert found(url) == 6
    assert [b["limit"] for b in api.bodies] == [250, 100, 100, 100]


@pytest.mark.parametrize("token", [lambda n: 0, lambda n: n % 2])
def test_pages_that_repeat_end_the_search(tmp_path, token):
    items, count = several(tmp_path, 2), []

    def server(handler, body):
        url = f"http://{handler.headers['Host']}"
        if handler.path != "/search":
            return api_root(url)
        count.append(1)
        return page(items, href=f"{url}/search", body={"token": token(len(count))})

    with answering(server) as url, pytest.raises(SourceError, match="its pages repeat"):
        found(url)
    assert len(count) <= 4


def test_pages_without_end_end_the_search(tmp_path, monkeypatch):
    monkeypatch.setattr(search, "PAGES", 10)
    items, count = several(tmp_path, 1), []

    def server(handler, body):
        url = f"http://{handler.headers['Host']}"
        if handler.path != "/search":
            return api_root(url)
        count.append(1)
        return page(items, href=f"{url}/search", body={"token": len(count)})

    with answering(server) as url, pytest.raises(SourceError, match="its pages do not end"):
        found(url)
    assert len(count) == 10


def test_an_answer_without_end_is_ended_by_its_size_and_by_its_time(monkeypatch):
    monkeypatch.setattr(search, "SIZE", 2**16)
    monkeypatch.setattr(search, "PAUSES", (0.0,))

    def slowly(handler, body):
        handler.send_response(200)
        handler.send_header("Content-Length", "60")
        handler.end_headers()
        for _ in range(30):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.1)

    for answer, message in [(lambda h, b: b" " * 2**20, "larger"), (slowly, "within 0.5 s")]:
        with answering(answer) as url, pytest.raises(SourceError, match=message):
            read(StacSource(f"{url}/catalog.json", timeout=0.5))


def test_items_of_other_collections_are_left_out(tmp_path):
    items = several(tmp_path, 2)
    items[1]["collection"] = "landsat-c2-l2"
    with careless_api(items) as url:
        plan = gm.plan_sentinel2(GRID, JUNE, bands="red", source=StacSource(url, C1))
        assert plan.scenes["id"].tolist() == ["s0"]
        assert "1 items of other collections" in plan.notes[0]
        with pytest.raises(NoScenes, match="2 items of other collections"):
            read(StacSource(url, "sentinel-2-l2a"))


def test_both_sides_of_the_antimeridian_are_searched(tmp_path):
    from affine import Affine
    from odc.geo.geobox import GeoBox

    grid = GeoBox((9, 30), Affine(0.1, 0, 178.5, 0, -0.1, -17), "EPSG:4326")
    api = Api([])
    with answering(api) as url, pytest.raises(NoScenes):
        gm.plan_sentinel2(grid, JUNE, bands="red", source=StacSource(url, C1))
    boxes = [body["bbox"] for body in api.bodies]
    assert [[round(v, 3) for v in (b[0], b[2])] for b in boxes] == [[178.5, 180], [-180, -178.5]]


# Kinds of sources ---------------------------------------------------------------------------------


def test_items_may_come_in_every_form(tmp_path):
    import pystac
    import pystac_client

    item = scene(tmp_path, "s")
    collection = {"type": "FeatureCollection", "features": [item]}
    for name, data in (("one.json", item), ("many.geojson", collection), ("all.json", collection)):
        (tmp_path / name).write_text(json.dumps(data), "utf-8")
    real = pystac.Item.from_dict(item)
    sources = [item, collection, real, pystac.ItemCollection([real]), iter([real]), (item,)]
    sources += [tmp_path / "one.json", str(tmp_path / "many.geojson")]
    sources += [(tmp_path / "all.json").as_uri()]
    with careless_api([item]) as url:
        sources.append(pystac_client.Client.open(url).search(collections=[C1]))
        for source in sources:
            assert read(source).sizes["time"] == 1
    with answering(lambda h, b: collection) as url:
        assert read(f"{url}/items.json").sizes["time"] == 1


@pytest.mark.parametrize(
    "source", [{}, {"type": "Catalog"}, 3, None, "{'type': 'Feature'}", "x" * 9999]
)
def test_other_things_are_refused(source):
    with pytest.raises(SourceError, match="source="):
        read(source)


def test_a_tree_may_be_deep_and_without_collections(tmp_path):
    import pystac

    items = [scene(tmp_path / "f", f"s{i}", date=f"2020-06-0{i + 1}T10:50:00Z") for i in range(3)]
    for top in (None, C1):
        folder = tmp_path / str(top)
        root = pystac.Catalog("root", "root")
        below = root
        if top:
            extent = pystac.Extent.from_items([pystac.Item.from_dict(i) for i in items])
            below = pystac.Collection(top, "scenes", extent)
            root.add_child(below)
        for year, part in (("2020", items[:2]), ("2021", items[2:])):
            child = pystac.Catalog(year, year)
            below.add_child(child)
            child.add_items([pystac.Item.from_dict({**i, "collection": top}) for i in part])
        root.normalize_hrefs(str(folder))
        root.save(pystac.CatalogType.SELF_CONTAINED)
        assert read(str(folder)).sizes["time"] == 3
    assert read(str(folder / C1 / "collection.json")).sizes["time"] == 3


def test_a_document_that_cannot_be_read_is_named_and_the_rest_is_read(tmp_path):
    items = [scene(tmp_path / "f", f"s{i}", date=f"2020-06-0{i + 1}T10:50:00Z") for i in range(3)]
    write_stac_catalog(tmp_path / "c", items)
    path = tmp_path / "c" / C1 / "s1" / "s1.json"
    for text in (None, '{"type": "Fea', "[]", "[" * 100_000):
        path.unlink() if text is None else path.write_text(text)
        with pytest.warns(AssetsFailed, match="s1.json cannot be read"):
            assert list(read(str(tmp_path / "c")).item_id.values) == ["s0", "s2"]


def test_links_in_circles_and_without_end_come_to_an_end(tmp_path, monkeypatch):
    monkeypatch.setattr(search, "DOCUMENTS", 50)
    about = {"type": "Catalog", "stac_version": "1.0.0", "description": "x", "id": "c"}
    circle = {**about, "links": [{"rel": "child", "href": h} for h in ("./a.json", "./b.json")]}
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text(json.dumps(circle))
    with pytest.raises(NoScenes):
        read(str(tmp_path / "a.json"))

    def endless(handler, body):
        number = int(handler.path.strip("/").partition(".")[0] or 0)
        return {**about, "links": [{"rel": "child", "href": f"/{number + 1}.json"}]}

    with answering(endless) as url, pytest.raises(SourceError, match="its links do not end"):
        read(f"{url}/0.json")


# Files -------------------------------------------------------------------------------------------


def cut(handler, body):
    """Send half of a body, then reset the connection."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[: len(body) // 2])
    handler.wfile.flush()
    time.sleep(0.1)
    linger = struct.pack("ii", 1, 0)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    handler.close_connection = True
    os.close(handler.connection.detach())


class Server:
    """Files with ranges; the first ``times`` requests for ``name`` are handled by ``fault``."""

    def __init__(self, folder, name, fault, times):
        self.folder, self.name, self.fault, self.left = folder, name, fault, times
        self.ranges = []

    def __call__(self, handler, _):
        body = (self.folder / handler.path.lstrip("/")).read_bytes()
        if handler.path.endswith(self.name) and self.left > 0:
            self.left -= 1
            return self.fault(handler, body)
        expected_result = handler.headers.get("Range", "")
        self.ranges.append((handler.path, expected_result))
        first, last = (int(v) for v in expected_result.removeprefix("bytes=").split("-"))
        last = min(last, len(body) - 1)
        span = f"bytes {first}-{last}/{len(body)}"
        return reply(handler, body[first : last + 1], 206, Content_Range=span)


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0.01")


@pytest.mark.parametrize(
    "fault",
    [
        cut,
        lambda h, b: reply(h, b"", 500),
        lambda h, b: reply(h, b"", 429, Retry_After="1"),
    ],
)
def test_one_failure_loses_no_file(tmp_path, fast, fault):
    item = scene(tmp_path)
    expected = read([item]).red.compute()
    with answering(Server(tmp_path, "red.tif", fault, 2)) as url:
        ds = read([at(item, url)])
        np.testing.assert_array_equal(ds.red.compute(), expected)
    assert not ds.attrs["failed_assets"]


@pytest.mark.parametrize("status", [404, 403, 503])
def test_an_outage_does_not_outlive_itself(tmp_path, fast, status):
    item = scene(tmp_path)
    expected = read([item]).red.compute()
    server = Server(tmp_path, "red.tif", lambda h, b: reply(h, b"", status), 10**6)
    with answering(server) as url:
        lazy = read([at(item, url)])
        with pytest.warns(AssetsFailed, match=f"s / red: HTTP {status}"):
            assert np.isnan(lazy.red.compute()).all()
        server.left = 0
        np.testing.assert_array_equal(lazy.red.compute(), expected)
        np.testing.assert_array_equal(read([at(item, url)]).red.compute(), expected)


def test_an_outage_of_a_bucket_does_not_outlive_itself(tmp_path, monkeypatch):
    item = scene(tmp_path)
    expected = read([item]).red.compute()
    server = Server(tmp_path, "red.tif", lambda h, b: reply(h, b"", 404), 10**6)
    for key, asset in item["assets"].items():
        asset["href"] = f"s3://s/{key}.tif"
    with answering(server) as url:
        settings = {"S3_ENDPOINT": url.removeprefix("http://"), "HTTPS": "NO"}
        settings |= {"VIRTUAL_HOSTING": "FALSE", "NO_SIGN_REQUEST": "YES"}
        monkeypatch.setenv(
            "GDAL_HTTP_TIMEOUT", "3"
        )  # of a connection that was kept from another server
        for key, value in settings.items():
            monkeypatch.setenv(f"AWS_{key}", value)
        lazy = read([item])
        with pytest.warns(AssetsFailed, match="s / red"):
            assert np.isnan(lazy.red.compute()).all()
        server.left = 0
        np.testing.assert_array_equal(lazy.red.compute(), expected)


def test_a_large_file_is_read_by_ranges(tmp_path):
    flat = np.random.default_rng(0).integers(1, 5000, (1200, 1200)).astype("uint16")
    item = scene(tmp_path, bands={"red": flat, "nir": flat, "scl": np.full((600, 600), 4, "uint8")})
    full_result = (tmp_path / "s" / "red.tif").stat().st_size
    server = Server(tmp_path, "none", cut, 0)
    with answering(server) as url:
        ds = read([at(item, url)], GRID[:8, :8], bands="red", mask=None).compute()
    np.testing.assert_allclose(ds.red[0], flat[:8, :8] * 1e-4, atol=1e-6)
    spans = [r.removeprefix("bytes=").split("-") for _, r in server.ranges]
    assert sum(int(b) - int(a) + 1 for a, b in spans) < full_result / 4


@pytest.mark.parametrize(
    ("headers", "length", "message"),
    [
        ({"Content_Range": "bytes 5-9/20"}, None, "returned range"),
        ({"Content_Range": "rubbish"}, None, "returned range"),
        ({}, None, "returned range"),
        ({"Content_Range": f"bytes 0-32767/{10**12}"}, None, "returned range"),
    ],
)
def test_a_server_that_returns_another_range_is_named(tmp_path, headers, length, message):
    item = scene(tmp_path)
    fault = lambda h, b: reply(h, b[:1000], 206, **headers)  # noqa: E731
    with answering(Server(tmp_path, "red.tif", fault, 10**6)) as url:
        with pytest.warns(AssetsFailed, match=f"s / red.*{message}"):
            assert np.isnan(read([at(item, url)]).red.compute()).all()


def test_signed_links_and_tokens_are_requested_at_the_moment_of_reading(tmp_path):
    item, calls = scene(tmp_path, bands={"red": numbers(1)}), []

    def sign(href):
        calls.append(href)
        return f"{href}?token={len(calls)}"

    def server(handler, body):
        path, _, query = handler.path.partition("?")
        return (tmp_path / path.lstrip("/")).read_bytes() if query else reply(handler, b"", 403)

    with answering(server) as files, careless_api([at(item, files)]) as url:
        ds = read(StacSource(url, C1, sign=sign))
        assert not calls
        assert np.isfinite(ds.red.compute()).all() and calls


def test_the_search_of_a_grid_is_as_before_where_nothing_is_crossed():
    from geomiam.sources.scenes.clouds import CloudMask

    query = SeriesQuery(bands="red", source=[])
    request = scene_request(GRID, JUNE, query, profile=SENTINEL2, clouds=CloudMask(SCL))
    box = request.search.bbox
    assert box == pytest.approx((3.0, 50.548694, 3.005646, 50.552292), abs=1e-6)
    assert search.LIMITS[0] == 250
