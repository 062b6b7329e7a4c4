"""Cross-modal fusion: one encoder per modality, then all visible tokens side by side; every law holds for it."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
import xarray as xr
from helpers_small import draw_weights, every_kind, layout_of, random_arrays, untrained, variable

import geomiam as gm
from geomiam.errors import ArtifactError, SelectionError
from geomiam.inference.engine import base_value, coalition_block, predict_block
from geomiam.inference.shapley_block import shapley_block
from geomiam.networks.blocks import key_bias
from geomiam.networks.extras.cross import CrossFusion
from geomiam.tokens.encode import TokenArrays, encode
from geomiam.tokens.select import group_masks

VARIANTS = {
    "dense": {},
    "sparse": {"attention": "sparse", "budget": 1.0},
    "gated": {"attention": "sparse", "budget": 2.0, "gate": True},
    "experts": {"experts": 3, "top_experts": 2},
    "everything": {"attention": "sparse", "budget": 2.0, "gate": True, "experts": 3},
}


@pytest.fixture(params=list(VARIANTS))
def variant(request) -> dict:
    return VARIANTS[request.param]


def new_model(*, rows: int = 30, gaps: float = 0.3, members: int = 1, **config):
    """A model whose weights are not small, and rows of every kind of token."""
    model = untrained(
        every_kind(), fusion="cross", inner=1, depth=2, dropout=0.0, members=members, **config
    )
    draw_weights(model)
    arrays = random_arrays(every_kind(), rows, seed=3, gaps=gaps)
    return model, encode(arrays, layout=model.layout, scaler=model.scaler)


def tensors(block: TokenArrays):
    return [torch.as_tensor(v) for v in block.values], torch.as_tensor(block.observed)


def plainly(fusion: CrossFusion, tokens: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    """All tokens computed, hidden keys taken out of attention and mean; dense and plain blocks."""
    encodings = []
    for m, coalition in enumerate(fusion.spans):
        x = tokens[:, coalition]
        for block in fusion.encoders[m]:
            x = block(x, key_bias(visible[:, coalition], x.dtype))
        encodings.append(x + fusion.identity[m])
    x = torch.cat(encodings, 1)
    for block in fusion.blocks:
        x = block(x, key_bias(visible, x.dtype))
    weight = visible.unsqueeze(-1).float()
    mean = (x * weight).sum(1) / weight.sum(1).clamp(min=1)
    return torch.where(visible.any(1, keepdim=True), mean, fusion.nothing)


def gradients(network, logits):
    network.zero_grad()
    (logits.square().mean() + logits.sigmoid().mean()).backward()
    return {k: None if w.grad is None else w.grad.clone() for k, w in network.named_parameters()}


def masks(kind: str, observed):
    """Tokens hidden at random, by whole modalities, or all of them."""
    generator = torch.Generator().manual_seed(2)
    chance = {"some": 0.5, "most": 0.97, "none": 0.0, "all": 1.0}
    if kind == "modality":
        return observed & (torch.arange(observed.shape[1]) >= 6)
    return observed & (torch.rand(observed.shape, generator=generator) >= chance[kind])


KINDS = ["some", "most", "none", "all", "modality"]


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_two_stages_with_hidden_tokens_left_out(kind):
    model, block = new_model()
    values, observed = tensors(block)
    visible, member = masks(kind, observed), model.network.members[0]
    with torch.inference_mode():
        tokens = torch.nan_to_num(model.network.tokens(values, visible))
        expected = model.network.head(member.activate(plainly(member.fusion, tokens, visible)))
        torch.testing.assert_close(model.network(values, visible), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lengths", [16, 3])
def test_training_computes_what_is_visible_and_learns_the_same(variant, kind, lengths, monkeypatch):
    monkeypatch.setattr("geomiam.networks.pooling.BUCKET_LENGTHS", lengths)
    model, block = new_model(**variant)
    network, (values, observed) = model.network, tensors(block)
    visible, member = masks(kind, observed), network.members[0]
    expected = network(values, visible)
    fast = network.head(member.training_features(values, visible))
    torch.testing.assert_close(fast, expected, rtol=1e-5, atol=1e-5)
    plain, fast_gradients = gradients(network, expected), gradients(network, fast)
    for name, gradient in fast_gradients.items():
        plain_gradient = torch.zeros_like(gradient) if plain[name] is None else plain[name]
        scale = float(plain_gradient.abs().max().clamp(min=1))
        torch.testing.assert_close(gradient, plain_gradient, rtol=0, atol=1e-5 * scale, msg=name)


@pytest.mark.parametrize("kind", ["modality", "all", "none"])
def test_every_weight_has_a_gradient_in_every_step(variant, kind):
    model, block = new_model(**variant)
    values, observed = tensors(block)
    model.network.train()(values, masks(kind, observed)).sum().backward()
    assert [k for k, w in model.network.named_parameters() if w.grad is None] == []


def test_the_gate_learns_and_sees_what_is_available():
    model, block = new_model(**VARIANTS["gated"], gaps=0.0)
    values, observed = tensors(block)
    model.network.train()(values, observed).square().sum().backward()
    gate = model.network.members[0].fusion.gate
    several = torch.as_tensor(model.layout.sizes > 1)  # one token has nothing to choose
    assert torch.equal(gate.layers[2].bias.grad != 0, several)
    assert float(gate.layers[0].weight.grad.abs().max()) > 0


@pytest.mark.parametrize("poison", [np.nan, np.inf, 1e38])
@pytest.mark.parametrize("training", [False, True])
def test_hidden_values_are_inert_forward_and_backward(variant, poison, training):
    model, block = new_model(gaps=0.0, **variant)
    values, observed = tensors(block)
    visible = masks("some", observed)
    of_parts = visible.split([p.size for p in model.layout.parts], dim=1)
    dirty = [torch.where(s[..., None], v, poison) for s, v in zip(of_parts, values, strict=True)]
    network = model.network.train(training)

    def run(values):
        torch.manual_seed(0)  # of the keys that training samples
        out = network(values, visible)
        return out.detach(), gradients(network, out)

    (out, clean), (dirty_out, dirty) = run(values), run(dirty)
    assert torch.isfinite(out).all() and torch.equal(out, dirty_out)
    for name, gradient in clean.items():
        assert (gradient is None) == (dirty[name] is None)
        assert gradient is None or torch.equal(gradient, dirty[name]), name


def test_all_subsets_of_modalities_are_predicted_and_differ(variant):
    model, block = new_model(rows=4, gaps=0.1, **variant)
    owner = np.repeat(np.arange(len(model.layout.sizes)), model.layout.sizes)
    count = len(model.layout.sizes)
    subsets = [s for r in range(1, count + 1) for s in itertools.combinations(range(count), r)]
    visible = np.array([np.isin(owner, s) for s in subsets])
    answers = coalition_block(model, block, visible=visible, species=np.arange(2))
    assert len(subsets) == 2**count - 1 and np.isfinite(answers).all()
    assert len(np.unique(answers[:, 0, 0])) == len(subsets)


def test_a_row_is_predicted_as_if_it_were_alone(variant):
    model, block = new_model(**variant)
    values, observed = tensors(block)
    with torch.inference_mode():
        together = model.network(values, observed)
        alone = [
            model.network([v[i : i + 1] for v in values], observed[i : i + 1]) for i in range(30)
        ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=2e-6)


def test_nan_and_hiding_are_one_road(variant):
    model, block = new_model(**variant)
    visible = np.random.default_rng(0).random(model.layout.size) < 0.5
    values = [v.copy() for v in block.values]
    for part, value in zip(model.layout.parts, values, strict=True):
        value[:, ~visible[part.start : part.start + part.size]] = np.nan
    as_nan, index = TokenArrays(tuple(values), block.observed & visible), np.arange(2)
    np.testing.assert_allclose(
        predict_block(model, block, visible=visible, species=index),
        predict_block(model, as_nan, visible=np.ones_like(visible), species=index),
        rtol=0,
        atol=2e-6,
    )


@pytest.mark.parametrize(("members", "scale"), [(1, "probability"), (2, "logit")])
def test_coalitions_are_single_predictions_and_values_add_up(variant, members, scale):
    """Also where coalitions split a modality."""
    model, block = new_model(rows=12, members=members, **variant)
    index, t = np.arange(2), model.layout.size
    options = {"species": index, "scale": scale}
    visible = np.random.default_rng(1).random((7, t)) < 0.6
    visible[0] = True
    answers_of_all = coalition_block(model, block, visible=visible, **options)
    for coalition, answers in zip(visible, answers_of_all, strict=True):
        alone = predict_block(model, block, visible=coalition, **options)
        finite = np.isfinite(alone).all(1)
        np.testing.assert_allclose(answers[finite], alone[finite], rtol=0, atol=2e-6)
    groups = np.stack(list(group_masks(model.layout).values()))[:4]
    result = shapley_block(model, block, groups=groups, **options)
    values, full = result.terms, result.full
    expected = predict_block(model, block, visible=groups.any(0), **options)
    np.testing.assert_allclose(full, expected, rtol=0, atol=2e-6)
    finite = np.isfinite(expected).all(1)
    total = values.sum(1) + base_value(model, **options)
    np.testing.assert_allclose(total[finite], expected[finite], rtol=0, atol=2e-5)
    absent = ~np.stack([(block.observed & g).any(1) for g in groups], 1)
    assert absent.any() and (values[absent & finite[:, None]] == 0).all()


def test_encodings_are_shared_by_coalitions_unless_gated():
    model, block = new_model(rows=8, gaps=0.0)
    gated_model, _ = new_model(rows=8, gaps=0.0, **VARIANTS["gated"])
    groups = np.stack(list(group_masks(model.layout).values()))

    def times(model) -> int:
        fusion, count = model.network.members[0].fusion, []
        for block_ in fusion.encoders[0]:
            block_.register_forward_hook(lambda *_: count.append(1))
        shapley_block(model, block, groups=groups, species=np.arange(2))
        return len(count)

    assert times(model) == 1
    assert times(gated_model) == 2 ** (len(groups) - 1)


def test_bfloat16_predicts_nearly_the_same():
    model, block = new_model()
    options = {"visible": np.ones(model.layout.size, bool), "species": np.arange(2)}
    exact = predict_block(model, block, **options)
    np.testing.assert_allclose(
        predict_block(model.in_precision("bf16"), block, **options), exact, atol=0.02
    )


def test_bfloat16_of_every_variant_is_finite_and_close_for_most(variant):
    """Who is chosen may change where two are nearly level, so single rows may differ."""
    model, block = new_model(rows=60, **variant)
    options = {"visible": np.ones(model.layout.size, bool), "species": np.arange(2)}
    exact = predict_block(model, block, **options)
    half = predict_block(model.in_precision("bf16"), block, **options)
    finite = np.isfinite(exact)
    assert np.isfinite(half[finite]).all()
    assert np.median(np.abs(half - exact)[finite]) < 0.01


@pytest.mark.parametrize("name", ["dense", "everything"])
def test_a_trained_model_is_saved_copied_and_maps(sites, cube, tmp_path, name):
    config = gm.NetworkConfig(
        fusion="cross", width=8, heads=2, depth=1, inner=1, frequencies=4, **VARIANTS[name]
    )
    training = gm.TrainingConfig(epoch_steps=1, epochs=1, batch=32, block=100, warmup=2)
    model = gm.fit(sites, network=config, training=training, rng=0)
    again = gm.load_model(model.save(tmp_path / "model"))
    assert again.id == model.id
    small = cube.isel(y=slice(0, 4), x=slice(0, 5))
    maps = gm.predict(small, model)
    xr.testing.assert_identical(gm.predict(small, again), maps)
    network_copy = copy.deepcopy(model.network)
    assert network_copy.state_dict().keys() == model.network.state_dict().keys()
    shapley = gm.shapley(small, model, using=["climate", "cover", "landsat"])
    full = gm.predict(small, model, using=["climate", "cover", "landsat"])["suitability"]
    total = shapley["shapley"].sum("group", skipna=False) + shapley["base_value"]
    np.testing.assert_allclose(total.transpose(*full.dims), full, rtol=0, atol=2e-5, equal_nan=True)


def test_a_huge_number_of_blocks_is_refused_before_it_is_made():
    config = gm.NetworkConfig(fusion="cross", width=4, heads=1, inner=64)
    with pytest.raises(ValueError, match=r"100 modalities of inner=64 blocks are over 4096"):
        CrossFusion(config, layout_of(**{f"m{i}": [variable(f"x{i}")] for i in range(100)}))


def test_a_saved_model_with_options_out_of_bounds_is_refused(tmp_path):
    model, _ = new_model()
    file = model.save(tmp_path / "model") / "config.json"
    text = file.read_text()
    assert '"experts": 0' in text
    file.write_text(text.replace('"experts": 0', '"experts": 100000'))
    with pytest.raises(ArtifactError, match="experts"):
        gm.load_model(tmp_path / "model")


def test_an_explainer_is_refused(sites):
    model, _ = new_model()
    with pytest.raises(SelectionError, match="explainer is for token fusion"):
        gm.explain.fit_explainer(model, sites)
