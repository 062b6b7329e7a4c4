"""Shapley values: the axioms, an independent exact computer, and the savings that must change nothing."""

from __future__ import annotations

from functools import cache
from itertools import permutations

import numpy as np
import pytest
import torch
import xarray as xr
from helpers_small import layout_of, variable
from hypothesis import given, settings
from hypothesis import strategies as st
from test_laws import encode_sites, without

import geomiam as gm
from geomiam.errors import SelectionError
from geomiam.inference.coalitions import Coalitions
from geomiam.inference.engine import base_value, predict_block
from geomiam.inference.shapley_block import shapley_block
from geomiam.inference.terms import shapley_weights
from geomiam.networks.blocks import TransformerBlock
from geomiam.networks.fusion.token import TokenFusion
from geomiam.networks.pooling import gather, rows_of_equal_length
from geomiam.tokens.select import group_masks

SCALES = ["probability", "logit"]


def value_of(model, block, masks, coalition, *, species, scale):
    """v(S) by hand: the plain prediction with the coalition's tokens visible; v(∅) where that is nothing."""
    visible = masks[list(coalition)].any(0) if len(coalition) else np.zeros(masks.shape[1], bool)
    out = predict_block(model, block, visible=visible, species=species, scale=scale)
    base = base_value(model, species=species, scale=scale)
    return np.where(np.isnan(out), base, out)


@pytest.mark.parametrize("scale", SCALES)
def test_values_add_up_to_the_prediction_everywhere(model, crop, scale):
    explanation = gm.shapley(crop, model, scale=scale)
    total = explanation["base_value"] + explanation["shapley"].sum("group", skipna=False)
    has_token = explanation["suitability"].notnull()
    np.testing.assert_array_equal(total.notnull().transpose(*has_token.dims), has_token)
    assert float(np.abs(total - explanation["suitability"]).max()) < 1e-5
    xr.testing.assert_allclose(
        explanation["suitability"],
        gm.predict(crop, model, scale=scale)["suitability"],
        rtol=0,
        atol=2e-6,
    )


@pytest.mark.parametrize("scale", SCALES)
def test_an_absent_group_gets_exactly_zero(model, crop, scale):
    explanation = gm.shapley(without(crop, model, "landsat"), model, scale=scale)
    landsat = explanation["shapley"].sel(group="landsat")
    assert (landsat.where(explanation["suitability"].notnull(), 0) == 0).all()
    bits = explanation["observed"].attrs["flag_meanings"].split()
    for group in bits:
        has_token = (explanation["observed"].values >> bits.index(group)) & 1
        values = explanation["shapley"].sel(group=group).values[:, has_token == 0]
        assert ((values == 0) | np.isnan(values)).all()


@pytest.mark.parametrize("scale", ["probability", pytest.param("logit", marks=pytest.mark.slow)])
def test_values_equal_an_independent_exact_computer(model, sites, scale):
    shapiq = pytest.importorskip("shapiq")
    from shapiq.game_theory import ExactComputer

    small_block = encode_sites(sites.isel(site=slice(0, 3)), model)
    masks, species = np.stack(list(group_masks(model.layout).values())), np.array([1])
    actual = shapley_block(model, small_block, groups=masks, species=species, scale=scale).terms[
        ..., 0
    ]

    @cache
    def values_of(*coalition: int) -> np.ndarray:
        return value_of(model, small_block, masks, coalition, species=species, scale=scale)

    for row, observed in enumerate(small_block.observed):
        if not observed.any():
            assert np.isnan(actual[row]).all()
            continue

        def game(coalitions, row=row):
            return np.array([values_of(*np.flatnonzero(c))[row, 0] for c in coalitions])

        exact = ExactComputer(game, n_players=len(masks))("SV", 1)
        expected = [exact[(g,)] for g in range(len(masks))]
        np.testing.assert_allclose(actual[row], expected, atol=2e-6)
    assert shapiq is not None


