"""Several members are one model: the mean of their logits, with every law of a single network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from helpers_small import (
    draw_weights,
    every_kind,
    few_pairs,
    layout_of,
    random_arrays,
    untrained,
    variable,
)

import geomiam as gm
from geomiam.inference.engine import base_value, predict_block
from geomiam.inference.shapley_block import shapley_block
from geomiam.networks.network import Network, join
from geomiam.tokens.encode import encode
from geomiam.tokens.select import group_masks

NETWORK = gm.NetworkConfig(width=8, heads=2, depth=1, inner=1, frequencies=4, members=3)
TRAINING = gm.TrainingConfig(epoch_steps=1, epochs=3, batch=32, block=100, warmup=2)


def joined(fusion: str, members: int = 3):
    """Untrained members of every kind of token, and the model that joins them."""
    models = [untrained(every_kind(), seed=7, fusion=fusion) for _ in range(members)]
    for seed, model in enumerate(models):
        draw_weights(model, seed=seed)
    ensemble = untrained(every_kind(), seed=7, fusion=fusion, members=members)
    join([m.network for m in models], ensemble.network)
    return models, ensemble


@pytest.fixture
def block():
    model = untrained(every_kind(), seed=7)
    return encode(random_arrays(every_kind(), 40), layout=model.layout, scaler=model.scaler)


@pytest.mark.parametrize("fusion", ["group", "token", "late"])
def test_the_answer_is_the_mean_of_the_members_logits(fusion, block):
    models, ensemble = joined(fusion)
    settings = {
        "visible": np.ones(ensemble.layout.size, bool),
        "species": np.arange(2),
        "scale": "logit",
    }
    alone = [predict_block(m, block, **settings) for m in models]
    np.testing.assert_allclose(
        predict_block(ensemble, block, **settings), np.mean(alone, 0), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("fusion", ["group", "token", "late"])
@pytest.mark.parametrize("scale", ["logit", "probability"])
def test_shapley_values_of_members_are_efficient(fusion, scale, block):
    models, ensemble = joined(fusion)
    masks = np.stack(list(group_masks(ensemble.layout).values()))
    options = {"species": np.arange(2), "scale": scale}
    explanation = shapley_block(ensemble, block, groups=masks, spread=True, **options)
    values = explanation.terms
    full = predict_block(ensemble, block, visible=masks.any(0), **options)
    np.testing.assert_allclose(values.sum(1) + base_value(ensemble, **options), full, atol=2e-5)
    alone = [shapley_block(m, block, groups=masks, **options).terms for m in models]
    np.testing.assert_allclose(explanation.spread, np.std(alone, 0), atol=2e-5)
    if scale == "logit":  # linear in the members
        np.testing.assert_allclose(values, np.mean(alone, 0), atol=2e-5)


def test_members_are_trained_apart_and_saved_as_one(sites, cube, tmp_path):
    model = gm.fit(sites, network=NETWORK, training=TRAINING, rng=0)
    assert set(model.history["member"]) == {0, 1, 2}
    assert len(set(model.about["seeds"])) == 3
    first, second, _ = model.network.members
    assert not torch.equal(first.norm.weight, second.norm.weight)
    again = gm.load_model(model.save(tmp_path / "model"))
    assert again.id == model.id
    xr.testing.assert_identical(gm.predict(cube, again), gm.predict(cube, model))


def test_the_first_member_is_what_one_member_alone_would_be(sites):
    is_held_out = np.arange(sites.sizes["site"]) % 4 == 0
    settings = {"training": TRAINING, "validation": is_held_out, "rng": 0}
    three_members = gm.fit(sites, network=NETWORK, **settings)
    single_member = gm.fit(sites, network=NETWORK.model_copy(update={"members": 1}), **settings)
    member = three_members.network.members[0].state_dict()
    for name, weight in single_member.network.members[0].state_dict().items():
        assert torch.equal(weight, member[name]), name


def test_members_resume_from_their_own_checkpoints(sites, tmp_path):
    full_run = gm.fit(sites, network=NETWORK, training=TRAINING, rng=0)
    short = TRAINING.model_copy(update={"epochs": 2})
    gm.fit(
        sites,
        network=NETWORK,
        training=short,
        checkpoint=tmp_path / "run",
        rng=0,
    )
    resumed_model = gm.fit(
        sites,
        network=NETWORK,
        training=TRAINING,
        checkpoint=tmp_path / "run",
        rng=0,
    )
    assert resumed_model.id == full_run.id
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [f"member-{i}" for i in range(3)]


def test_the_last_epoch_is_kept_on_request(sites):
    last = gm.fit(
        sites,
        network=NETWORK,
        training=TRAINING.model_copy(update={"keep": "last", "patience": 1}),
        rng=0,
    )
    assert last.about["best_epochs"] == [TRAINING.epochs - 1] * 3


def test_joining_demands_one_network_per_member():
    models, ensemble = joined("group")
    with pytest.raises(ValueError, match="zip"):
        join([m.network for m in models[:2]], ensemble.network)
    assert isinstance(ensemble.network, Network)


def test_every_site_trains_where_none_is_held_out(sites):
    """Masking then learns from training sites; who has no say in the epoch must say so."""
    options = {"epochs": 2, "batch": 32, "warmup": 2}
    training = gm.TrainingConfig(holdout=0, keep="last", **options)
    network = gm.NetworkConfig(width=8, heads=2, depth=1, inner=0, frequencies=4)
    model = gm.fit(sites, network=network, training=training, rng=0)
    assert model.about["sites"] == {"train": sites.sizes["site"], "validation": 0}
    table = gm.evaluate(model, sites, subsets="unimodal+all")
    close = few_pairs(sites)
    for subset, score in model.about["validation_auc"].items():
        assert score == pytest.approx(float(table["mean_auc"].sel(subset=subset)), abs=close)
    assert model.history["s_climate"].notna().iloc[1]  # the second epoch has seen scores
    with pytest.raises(ValueError, match=r"holdout=0 leaves no site .* pass keep='last'"):
        gm.TrainingConfig(holdout=0)


class Made:
    """Rows whose tokens are there already."""

    def __init__(self, tokens, visible):
        self.made, self.visible = tokens, visible

    def tokens(self, rows, index):
        return self.made[rows][:, list(index)]


def test_a_sum_of_tokens_is_a_plain_network_with_hidden_indicators():
    """The features of the sum fusion, by numpy, and coalitions from shared partial sums."""
    from geomiam.networks.fusion.sum import SumFusion

    torch.manual_seed(0)
    config = gm.NetworkConfig(fusion="sum", width=4, heads=1, dropout=0.5)
    fusion = SumFusion(config, layout_of(m=[variable(f"x{i}") for i in range(5)])).eval()
    torch.nn.init.normal_(fusion.hidden)
    tokens, visible = torch.randn(7, 5, 4), torch.rand(7, 5) < 0.6
    in_coalition = torch.rand(6, 5) < 0.5
    hidden, weight, bias = (
        p.detach().numpy() for p in (fusion.hidden, fusion.inner.weight, fusion.inner.bias)
    )
    with torch.inference_mode():
        view = fusion.view(Made(tokens, visible), in_coalition)
        actual = view.features(torch.arange(7), torch.arange(6))
    for c, features in enumerate(actual.unbind(1)):
        shown_tokens = (visible & in_coalition[c]).numpy()[..., None]
        total = np.where(shown_tokens, tokens.numpy(), hidden).sum(1) / np.sqrt(10)
        np.testing.assert_allclose(features, np.maximum(total, 0) @ weight.T + bias, atol=1e-5)
        torch.testing.assert_close(
            features, fusion(tokens, visible & in_coalition[c]), rtol=0, atol=1e-5
        )


def test_members_take_turns(sites):
    config = gm.NetworkConfig(fusion="group+sum", members=3, width=8, heads=2)
    assert [config.member(i).fusion for i in range(3)] == ["group", "sum", "group"]
    with pytest.raises(
        ValueError, match=r"'group\+sum' has 2 kinds of members; pass members=2 or more"
    ):
        gm.NetworkConfig(fusion="group+sum")


def test_what_was_never_hidden_does_not_choose_the_epoch(sites):
    """Without masking the best epoch is the best with everything; with it, the best mean."""
    network = gm.NetworkConfig(width=8, heads=2, depth=1, inner=0, frequencies=4)
    training = gm.TrainingConfig(epoch_steps=1, epochs=8, batch=32, warmup=2, patience=8)
    for masking, columns in ((gm.masking.Constant(0.0), ["auc_all"]), ("uniform", None)):
        model = gm.fit(sites, network=network, training=training, masking=masking, rng=0)
        scores = model.history.filter(like="auc_").astype(float)
        best = int((scores[columns] if columns else scores).mean(axis=1).argmax())
        assert model.about["best_epochs"] == [best]
