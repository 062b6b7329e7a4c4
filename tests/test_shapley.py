"""Shapley values: the axioms, an independent exact computer, and the savings that must change nothing."""

from __future__ import annotations

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
from geomiam.inference.coalitions import Coalitions, shapley_weights
from geomiam.inference.engine import base_value, predict_block
from geomiam.inference.shapley_block import shapley_block
from geomiam.networks.blocks import TransformerBlock, gather, rows_of_equal_length
from geomiam.networks.fusion.token import TokenFusion
from geomiam.tokens.blocks import Block
from geomiam.tokens.select import group_masks

SCALES = ["probability", "logit"]


def value_of(model, block, masks, coalition, *, species, scale):
    """v(S) by hand: the plain prediction with the coalition's tokens visible; v(∅) where that is nothing."""
    visible = masks[list(coalition)].any(0) if len(coalition) else np.zeros(masks.shape[1], bool)
    out = predict_block(model, block, visible=visible, species=species, scale=scale)
    base = base_value(model, species=species, scale=scale)
    return np.where(np.isnan(out), base, out)


@pytest.mark.parametrize("scale", SCALES)
def test_values_add_up_to_the_prediction_everywhere(model, cube, scale):
    why = gm.shapley(cube, model, scale=scale)
    total = why["base_value"] + why["shapley"].sum("group", skipna=False)
    seen = why["suitability"].notnull()
    np.testing.assert_array_equal(total.notnull().transpose(*seen.dims), seen)
    assert float(np.abs(total - why["suitability"]).max()) < 1e-5
    xr.testing.assert_allclose(
        why["suitability"], gm.predict(cube, model, scale=scale)["suitability"], rtol=0, atol=2e-6
    )


@pytest.mark.parametrize("scale", SCALES)
def test_an_absent_group_gets_exactly_zero(model, cube, scale):
    why = gm.shapley(without(cube, model, "landsat"), model, scale=scale)
    landsat = why["shapley"].sel(group="landsat")
    assert (landsat.where(why["suitability"].notnull(), 0) == 0).all()
    bits = why["observed"].attrs["flag_meanings"].split()
    for group in bits:
        seen = (why["observed"].values >> bits.index(group)) & 1
        values = why["shapley"].sel(group=group).values[:, seen == 0]
        assert ((values == 0) | np.isnan(values)).all()


@pytest.mark.parametrize("scale", ["probability", pytest.param("logit", marks=pytest.mark.slow)])
def test_values_equal_an_independent_exact_computer(model, sites, scale):
    shapiq = pytest.importorskip("shapiq")
    from shapiq.game_theory import ExactComputer

    few = encode_sites(sites.isel(site=slice(0, 6)), model)
    masks, species = np.stack(list(group_masks(model.layout).values())), np.array([1])
    ours = shapley_block(model, few, groups=masks, species=species, scale=scale)[0][..., 0]
    for row in range(len(few)):
        block = Block(tuple(v[[row]] for v in few.values), few.observed[[row]])
        if not block.observed.any():
            assert np.isnan(ours[row]).all()
            continue

        def game(coalitions, block=block):
            values = [
                value_of(model, block, masks, np.flatnonzero(c), species=species, scale=scale)
                for c in coalitions
            ]
            return np.array(values, float).reshape(-1)

        exact = ExactComputer(game, n_players=len(masks))("SV", 1)
        theirs = [exact[(g,)] for g in range(len(masks))]
        np.testing.assert_allclose(ours[row], theirs, atol=2e-6)
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
    values = shapley_block(model, block, groups=masks, species=index)[0]
    turned = shapley_block(model, block, groups=masks[::-1], species=index)[0]
    np.testing.assert_allclose(values, turned[:, ::-1], atol=2e-6)


def test_species_are_explained_each_for_itself(model, cube):
    every = gm.shapley(cube, model)
    one = gm.shapley(cube, model, species="species 1")
    np.testing.assert_allclose(
        one["shapley"].squeeze("species"), every["shapley"].sel(species="species 1"), atol=2e-6
    )


def test_groups_can_be_variables_years_and_patches(model, cube):
    groups = {
        "temperature": "bio1",
        "early": "landsat[time=2012:2014]",
        "late": "landsat[time=2015:2018]",
        "centre": "sentinel2[centre]",
        "place": ["terrain", "cover"],
    }
    why = gm.shapley(cube, model, groups=groups)
    assert why["group"].values.tolist() == [*groups, "rest"]
    total = why["base_value"] + why["shapley"].sum("group", skipna=False)
    assert float(np.abs(total - gm.predict(cube, model)["suitability"]).max()) < 1e-5
    assert_parts_equal_plain_game(model, cube, groups)


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
    ours = shapley_block(model, block, groups=masks, species=species, scale="logit")[0]
    seen = block.observed.any(1)
    np.testing.assert_allclose(ours[seen], expected[seen], atol=1e-5)


def test_using_limits_the_game(model, cube):
    why = gm.shapley(cube, model, using=["climate", "terrain"])
    assert why["group"].values.tolist() == ["climate", "terrain"]
    np.testing.assert_allclose(
        why["suitability"],
        gm.predict(cube, model, using=["climate", "terrain"])["suitability"],
        atol=2e-6,
    )


def test_overlapping_groups_are_refused(model, cube):
    with pytest.raises(SelectionError, match=r"groups \['a', 'b'\] share the token 'bio1'"):
        gm.shapley(cube, model, groups={"a": "climate", "b": "bio1"})


