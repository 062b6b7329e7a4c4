"""Sentinel-2 over many tiles: tasks grow with chunks and dates, carry little, and have the right pixels."""

from __future__ import annotations

import copy
import pickle
import weakref
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from odc.geo.geobox import GeoBox
from scipy.ndimage import binary_dilation

pytest.importorskip("odc.stac", reason="needs pip install 'geomiam[stac]'")
pytest.importorskip("pystac_client", reason="needs pip install 'geomiam[stac]'")

from helpers_build import catalog
from helpers_servers import write_stac_catalog
from helpers_stac import GRID, JUNE, ORIGIN, SIZE, numbers, read, scene

import geomiam as gm
from geomiam.data.store import resume
from geomiam.sources.scenes import asset_reader, mosaic
from geomiam.sources.stac import search

STEP = 10 * (SIZE - 4)
"""Metres between two tiles, which overlap by four pixels."""
BANDS = ("red", "nir")


def tiles(template, side, *, day=1):
    """Items of a square of tiles on one day: one item, moved; its files are not."""
    items = []
    for row, col in np.ndindex(side, side):
        item = copy.deepcopy(template)
        item["id"] = f"{template['id']}-{day}-{row}-{col}"
        item["properties"]["datetime"] = f"2020-06-{day:02d}T10:50:00Z"
        for asset in item["assets"].values():
            asset["proj:transform"][2] += col * STEP
            asset["proj:transform"][5] -= row * STEP
        west, south, east, north = item["bbox"]
        width, height = (east - west) * 0.95 * col, (north - south) * 0.95 * row
        item["bbox"] = [west + width, south - height, east + width, north - height]
        items.append(item)
    return items


def grid_of(side):
    size = SIZE + (side - 1) * STEP // 10
    return GeoBox((size, size), GRID.affine, GRID.crs)


def tasks_of(ds):
    graphs = [ds[n].data.__dask_graph__() for n in (*BANDS, "clear_fraction", "failed")]
    return set().union(*(g.keys() for g in graphs))


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return scene(tmp_path_factory.mktemp("tiles"))


