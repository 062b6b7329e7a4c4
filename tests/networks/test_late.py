"""Late fusion: what a mean (or a sum) of uni-modal networks must be, to the number."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from helpers_small import draw_weights, every_kind, layout_of, random_arrays, untrained, variable

import geomiam as gm
from geomiam.inference.engine import base_value, predict_block
from geomiam.inference.shapley_block import shapley_block
from geomiam.model.model import Model
from geomiam.networks.fusion.late import LateFusion
from geomiam.schema.schema import Schema
from geomiam.tokens.encode import TokenArrays, encode
from geomiam.tokens.select import group_masks, visible_tokens
from geomiam.training.warm_start import branch_model, load_branches, set_base

SPECIES = np.arange(3)
SAME = {"rtol": 0, "atol": 5e-6}
NAMES = list(every_kind().modalities)
M = len(NAMES)


def new_model(**config) -> Model:
    """A model of every kind of token, with weights and base values that are not small."""
    model = untrained(every_kind(), species=3, fusion="late", depth=2, **config)
    draw_weights(model)
    set_base(model.network, torch.tensor([-1.0, 0.5, 2.0]))
    return model


@pytest.fixture(scope="module")
def model() -> Model:
    return new_model()


def block_of(model: Model, *, gaps: float = 0.3, rows: int = 40) -> TokenArrays:
    arrays = random_arrays(every_kind(), rows, seed=3, gaps=gaps)
    arrays = {k: arrays[k] for k in model.schema.variables}
    return encode(arrays, layout=model.layout, scaler=model.scaler)


def logits(model: Model, block: TokenArrays, using: list[str] | None = None) -> np.ndarray:
    visible = visible_tokens(model.layout, using)
    return predict_block(model, block, visible=visible, species=SPECIES, scale="logit")


def terms(model: Model, block: TokenArrays) -> np.ndarray:
    """What each modality alone adds to the base value ``(n, M, S)``; 0 where it is not there."""
    base = base_value(model, species=SPECIES, scale="logit")
    alone = np.stack([logits(model, block, [m]) for m in NAMES], 1)
    return np.nan_to_num(alone - base)


def present_modalities(model: Model, block: TokenArrays) -> np.ndarray:
    """Modalities of which anything is observed ``(n, M)``."""
    terms_alone = [block.observed[:, visible_tokens(model.layout, [m])].any(1) for m in NAMES]
    return np.stack(terms_alone, 1)


def explained(model: Model, block: TokenArrays, scale: str = "logit") -> np.ndarray:
    groups = np.stack(list(group_masks(model.layout).values()))
    return shapley_block(model, block, groups=groups, species=SPECIES, scale=scale).terms


# The answer is what its modalities answer alone.


@pytest.mark.parametrize("pool", ["mean", "sum"])
def test_a_missing_modality_leaves_the_mean_or_the_sum_of_the_others(pool):
    model = new_model(pool=pool)
    block, base = block_of(model), base_value(model, species=SPECIES, scale="logit")
    terms_alone, present = terms(model, block), present_modalities(model, block)
    for size in (1, 2, M - 1, M):
        for subset in itertools.combinations(range(M), size):
            visible = present & np.isin(np.arange(M), subset)
            total = (terms_alone * visible[..., None]).sum(1)
            count = visible.sum(1)[:, None] if pool == "mean" else 1
            expected = np.where(
                visible.any(1)[:, None], base + total / np.maximum(count, 1), np.nan
            )
            result = logits(model, block, [NAMES[i] for i in subset])
            np.testing.assert_allclose(result, expected, **SAME)


@pytest.mark.parametrize("config", [{}, {"pool": "sum"}])
@pytest.mark.parametrize("modality", NAMES)
def test_one_modality_alone_is_its_uni_modal_model(config, modality):
    model = new_model(**config)
    branch = branch_model(model, modality)
    assert list(branch.schema.modalities) == [modality]
    assert branch.network.head.weight.shape[1] == model.config.width + 1
    np.testing.assert_allclose(
        logits(model, block_of(model), [modality]), logits(branch, block_of(branch)), **SAME
    )


def test_only_late_fusion_of_one_member_has_branches(model):
    from geomiam.errors import SelectionError

    for wrong_model in (untrained(every_kind()), new_model(members=2)):
        with pytest.raises(SelectionError, match="only a model of late fusion and one member"):
            branch_model(wrong_model, "climate")


def test_with_learned_weights_a_mean_is_weighted():
    model = new_model(weights="learned")
    block, present = block_of(model), present_modalities(model, block_of(model))
    w = np.exp(model.network.members[0].fusion.scores.detach().numpy()) * present
    base = base_value(model, species=SPECIES, scale="logit")
    terms_alone = terms(model, block)
    with np.errstate(invalid="ignore"):
        expected = base + (w[..., None] * terms_alone).sum(1) / w.sum(1, keepdims=True)
    np.testing.assert_allclose(logits(model, block), expected, **SAME)


def test_the_order_of_modalities_does_not_matter(model):
    reversed_schema = Schema(modalities=dict(reversed(model.schema.modalities.items())), groups={})
    wrong_model = Model.untrained(
        reversed_schema, scaler=model.scaler, species=model.species, config=model.config
    )
    load_branches(wrong_model, [branch_model(model, m) for m in reversed_schema.modalities])
    wrong_model.network.eval()
    np.testing.assert_allclose(
        logits(model, block_of(model)), logits(wrong_model, block_of(wrong_model)), **SAME
    )


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf, 1e38])
def test_what_stands_in_a_hidden_modality_changes_no_bit(model, poison):
    block, using = block_of(model), ["climate", "cover"]
    values = [v.copy() for v in block.values]
    for value, part in zip(values, model.layout.parts, strict=True):
        if part.spans[0].modality not in using:
            value[:] = poison
    dirty = TokenArrays(tuple(values), block.observed)
    np.testing.assert_array_equal(logits(model, block, using), logits(model, dirty, using))


@pytest.mark.parametrize("config", [{}, {"weights": "learned"}, {"pool": "sum"}])
def test_the_head_on_concatenated_features_is_the_formula(config):
    """Numpy's sum c + Σ α (W f + b) over the modalities, from the branches' features."""
    model, config = new_model(**config), model_config(config)
    fusion, head = model.network.members[0].fusion, model.network.head
    present = torch.rand(20, M, generator=torch.Generator().manual_seed(0)) < 0.6
    features = torch.randn(20, M, 8, generator=torch.Generator().manual_seed(1)).relu()
    with torch.inference_mode():
        result = head(fusion.fuse(features, present)).numpy()
    a, f = present.numpy(), features.numpy()
    w = np.exp(fusion.scores.detach().numpy()) if config["weights"] == "learned" else np.ones(M)
    alpha = a * w
    if config["pool"] == "mean":
        alpha = alpha / np.maximum(alpha.sum(1, keepdims=True), 1e-30)
    weight, c = head.weight.detach().numpy(), head.bias.detach().numpy()
    expected = np.zeros((20, 3)) + c
    for m in range(M):
        terms_alone = f[:, m] @ weight[:, 8 * m : 8 * m + 8].T + weight[:, 8 * M + m]
        expected += alpha[:, [m]] * terms_alone
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5)


def model_config(config: dict) -> dict:
    return {"weights": "equal", "pool": "mean"} | config


# Explanations have closed forms.


def harmonic(n: int) -> float:
    return float(sum(1 / k for k in range(1, n + 1)))


def test_shapley_values_of_a_sum_are_its_terms():
    model = new_model(pool="sum")
    block = block_of(model)
    values = np.nan_to_num(explained(model, block))
    np.testing.assert_allclose(values, terms(model, block), **SAME)


def closed_form(terms_alone: np.ndarray) -> np.ndarray:
    """φ_i = A x_i + B Σ_{j≠i} x_j of a mean of terms ``(n, S)``, over the base value."""
    n = len(terms_alone)
    a = harmonic(n) / n
    b = (1 - harmonic(n)) / (n * (n - 1)) if n > 1 else 0.0
    return a * terms_alone + b * (terms_alone.sum(0) - terms_alone)


def test_shapley_values_of_a_mean_have_a_closed_form(model):
    block = block_of(model, gaps=0.6)
    values, terms_alone, present = (
        explained(model, block),
        terms(model, block),
        present_modalities(model, block),
    )
    assert set(present.sum(1)) >= {3, 4, 5, 6}
    for row in range(len(block)):
        row_present = present[row]
        np.testing.assert_allclose(
            values[row, row_present], closed_form(terms_alone[row, row_present]), **SAME
        )
        assert (values[row, ~row_present] == 0).all()


def test_the_closed_form_is_what_an_independent_library_computes():
    shapiq = pytest.importorskip("shapiq")
    from shapiq.game_theory import ExactComputer

    assert shapiq is not None
    x = np.array([0.7, -1.3, 2.1, 0.2, -0.4])

    def game(coalitions: np.ndarray) -> np.ndarray:
        counts = np.maximum(coalitions.sum(1), 1)
        return coalitions @ x / counts

    exact = ExactComputer(game=game, n_players=5)("SV").get_n_order_values(1)
    np.testing.assert_allclose(closed_form(x[:, None])[:, 0], exact, atol=1e-12)


# Every way to compute a network gives one result.


@pytest.mark.parametrize("weights", ["equal", "learned"])
@pytest.mark.parametrize("pool", ["mean", "sum"])
@pytest.mark.parametrize("members", [1, 2])
def test_view_forward_and_training_answer_alike(weights, pool, members):
    model = new_model(weights=weights, pool=pool, members=members, dropout=0.0)
    block, network = block_of(model, gaps=0.5), model.network
    values = [torch.as_tensor(v) for v in block.values]
    coalitions = (
        torch.rand(6, block.observed.shape[1], generator=torch.Generator().manual_seed(0)) < 0.4
    )
    coalitions[0], coalitions[1] = True, False
    observed, rows = torch.as_tensor(block.observed), torch.arange(len(block))
    view = network.view(values, observed, coalitions)
    with torch.no_grad():
        from_view = network.head(view.features(rows, torch.arange(6)))
        for c, coalition in enumerate(coalitions):
            forward = network.eval()(values, observed & coalition)
            training = network.train()(values, observed & coalition)
            torch.testing.assert_close(from_view[:, c], forward, **SAME)
            torch.testing.assert_close(training, forward, **SAME)
    network.eval()
    torch.testing.assert_close(from_view[:, 1], network.head.bias.expand(len(block), -1))


def test_weights_are_not_negative_and_add_up_to_one_even_where_they_are_extreme():
    config = gm.NetworkConfig(fusion="late", width=8, heads=2, depth=1, weights="learned")
    names = {"a": ["bio1"], "b": ["bio2", "bio3"], "c": ["bio4"]}
    layout = layout_of(**{m: [variable(v) for v in names_of] for m, names_of in names.items()})
    fusion = LateFusion(config, layout)
    with torch.no_grad():
        fusion.scores.copy_(torch.tensor([-500.0, 300.0, 0.0]))
    present = torch.tensor(list(itertools.product((False, True), repeat=3)))
    alpha = fusion.alpha(present)
    assert (alpha >= 0).all() and (alpha[~present] == 0).all()
    torch.testing.assert_close(alpha.sum(1), present.any(1).float())
    assert torch.equal(alpha[4], torch.tensor([1.0, 0.0, 0.0]))  # the weakest, alone


def test_learned_weights_learn(sites):
    network = gm.NetworkConfig(
        fusion="late", width=8, heads=2, depth=1, frequencies=4, weights="learned"
    )
    training = gm.TrainingConfig(epoch_steps=1, epochs=2, batch=32, warmup=2, accelerator="cpu")
    model = gm.fit(sites, network=network, training=training, rng=0)
    assert model.network.members[0].fusion.scores.abs().max() > 1e-4


@pytest.mark.parametrize("config", [{}, {"weights": "learned"}, {"pool": "sum", "members": 2}])
def test_a_saved_model_predicts_bit_equal(config, tmp_path):
    model = new_model(**config)
    again = gm.load_model(model.save(tmp_path / "model"))
    assert again.id == model.id and again.config == model.config
    block = block_of(model)
    np.testing.assert_array_equal(logits(again, block), logits(model, block))


def test_bfloat16_differs_little(model):
    block, half = block_of(model), model.in_precision("bf16")
    visible = visible_tokens(model.layout, None)
    exact, rough = (
        predict_block(m, block, visible=visible, species=SPECIES) for m in (model, half)
    )
    np.testing.assert_allclose(rough, exact, rtol=0, atol=0.02)
    assert half.network.members[0].dtype == torch.bfloat16 and (rough != exact).any()
    np.testing.assert_allclose(
        explained(half, block, "probability"), explained(model, block, "probability"), atol=0.02
    )


# Sites without an observed predictor.


def test_the_base_value_is_the_prevalence_as_the_loss_weighs_it():
    from geomiam.labels import label_counts
    from geomiam.training.losses import base_logits, cross_entropy, presence_weight, weighted_bce

    labels = torch.tensor([[1, 0, 1], [0, 0, 1], [0, 0, 1], [torch.nan, 0, 1]])
    base = base_logits("weighted-bce", label_counts(labels))
    assert base[0] == 0 and base[1] < -1 and base[2] > 1 and torch.isfinite(base).all()
    weight = presence_weight(label_counts(labels[:, :1]))
    z = torch.zeros(4, 1, requires_grad=True)  # the constant at which the loss has no slope
    weighted_bce(z + base[0], labels[:, :1], weight).backward()
    assert float(z.grad.sum().abs()) < 1e-7
    single = torch.nn.functional.one_hot(torch.tensor([0, 0, 0, 1, 2]), 3).float()
    shares = base_logits("cross-entropy", label_counts(single))
    torch.testing.assert_close(shares.softmax(0), torch.tensor([0.6, 0.2, 0.2]))
    z = torch.zeros(3, requires_grad=True)
    cross_entropy((shares + z).expand(5, 3), single).backward()
    assert float(z.grad.abs().max()) < 1e-6


@pytest.mark.parametrize("loss", ["weighted-bce", "cross-entropy", "maxent"])
def test_training_leaves_the_base_value_alone(loss, sites):
    sites = one_species_each(sites) if loss == "cross-entropy" else sites
    network = gm.NetworkConfig(fusion="late", width=8, heads=2, depth=1, frequencies=4)
    is_held_out = np.arange(sites.sizes["site"]) % 4 == 0
    training = gm.TrainingConfig(
        epoch_steps=1, epochs=2, batch=32, warmup=2, loss=loss, accelerator="cpu"
    )
    model = gm.fit(
        sites,
        network=network,
        training=training,
        validation=is_held_out,
        rng=0,
    )
    base = base_value(model, species=SPECIES, scale="logit")
    if loss == "weighted-bce":
        np.testing.assert_allclose(base, 0, atol=1e-6)
    elif loss == "cross-entropy":
        shares = sites["presence"].values[~is_held_out].mean(0)
        np.testing.assert_allclose(base, np.log(shares), rtol=1e-6)
        without_tokens = base_value(model, species=SPECIES)
        np.testing.assert_allclose(without_tokens, shares, rtol=1e-5)
    else:  # the level that normalises the logits of the training background
        assert (base != 0).all() and np.isfinite(base).all()


def one_species_each(sites: xr.Dataset) -> xr.Dataset:
    only = np.random.default_rng(0).choice(3, sites.sizes["site"], p=[0.6, 0.3, 0.1])
    return sites.assign(presence=(("site", "species"), np.eye(3, dtype=np.float32)[only]))


def test_predict_gives_the_base_value_on_request_where_nothing_is_observed(cube, model_of_cube):
    plain = gm.predict(cube, model_of_cube)
    filled_maps = gm.predict(cube, model_of_cube, options=gm.PredictOptions(empty="base"))
    missing = np.isnan(plain["suitability"].values).all(0)
    assert 0 < missing.sum() < missing.size
    base = base_value(model_of_cube, species=np.arange(3))
    np.testing.assert_array_equal(
        filled_maps["suitability"].values[:, missing], np.repeat(base[:, None], missing.sum(), 1)
    )
    np.testing.assert_array_equal(
        filled_maps["suitability"].values[:, ~missing], plain["suitability"].values[:, ~missing]
    )
    xr.testing.assert_identical(filled_maps["observed"], plain["observed"])
    lazy = gm.predict(
        cube.chunk(y=5),
        model_of_cube,
        options=gm.PredictOptions(empty="base"),
        using=["cover"],
        scale="logit",
    )
    assert np.isfinite(lazy["suitability"].compute()).all()


@pytest.fixture(scope="module", params=["group", "late"])
def model_of_cube(request, sites):
    from conftest import train_small

    return train_small(sites, request.param)


def test_an_unknown_choice_for_empty_cells_is_refused(cube, model_of_cube):
    from geomiam.errors import SelectionError

    with pytest.raises(SelectionError, match="empty='zero'; use 'nan', or 'base'"):
        gm.predict(cube, model_of_cube, options=gm.PredictOptions(empty="zero"))


def test_a_model_is_never_changed_by_its_branches(model):
    before = replace(model).id
    branch = branch_model(model, "climate")
    torch.nn.init.zeros_(branch.network.head.weight)
    assert replace(model).id == before
