"""The engine: whatever is shared, batched or cut differently, the numbers stay; equal rows are made once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from helpers_small import every_kind, layout_of, random_arrays, untrained, variable
from hypothesis import given, settings
from hypothesis import strategies as st

import geomiam as gm
from geomiam.errors import SelectionError
from geomiam.inference import slabs
from geomiam.inference.engine import base_value, coalition_block, predict_block
from geomiam.inference.shapley_block import shapley_block
from geomiam.networks.blocks import TransformerBlock
from geomiam.networks.fusion.group import CoalitionLayout, GroupFusion, read_coalitions
from geomiam.tokens.encode import TokenArrays, encode
from geomiam.tokens.rows import Rows
from geomiam.tokens.select import group_masks

FUSIONS = ["group", "token", "cross", "sum", "quadratic", "group+sum+linear", "late"]


def made(fusion: str, *, rows: int = 23, gaps: float = 0.3, species: int = 5):
    members = len(fusion.split("+"))
    model = untrained(
        every_kind(), species=species, fusion=fusion, members=members, depth=2, inner=1
    )
    arrays = random_arrays(model.schema, rows, seed=3, gaps=gaps)
    block = encode(arrays, layout=model.layout, scaler=model.scaler)
    return model, block, np.stack(list(group_masks(model.layout).values()))


@pytest.mark.parametrize(
    ("fusion", "scale"), [*((f, "probability") for f in FUSIONS), (FUSIONS[-1], "logit")]
)
def test_batches_slabs_and_blocks_of_species_do_not_matter(fusion, scale, monkeypatch):
    model, block, masks = made(fusion)
    arguments = {"species": np.array([4, 0, 2]), "scale": scale}
    visible = np.random.default_rng(0).random((9, masks.shape[1])) < 0.5

    def everything():
        explanation = shapley_block(model, block, groups=masks, **arguments)
        return (
            explanation.terms,
            explanation.full,
            predict_block(model, block, visible=masks[:3].any(0), **arguments),
            coalition_block(model, block, visible=visible, **arguments),
        )

    before = everything()
    for name, value in {
        "SLAB": 7,
        "VECTORS_AT_ONCE": 40,
        "COALITIONS_AT_ONCE": 3,
        "PREDICTIONS_AT_ONCE": 5,
    }.items():
        monkeypatch.setattr(slabs, name, value)
    for a, b in zip(before, everything(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-6)


def test_a_prediction_that_is_not_finite_is_an_error_and_no_gap():
    model, block, masks = made("group")
    torch.nn.init.constant_(model.network.head.bias[1:2], torch.inf)
    arguments = {"species": np.arange(5), "scale": "logit"}
    with pytest.raises(FloatingPointError, match="NaN or infinity from finite input"):
        predict_block(model, block, visible=masks.any(0), **arguments)
    with pytest.raises(FloatingPointError, match="NaN or infinity from finite input"):
        coalition_block(model, block, visible=masks, **arguments)
    with pytest.raises(FloatingPointError, match="NaN or infinity from finite input"):
        shapley_block(model, block, groups=masks, **arguments)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_full_value_is_the_prediction(fusion):
    model, block, masks = made(fusion)
    species = np.arange(5)
    result = shapley_block(model, block, groups=masks[:4], species=species)
    values, full = result.terms, result.full
    visible = masks[:4].any(0)
    expected = predict_block(model, block, visible=visible, species=species)
    np.testing.assert_allclose(full, expected, rtol=0, atol=1e-6)
    assert np.isnan(full).any(1).tolist() == (~(block.observed & visible).any(1)).tolist()
    assert values.shape == (len(block), 4, 5)


@settings(max_examples=30, deadline=None)
@given(
    depth=st.integers(1, 3),
    groups=st.integers(1, 5),
    seed=st.integers(0, 1000),
    data=st.data(),
)
def test_all_coalitions_at_once_equal_one_transformer_a_coalition(depth, groups, seed, data):
    torch.manual_seed(seed)
    config = gm.NetworkConfig(width=16, heads=4, inner=0, depth=depth)
    fusion = GroupFusion(config, layout_of(**{f"m{g}": [variable(f"x{g}")] for g in range(groups)}))
    fusion.eval()
    coalitions = data.draw(st.lists(st.sets(st.integers(0, groups - 1)), min_size=1, max_size=9))
    summaries = torch.randn(4, groups, 16)
    layout = CoalitionLayout.of(
        [sorted(v + 1 for v in c) for c in coalitions], among=groups + 1, device=torch.device("cpu")
    )
    with torch.inference_mode():
        together = read_coalitions(fusion.blocks, fusion.with_query(summaries), layout)
        for c, row_pattern in enumerate(coalitions):
            present = torch.zeros(4, groups, dtype=torch.bool)
            present[:, list(row_pattern)] = True
            alone = fusion.fuse(summaries, present)
            torch.testing.assert_close(together[:, c], alone, rtol=0, atol=1e-5)


def test_the_mean_is_taken_before_the_last_product():
    torch.manual_seed(0)
    block = TransformerBlock(16, 4, 0.1).eval()
    x, weight = torch.randn(5, 7, 16), torch.rand(7)
    weight /= weight.sum()
    with torch.inference_mode():
        expected = (block.feed_forward(x) * weight[:, None]).sum(1)
        torch.testing.assert_close(block.feed_forward_mean(x, weight), expected, rtol=0, atol=1e-6)


def repeated(block: TokenArrays, times: int) -> TokenArrays:
    return TokenArrays(
        tuple(np.repeat(v, times, 0) for v in block.values), np.repeat(block.observed, times, 0)
    )


@pytest.mark.parametrize("fusion", FUSIONS)
def test_equal_rows_are_equal_to_the_last_bit(fusion):
    model, block, masks = made(fusion, rows=7)
    repeated_block = repeated(block, 5)
    answers = predict_block(model, repeated_block, visible=masks.any(0), species=np.arange(5))
    assert (
        answers.reshape(7, 5, 5) == answers.reshape(7, 5, 5)[:, :1]
    ).sum() == answers.size - np.isnan(answers).sum()
    visible = masks[:2]
    several = coalition_block(model, repeated_block, visible=visible, species=np.arange(5)).reshape(
        2, 7, 5, 5
    )
    np.testing.assert_array_equal(several, np.broadcast_to(several[:, :, :1], several.shape))


def test_a_group_is_encoded_once_for_rows_that_have_it_in_common(monkeypatch):
    """A coarse grid under a fine one: one group repeats, another does not."""
    model, block, masks = made("group", rows=40, gaps=0.0)
    coarse = [p for p, part in enumerate(model.layout.parts) if part.kind == "vector"]
    values = [np.repeat(v[:4], 10, 0) if p in coarse else v for p, v in enumerate(block.values)]
    encoded_rows: list[tuple[int, int]] = []
    original = GroupFusion.pool

    def counted(self, group, tokens, visible):
        encoded_rows.append((group, len(tokens)))
        return original(self, group, tokens, visible)

    monkeypatch.setattr(GroupFusion, "pool", counted)
    mixed = TokenArrays(tuple(values), block.observed)
    fast = shapley_block(model, mixed, groups=masks, species=np.arange(2)).terms
    groups = list(model.schema.groups)
    assert dict(encoded_rows)[groups.index("embedding")] == 4
    assert dict(encoded_rows)[groups.index("climate")] == 40
    assert len(encoded_rows) == len(groups)  # once each, for all coalitions
    monkeypatch.undo()
    monkeypatch.setattr("geomiam.tokens.rows.COMPARED_BYTES", 0)
    plain = shapley_block(model, mixed, groups=masks, species=np.arange(2)).terms
    np.testing.assert_allclose(fast, plain, rtol=0, atol=1e-6)


def test_distinct_rows_are_those_of_numpy():
    model, block, _ = made("group", rows=60, gaps=0.4)
    values = [torch.as_tensor(np.repeat(v[:20], 3, 0)) for v in block.values]
    has_token = torch.as_tensor(np.repeat(block.observed[:20], 3, 0))
    rows = Rows(model.network.members[0].tokenizers, values, has_token)
    all_species = list(range(model.layout.size))
    first, same = rows.distinct(all_species)
    flat = np.concatenate([v.reshape(60, -1) for v in values], 1)
    expected = np.unique(np.nan_to_num(flat, nan=1e30), axis=0)  # one NaN is equal to another
    assert len(first) == len(expected)
    np.testing.assert_array_equal(flat[first[same]], flat)


@pytest.mark.parametrize("fusion", ["group", "token"])
def test_bfloat16_is_near_and_adds_up(fusion, cube):
    model, block, masks = made(fusion, rows=50, gaps=0.1)
    species = np.arange(5)
    exact = shapley_block(model, block, groups=masks, species=species).terms
    half = model.in_precision("bf16")
    assert half is model.in_precision("bf16") and half is not model and half.id
    result = shapley_block(half, block, groups=masks, species=species)
    values, full = result.terms, result.full
    base = base_value(half, species=species)
    np.testing.assert_allclose(values.sum(1) + base, full, rtol=0, atol=2e-3)
    off = np.nanmax(np.abs(values - exact))
    assert 0 < off < 0.02, off
    assert model.network.members[0].dtype == torch.float32


@pytest.mark.parametrize("model", ["group", "late"], indirect=True)
def test_precision_is_set_and_reported(model, cube):
    rough = gm.predict(cube, model, options=gm.PredictOptions(precision="bf16"))
    fine = gm.predict(cube, model)
    assert rough.attrs["precision"] == "bf16" and fine.attrs["precision"] == "fp32"
    assert rough.attrs["model_id"] == fine.attrs["model_id"]
    xr.testing.assert_allclose(rough["suitability"], fine["suitability"], rtol=0, atol=0.03)
    explanation = gm.shapley(cube, model, options=gm.explain.ShapleyOptions(precision="bf16"))
    total = explanation["base_value"] + explanation["shapley"].sum("group")
    assert float(np.abs(total - explanation["suitability"]).max()) < 0.01
    with pytest.raises(SelectionError, match="precision='int8'; use fp32 or bf16"):
        gm.predict(cube, model, options=gm.PredictOptions(precision="int8"))
