"""The spread of an ensemble is the standard deviation of its members' predictions, on every route."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import xarray as xr
from conftest import train_small
from helpers_small import every_kind, random_arrays, schema_of, untrained, variable
from safetensors.torch import load_file, save_file

import geomiam as gm
from geomiam.errors import ArtifactError, SettingError
from geomiam.inference.engine import predict_block
from geomiam.inference.members import spread_block
from geomiam.model.model import LINKS
from geomiam.networks.network import join
from geomiam.tokens.encode import encode


def members(schema, *, link: str = "logit", count: int = 3, **config):
    """Models with random weights of a different level each, and the ensemble that joins them."""
    models = [untrained(schema, species=4, seed=seed, **config) for seed in range(count)]
    for number, model in enumerate(models):
        torch.nn.init.constant_(model.network.head.bias, float(number))
    ensemble = untrained(schema, species=4, members=count, **config)
    join([m.network for m in models], ensemble.network)
    for model in (*models, ensemble):
        object.__setattr__(model, "link", link)
    return models, ensemble


@pytest.mark.parametrize("scale", ["logit", "probability"])
@pytest.mark.parametrize("link", list(LINKS))
def test_the_spread_is_the_deviation_of_models_that_predict_alone(link, scale):
    models, ensemble = members(every_kind(), link=link)
    arrays = random_arrays(every_kind(), 30)
    for values in arrays.values():
        values[:3] = np.nan
    options = {"species": np.array([2, 0]), "scale": scale}
    visible = np.ones(ensemble.layout.size, bool)
    visible[3:6] = False

    def block(model):
        return encode(arrays, layout=model.layout, scaler=ensemble.scaler)

    alone = [predict_block(m, block(m), visible=visible, **options) for m in models]
    mean, spread = spread_block(ensemble, block(ensemble), visible=visible, **options)
    assert np.isnan(spread[:3]).all() and np.isfinite(spread[3:]).all()
    np.testing.assert_allclose(spread, np.std(alone, 0), rtol=1e-3, atol=1e-5)
    assert np.array_equal(
        mean, predict_block(ensemble, block(ensemble), visible=visible, **options), equal_nan=True
    )


@pytest.fixture(scope="module")
def ensemble(sites) -> gm.Model:
    return train_small(sites, "group+sum")


@pytest.mark.filterwarnings("ignore")
def test_routes_and_chunks_give_one_spread(ensemble, cube):
    without = cube.assign(bio1=cube["bio1"] * np.nan, bio12=cube["bio12"] * np.nan)
    names = [m for m in ensemble.schema.modalities if m != "climate"]
    by_nan = gm.predict(without, ensemble, spread=True)["spread"]
    by_using = cube.miam.predict(ensemble, using=names, spread=True)
    np.testing.assert_allclose(by_nan, by_using["spread"], atol=1e-6)
    lazy = gm.predict(cube.chunk(y=5, x=4), ensemble, using=names, spread=True)
    assert lazy["spread"].chunks is not None and lazy["spread"].dims == ("species", "y", "x")
    xr.testing.assert_allclose(lazy.compute(), by_using, atol=1e-6)
    assert "spread" in by_using["suitability"].attrs["ancillary_variables"]
    assert (by_using["spread"].notnull() == by_using["suitability"].notnull()).all()
    assert float(by_using["spread"].max()) > 1e-3


@pytest.mark.filterwarnings("ignore")
def test_cells_with_nothing_observed_have_the_spread_of_the_base_value(ensemble, cube):
    options = gm.PredictOptions(empty="base")
    maps = gm.predict(cube, ensemble, spread=True, options=options)
    empty = (maps["observed"] == 0).values
    hidden = cube.where(False).isel(y=[0], x=[0])
    alone = gm.predict(hidden, ensemble, spread=True, options=options)["spread"]
    assert empty.any()
    np.testing.assert_array_equal(
        maps["spread"].values[:, empty], np.repeat(alone.values[:, 0], empty.sum(), 1)
    )


@pytest.mark.filterwarnings("ignore")
def test_a_written_map_has_the_spread(ensemble, cube, tmp_path):
    cube, options = cube.isel(x=slice(5)), gm.MapOptions(spread=True)
    expected = gm.predict(cube, ensemble, spread=True)["spread"]
    maps = gm.write_map(cube, ensemble, tmp_path / "m.zarr", chunks={"y": 5}, options=options)
    np.testing.assert_allclose(maps["spread"], expected, atol=1e-6)
    figure = gm.plot.bivariate(maps)
    assert figure.child_axes[0].get_ylabel() == "spread"
    tif = gm.write_map(cube, ensemble, tmp_path / "m.tif", options=options)
    np.testing.assert_allclose(tif["spread"], expected, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_shapley_values_have_a_spread_in_every_chunk_and_on_disk(ensemble, cube, tmp_path):
    cube, groups = cube.isel(x=slice(6)), ["climate", "terrain"]
    contributions = gm.shapley(cube, ensemble, groups=groups, order=2, spread=True)
    absent = (contributions["observed"] & 1) == 0
    assert (contributions["shapley_spread"].isel(group=0).where(absent, 0).fillna(0) == 0).all()
    assert float(contributions["shapley_spread"].max()) > 1e-3
    assert (contributions["shapley_spread"].isnull() == contributions["shapley"].isnull()).all()
    options = gm.MapOptions(groups=groups, spread=True)
    settings = {"shapley": True, "chunks": {"y": 5}, "options": options}
    maps = gm.write_map(cube.chunk(x=4), ensemble, tmp_path / "m.zarr", **settings)
    xr.testing.assert_allclose(
        maps[["shapley_spread"]], contributions[["shapley_spread"]], atol=1e-6
    )


def test_an_explainer_has_no_spread(ensemble, cube):
    options = gm.explain.ShapleyOptions(method="amortised")
    with pytest.raises(SettingError, match=r"as a whole.*method='exact'"):
        gm.shapley(cube, ensemble, spread=True, options=options)


def test_one_member_has_no_spread(small_model, cube):
    with pytest.raises(SettingError, match=r"one member: train several .*'members': 4"):
        gm.predict(cube, small_model("group"), spread=True)
    with pytest.raises(SettingError, match="no layer 'spread'; predict with spread=True"):
        gm.plot.bivariate(gm.predict(cube, small_model("group")))


SCALARS = schema_of(climate=[variable("bio1"), variable("bio12")], soil=[variable("clay")])


def test_biases_of_members_are_saved_and_older_models_agree_where_nothing_is_observed(tmp_path):
    ensemble = members(SCALARS)[1]
    path = ensemble.save(tmp_path / "model")
    table = {k: ("site", v) for k, v in random_arrays(SCALARS, 20).items()}
    data = xr.Dataset(table).isel(site=slice(0, 10))
    data[["bio1", "bio12", "clay"]] = data.where(data["site"] != 0)
    options = gm.PredictOptions(empty="base")
    settings = {"spread": True, "scale": "logit", "options": options}
    expected = gm.predict(data, ensemble, **settings)["spread"]
    read = gm.load_model(path)
    assert read.id == ensemble.id
    np.testing.assert_array_equal(gm.predict(data, read, **settings)["spread"], expected)
    assert (expected[:, 0] > 0.1).all()

    weights = load_file(path / "model.safetensors")
    del weights["offsets"]
    save_file(weights, path / "model.safetensors")
    config = json.loads((path / "config.json").read_text()) | {"format": 1}
    (path / "config.json").write_text(json.dumps(config))
    old = gm.load_model(path)
    maps = gm.predict(data, old, **settings)
    np.testing.assert_allclose(maps["spread"][:, 0], 0, atol=1e-6)
    np.testing.assert_allclose(
        maps["suitability"], gm.predict(data, read, **settings)["suitability"], atol=1e-6
    )
    assert (maps["spread"][:, 1:] > 1e-3).all()
    weights["offsets"] = torch.zeros(2, 4)  # the model has three members
    save_file(weights, path / "model.safetensors")
    with pytest.raises(ArtifactError, match=r"'offsets' is F32 \[2, 4\], expected F32 \[3, 4\]"):
        gm.load_model(path)


@pytest.mark.filterwarnings("ignore")
def test_new_species_leave_the_spread_of_the_old_ones(ensemble, sites, cube):
    new = sites.assign_coords(species=[f"new {i}" for i in range(sites.sizes["species"])])
    finetuned_model = gm.finetune(ensemble, new, train="head", training={"epochs": 1})
    before = gm.predict(cube, ensemble, spread=True)["spread"]
    after = gm.predict(cube, finetuned_model, spread=True)["spread"]
    np.testing.assert_allclose(after.sel(species=before["species"]), before, atol=1e-6)
    assert float(after.sel(species="new 0").max()) > 0
