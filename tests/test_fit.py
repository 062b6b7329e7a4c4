"""Training: reproducible, resumable, and right about what it minimises."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import train_small
from hypothesis import given, settings
from hypothesis import strategies as st

import geomiam as gm
from geomiam.errors import ArtifactError, LabelError
from geomiam.training import fit as fit_module
from geomiam.training.losses import (
    maxent,
    maxent_offset,
    presence_weight,
    weighted_bce,
)
from geomiam.training.splits import hold_out, site_coordinates, spatial_blocks

NETWORK = gm.NetworkConfig(width=8, heads=2, depth=1, inner=1, frequencies=4)
TRAINING = gm.TrainingConfig(epochs=4, batch=32, block=1.0, warmup=2)


def history(model: gm.Model):
    return model.history.drop(columns="seconds")


def train(sites, rng=0, **options):
    return gm.fit(
        sites, network=NETWORK, training=options.pop("training", TRAINING), rng=rng, **options
    )


def test_equal_seeds_give_equal_models_and_others_do_not(sites):
    one, two, other = train(sites), train(sites), train(sites, rng=1)
    assert one.id == two.id != other.id
    assert history(one).equals(history(two))


def test_training_leaves_the_random_state_of_torch_alone(sites):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    train(sites)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("stop_after", [1, 3])
def test_an_interrupted_run_goes_on_exactly(sites, tmp_path, monkeypatch, stop_after):
    undisturbed = train(sites)
    save, saves = fit_module.save_checkpoint, []

    def interrupted(*args, **options):
        save(*args, **options)
        saves.append(1)
        if len(saves) == stop_after:
            raise KeyboardInterrupt

    monkeypatch.setattr(fit_module, "save_checkpoint", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(sites, checkpoint=tmp_path / "run")
    monkeypatch.setattr(fit_module, "save_checkpoint", save)
    resumed = train(sites, checkpoint=tmp_path / "run")
    assert resumed.id == undisturbed.id
    assert history(resumed).equals(history(undisturbed))
    assert len(saves) == stop_after


def test_a_checkpoint_of_other_settings_is_refused(sites, tmp_path):
    train(sites, checkpoint=tmp_path / "run")
    with pytest.raises(
        ArtifactError, match="is of other data or settings; remove it or pass another"
    ):
        train(sites, checkpoint=tmp_path / "run", training=TRAINING.model_copy(update={"lr": 0.1}))
    with pytest.raises(ArtifactError, match="is of other data or settings"):
        train(sites.isel(site=slice(1, None)), checkpoint=tmp_path / "run")


def test_the_history_holds_scores_balance_and_masking_of_each_modality(sites):
    model = train(sites)
    for modality in model.schema.modalities:
        assert {f"{k}_{modality}" for k in ("auc", "s", "d", "r", "p")} <= set(model.history)
    assert (
        model.history[[f"r_{m}" for m in model.schema.modalities]].iloc[0] == 1
    ).all()  # no scores yet
    aucs = model.history[[f"auc_{m}" for m in [*model.schema.modalities, "all"]]].astype(float)
    assert model.about["best_epoch"] == int(aucs.mean(axis=1).to_numpy().argmax())


def test_the_kept_weights_are_those_of_the_best_epoch(sites):
    """Scoring the returned model on the validation sites gives the best epoch's own scores."""
    held = np.zeros(sites.sizes["site"], bool)
    held[::4] = True
    model = gm.fit(sites, network=NETWORK, training=TRAINING, validation=held, rng=3)
    table = gm.evaluate(model, sites.isel(site=held), subsets="unimodal+all")
    for name, score in model.about["validation_auc"].items():
        assert float(table["mean_auc"].sel(subset=name)) == pytest.approx(score, abs=1e-6)


def test_training_stops_when_no_epoch_is_better(sites):
    training = TRAINING.model_copy(update={"epochs": 100, "patience": 2})
    model = train(sites, training=training)
    assert len(model.history) == model.about["best_epoch"] + 1 + 2 < 100


@pytest.mark.parametrize(
    "masking", ["miam", "uniform", "dirichlet", "dropout", "opm", "constant", "beta-cube"]
)
def test_every_strategy_trains_and_is_recorded(sites, masking):
    strategy = gm.masking.named(masking)
    model = train(sites, masking=strategy, training=TRAINING.model_copy(update={"epochs": 2}))
    assert gm.masking.named(**model.about["masking"]) == strategy
    assert np.isfinite(model.history["loss"]).all()


def test_masking_per_sample_and_low_precision_train(sites):
    per_sample = train(sites, masking=gm.masking.MIAM(per_sample=True))
    assert per_sample.id != train(sites).id
    half = train(sites, training=TRAINING.model_copy(update={"precision": "bf16-mixed"}))
    assert np.isfinite(half.history["loss"]).all()
    assert next(half.network.parameters()).dtype == torch.float32


@pytest.mark.slow
def test_a_signal_is_learned_and_noise_is_not(cube):
    """Species follow bio1 alone: climate predicts unseen blocks, the embedding of pure noise does not."""
    from conftest import make_cube, make_sites

    sites = make_sites(make_cube(40, 40, gaps=0.1, seed=5), seed=6)
    network = gm.NetworkConfig(width=16, heads=2, depth=1, inner=1, frequencies=8, sigma=0.1)
    training = gm.TrainingConfig(epochs=15, batch=64, block=2.0, lr=3e-3, warmup=10)
    model = gm.fit(sites, network=network, training=training, rng=0)
    scores = model.about["validation_auc"]
    assert scores["climate"] > 0.75 and scores["all"] > 0.75
    assert abs(scores["embedding"] - 0.5) < 0.1