def test_tasks_grow_with_the_area_and_the_dates_not_with_their_square(template, monkeypatch):
    monkeypatch.setattr(mosaic, "CHUNK", 20)
    counts = {side: len(tasks_of(read(tiles(template, side), grid_of(side)))) for side in (2, 3, 5)}
    for side, count in counts.items():
        chunks = -(-grid_of(side).shape.y // 20)
        assert count == 4 * chunks**2 + 1  # one reads, one for each band and the clear share
    assert counts[3] / counts[2] <= 9 / 4 * 1.1 and counts[5] / counts[2] <= 25 / 4 * 1.1
    days = [item for day in (1, 2, 3) for item in tiles(template, 2, day=day)]
    assert len(tasks_of(read(days, grid_of(2)))) == 3 * counts[2]


def no_pixels(items, keys, box):
    """A loader of a user, which receives items."""


def payloads(ds):
    """The bytes of each task that reads scenes."""
    layers = ds.red.data.dask.layers.items()
    layer = next(tasks for name, tasks in layers if name.startswith("scenes-"))
    return [len(pickle.dumps(task)) for task in layer.values()]


def test_a_task_has_the_scenes_under_its_chunk_and_links_and_numbers_only(template, monkeypatch):
    monkeypatch.setattr(mosaic, "CHUNK", 20)
    items = tiles(template, 5)
    for item in items:
        item["properties"] |= {f"s2:note{i}": f"{i}" * 1000 for i in range(20)}
    sizes = payloads(read(items, grid_of(5)))
    assert min(sizes) < 3_000 and max(sizes) < 6_000  # one scene, and four at a corner
    assert max(payloads(read(items, grid_of(5), loader=no_pixels))) > 20_000


def test_overlapping_scenes_are_the_first_clear_pixel_of_each(tmp_path, monkeypatch):
    rng, margin, size = np.random.default_rng(5), 1, grid_of(2).shape.y
    expected = np.full((size, size), np.nan)
    items = []
    for number, (row, col) in enumerate(np.ndindex(2, 2)):
        scl = np.where(rng.random((SIZE, SIZE)) < 0.1, 9, 4).astype("uint8")
        dn = numbers(number)
        origin = (ORIGIN[0] + col * STEP, ORIGIN[1] - row * STEP)
        bands = {"scl": scl, "red": dn}
        items.append(scene(tmp_path, f"s{number}", origin=origin, bands=bands))
        hidden = binary_dilation(scl == 9, np.ones((2 * margin + 1,) * 2))
        at = (
            slice(row * STEP // 10, row * STEP // 10 + SIZE),
            slice(col * STEP // 10, col * STEP // 10 + SIZE),
        )
        # of scenes with equal processing and time, the last id is first
        expected[at] = np.where(hidden, expected[at], dn * 1e-4)
    for chunk in (1024, 17):
        monkeypatch.setattr(mosaic, "CHUNK", chunk)
        ds = read(items, grid_of(2), bands="red", dilate=10).compute(scheduler="synchronous")
        np.testing.assert_allclose(ds.red[0], expected, atol=1e-6)
        np.testing.assert_array_equal(ds.clear_fraction[0], np.isfinite(expected))
    assert 0.3 < np.isfinite(expected).mean() < 0.95


def test_files_of_hidden_chunks_are_not_read(tmp_path, monkeypatch):
    calls = []

    def loader(items, keys, box):
        calls.append((items[0].id, *keys))
        values = np.full(box.shape, 9 if keys == ["scl"] and items[0].id == "cloudy" else 4)
        return xr.Dataset({k: (("y", "x"), values) for k in keys})

    same = {"bands": {}, "date": "2020-06-01T10:50:00Z"}
    items = [scene(tmp_path, name, **same) for name in ("cloudy", "below", "above")]
    ds = read(items, bands="red", loader=loader).compute(scheduler="synchronous")
    assert calls == [("cloudy", "scl"), ("below", "scl"), ("below", "red")]
    assert np.isfinite(ds.red).all() and ds.failed.values.sum() == 0


@pytest.mark.parametrize("rows", [8, 48])
def test_a_build_reads_each_file_once_for_each_chunk(tmp_path, monkeypatch, rows):
    items = [
        scene(
            tmp_path / "f", f"s{i}", date=f"2020-06-0{i + 1}T10:50:00Z", bands={"red": numbers(i)}
        )
        for i in range(3)
    ]
    write_stac_catalog(tmp_path / "c", items)
    place = {"kind": "stac", "root": str(tmp_path / "c"), "time": JUNE, "mask": None}
    series = {"kind": "series", "dims": ["time"], "window": 1}
    modality = {"from": "s2", "variables": {"red": series, "nir": series}}
    path = catalog(tmp_path, {"s2": place}, {"optical": modality})
    calls, read_file = [], asset_reader.read_file

    def counted(file, box, access, **settings):
        calls.append((file.href, box))
        return read_file(file, box, access, **settings)

    monkeypatch.setattr(asset_reader, "read_file", counted)
    monkeypatch.setattr(mosaic, "CHUNK", 16)
    monkeypatch.setattr(resume, "BAND", 1)
    options = gm.sources.BuildOptions(chunks={"y": rows, "x": 8})
    cube = gm.build_cube(path, GRID, out=tmp_path / "cube.zarr", options=options, progress=False)
    chunks = (-(-SIZE // max(rows, 16))) ** 2
    assert len(calls) == len(set(calls)) == len(items) * 2 * chunks
    np.testing.assert_array_equal(cube.red, read(items, mask=None).red)


def test_items_of_a_static_catalog_are_read_by_the_dates_in_their_names(tmp_path, monkeypatch):
    items = []
    for month in range(1, 13):
        item = scene(tmp_path / "f", "s", date=f"2020-{month:02d}-15T10:50:00Z")
        name = f"S2B_MSIL2A_2020{month:02d}15T105031_N0500_R051_T31UDS_20230615T000000"
        items.append({**item, "id": "unnamed" if month == 7 else name})
    items.append({**items[5], "id": "S2B_31UDS_20200616_0_L2A"})
    write_stac_catalog(tmp_path / "c", items)
    calls, document = [], search.Reader.document

    def counted(reader, href):
        calls.append(href)
        return document(reader, href)

    monkeypatch.setattr(search.Reader, "document", counted)
    ds = read(str(tmp_path / "c"), bands="red")
    in_june = {items[5]["id"], items[12]["id"]}
    assert set(" ".join(ds.item_id.values).split()) == in_june
    assert {Path(href).stem for href in calls[2:]} == in_june | {"unnamed"}
    assert "10 items were not read" in " ".join(ds.attrs["notes"])


class Json(dict):
    """An item with weak references."""


def test_items_of_a_search_are_released_as_they_are_read(template):
    references, alive = [], []

    def stream():
        for number, raw in enumerate(tiles(template, 3)):
            item = Json(raw, id=str(number))
            references.append(weakref.ref(item))
            yield item
            del item
            alive.append(sum(r() is not None for r in references))

    plan = gm.plan_sentinel2(grid_of(3), JUNE, bands="red", source=stream())
    assert len(plan.scenes) == 9 and max(alive) <= 1
