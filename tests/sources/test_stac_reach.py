"""A STAC catalog can open only the hosts and files that the user names."""

from __future__ import annotations

import os

import numpy as np
import pytest

import geomiam as gm

pytest.importorskip("odc.stac", reason="needs pip install 'geomiam[stac]'")
pytest.importorskip("pystac_client", reason="needs pip install 'geomiam[stac]'")

from helpers_stac import GRID, JUNE, answering, at, careless_api, read, reply, scene

from geomiam.errors import AssetsFailed, NoScenes, SourceError
from geomiam.sources.stac.stac_source import PRESETS, StacSource
from geomiam.sources.web.allow_list import AllowList, allow_list_of

C1 = "sentinel-2-c1-l2a"


def elsewhere(url):
    """The same server by another name."""
    return url.replace("127.0.0.1", "localhost")


@pytest.mark.parametrize(
    ("reach", "href"),
    [
        (allow_list_of("https://a.org/v1"), "https://b.org/x.tif"),
        (allow_list_of("https://a.org/v1"), "https://a.org.b.org/x.tif"),
        (allow_list_of("https://a.org/v1"), "https://a.org@b.org/x.tif"),
        (allow_list_of("https://a.org/v1"), "https://b.org\\@a.org/x.tif"),
        (allow_list_of("https://a.org/v1"), "s3://a.org/x.tif"),
        (allow_list_of("https://a.org/v1"), "file:///etc/passwd"),
        (allow_list_of("https://a.org/v1"), "/etc/passwd"),
        (allow_list_of("https://a.org/v1", ["*.c.org"]), "https://c.org.evil/x.tif"),
        (allow_list_of(""), "http://169.254.169.254/latest"),
        (allow_list_of(""), "http://2852039166/latest"),
        (allow_list_of(""), "http://0xA9FEA9FE/latest"),
        (allow_list_of(""), "http://[::ffff:169.254.169.254]/latest"),
        (allow_list_of(""), "http://[fe80::1]/latest"),
        (allow_list_of("", ["*"]), "http://169.254.169.254/latest"),
        (allow_list_of(""), "/vsicurl/http://a.org/x.tif"),
        (allow_list_of(""), "GTIFF_DIR:1:/vsicurl/http://a.org/x.tif"),
        (allow_list_of(""), "vrt://a.tif"),
        (allow_list_of(""), "http:///x.tif"),
        (allow_list_of(""), "/dev/zero"),
    ],
)
def test_links_that_are_refused(reach, href):
    assert reach.refusal(href)


@pytest.mark.parametrize(
    ("reach", "href"),
    [
        (allow_list_of("https://a.org/v1"), "https://A.org:8443/x.tif"),
        (allow_list_of("https://a.org/v1", ["B.org"]), "https://b.org/x.tif"),
        (allow_list_of("https://a.org/v1", ["*.c.org", "s3://d"]), "https://x.c.org/x.tif"),
        (allow_list_of("https://a.org/v1", ["*.c.org", "s3://d"]), "s3://d/x.tif"),
        (allow_list_of("", ["169.254.169.254"]), "http://169.254.169.254/x.tif"),
        (allow_list_of(""), "http://127.0.0.1/x.tif"),
        (allow_list_of(""), "s3://bucket/x.tif"),
        (allow_list_of("catalog.json"), "/data/x.tif"),
    ],
)
def test_links_that_are_opened(reach, href):
    assert not reach.refusal(href)


def test_the_files_of_well_known_catalogs_are_within_reach():
    files = {
        "earth-search": "https://e84-earth-search-sentinel-data.s3.us-west-2.amazonaws.com/B04.tif",
        "earth-search-l2a": "https://sentinel-cogs.s3.us-west-2.amazonaws.com/B04.tif",
        "planetary-computer": "https://sentinel2l2a01.blob.core.windows.net/B04.tif",
    }
    for name, href in files.items():
        assert not allow_list_of(PRESETS[name].url).refusal(href)
        assert allow_list_of(PRESETS[name].url).refusal("https://example.org/B04.tif")


def test_items_of_the_web_do_not_lead_into_the_private_network():
    reach, origin = AllowList(files=True, named=True), "https://93.184.216.34/items/1"
    assert reach.refusal("http://10.0.0.7/x.tif", origin=origin)
    assert not reach.refusal("http://10.0.0.7/x.tif")