def test_weights_are_the_mean_marginal_contribution_over_all_orders():
    rng = np.random.default_rng(0)
    for g in (1, 2, 3, 5):
        v = rng.normal(size=2**g)
        by_order = np.zeros(g)
        orders = list(permutations(range(g)))
        for order in orders:
            before = 0
            for player in order:
                by_order[player] += v[before | 1 << player] - v[before]
                before |= 1 << player
        np.testing.assert_allclose(v @ shapley_weights(g), by_order / len(orders), atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(g=st.integers(1, 8), seed=st.integers(0, 1000))
def test_weights_obey_efficiency_symmetry_dummy_and_linearity(g, seed):
    rng = np.random.default_rng(seed)
    weights, v, w = shapley_weights(g), rng.normal(size=2**g), rng.normal(size=2**g)
    np.testing.assert_allclose((v @ weights).sum(), v[-1] - v[0], atol=1e-9)
    np.testing.assert_allclose((v + 3 * w) @ weights, v @ weights + 3 * (w @ weights), atol=1e-9)
    size = np.array([bin(s).count("1") for s in range(2**g)])
    by_size = rng.normal(size=g + 1)[size]  # all groups alike
    np.testing.assert_allclose(by_size @ weights, (by_size[-1] - by_size[0]) / g, atol=1e-9)
    dummy = v[np.arange(2**g) & ~1]  # player 0 never changes the value
    np.testing.assert_allclose((dummy @ weights)[0], 0, atol=1e-12)


def test_groups_that_do_the_same_get_the_same(model, sites):
    block = encode_sites(sites.isel(site=slice(0, 8)), model)
    masks, index = np.stack(list(group_masks(model.layout).values())), np.arange(3)
    values = shapley_block(model, block, groups=masks, species=index).terms
    values_reversed = shapley_block(model, block, groups=masks[::-1], species=index).terms
    np.testing.assert_allclose(values, values_reversed[:, ::-1], atol=2e-6)


def test_species_are_explained_each_for_itself(model, crop):
    small_block = crop.isel(y=slice(0, 3))
    all_coalitions = gm.shapley(small_block, model)
    species_values = gm.shapley(small_block, model, species="species 1")
    np.testing.assert_allclose(
        species_values["shapley"].squeeze("species"),
        all_coalitions["shapley"].sel(species="species 1"),
        atol=2e-6,
    )


def test_groups_can_be_variables_years_and_patches(model, crop):
    groups = {
        "temperature": "bio1",
        "early": "landsat[time=2012:2014]",  # the other years are in the rest
        "centre": "sentinel2[centre]",
        "place": ["terrain", "cover"],
    }
    explanation = gm.shapley(crop, model, groups=groups)
    assert explanation["group"].values.tolist() == [*groups, "rest"]
    total = explanation["base_value"] + explanation["shapley"].sum("group", skipna=False)
    assert float(np.abs(total - gm.predict(crop, model)["suitability"]).max()) < 1e-5
    assert_parts_equal_plain_game(model, crop, groups)


def assert_parts_equal_plain_game(model, cube, groups):
    """Groups that cut through modalities, against the sum over all coalitions by hand."""
    sites = (
        cube.stack(site=("y", "x"))
        .reset_index("site")
        .transpose("site", ...)
        .isel(site=slice(20, 26))
    )
    block = encode_sites(sites, model)
    masks, species = np.stack(list(group_masks(model.layout, groups).values())), np.arange(3)
    weights = shapley_weights(len(masks))
    expected = np.zeros((len(block), len(masks), 3))
    for number, weight in enumerate(weights):
        members = [i for i in range(len(masks)) if number >> i & 1]
        expected += (
            weight[:, None]
            * value_of(model, block, masks, members, species=species, scale="logit")[:, None]
        )
    actual = shapley_block(model, block, groups=masks, species=species, scale="logit").terms
    has_token = block.observed.any(1)
    np.testing.assert_allclose(actual[has_token], expected[has_token], atol=1e-5)


def test_using_limits_the_game(model, crop):
    explanation = gm.shapley(crop, model, using=["climate", "terrain"])
    assert explanation["group"].values.tolist() == ["climate", "terrain"]
    np.testing.assert_allclose(
        explanation["suitability"],
        gm.predict(crop, model, using=["climate", "terrain"])["suitability"],
        atol=2e-6,
    )


def test_overlapping_groups_are_refused(model, crop):
    with pytest.raises(SelectionError, match=r"groups \['a', 'b'\] share the token 'bio1'"):
        gm.shapley(crop, model, groups={"a": "climate", "b": "bio1"})


@pytest.mark.slow
@pytest.mark.parametrize("model", ["group", "late"], indirect=True)
def test_beyond_twelve_groups_coalitions_are_drawn(model, crop):
    single_groups = {
        f"t{y}{b}": f"landsat[time={y},band={b}]" for y in range(2012, 2019) for b in ("red", "nir")
    }
    small_block = crop.isel(y=slice(0, 1), x=slice(0, 4))
    explanation = gm.shapley(
        small_block,
        model,
        groups=single_groups,
        options=gm.explain.ShapleyOptions(method="latin", samples=2),
    )
    assert explanation.sizes["group"] == 15 and explanation.attrs["samples"] == 2
    total = explanation["base_value"] + explanation["shapley"].sum("group")
    has_token = explanation["suitability"].notnull()
    assert float(np.abs(total - explanation["suitability"]).max()) < 1e-5
    assert (explanation["standard_error"].notnull() == has_token).all()
    bits = explanation["observed"].values[..., None].astype("uint64") >> np.arange(
        15, dtype="uint64"
    ) & np.uint64(1)
    absent = xr.DataArray(bits == 0, dims=("y", "x", "group")) & has_token
    for name in ("shapley", "standard_error"):
        assert (explanation[name].where(absent, 0) == 0).all()
    xr.testing.assert_identical(
        explanation,
        gm.shapley(
            small_block,
            model,
            groups=single_groups,
            options=gm.explain.ShapleyOptions(method="latin", samples=2),
        ),
    )  # equal seeds
    default = gm.shapley(small_block.isel(y=[0], x=[0]), model, groups=single_groups)
    assert default.attrs["samples"] == 8
    with pytest.raises(
        SelectionError, match=r"samples=1 has no standard error; pass ShapleyOptions\(samples=2\)"
    ):
        gm.shapley(small_block, model, options=gm.explain.ShapleyOptions(method="latin", samples=1))
    with pytest.raises(SelectionError, match=r"15 groups mean 2\^15 coalitions.*method='latin'"):
        gm.shapley(
            small_block,
            model,
            groups=single_groups,
            options=gm.explain.ShapleyOptions(method="exact"),
        )


@pytest.mark.parametrize("scale", SCALES)
def test_drawn_values_are_near_the_exact_ones_as_their_error_states(model, crop, scale):
    small_block = crop.isel(y=slice(0, 5), x=slice(0, 5))
    exact = gm.shapley(small_block, model, scale=scale)
    from_samples = gm.shapley(
        small_block,
        model,
        scale=scale,
        options=gm.explain.ShapleyOptions(method="latin", samples=24, rng=1),
    )
    xr.testing.assert_allclose(from_samples["suitability"], exact["suitability"], rtol=0, atol=1e-5)
    off = np.abs(from_samples["shapley"] - exact["shapley"])
    within = (off <= 3 * from_samples["standard_error"] + 1e-6).where(exact["shapley"].notnull())
    assert float(within.mean()) > 0.95
    ratio = float((off**2).mean() / (from_samples["standard_error"] ** 2).mean()) ** 0.5
    assert 0.5 < ratio < 2  # 1.00 measured: the error is not too large either
    assert float(off.max()) > 1e-6  # it is a draw


@pytest.mark.parametrize("groups", [1, 2, 5])
def test_drawn_coalitions_weigh_every_linear_game_exactly(groups):
    worth = np.random.default_rng(0).normal(size=groups)
    from_samples = Coalitions.latin(groups, samples=3, rng=np.random.default_rng(1))
    assert from_samples.weight.shape == (3, len(from_samples.member), groups)
    values = np.einsum("kcg,c->kg", from_samples.weight, from_samples.member @ worth)
    np.testing.assert_allclose(values, np.tile(worth, (3, 1)), atol=1e-12)
    full, none = from_samples.member.all(1), ~from_samples.member.any(1)
    ends = np.where(full, 1.0, np.where(none, -1.0, 0.0))
    np.testing.assert_allclose(from_samples.weight.sum(-1), np.tile(ends, (3, 1)), atol=1e-12)


def test_absent_groups_leave_the_smaller_game():
    all_coalitions = Coalitions.every(5)
    present = np.array([True, False, True, True, False])
    position, weight = all_coalitions.among(present)
    players = np.flatnonzero(present)
    has_token = all_coalitions.member[position] & present
    assert has_token[-1].tolist() == present.tolist() and len(position) == 8
    numbers = (has_token[:, players] << np.arange(3)).sum(1)
    np.testing.assert_allclose(weight[0][:, players], shapley_weights(3)[numbers], atol=1e-12)
    assert (weight[..., ~present] == 0).all()


# The exact savings.


@settings(max_examples=25, deadline=None)
@given(t=st.integers(1, 12), share=st.floats(0, 1), seed=st.integers(0, 1000))
def test_collapsing_hidden_tokens_equals_the_plain_pass(t, share, seed):
    torch.manual_seed(seed)
    config = gm.NetworkConfig(fusion="token", width=16, heads=4, depth=3)
    fusion = TokenFusion(config, layout_of(m=[variable(f"x{i}") for i in range(t)])).eval()
    tokens, visible = torch.randn(9, t, 16), torch.rand(9, t) >= share
    with torch.inference_mode():
        plain, collapsed_features = fusion.plain(tokens, visible), fusion(tokens, visible)
    torch.testing.assert_close(plain, collapsed_features, rtol=0, atol=1e-5)


def test_coalitions_of_group_fusion_equal_full_passes(model, sites):
    block = encode_sites(sites.isel(site=slice(40)), model)
    observed = torch.as_tensor(block.observed)
    visible = torch.rand(10, observed.shape[1], generator=torch.Generator().manual_seed(0)) < 0.5
    with torch.inference_mode():
        values = [torch.as_tensor(v) for v in block.values]
        tokens = model.network.tokens(values, observed)
        view = model.network.view(values, observed, visible)
        shared = view.features(torch.arange(len(observed)), torch.arange(len(visible)))
        for features, coalition in zip(shared.unbind(1), visible, strict=True):
            alone = model.network.features(tokens, observed & coalition)
            torch.testing.assert_close(features, alone, rtol=0, atol=1e-5)


def test_gathering_visible_tokens_equals_masking_them(model, sites):
    """Training masks keys, evaluation gathers: without dropout both must say the same."""
    block = encode_sites(sites.isel(site=slice(40)), model)
    observed = torch.as_tensor(block.observed)
    values = [torch.as_tensor(v) for v in block.values]
    for module in model.network.modules():
        if isinstance(module, TransformerBlock):
            module.dropout, kept_tokens = 0.0, module.dropout
        if isinstance(module, torch.nn.Dropout):
            module.p, share = 0.0, module.p
    with torch.inference_mode():
        gathered_tokens = model.network.eval()(values, observed)
        masked_tokens = model.network.train()(values, observed)
    model.network.eval()
    for module in model.network.modules():
        if isinstance(module, TransformerBlock):
            module.dropout = kept_tokens
        if isinstance(module, torch.nn.Dropout):
            module.p = share
    torch.testing.assert_close(gathered_tokens, masked_tokens, rtol=0, atol=1e-5)


def test_buckets_cover_each_row_once_with_its_visible_tokens():
    visible = torch.rand(50, 9, generator=torch.Generator().manual_seed(1)) < 0.4
    tokens = torch.arange(50 * 9).reshape(50, 9, 1)
    has_token = torch.zeros(50, dtype=torch.int64)
    for rows, index in rows_of_equal_length(visible):
        has_token[rows] += 1
        for row, kept_tokens in zip(rows, gather(tokens, rows, index), strict=True):
            np.testing.assert_array_equal(kept_tokens[:, 0], tokens[row][visible[row]][:, 0])
    assert (has_token == 1).all()