@pytest.mark.slow
def test_beyond_twelve_groups_coalitions_are_drawn(model, cube):
    many = {
        f"t{y}{b}": f"landsat[time={y},band={b}]" for y in range(2012, 2019) for b in ("red", "nir")
    }
    few = cube.isel(y=slice(0, 2), x=slice(0, 3))
    why = gm.shapley(few, model, groups=many, method="latin", samples=2)
    assert why.sizes["group"] == 15 and why.attrs["samples"] == 2
    total = why["base_value"] + why["shapley"].sum("group")
    seen = why["suitability"].notnull()
    assert float(np.abs(total - why["suitability"]).max()) < 1e-5
    assert (why["standard_error"].notnull() == seen).all()
    bits = why["observed"].values[..., None].astype("uint64") >> np.arange(
        15, dtype="uint64"
    ) & np.uint64(1)
    absent = xr.DataArray(bits == 0, dims=("y", "x", "group")) & seen
    for name in ("shapley", "standard_error"):
        assert (why[name].where(absent, 0) == 0).all()
    xr.testing.assert_identical(
        why, gm.shapley(few, model, groups=many, method="latin", samples=2)
    )  # equal seeds
    default = gm.shapley(few.isel(y=[0], x=[0]), model, groups=many)
    assert default.attrs["samples"] == 8
    with pytest.raises(SelectionError, match="samples=1 has no standard error; pass samples=2"):
        gm.shapley(few, model, method="latin", samples=1)
    with pytest.raises(SelectionError, match=r"15 groups mean 2\^15 coalitions.*method='latin'"):
        gm.shapley(few, model, groups=many, method="exact")


@pytest.mark.parametrize("scale", SCALES)
def test_drawn_values_are_near_the_exact_ones_as_their_error_says(model, cube, scale):
    few = cube.isel(y=slice(0, 6), x=slice(0, 6))
    exact = gm.shapley(few, model, scale=scale)
    drawn = gm.shapley(few, model, scale=scale, method="latin", samples=24, rng=1)
    xr.testing.assert_allclose(drawn["suitability"], exact["suitability"], rtol=0, atol=1e-5)
    off = np.abs(drawn["shapley"] - exact["shapley"])
    within = (off <= 3 * drawn["standard_error"] + 1e-6).where(exact["shapley"].notnull())
    assert float(within.mean()) > 0.95
    ratio = float((off**2).mean() / (drawn["standard_error"] ** 2).mean()) ** 0.5
    assert 0.5 < ratio < 2  # 1.00 measured: the error is not too large either
    assert float(off.max()) > 1e-6  # it is a draw


@pytest.mark.parametrize("groups", [1, 2, 5])
def test_drawn_coalitions_weigh_every_linear_game_exactly(groups):
    worth = np.random.default_rng(0).normal(size=groups)
    drawn = Coalitions.latin(groups, samples=3, rng=np.random.default_rng(1))
    assert drawn.weight.shape == (3, len(drawn.member), groups)
    values = np.einsum("kcg,c->kg", drawn.weight, drawn.member @ worth)
    np.testing.assert_allclose(values, np.tile(worth, (3, 1)), atol=1e-12)
    full, none = drawn.member.all(1), ~drawn.member.any(1)
    ends = np.where(full, 1.0, np.where(none, -1.0, 0.0))
    np.testing.assert_allclose(drawn.weight.sum(-1), np.tile(ends, (3, 1)), atol=1e-12)


def test_absent_groups_leave_the_smaller_game():
    every = Coalitions.every(5)
    present = np.array([True, False, True, True, False])
    which, weight = every.among(present)
    mine = np.flatnonzero(present)
    seen = every.member[which] & present
    assert seen[-1].tolist() == present.tolist() and len(which) == 8
    numbers = (seen[:, mine] << np.arange(3)).sum(1)
    np.testing.assert_allclose(weight[0][:, mine], shapley_weights(3)[numbers], atol=1e-12)
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
        plain, collapsed = fusion.plain(tokens, visible), fusion(tokens, visible)
    torch.testing.assert_close(plain, collapsed, rtol=0, atol=1e-5)


def test_coalitions_of_group_fusion_equal_full_passes(model, sites):
    block = encode_sites(sites, model)
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
    block = encode_sites(sites, model)
    observed = torch.as_tensor(block.observed)
    values = [torch.as_tensor(v) for v in block.values]
    for module in model.network.modules():
        if isinstance(module, TransformerBlock):
            module.dropout, kept = 0.0, module.dropout
        if isinstance(module, torch.nn.Dropout):
            module.p, share = 0.0, module.p
    with torch.inference_mode():
        gathered = model.network.eval()(values, observed)
        masked = model.network.train()(values, observed)
    model.network.eval()
    for module in model.network.modules():
        if isinstance(module, TransformerBlock):
            module.dropout = kept
        if isinstance(module, torch.nn.Dropout):
            module.p = share
    torch.testing.assert_close(gathered, masked, rtol=0, atol=1e-5)


def test_buckets_cover_each_row_once_with_its_visible_tokens():
    visible = torch.rand(50, 9, generator=torch.Generator().manual_seed(1)) < 0.4
    tokens = torch.arange(50 * 9).reshape(50, 9, 1)
    seen = torch.zeros(50, dtype=torch.int64)
    for rows, index in rows_of_equal_length(visible):
        seen[rows] += 1
        for row, kept in zip(rows, gather(tokens, rows, index), strict=True):
            np.testing.assert_array_equal(kept[:, 0], tokens[row][visible[row]][:, 0])
    assert (seen == 1).all()
