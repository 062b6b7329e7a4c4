"""Sentinel-2 over many tiles: tasks grow with chunks and dates, carry little, and have the right pixels."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import xarray as xr
from odc.geo.geobox import GeoBox
from scipy.ndimage import binary_dilation

pytest.importorskip("odc.stac", reason="needs pip install 'geomiam[stac]'")
pytest.importorskip("pystac_client", reason="needs pip install 'geomiam[stac]'")

from helpers_stac import GRID, ORIGIN, SIZE, numbers, read, scene

from geomiam.sources.sentinel2 import mosaic

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
