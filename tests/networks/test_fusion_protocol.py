"""The fusion that CONTRIBUTING.md adds as an example, and every fusion against the defaults of the protocol."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import train_small
from helpers_examples import run_example
from helpers_small import every_kind, layout_of, random_arrays, untrained, variable

import geomiam as gm
from geomiam.inference.engine import predict_block
from geomiam.inference.shapley_block import shapley_block
from geomiam.networks.fusion.protocol import CoalitionView, Fusion
from geomiam.networks.fusion.registry import FUSIONS
from geomiam.networks.pooling import VisibleTokens
from geomiam.tokens.encode import encode
from geomiam.tokens.rows import Rows
from geomiam.tokens.select import group_masks

LargestFusion = run_example("How to add a fusion")["LargestFusion"]


@pytest.fixture(scope="module", params=["largest", "largest+sum"])
def model(request, sites) -> gm.Model:
    return train_small(sites, request.param)


def test_the_example_trains(model):
    losses = [row["loss"] for row in model.about["history"]]
    assert np.isfinite(losses).all()
    assert model.network.members[0].fusion.nothing.abs().max() > 0


def test_the_example_predicts_wherever_anything_is_observed(model, cube):
    out = gm.predict(cube, model)
    any_observed = out["observed"] != 0
    assert bool((out["suitability"].notnull() == any_observed).all()) and bool(any_observed.any())


def test_the_values_of_the_example_add_up_to_its_prediction(model, cube):
    values = gm.shapley(cube, model)
    total = values["base_value"] + values["shapley"].sum("group", skipna=False)
    full = gm.predict(cube, model)["suitability"]
    np.testing.assert_allclose(total.transpose(*full.dims), full, atol=2e-5, equal_nan=True)
    assert float(abs(values["shapley"]).max()) > 0.001


def test_the_example_is_the_same_after_saving(model, cube, tmp_path):
    again = gm.load_model(model.save(tmp_path / "model"))
    assert again.id == model.id
    np.testing.assert_array_equal(
        gm.predict(cube, again)["suitability"], gm.predict(cube, model)["suitability"]
    )


def test_the_example_refuses_options_that_it_does_not_have(model, sites):
    with pytest.raises(ValueError, match="no blocks over tokens"):
        gm.NetworkConfig(fusion="largest", experts=4)
    with pytest.raises(ValueError, match=r"gate=True .* fusion='cross'"):
        gm.NetworkConfig(fusion="largest", gate=True)
    with pytest.raises(gm.errors.SelectionError, match="trains the branches of late fusion"):
        gm.fit(sites, network=gm.NetworkConfig(fusion="largest"), warm_start=True)
    with pytest.raises(gm.errors.SelectionError, match="cannot take new predictors"):
        more_sites = sites.assign(soil=sites["bio1"].assign_attrs(modality="soil"))
        gm.finetune(model, more_sites, train="new")
    with pytest.raises(gm.errors.SelectionError, match="an explainer is for token fusion"):
        gm.explain.fit_explainer(model, sites)


@pytest.mark.parametrize("name", FUSIONS)
def test_every_fusion_agrees_with_the_defaults_of_the_protocol(name):
    """Views and training of each class, against one plain forward pass for each coalition."""
    model = untrained(every_kind(), fusion=name, inner=1, depth=2, dropout=0.0)
    block = encode(random_arrays(every_kind(), 20), layout=model.layout, scaler=model.scaler)
    values, observed = [torch.as_tensor(v) for v in block.values], torch.as_tensor(block.observed)
    member = model.network.members[0]
    visible = torch.rand(6, model.layout.size, generator=torch.Generator().manual_seed(0)) < 0.6
    with torch.inference_mode():
        rows = Rows(member.tokenizers, values, observed)
        positions = torch.arange(20), torch.arange(6)
        fast = member.fusion.view(rows, visible).features(*positions)
        plain = CoalitionView(member.fusion, rows, visible).features(*positions)
        torch.testing.assert_close(fast, plain, rtol=0, atol=1e-5)
        assert fast.shape == (20, 6, member.fusion.feature_width)
        tokens = VisibleTokens.of(member.tokenizers, values, observed)
        training_features = member.fusion.train().training_features(tokens)
        torch.testing.assert_close(
            training_features,
            Fusion.training_features(member.fusion.eval(), tokens),
            rtol=0,
            atol=1e-5,
        )


@pytest.mark.parametrize("name", FUSIONS)
def test_the_declared_blocks_are_those_that_are_built(name):
    """A saved model is checked against their number before they are built."""
    from geomiam.networks.blocks import TransformerBlock

    config = gm.NetworkConfig(fusion=name, width=8, heads=2, depth=3, inner=2)
    layout = layout_of(a=[variable("x")], b=[variable("y"), variable("z")])
    fusion = FUSIONS[name](config, layout)
    built = [m for m in fusion.modules() if isinstance(m, TransformerBlock)]
    assert len(built) == sum(FUSIONS[name].count_blocks(config, modalities=2))


def test_hidden_values_of_the_example_are_inert():
    model = untrained(every_kind(), fusion="largest")
    block = encode(random_arrays(every_kind(), 20), layout=model.layout, scaler=model.scaler)
    groups = np.stack(list(group_masks(model.layout).values()))
    result = shapley_block(model, block, groups=groups, species=np.arange(2))
    values, full = result.terms, result.full
    np.testing.assert_allclose(
        full, predict_block(model, block, visible=groups.any(0), species=np.arange(2)), atol=1e-6
    )
    absent = ~np.stack([(block.observed & g).any(1) for g in groups], 1)
    assert (np.nan_to_num(values[absent]) == 0).all()
