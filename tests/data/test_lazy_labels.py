"""Labels as a dask array: sampling, background and stores give what a table gives."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from helpers_small import TINY_NETWORK, quick

import geomiam as gm
from geomiam import labels as labels_module
from geomiam.data.sites import records_labels
from geomiam.data.sites import sites as sites_module
from geomiam.errors import MemoryRefused

pytestmark = pytest.mark.filterwarnings("ignore")


def cube() -> xr.Dataset:
    rng = np.random.default_rng(0)
    layer = rng.normal(size=(12, 15)).astype(np.float32)
    layer[0] = np.nan
    return xr.Dataset(
        {"bio1": (("lat", "lon"), layer), "clay": (("lat", "lon"), layer[::-1])},
        coords={"lat": np.linspace(50, 45, 12), "lon": np.linspace(0, 7, 15)},
        attrs={"crs": "EPSG:4326"},
    )


def records() -> pd.DataFrame:
    """Presences and some absences of six species, several of a species in one cell."""
    rng, n = np.random.default_rng(1), 150
    names = np.array([f"species {i}" for i in range(6)])
    lat, lon = rng.uniform(45, 50, n), rng.uniform(0, 7, n)
    presence = (rng.random(n) < 0.9).astype(float)
    species = names[rng.integers(6, size=n)]
    return pd.DataFrame({"species": species, "lat": lat, "lon": lon, "presence": presence})


@pytest.fixture
def lazy_sites(monkeypatch) -> xr.Dataset:
    monkeypatch.setattr(sites_module, "LARGE", 0)
    monkeypatch.setattr(records_labels, "CHUNK", 4 * 6 * 20)  # twenty sites
    return gm.sample(cube(), records())


def test_sampled_labels_are_those_of_a_table(lazy_sites, monkeypatch):
    monkeypatch.setattr(sites_module, "LARGE", 2**30)
    expected = gm.sample(cube(), records())
    assert expected["presence"].chunks is None
    assert max(lazy_sites["presence"].chunks[0]) <= 20
    xr.testing.assert_identical(lazy_sites.compute(), expected)


@pytest.mark.parametrize(
    "settings",
    [
        {"n": 30},
        {"n": 30, "bias": "100 km"},
        {"n": 30, "area": gm.BackgroundArea(within="50 km")},
        {"n": None, "kind": "target-group"},
        {"n": 10, "kind": "target-group", "area": gm.BackgroundArea(within="300 km")},
    ],
    ids=["random", "bias", "area", "target-group", "target-group in area"],
)
def test_background_is_that_of_a_table(lazy_sites, settings):
    expected = gm.add_background(lazy_sites.compute(), cube(), rng=0, **settings)
    actual = gm.add_background(lazy_sites, cube(), rng=0, **settings)
    assert actual["presence"].chunks is not None
    xr.testing.assert_identical(actual.compute(), expected)


def test_sites_of_a_store_train_the_model_of_sites_in_memory(lazy_sites, tmp_path):
    sites = gm.add_background(lazy_sites, cube(), n=30, rng=0)
    path = gm.write_sites(sites, tmp_path / "sites.zarr")
    lazy, in_memory = gm.open_sites(path, chunks={}), gm.open_sites(path)
    assert lazy["presence"].chunks is not None and in_memory["presence"].chunks is None
    settings = {"training": quick(block="100 km"), "network": TINY_NETWORK}
    weights, expected = (gm.fit(s, **settings).network.state_dict() for s in (lazy, in_memory))
    for name, weight in expected.items():
        np.testing.assert_array_equal(weights[name], weight, err_msg=name)


def test_a_store_whose_labels_are_too_large_is_refused(lazy_sites, tmp_path, monkeypatch):
    path = gm.write_sites(lazy_sites, tmp_path / "sites.zarr")
    monkeypatch.setattr(labels_module, "MOST_BYTES", 1000)
    with pytest.raises(MemoryRefused, match=r"open_sites\(path, chunks=\{\}\)"):
        gm.open_sites(path)
    assert gm.open_sites(path, chunks={}).sizes == lazy_sites.sizes


def test_held_out_blocks_are_those_of_a_table(lazy_sites):
    settings = {"share": 0.3, "block": "100 km", "rng": 0}
    expected = gm.splits.hold_out_blocks(lazy_sites.compute(), **settings)
    np.testing.assert_array_equal(gm.splits.hold_out_blocks(lazy_sites, **settings), expected)
