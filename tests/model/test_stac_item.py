"""The STAC item of a model: fields of MLM, extent, and validity."""

from __future__ import annotations

import dataclasses
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest

import geomiam as gm
from geomiam.errors import SelectionError

pytestmark = pytest.mark.filterwarnings("ignore")
DIM = re.compile(r"^[a-z-_]+$")


@pytest.fixture(scope="module")
def model(small_model) -> gm.Model:
    return small_model("group")


def test_the_item_has_the_fields_of_the_extension(model):
    item = model.stac_item()
    fields = item["properties"]
    assert json.loads(json.dumps(item, allow_nan=False)) == item
    assert {"mlm:name", "mlm:architecture", "mlm:tasks", "mlm:input", "mlm:output"} <= set(fields)
    names = [v for i in fields["mlm:input"] for v in i["variables"]]
    assert names == list(model.schema.variables) and set(names) == set(fields["cube:variables"])
    for entry in fields["mlm:input"]:
        shape, dims = entry["input"]["shape"], entry["input"]["dim_order"]
        assert shape[:2] == [-1, len(entry["variables"])] and len(shape) == len(dims)
        assert dims[:2] == ["batch", "variables"] and all(map(DIM.match, dims))
        sizes = model.schema.variables[entry["variables"][0]].sizes
        assert tuple(shape[2:]) == sizes
    classes = fields["mlm:output"][0]["classification:classes"]
    assert [c["description"] for c in classes] == list(model.species)
    parts = sum(p.numel() for p in model.network.parameters())
    assert fields["mlm:total_parameters"] == parts
    climate = next(i for i in fields["mlm:input"] if i["variables"] == ["bio1", "bio12"])
    assert climate["value_scaling"][0]["mean"] == pytest.approx(float(model.scaler.mean["bio1"]))
    assert all(re.fullmatch(r"[\w.-]+", k) for k in fields["mlm:hyperparameters"])


def test_the_item_is_a_valid_item_for_pystac(model):
    pystac = pytest.importorskip("pystac")
    item = pystac.Item.from_dict(model.stac_item())
    assert item.assets["model"].extra_fields["mlm:artifact_type"] == "safetensors.torch.save_file"
    assert pystac.Item.from_dict(item.to_dict()).bbox == item.bbox


def test_extent_and_dates_are_those_of_the_training_sites(model):
    box = model.stac_item()["bbox"]
    assert box == pytest.approx(model.about["extent"])
    metres = {"crs": "EPSG:3035", "extent": [4e6, 3e6, 4.1e6, 3.1e6], "dates": ["2001-02-03"] * 2}
    item = dataclasses.replace(model, about={**model.about, **metres}).stac_item()
    west, south, east, north = item["bbox"]
    assert 0 < west < east < 12 and 45 < south < north < 55
    assert item["geometry"]["coordinates"][0][0] == [west, south]
    assert item["properties"]["start_datetime"] == "2001-02-03T00:00:00Z"
    assert item["properties"]["datetime"] is None


@pytest.mark.parametrize(
    "about",
    [
        {},
        {"crs": "EPSG:4326"},
        {"crs": 3, "extent": 3},
        {"crs": "x", "extent": [1, 2, 3, 4]},
        {"crs": "EPSG:4326", "extent": [1, 2, None, "a"], "dates": ["x", 3], "training": 3},
    ],
)
def test_an_unknown_extent_is_null(model, about):
    item = dataclasses.replace(model, about=about).stac_item()
    assert item["geometry"] is None and "bbox" not in item
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", item["properties"]["datetime"])


def test_a_saved_model_has_the_item_beside_its_files(tmp_path, model, sites):
    elsewhere = sites.assign_coords(x=sites["x"] + 0.1, y=sites["y"] + 0.1)
    model = gm.calibrate(model, elsewhere)
    without_sites = dataclasses.replace(model, reference=None, calibration=None)
    assert set(without_sites.stac_item()["assets"]) == {"model", "config", "card"}
    path = model.save(tmp_path / "model")
    item = json.loads((path / "stac-item.json").read_text(encoding="utf-8"))
    files = {path / asset["href"] for asset in item["assets"].values()}
    assert files == set(path.iterdir()) - {path / "stac-item.json"}
    model.save(path, overwrite=True)
    assert gm.load_model(path).id == model.id
    (path / "stac-item.json").unlink()  # models of earlier versions have none
    assert gm.load_model(path).id == model.id
    model.save(path, overwrite=True)


def test_an_encoder_has_no_item(model):
    with pytest.raises(SelectionError, match="encoder"):
        dataclasses.replace(model, species=()).stac_item()


def test_names_of_dims_stay_distinct():
    from geomiam.model.stac_item import _dim_names

    assert _dim_names(("Band 1", "time")) == ["band__", "time"]
    assert len(set(_dim_names(("t1", "t2")))) == 2
    assert "batch" not in _dim_names(("batch",))


def test_scaling_needs_one_mean_per_variable(model):
    from geomiam.model.stac_item import _scaling

    scaler = SimpleNamespace(mean={"v": np.zeros(2)}, std={"v": np.ones(2)})
    assert _scaling(SimpleNamespace(scaler=scaler), "v") is None
    assert _scaling(model, "landcover") is None