# Losses.


@settings(max_examples=30, deadline=None)
@given(n=st.integers(2, 12), s=st.integers(1, 4), seed=st.integers(0, 1000))
def test_weighted_bce_equals_plain_loops(n, s, seed):
    rng = np.random.default_rng(seed)
    z, y = rng.normal(size=(n, s)), rng.integers(0, 2, (n, s)).astype(float)
    y[rng.random((n, s)) < 0.3] = np.nan
    w = presence_weight(torch.as_tensor(y)).numpy()
    total, count = 0.0, 0
    for i in range(n):
        for j in range(s):
            if np.isnan(y[i, j]):
                continue
            p = 1 / (1 + np.exp(-z[i, j]))
            total += y[i, j] * w[j] * -np.log(p) + (1 - y[i, j]) * w[j] / (w[j] - 1) * -np.log(
                1 - p
            )
            count += 1
    ours = weighted_bce(torch.as_tensor(z), torch.as_tensor(y), torch.as_tensor(w))
    assert float(ours) == pytest.approx(total / max(count, 1), rel=1e-5)


def test_presences_and_absences_weigh_the_same_in_all():
    y = torch.tensor([[1.0], [0.0], [0.0], [0.0], [float("nan")]])
    w = presence_weight(y)
    assert float(w) == 4.0  # four surveyed sites, one presence
    assert float(w * 1) == pytest.approx(float(w / (w - 1) * 3))


def test_a_species_present_everywhere_does_not_divide_by_zero():
    y = torch.ones(5, 1)
    w = presence_weight(y)
    assert torch.isfinite(w / (w - 1)).all()
    extreme = torch.full((5, 1), 200.0)
    assert torch.isfinite(weighted_bce(extreme, y, w)) and torch.isfinite(
        weighted_bce(-extreme, y, w)
    )


def test_maxent_is_the_share_of_the_presences_among_the_surveyed_rows():
    z = torch.tensor([[1.0, 0.0], [2.0, 0.5], [0.0, -1.0], [5.0, 0.0]])
    y = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 0.0], [float("nan"), 0.0]])
    shares = np.exp([1.0, 2.0, 0.0]) / np.exp([1.0, 2.0, 0.0]).sum()
    assert float(maxent(z, y)) == pytest.approx(-np.log(shares[[0, 2]]).mean(), abs=1e-6)


def test_the_maxent_level_makes_the_background_a_distribution_times_its_entropy():
    z = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    background = torch.ones(50, 2, dtype=torch.bool)
    shifted = (z + maxent_offset(z, background)).exp()
    shares = torch.softmax(z, 0)
    entropy = -(shares * shares.log()).sum(0)
    torch.testing.assert_close(shifted.sum(0), entropy.exp())


@pytest.mark.parametrize("loss", ["weighted-bce", "maxent", "cross-entropy"])
def test_every_loss_trains_explains_and_adds_up(sites, cube, loss):
    labelled = sites.copy()
    if loss == "cross-entropy":
        one = np.nan_to_num(sites["presence"].values).argmax(1)
        labelled["presence"] = (("site", "species"), np.eye(3, dtype=np.float32)[one])
    model = train_small(labelled, "group", loss=loss)
    for scale in ("probability", "logit"):
        why = gm.shapley(cube, model, scale=scale)
        total = why["base_value"] + why["shapley"].sum("group", skipna=False)
        assert float(np.abs(total - why["suitability"]).max()) < 1e-5
    inside = why.where(why["suitability"].notnull())
    assert np.isfinite(inside["suitability"]).any()
    maps = gm.predict(cube, model)["suitability"]
    assert float(maps.min()) >= 0 and float(maps.max()) <= 1


# Splits.


def test_blocks_do_not_move_with_the_data():
    xy = np.random.default_rng(0).uniform(-5, 5, (200, 2))
    whole, part = spatial_blocks(xy, size=1.0), spatial_blocks(xy[50:], size=1.0)
    same = whole[50:, None] == whole[None, 50:]
    np.testing.assert_array_equal(same, part[:, None] == part[None, :])
    for i in range(0, 200, 17):
        for j in range(200):
            assert (whole[i] == whole[j]) == (np.floor(xy[i]) == np.floor(xy[j])).all()


def test_whole_blocks_are_held_out_with_both_classes(sites):
    labels, blocks = sites["presence"].values, spatial_blocks(site_coordinates(sites), size=1.0)
    held = hold_out(labels, blocks, share=0.2, rng=np.random.default_rng(0))
    assert not set(blocks[held]) & set(blocks[~held])
    for side in (held, ~held):
        assert (labels[side] == 1).any(0).all() and (labels[side] == 0).any(0).all()
    np.testing.assert_array_equal(
        held, hold_out(labels, blocks, share=0.2, rng=np.random.default_rng(0))
    )


def test_a_validation_mask_is_taken_as_given_or_refused(sites):
    held = np.zeros(sites.sizes["site"], bool)
    held[:30] = True
    assert train(sites, validation=held).about["sites"]["validation"] == 30
    with pytest.raises(
        LabelError, match=r"one boolean per site .* some of each; found shape \(3,\)"
    ):
        train(sites, validation=np.array([True, False, True]))
