"""Fit, evaluate and explain together: what training reports is what the model does."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import make_cube, make_sites, train_small
from helpers_small import few_pairs

import geomiam as gm

NETWORK = gm.NetworkConfig(width=8, heads=2, depth=1, inner=1, frequencies=4)
TRAINING = gm.TrainingConfig(epoch_steps=1, epochs=4, batch=32, block=100, warmup=2)


def test_the_kept_weights_are_those_of_the_best_epoch(sites):
    """Scoring the returned model on the validation sites gives the best epoch's scores."""
    held_out = np.zeros(sites.sizes["site"], bool)
    held_out[::4] = True
    model = gm.fit(sites, network=NETWORK, training=TRAINING, validation=held_out, rng=3)
    table = gm.evaluate(model, sites.isel(site=held_out), subsets="unimodal+all")
    close = few_pairs(sites.isel(site=held_out))
    for name, score in model.about["validation_auc"].items():
        assert float(table["mean_auc"].sel(subset=name)) == pytest.approx(score, abs=close)


@pytest.mark.parametrize(
    "masking", ["miam", "uniform", "dirichlet", "dropout", "opm", "constant", "beta-cube"]
)
def test_every_strategy_trains_and_is_recorded(sites, masking):
    strategy = gm.masking.named(masking)
    model = gm.fit(sites, network=NETWORK, masking=strategy, training=TRAINING, rng=0)
    assert gm.masking.named(**model.about["masking"]) == strategy
    assert np.isfinite(model.history["loss"]).all()


@pytest.mark.slow
def test_a_signal_is_learned_and_noise_is_not():
    """Species follow bio1 alone: climate predicts unseen blocks, the embedding of pure noise does not."""
    sites = make_sites(make_cube(28, 28, gaps=0.1, seed=5), seed=6)
    network = gm.NetworkConfig(width=16, heads=2, depth=1, inner=1, frequencies=8, sigma=0.1)
    training = gm.TrainingConfig(epoch_steps=1, epochs=10, batch=64, block=150, lr=6e-3, warmup=10)
    model = gm.fit(sites, network=network, training=training, rng=0)
    scores = model.about["validation_auc"]
    assert scores["climate"] > 0.75 and scores["all"] > 0.75
    assert abs(scores["embedding"] - 0.5) < 0.1


@pytest.mark.parametrize("loss", ["bce", "weighted-bce", "maxent", "cross-entropy"])
def test_every_loss_trains_explains_and_adds_up(sites, crop, loss):
    sites_of_loss = sites.copy()
    if loss == "cross-entropy":
        class_index = np.nan_to_num(sites["presence"].values).argmax(1)
        sites_of_loss["presence"] = (("site", "species"), np.eye(3, dtype=np.float32)[class_index])
    model = train_small(sites_of_loss, "group", loss=loss)
    for scale in ("probability", "logit"):
        explanation = gm.shapley(crop, model, scale=scale)
        total = explanation["base_value"] + explanation["shapley"].sum("group", skipna=False)
        assert float(np.abs(total - explanation["suitability"]).max()) < 1e-5
    inside = explanation.where(explanation["suitability"].notnull())
    assert np.isfinite(inside["suitability"]).any()
    maps = gm.predict(crop, model)["suitability"]
    assert float(maps.min()) >= 0 and float(maps.max()) <= 1
