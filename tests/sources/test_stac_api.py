"""Sentinel-2 from a real STAC API on localhost, which serves the files as well, by HTTP ranges."""

from __future__ import annotations

import json
import urllib.request

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox

import geomiam as gm

pytest.importorskip("odc.stac", reason="needs pip install 'geomiam[stac]'")
pytest.importorskip("pystac_client", reason="needs pip install 'geomiam[stac]'")

from conftest import SHARED, needs_shared
from helpers_servers import static_api, write_stac_catalog
from helpers_stac import GRID, JUNE, numbers, read, scene, sky

from geomiam.errors import AssetsFailed, NoScenes

pytestmark = pytest.mark.slow

STAC = SHARED / "s2" / "stac"
SITE_B = GeoBox((64, 64), Affine(10, 0, 574680, 0, -10, 5622440), "EPSG:32631")
MIXED = {"s2:processing_baseline": "05.09"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("stac")


@pytest.fixture(scope="module")
def items(folder):
    """Six scenes on six days of June and July, more and more cloudy, two with an offset."""
    scenes = []
    for i in range(6):
        rows = sky(*((r, c, 9) for r in range(3 * i) for c in range(20)))
        offset = {"offset": -0.1, "properties": MIXED} if i % 3 == 2 else {}
        date = f"{pd.Timestamp('2020-06-01') + pd.Timedelta(days=7 * i):%Y-%m-%d}T10:50:00Z"
        bands = {"red": numbers(i), "scl": rows}
        item = scene(folder, f"s{i}", date=date, bands=bands, **offset)
        item["properties"]["eo:cloud_cover"] = 15.0 * i
        scenes.append(item)
    return scenes


@pytest.fixture(scope="module")
def api(folder, items):
    with static_api(write_stac_catalog(folder, items)) as url:
        yield url


def same(a: xr.Dataset, b: xr.Dataset) -> None:
    xr.testing.assert_equal(a.compute().drop_attrs(), b.compute().drop_attrs())


def test_an_api_gives_the_scenes_that_the_items_are(api, items):
    ds = read(api)
    assert list(ds.item_id.values) == [f"s{i}" for i in range(5)]  # s5 is of July
    same(ds, read(items))
    assert ds.attrs["failed_assets"] == []
    np.testing.assert_allclose(ds.offset, [0, 0, -0.1, 0, 0])
    values_result = [1 - 3 * i / 20 - (0.05 if i else 0) for i in range(5)]  # a margin of one pixel
    np.testing.assert_allclose(ds.clear_fraction.mean(("y", "x")), values_result, atol=1e-6)


def test_files_come_by_ranges(api, items):
    answer = urllib.request.urlopen(f"{api}/collections/sentinel-2-c1-l2a/items/s1")
    href = json.load(answer)["assets"]["red"]["href"]
    assert href.startswith(api)
    requests = urllib.request.Request(href, headers={"Range": "bytes=8-15"})
    with (
        urllib.request.urlopen(requests) as part,
        open(items[1]["assets"]["red"]["href"], "rb") as f,
    ):
        assert part.status == 206
        assert part.read() == f.read()[8:16]


def test_what_the_server_cannot_do_is_done_here_and_reported(api, items):
    ds = read(api, max_cloud=40)
    same(ds, read(items[:3]))
    assert "the server supports no conditions on properties" in ds.attrs["notes"][0]
    source = gm.StacSource(api, query={"s2:processing_baseline": {"gte": "05.00"}})
    assert gm.plan_sentinel2(GRID, JUNE, bands="red", source=source).scenes["id"].tolist() == ["s2"]


def test_a_search_that_finds_nothing_states_what_was_searched(api):
    with pytest.raises(
        NoScenes, match=r"collection of this product, from 2021-06-01.*widen time=, or check"
    ):
        read(api, time="2021-06")


def test_a_file_that_the_server_has_no_more_is_named(tmp_path):
    cube = [scene(tmp_path, n, date=f"2020-06-0{i}T10:50:00Z") for i, n in ((1, "a"), (2, "b"))]
    full = read(cube).compute()
    with static_api(write_stac_catalog(tmp_path, cube)) as url:
        (tmp_path / "b" / "nir.tif").unlink()
        with pytest.warns(AssetsFailed, match="b / nir"):
            ds = read(url).compute()
    assert len(ds.attrs["failed_assets"]) == 1 and url in ds.attrs["failed_assets"][0]
    assert np.isnan(ds.nir[1]).all()
    np.testing.assert_array_equal(ds.nir[0], full.nir[0])
    np.testing.assert_array_equal(ds.red, full.red)


@needs_shared
def test_an_api_gives_what_its_catalog_gives():
    settings = {"time": ("2018-08", "2019-11"), "bands": ["red", "nir08"]}
    expected = gm.sentinel2(SITE_B, **settings, source=str(STAC))
    with static_api(STAC) as url:
        ds = gm.sentinel2(SITE_B, **settings, source=url)
        assert ds.sizes["time"] == 12
        same(ds, expected)
    assert ds.attrs["failed_assets"] == []