def test_an_item_that_points_to_another_host_is_not_followed_unless_allowed(tmp_path):
    item, requests = scene(tmp_path), []
    expected = read([item]).red.compute()

    def other(handler, body):
        requests.append(handler.path)
        reply(handler, (tmp_path / handler.path.lstrip("/")).read_bytes())

    with answering(other) as files:
        items = [at(item, elsewhere(files))]
        with careless_api(items) as url:
            with pytest.raises(
                NoScenes,
                match=r"host 'localhost' is not a host of the source.*hosts=\['localhost'\]",
            ):
                read(StacSource(url, C1))
            assert not requests
            for source, hosts in [
                (StacSource(url, C1, hosts=("localhost",)), ()),
                (StacSource(url, C1), ["localhost"]),
            ]:
                ds = read(source, hosts=hosts)
                np.testing.assert_array_equal(ds.red.compute(), expected)
    assert requests


def test_redirects_lead_to_the_same_host_only_unless_allowed(tmp_path):
    item, requests = scene(tmp_path), []
    expected = read([item]).red.compute()

    def target(handler, body):
        requests.append(handler.path)
        reply(handler, (tmp_path / handler.path.lstrip("/")).read_bytes())

    with answering(target) as target_server:

        def turn(handler, body):
            reply(handler, b"", 302, Location=f"{elsewhere(target_server)}{handler.path}")

        with answering(turn) as server_result:
            with pytest.warns(AssetsFailed, match="s / red: .*is refused: host 'localhost'"):
                ds = read([at(item, server_result)]).compute()
            assert np.isnan(ds.red).all() and not requests
            allowed_hosts = read([at(item, server_result)], hosts=["localhost"])
            np.testing.assert_array_equal(allowed_hosts.red.compute(), expected)

        def along(handler, body):
            if handler.path.startswith("/moved"):
                return (tmp_path / handler.path[7:]).read_bytes()
            return reply(handler, b"", 301, Location=f"/moved{handler.path}")

        with answering(along) as server_result:
            np.testing.assert_array_equal(read([at(item, server_result)]).red.compute(), expected)


@pytest.mark.parametrize("target", ["http://169.254.169.254/x", "file:///etc/passwd", "/dev/zero"])
def test_redirects_to_no_file_server_are_refused(tmp_path, target):
    item = scene(tmp_path)
    with answering(lambda h, b: reply(h, b"", 302, Location=target)) as url:
        with pytest.warns(AssetsFailed, match="s / red"):
            assert np.isnan(read([at(item, url)]).red.compute()).all()


def test_a_catalog_is_read_from_its_own_host_only(tmp_path):
    requests = []

    def other(handler, body):
        requests.append(handler.path)
        return {"type": "FeatureCollection", "features": []}

    with answering(other) as target_server:
        link = {"rel": "child", "href": f"{elsewhere(target_server)}/catalog.json"}
        top = {"type": "Catalog", "id": "c", "stac_version": "1.0.0", "description": "x"}
        with answering(lambda h, b: {**top, "links": [link]}) as server_result:
            with pytest.raises(NoScenes, match="host 'localhost' is not a host of the source"):
                read(f"{server_result}/catalog.json")
        with answering(lambda h, b: reply(h, b"", 302, Location=link["href"])) as server_result:
            with pytest.raises(SourceError, match="is refused: host 'localhost'"):
                read(f"{server_result}/catalog.json")
    assert not requests


def test_headers_go_to_the_host_of_the_catalog_alone(tmp_path):
    item, values = scene(tmp_path), {}

    def files(handler, body):
        values["files"] = handler.headers.get("X-Key")
        return (tmp_path / handler.path.lstrip("/")).read_bytes()

    with (
        answering(files) as target_server,
        careless_api([at(item, elsewhere(target_server))]) as url,
    ):
        source = StacSource(url, C1, headers={"X-Key": "SECRET"}, hosts=("localhost",))
        assert "SECRET" not in repr(source)
        read(source).red.compute()
        assert values == {"files": None}

    def api(handler, body):
        values["api"] = handler.headers.get("X-Key")
        return {"type": "FeatureCollection", "features": [at(item, "https://example.org")]}

    with answering(api) as url, pytest.raises(NoScenes, match=r"example\.org"):
        read(StacSource(f"{url}/items.json", headers={"X-Key": "SECRET"}))
    assert values["api"] == "SECRET"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFO")
def test_a_pipe_or_a_folder_is_no_file(tmp_path):
    item = scene(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        item["assets"]["red"]["href"] = str(path)
        with pytest.warns(AssetsFailed, match="device or folder"):
            assert np.isnan(read([item]).red.compute()).all()
    with pytest.raises(SourceError, match="could not be searched"):
        gm.sentinel2(GRID, JUNE, bands="red", source=StacSource(str(tmp_path / "pipe")))
