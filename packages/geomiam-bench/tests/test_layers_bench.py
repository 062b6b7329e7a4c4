"""The benchmark of maps with every layer: its cube, and its differences between ways of computing a layer."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import geomiam as gm
from geomiam_bench import layers
from geomiam_bench.pages.layers import layers_section

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def smaller(monkeypatch):
    """Blocks and windows of a few cells."""
    sizes = {"CHUNK": 20, "SITES": 40, "NEIGHBOURS": 2, "WINDOWS": 1, "SIDE": 12}
    for name, size in sizes.items():
        monkeypatch.setattr(layers, name, size)


def test_the_cube_does_not_depend_on_its_chunks_and_has_gaps_of_each_kind(smaller, monkeypatch):
    cube = layers.make_cube(60).compute()
    monkeypatch.setattr(layers, "CHUNK", 13)
    xr.testing.assert_equal(layers.make_cube(60).compute(), cube)
    observed = {m: cube[names[0]].notnull() for m, names in layers.MODALITIES.items()}
    land = observed["climate"]
    assert 0.3 < float(land.mean()) < 1
    for modality in ("soil", "satellite", "terrain"):
        assert 0 < float(observed[modality].where(land).mean()) < 1
        assert not bool((observed[modality] & ~land).any())
    assert 0.3 < float(cube["bio1"].std()) < 2


def test_both_maps_are_written_and_their_layers_agree(smaller, tmp_path):
    cube = gm.open_cube(gm.write_cube(layers.make_cube(40), tmp_path / "cube.zarr", progress=False))
    layers.make_model(cube).save(tmp_path / "model")
    runs = [layers.write_one(tmp_path, name) for name in layers.MAPS]
    assert [r["blocks"] for r in runs] == [4, 4] and runs[0]["predicted"] == runs[1]["predicted"]
    results = layers.compare(tmp_path)
    names = {name.partition(": ")[2] for name in results["largest"]}
    assert names >= {"spread", "prediction_set", "mess", "value_of_information", "interaction"}
    for name, of_layer in results["largest"].items():
        assert set(of_layer) >= {"map", "chunks", "using", "inf"}, name
        tolerance = 1e-4 if name.endswith(("dissimilarity", "mess", "exdet")) else 5e-6
        assert max(of_layer.values()) <= tolerance, (name, of_layer)
    page = layers_section({"side": 40, "chunk": 20, "neighbours": 2, "runs": runs, **results})
    assert "| value of information | first |" in page and "40 × 40 cells" in page


def test_a_value_on_one_side_only_is_an_infinite_difference():
    a = xr.Dataset({"v": (("y", "x"), np.array([[1.0, np.nan]]))})
    assert layers.largest(a, a.fillna(0)) == {"v": np.inf}
    assert layers.largest(a, a + 0.25) == {"v": 0.25}
