"""Projections: equal to predictions with using=, with the skill of the available predictors."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from conftest import train_small

import geomiam as gm
from geomiam.data.store.store import open_zarr
from geomiam.errors import NameRefused, OutputExists, SelectionError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module")
def network(sites) -> gm.Model:
    return train_small(sites, "sum")


def test_missing_predictors_are_left_out_by_name(network, cube, sites):
    future = cube.drop_vars(["bio12", "landsat", "chip"])
    projection = gm.project(network, {"now": cube, "2070": future}, sites=sites)
    available = [v for v in network.schema.variables if v in future]
    expected = gm.predict(cube, network, using=available)
    xr.testing.assert_allclose(projection["2070"]["suitability"], expected["suitability"])
    xr.testing.assert_allclose(projection["now"], gm.predict(cube, network))
    assert projection.table["left_out"].tolist() == ["", "bio12, landsat, chip"]
    attrs = projection["2070"].attrs
    assert json.loads(attrs["left_out"]) == ["bio12", "landsat", "chip"]
    scores = gm.evaluate(network, sites, subsets={"future": available, "all": None})["mean_auc"]
    row = projection.table.loc["2070"]
    assert row["skill"] == attrs["skill"] == pytest.approx(float(scores[0]))
    assert row["skill_all"] == pytest.approx(float(scores[1]))
    assert row["skill_loss"] == pytest.approx(float(scores[1] - scores[0]))
    assert projection.table.loc["now", "skill_loss"] == 0
    assert "left_out" in repr(projection)


def test_a_predictor_that_is_nan_everywhere_counts_as_missing(network, cube):
    empty = cube.assign(bio1=cube["bio1"] * np.nan)
    projection = gm.project(network, {"a": empty})
    assert projection.table.loc["a", "left_out"] == "bio1"


def test_the_stored_skill_is_that_of_all_and_of_single_modalities(network, cube):
    scenarios = {
        "all": cube,
        "climate": cube[["bio1", "bio12"]],
        "two": cube[["bio1", "bio12", "slope", "aspect"]],
    }
    table = gm.project(network, scenarios).table
    scores = network.about["validation_auc"]
    assert table.loc["all", "skill"] == scores["all"]
    assert table.loc["climate", "skill"] == scores["climate"]
    assert np.isnan(table.loc["two", "skill"]) and table.loc["two", "skill_from"] == ""
    assert table.loc["climate", "skill_from"] == "validation sites of the model"


def test_trees_keep_their_paths_and_share_variables_of_inner_nodes(network, cube):
    static = cube[["slope", "aspect"]]
    climate = cube[["bio1", "bio12"]]
    warm = climate.assign(bio1=(climate["bio1"] + 1).assign_attrs(climate["bio1"].attrs))
    tree = xr.DataTree.from_dict({"/": static, "/ssp126/gcm": climate, "/ssp585/gcm": warm})
    projection = gm.project(network, tree)
    assert list(projection.table.index) == ["ssp126/gcm", "ssp585/gcm"]
    expected = gm.predict(xr.merge([static, climate]), network)
    xr.testing.assert_allclose(projection["ssp126/gcm"]["suitability"], expected["suitability"])
    nested = {"ssp126": {"gcm": [static, climate]}, "ssp585": {"gcm": [static, warm]}}
    again = gm.project(network, nested)
    for name in projection.table.index:
        xr.testing.assert_allclose(again[name], projection[name])
    stack = projection.stacked()
    assert stack["suitability"].sizes["scenario"] == 2
    change = gm.ranges.change(
        projection["ssp126/gcm"],
        stack["suitability"].assign_attrs(scale="probability"),
        threshold=0.5,
    )
    assert change["area"].sizes == {"class": 4, "scenario": 2, "species": 3}
    agreement = gm.ranges.agreement(projection.maps, threshold=0.5)
    assert int(agreement["models"].max()) == 2


def test_using_is_narrowed_to_the_available_predictors(network, cube):
    future = cube.drop_vars(["bio12"])
    projection = gm.project(network, {"a": future}, using=["climate", "landsat[time=2012:2015]"])
    expected = gm.predict(cube, network, using=["bio1", "landsat[time=2012:2015]"])
    xr.testing.assert_allclose(projection["a"]["suitability"], expected["suitability"])


def test_lazy_cubes_stay_lazy(network, cube):
    projection = gm.project(network, {"a": cube.chunk(y=6)})
    assert projection["a"]["suitability"].chunks is not None
    assert np.isnan(projection.table.loc["a", "outside_range"])
    xr.testing.assert_allclose(projection["a"].compute(), gm.predict(cube, network), atol=1e-6)


def test_values_outside_the_training_range_are_in_the_table(network, cube):
    hot = cube.assign(bio1=(cube["bio1"] + 100).assign_attrs(cube["bio1"].attrs))
    table = gm.project(network, {"now": cube, "hot": hot}).table
    assert table.loc["hot", "outside_range"] > table.loc["now", "outside_range"]


@pytest.mark.parametrize(
    "scenarios, error, message",
    [
        (lambda cube: {}, gm.errors.SelectionError, "no scenario"),
        (lambda cube: cube, gm.errors.SelectionError, "DataTree or a mapping"),
        (lambda cube: {"a": cube.rename(bio12="bio_12")}, gm.errors.MissingVariable, "rename"),
        (lambda cube: {"a": cube[["bio1"]].rename(bio1="soil")}, gm.errors.MissingVariable, "none"),
        *((lambda cube, n=n: {n: cube}, NameRefused, "scenario") for n in ("", ".", "../a", "/a")),
    ],
)
def test_wrong_scenarios_are_refused(network, cube, scenarios, error, message):
    with pytest.raises(error, match=message):
        gm.project(network, scenarios(cube))


def test_a_projection_is_written_and_opened(network, cube, sites, tmp_path):
    lazy = cube.drop_vars("landsat").chunk({"y": 5})
    scenarios = {"now": cube, "2070": {"b": lazy, "a": lazy.drop_vars("chip")}}
    projection = gm.project(network, scenarios, sites=sites)
    assert np.isnan(projection.table.loc["2070/b", "outside_range"])  # lazy maps stay lazy
    written = gm.Projection.open(projection.write(tmp_path / "maps.zarr"))
    assert written.table.index.tolist() == ["now", "2070/b", "2070/a"]
    for name in written.table.index:
        expected = projection[name].load()
        xr.testing.assert_allclose(written[name][list(expected.data_vars)].load(), expected)
        assert written.table.loc[name, "outside_range"] == pytest.approx(
            float(expected["outside_range"].mean())
        )
    columns = ["left_out", "skill", "skill_all", "skill_loss", "skill_from"]
    pd.testing.assert_frame_equal(written.table[columns], projection.table[columns])
    alone = open_zarr(tmp_path / "maps.zarr" / "2070" / "a")
    assert alone.odc.crs == "EPSG:4326" and "suitability" in alone
    with pytest.raises(OutputExists, match="overwrite=True"):
        projection.write(tmp_path / "maps.zarr")
    projection.write(tmp_path / "maps.zarr", overwrite=True)
    with pytest.raises(SelectionError, match="is no projection"):
        gm.Projection.open(tmp_path / "maps.zarr" / "now")
    with pytest.raises(NameRefused):
        gm.project(network, {"..": cube}).write(tmp_path / "other.zarr")
