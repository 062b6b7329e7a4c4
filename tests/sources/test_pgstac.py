"""Sentinel-2 from pgstac, the engine of large STAC catalogs, which evaluates all conditions itself: slow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox

import geomiam as gm

pytest.importorskip("odc.stac", reason="needs pip install 'geomiam[stac]'")
pytest.importorskip("pystac_client", reason="needs pip install 'geomiam[stac]'")

from conftest import SHARED, needs_shared
from helpers_servers import pgstac_api, pgstac_programs, stored_items, write_stac_catalog
from helpers_stac import GRID, ORIGIN, at, read, scene, serve, sky

pytestmark = pytest.mark.slow

SMALL, C1, OLD = "small", "sentinel-2-c1-l2a", "sentinel-2-l2a"
STAC = SHARED / "s2" / "stac"
SITE_B = GeoBox((64, 64), Affine(10, 0, 574680, 0, -10, 5622440), "EPSG:32631")
COVERS = (40.0, 15.0, 80.0, 20.0, 60.0)  # pgstac sorts properties as text: two digits each


@dataclass(frozen=True)
class Server:
    """A pgstac, the folder of the small scenes that it has, and their items on disk."""

    url: str
    folder: Path
    items: list[dict[str, Any]]

    @property
    def small(self) -> gm.StacSource:
        return gm.StacSource(self.url, SMALL)

    def found(self, **query: Any) -> list[str]:
        """Ids in the order in which the server gives them."""
        import pystac_client

        search = pystac_client.Client.open(self.url).search(collections=[SMALL], **query)
        return [item["id"] for item in search.items_as_dicts()]


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    pgstac_programs()  # skips before anything is written
    folder = tmp_path_factory.mktemp("scenes")
    items = scenes(folder)
    with serve(folder) as files, serve(STAC) as catalog:
        collections = {SMALL: [at(i, files) for i in items]}
        if STAC.exists():
            collections |= {c: stored_items(STAC, c, catalog) for c in (C1, OLD)}
        with pgstac_api(collections) as url:
            yield Server(url, folder, items)


def scenes(folder: Path) -> list[dict[str, Any]]:
    """Five scenes on five days of June, cloudy as COVERS states, and one far to the east."""
    cloudy = []
    for day, cover in enumerate(COVERS, 1):
        cloud = sky(*((row, col, 9) for row in range(int(cover / 5)) for col in range(20)))
        cloudy.append(
            scene(folder, f"s{day}", date=f"2020-06-0{day}T10:50:00Z", bands={"scl": cloud})
        )
        cloudy[-1]["properties"]["eo:cloud_cover"] = cover
    far = scene(folder, "far", date="2020-06-03T10:50:00Z", origin=(ORIGIN[0] + 50_000, ORIGIN[1]))
    return [{**i, "collection": SMALL} for i in (*cloudy, far)]


def same(a: xr.Dataset, b: xr.Dataset) -> None:
    assert a.attrs["failed_assets"] == []
    xr.testing.assert_equal(a.compute().drop_attrs(), b.compute().drop_attrs())


def test_the_server_searches_by_place_and_time(server):
    bbox = GRID.footprint("EPSG:4326").boundingbox.bbox
    assert set(server.found()) == {"s1", "s2", "s3", "s4", "s5", "far"}
    assert set(server.found(bbox=bbox)) == {"s1", "s2", "s3", "s4", "s5"}
    assert set(server.found(datetime="2020-06-03/2020-06-04")) == {"s3", "s4", "far"}
    assert server.found(bbox=bbox, datetime="2020-06-03") == ["s3"]


def test_the_server_sorts(server):
    bbox = GRID.footprint("EPSG:4326").boundingbox.bbox
    by_cloud = {"sortby": ["+properties.eo:cloud_cover"], "bbox": bbox}
    assert server.found(**by_cloud) == ["s2", "s4", "s1", "s5", "s3"]
    assert server.found(**by_cloud, limit=2) == ["s2", "s4", "s1", "s5", "s3"]  # over pages
    assert server.found(sortby=["-properties.datetime"], bbox=bbox) == [
        "s5",
        "s4",
        "s3",
        "s2",
        "s1",
    ]


def test_conditions_are_met_by_the_server(server):
    assert set(server.found(query={"eo:cloud_cover": {"lte": 20}})) == {"s2", "s4", "far"}
    ds = read(server.small, max_cloud=20)
    assert list(ds.item_id.values) == ["s2", "s4"]
    assert ds.attrs["notes"] == []  # nothing was left to do here
    strict = replace(server.small, query={"eo:cloud_cover": {"gt": 15, "lt": 50}})
    plan = gm.plan_sentinel2(GRID, "2020-06", bands="red", source=strict)
    assert plan.scenes["id"].tolist() == ["s1", "s4"] and plan.notes == ()


def test_scenes_are_those_of_the_static_catalog(server):
    ds = read(server.small)
    assert ds.sizes["time"] == 5 and 0.3 < float(ds.clear_fraction.mean()) < 0.8
    static = gm.StacSource(str(write_stac_catalog(server.folder, server.items)), SMALL)
    same(ds, read(static))
    same(read(server.small, max_cloud=50), read(static, max_cloud=50))


@needs_shared
@pytest.mark.parametrize("collection", [C1, OLD])
def test_real_scenes_are_those_of_their_static_catalog(server, collection):
    options = {"time": ("2018-08", "2019-03"), "bands": ["red", "nir08"]}
    ds, static = (
        gm.sentinel2(SITE_B, **options, source=gm.StacSource(at_, collection))
        for at_ in (server.url, str(STAC))
    )
    assert ds.sizes["time"] == {C1: 6, OLD: 35}[collection]
    same(ds, static)
