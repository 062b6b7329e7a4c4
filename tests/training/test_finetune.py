"""Fine-tuning and growth: what learns, and above all what must not change."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from helpers_small import every_kind, quick, random_arrays, untrained, variable

import geomiam as gm
from geomiam.errors import (
    LabelError,
    MissingModality,
    MissingVariable,
    SchemaError,
    SelectionError,
    VariableMismatch,
)
from geomiam.inference.engine import base_value, predict_block
from geomiam.inference.shapley_block import shapley_block
from geomiam.model.model import Model
from geomiam.schema.schema import Schema
from geomiam.schema.variable import Modality
from geomiam.tokens.encode import TokenArrays, encode
from geomiam.tokens.scaler import fit_scaler
from geomiam.tokens.select import group_masks
from geomiam.training.additions import grown_schema, joined_scaler, with_modalities

SMALL = {"width": 16, "heads": 2, "depth": 2, "inner": 1, "frequencies": 8, "sigma": 0.3}
OLD = ("climate", "soil")
SUBSETS = (None, ["climate"], ["soil"], ["climate", "soil"], ["bio1", "ndvi"])
GROWING = ("group", "token", "linear")


def world(n: int = 160, *, seed: int = 0, shift: float = 0.0) -> xr.Dataset:
    """Sites with climate, soil and radar; ``first`` follows bio1, ``second`` radar, ``third`` clay.

    ``shift`` turns the sign of what ``first`` wants, as far as it goes.
    """
    rng = np.random.default_rng(seed)
    bio1, clay, vh = rng.normal(size=(3, n))
    ndvi, profile = rng.normal(size=(n, 4)), rng.normal(size=(n, 3))
    noise = 0.3 * rng.normal(size=(n, 3))
    score = np.stack([(1 - shift) * bio1 + clay, bio1 + 2 * vh, 2 * clay], 1) + noise
    ds = xr.Dataset(
        {
            "bio1": ("site", bio1 + 3 * shift, {"modality": "climate"}),
            "clay": ("site", clay, {"modality": "soil"}),
            "ndvi": (("site", "month"), ndvi, {"modality": "soil"}),
            "vh": ("site", vh, {"modality": "radar"}),
            "profile": (("site", "feature"), profile, {"modality": "radar"}),
            "presence": (("site", "species"), (score > 0).astype(float)),
        },
        coords={
            "x": ("site", rng.uniform(0, 10, n)),
            "y": ("site", rng.uniform(40, 50, n)),
            "month": [1, 4, 7, 10],
            "species": ["first", "second", "third"],
        },
    )
    for name in ("bio1", "clay", "ndvi", "vh"):
        ds[name] = ds[name].where(rng.random(ds[name].shape) >= 0.1).astype(np.float32)
    return ds


def known(sites: xr.Dataset) -> xr.Dataset:
    """Without radar and without the third species."""
    return sites.drop_vars(["vh", "profile"]).sel(species=["first", "second"])


def pair(sites: xr.Dataset) -> xr.Dataset:
    return sites.sel(species=["first", "second"])


def trained(fusion: str, *, members: int = 1, sites=None, **settings) -> gm.Model:
    network = gm.NetworkConfig(fusion=fusion, members=members, **SMALL)
    sites = known(world()) if sites is None else sites
    return gm.fit(sites, network=network, training=quick(**{"epochs": 2} | settings), rng=0)


def weights(model: gm.Model) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in model.network.state_dict().items()}


def same_bits(model: gm.Model, grown_model: gm.Model, sites: xr.Dataset, grown_sites=None) -> None:
    """Predictions of old species from every subset of old modalities are equal to the bit."""
    for using, scale in [*((s, "logit") for s in SUBSETS), (None, "probability")]:
        old = gm.predict(sites, model, using=using, scale=scale)
        new = gm.predict(
            sites if grown_sites is None else grown_sites,
            grown_model,
            using=list(OLD) if using is None else using,
            species=list(model.species),
            scale=scale,
        )
        np.testing.assert_array_equal(new["suitability"], old["suitability"])


@pytest.fixture(scope="module", params=GROWING)
def model(request):
    return trained(request.param, sites=known(world(300)), epochs=6)


@pytest.fixture(scope="module")
def grown_model(model):
    return gm.finetune(model, pair(world(seed=1)), train="new", training=quick(epochs=2), rng=1)


# New predictors ----------------------------------------------------------------------------------


def test_without_the_new_predictor_nothing_changes_by_a_bit(model, grown_model):
    sites = world(200, seed=2)
    same_bits(model, grown_model, known(sites), sites)
    without_radar = sites.assign(vh=sites["vh"] * np.nan, profile=sites["profile"] * np.nan)
    for using in SUBSETS:
        subset = None if using is None else [*using, "radar"]
        np.testing.assert_array_equal(
            gm.predict(without_radar, grown_model, using=subset)["suitability"],
            gm.predict(known(sites), model, using=using)["suitability"],
        )
    base = [base_value(m, species=np.arange(2)) for m in (model, grown_model)]
    np.testing.assert_array_equal(*base)


def test_nothing_but_what_is_new_learns(model):
    heavy = quick(epochs=2, weight_decay=0.5)  # which would move whatever is in the optimizer
    grown_model = gm.finetune(model, pair(world(seed=1)), train="new", training=heavy)
    old, new = weights(model), weights(grown_model)
    fresh = {k for k in new if k not in old}
    parts = len(model.layout.parts)
    expected = {f"members.0.tokenizers.parts.{parts}.", f"members.0.tokenizers.parts.{parts + 1}."}
    expected |= {"members.0.fusion.identity.2"} if model.config.fusion == "group" else set()
    assert all(any(k.startswith(w) for w in expected) for k in fresh)
    assert all(any(k.startswith(w) for k in fresh) for w in expected)
    assert all(torch.equal(old[k], new[k]) for k in old)
    for name in model.scaler.mean:
        np.testing.assert_array_equal(grown_model.scaler.mean[name], model.scaler.mean[name])
    assert list(grown_model.schema.modalities) == [*OLD, "radar"]
    assert grown_model.config.grown == ("radar",)


def test_the_old_model_is_left_as_it_is_and_all_weights_may_learn_again(model):
    before, identity = weights(model), model.id
    grown_model = gm.finetune(model, pair(world(seed=1)), train="new", training=quick(epochs=2))
    assert all(torch.equal(v, before[k]) for k, v in weights(model).items())
    del model.__dict__["id"]
    assert model.id == identity != grown_model.id
    assert all(p.requires_grad for m in (model, grown_model) for p in m.network.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("fusion", GROWING)
def test_the_new_predictor_is_learned(fusion):
    # All sites train: validation blocks of 60 sites keep an epoch of a gain of 0.05 (2 to 7 of 20).
    every_site = {"holdout": 0, "keep": "last", "batch": 128, "lr": 0.02}
    model = trained(fusion, sites=known(world(300)), epochs=5, **every_site)
    training = quick(epochs=20, **every_site)
    grown_model = gm.finetune(model, pair(world(400, seed=1)), train="new", training=training)
    test = pair(world(300, seed=2))
    table = gm.evaluate(grown_model, test, subsets={"without": list(OLD), "with": None})
    second = table["auc"].sel(species="second")
    gain = float(second.sel(subset="with") - second.sel(subset="without"))
    assert gain > 0.08  # group 0.15, token 0.22, linear 0.23


def test_gaps_in_the_new_predictor_are_predicted_row_by_row(model, grown_model):
    """Rows that lack it among rows that have it: the same up to rounding."""
    sites = world(200, seed=2)
    has_new = xr.DataArray(np.random.default_rng(0).random(200) < 0.5, dims="site")
    sites = sites.assign(vh=sites["vh"].where(has_new), profile=sites["profile"].where(has_new))
    mixed = gm.predict(sites, grown_model)["suitability"].values
    old, has_new = gm.predict(known(sites), model)["suitability"].values, has_new.values
    np.testing.assert_allclose(
        mixed[:, ~has_new], old[:, ~has_new], rtol=0, atol=2e-6, equal_nan=True
    )
    assert np.nanmax(np.abs(mixed[:, has_new] - old[:, has_new])) > 1e-3


def test_a_model_of_several_members_grows_in_all_of_them():
    model = trained("group", members=2)
    grown_model = gm.finetune(model, pair(world(seed=1)), train="new", training=quick(epochs=2))
    sites = world(100, seed=2)
    same_bits(model, grown_model, known(sites), sites)
    new = set(weights(grown_model)) - set(weights(model))
    assert {k.split(".")[1] for k in new} == {"0", "1"}


def test_a_model_grows_again(grown_model):
    sites = pair(world(seed=3))
    sites["slope"] = ("site", sites["vh"].values + 1, {"modality": "terrain"})
    twice = gm.finetune(grown_model, sites, train="new", training=quick(epochs=2))
    assert twice.config.grown == ("radar", "terrain")
    for using in (["climate"], ["soil", "radar"], ["climate", "soil", "radar"]):
        np.testing.assert_array_equal(
            gm.predict(sites, twice, using=using)["suitability"],
            gm.predict(sites, grown_model, using=using)["suitability"],
        )
    assert [s["parent"] for s in twice.about["finetuning"]][1] == grown_model.id


def test_a_schema_may_say_what_is_new(model):
    sites = pair(world(seed=1))
    radar = Modality(name="radar", variables={"vh": variable("vh")})
    for schema in (
        Schema(modalities={"radar": radar}),
        grown_schema(model.schema, Schema(modalities={"radar": radar})),
    ):
        grown_model = gm.finetune(
            model, sites, schema=schema, train="new", training=quick(epochs=1)
        )
        assert list(grown_model.schema.variables) == ["bio1", "clay", "ndvi", "vh"]


def test_groups_of_the_user_stay_and_the_new_modality_is_one_more():
    sites = known(world())
    schema = gm.infer_schema(sites)
    fields = {k: getattr(schema, k) for k in Schema.model_fields}
    schema = Schema(**{**fields, "groups": {"greenness": ["ndvi"]}})  # and a rest
    model = gm.fit(sites, schema, network=gm.NetworkConfig(**SMALL), training=quick(epochs=2))
    grown_model = gm.finetune(model, pair(world(seed=1)), train="new", training=quick(epochs=2))
    assert list(grown_model.schema.groups) == ["greenness", "radar"]
    same_bits(model, grown_model, known(world(100, seed=2)), world(100, seed=2))


# The fusions, against the plain computation ------------------------------------------------------


def randomly_grown(fusion: str, seed: int = 0, *, steps: int = 6) -> tuple[Model, Model]:
    """An untrained model of every kind of token, and it grown by a series; random weights."""
    old = untrained(every_kind(), fusion=fusion, depth=2, inner=1, seed=seed)
    labels = {"band": ("vv", "vh"), "time": range(steps)}
    radar = Modality(
        name="radar",
        variables={"radar": variable("radar", "series", window=steps // 3, labels=labels)},
    )
    new = Schema(modalities={"radar": radar})
    scaler = joined_scaler(old.scaler, fit_scaler(random_arrays(new, 64), new))
    torch.manual_seed(seed)
    for weight in old.network.parameters():
        torch.nn.init.normal_(weight, std=0.4)
    grown_model, _ = with_modalities(old, grown_schema(old.schema, new), scaler)
    grown_model.network.eval()
    return old, grown_model


def rows_of(model: Model, n: int = 40, **options) -> TokenArrays:
    arrays = random_arrays(model.schema, n, **options)
    return encode(arrays, layout=model.layout, scaler=model.scaler)


def attended(fusion, tokens: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Token fusion of one row by loops: only tokens that count, one after the other."""
    x = tokens[counts].astype(np.float64)

    def layer(m, y):
        return y @ m.weight.detach().double().numpy().T + m.bias.detach().double().numpy()

    def normed(m, y):
        z = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + m.eps)
        return z * m.weight.detach().double().numpy() + m.bias.detach().double().numpy()

    for block in fusion.blocks:
        y = normed(block.norm_attention, x)
        q, (k, v) = layer(block.query, y), np.split(layer(block.key_value, y), 2, -1)
        e = x.shape[1] // block.heads
        heads = np.zeros_like(x)
        for h in range(block.heads):
            columns = slice(h * e, (h + 1) * e)
            for i in range(len(x)):
                weight = np.exp(q[i, columns] @ k[:, columns].T / np.sqrt(e))
                heads[i, columns] = weight @ v[:, columns] / weight.sum()
        x = x + layer(block.out, heads)
        x = x + layer(
            block.forward_out, np.maximum(layer(block.forward_in, normed(block.norm_forward, x)), 0)
        )
    return x.mean(0)


def test_token_fusion_counts_hidden_tokens_of_the_old_modalities_alone():
    _, grown_model = randomly_grown("token")
    fusion, block = grown_model.network.members[0].fusion, rows_of(grown_model, 12)
    values, visible = [torch.as_tensor(v) for v in block.values], torch.as_tensor(block.observed)
    visible &= torch.rand(visible.shape, generator=torch.Generator().manual_seed(1)) < 0.6
    with torch.no_grad():
        tokens = grown_model.network.tokens(values, visible)
        vectors = torch.where(visible.unsqueeze(-1), tokens, fusion.mask).double().numpy()
        roads = [fusion.plain(tokens, visible), fusion(tokens, visible)]
    old = (
        np.arange(grown_model.layout.size) < grown_model.layout.size - 6
    )  # two bands, three windows
    counts = visible.numpy() | old
    expected = np.stack([attended(fusion, x, c) for x, c in zip(vectors, counts, strict=True)])
    for actual in roads:
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fusion", GROWING)
def test_training_and_prediction_compute_the_same(fusion):
    _, grown_model = randomly_grown(fusion)
    for member in grown_model.network.modules():
        if hasattr(member, "dropout"):
            member.dropout = 0.0
    block = rows_of(grown_model)
    values, visible = [torch.as_tensor(v) for v in block.values], torch.as_tensor(block.observed)
    with torch.no_grad():
        grown_model.network.train()
        in_training = grown_model.network(values, visible)
        grown_model.network.eval()
        plain = grown_model.network(values, visible)
    full = predict_block(
        grown_model,
        block,
        visible=np.ones(grown_model.layout.size, bool),
        species=np.arange(2),
        scale="logit",
    )
    np.testing.assert_allclose(in_training, plain, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(full, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("fusion", [*GROWING, "sum", "quadratic"])
@pytest.mark.parametrize("n", [1, 7, pytest.param(150, marks=pytest.mark.slow)])
def test_bits_stay_for_every_subset_of_every_kind_of_token(fusion, n):
    old, grown_model = randomly_grown(
        fusion, steps=198
    )  # so many that equal rows are not looked for
    arrays = {
        k: np.repeat(v, 2, 0) for k, v in random_arrays(grown_model.schema, n, seed=n).items()
    }
    without_radar = arrays | {"radar": np.full_like(arrays["radar"], np.nan)}
    blocks = [
        encode(a, layout=m.layout, scaler=m.scaler)
        for a, m in ((arrays, old), (arrays, grown_model), (without_radar, grown_model))
    ]
    groups = list(group_masks(old.layout).values())
    new_tokens = np.zeros(grown_model.layout.size - old.layout.size, bool)
    subsets = itertools.product([False, True], repeat=len(groups))
    for chosen_groups in itertools.islice(subsets, 0, None, 3 if n == 150 else 1):
        in_use = np.any([g & p for g, p in zip(groups, chosen_groups, strict=True)], 0)
        masks = [
            in_use,
            np.concatenate([in_use, new_tokens]),
            np.concatenate([in_use, ~new_tokens]),
        ]
        old_values, values_using, values_nan = (
            predict_block(m, b, visible=s, species=np.arange(2))
            for m, b, s in zip((old, grown_model, grown_model), blocks, masks, strict=True)
        )
        np.testing.assert_array_equal(values_using, old_values)
        np.testing.assert_array_equal(values_nan, old_values)


@pytest.mark.parametrize("fusion", GROWING)
@pytest.mark.parametrize("scale", ["logit", "probability"])
def test_shapley_values_of_a_grown_model_add_up(fusion, scale):
    _, grown_model = randomly_grown(fusion)
    block, masks = rows_of(grown_model), np.stack(list(group_masks(grown_model.layout).values()))
    options = {"species": np.arange(2), "scale": scale}
    result = shapley_block(grown_model, block, groups=masks, **options)
    values, full = result.terms, result.full
    base = base_value(grown_model, **options)
    observed = block.observed.any(1)
    np.testing.assert_allclose(
        (values.sum(1) + base)[observed], full[observed], rtol=1e-4, atol=1e-4
    )
    absent = ~(block.observed & masks[-1]).any(1) & observed
    assert not values[absent, -1].any()


def test_hidden_values_of_the_new_predictor_are_inert(model, grown_model):
    sites = world(100, seed=2)
    clean = gm.predict(sites, grown_model, using=list(OLD))["suitability"]
    for poison in (np.inf, 1e38):
        dirty = sites.assign(vh=xr.full_like(sites["vh"], poison))
        actual = gm.predict(dirty, grown_model, using=list(OLD))["suitability"]
        np.testing.assert_array_equal(actual, clean)


# Saving ------------------------------------------------------------------------------------------


def test_a_grown_model_is_saved_and_loaded(tmp_path, model, grown_model):
    again = gm.load_model(grown_model.save(tmp_path / "model"))
    assert again.id == grown_model.id
    sites = world(100, seed=2)
    same_bits(model, again, known(sites), sites)
    np.testing.assert_array_equal(
        gm.predict(sites, again)["suitability"], gm.predict(sites, grown_model)["suitability"]
    )


def test_what_was_trained_is_reported(model, grown_model):
    (step,) = grown_model.about["finetuning"]
    assert step["parent"] == model.id and step["train"] == "new"
    assert step["new_modalities"] == ["radar"] and step["new_species"] == []
    assert sum(step["sites"].values()) == 160
    assert len(grown_model.history) == 2 and "auc_radar" in grown_model.history
    assert grown_model.about["extent"] == model.about["extent"]


def test_a_run_that_was_stopped_goes_on(tmp_path, model):
    sites = pair(world(seed=1))
    full_run = gm.finetune(model, sites, train="new", training=quick(epochs=4))
    seconds = []
    for epochs in (2, 4):
        again = gm.finetune(
            model, sites, train="new", training=quick(epochs=epochs), checkpoint=tmp_path / "run"
        )
        state = json.loads((tmp_path / "run" / "state.json").read_text())
        seconds.append([row["seconds"] for row in state["history"]])
    assert [len(s) for s in seconds] == [2, 4]
    assert seconds[1][:2] == seconds[0]  # the first epochs were not trained again
    assert all(torch.equal(v, weights(again)[k]) for k, v in weights(full_run).items())


# New species -------------------------------------------------------------------------------------


def test_a_separate_head_learns_a_new_species_and_no_bit_of_the_others(model):
    heavy = quick(epochs=5, patience=5, weight_decay=0.1)
    sites = world(300, seed=1).drop_vars(["vh", "profile"])
    three_species = gm.finetune(model, sites, train="head", training=heavy)
    assert three_species.species == ("first", "second", "third")
    same_bits(model, three_species, known(world(200, seed=2)))
    old, new = weights(model), weights(three_species)
    assert all(torch.equal(v, new[k]) for k, v in old.items() if not k.startswith("head."))
    assert torch.equal(new["head.weight"][:2], old["head.weight"])
    assert torch.equal(new["head.bias"][:2], old["head.bias"])
    assert three_species.about["finetuning"][0]["new_species"] == ["third"]


@pytest.mark.slow
@pytest.mark.parametrize("fusion", GROWING)
def test_a_head_learns_a_new_species_from_features_that_were_trained(fusion):
    """A frozen model of a few steps may lack what the new species needs: then the AUC is chance."""
    every_site = {"epochs": 40, "holdout": 0, "keep": "last", "batch": 128, "lr": 0.02}
    model = trained(fusion, sites=known(world(300)), **every_site)
    sites, test = (world(n, seed=s).drop_vars(["vh", "profile"]) for n, s in ((300, 1), (400, 3)))
    three_species = gm.finetune(
        model, sites, train="head", training=quick(weight_decay=0.1, **every_site)
    )
    auc = gm.evaluate(three_species, test, subsets="all")["auc"].sel(species="third", subset="all")
    assert float(auc) > 0.7  # 0.81 to 0.95 over three seeds


def test_maxents_level_is_set_for_the_new_species_alone():
    model = trained("group", loss="maxent")
    sites = world(seed=1).drop_vars(["vh", "profile"])
    three_species = gm.finetune(model, sites, train="head", training=quick(loss="maxent"))
    same_bits(model, three_species, known(world(100, seed=2)))
    assert weights(three_species)["head.bias"][2] != 0
    grown_model = gm.finetune(
        model, pair(world(seed=1)), train="new", training=quick(loss="maxent")
    )
    same_bits(model, grown_model, known(world(100, seed=2)), world(100, seed=2))


def test_a_head_over_several_members():
    model = trained("group+sum", members=2)
    sites = world(seed=1).drop_vars(["vh", "profile"]).sel(species=["third"])
    three_species = gm.finetune(model, sites, train="head", training=quick(epochs=2))
    same_bits(model, three_species, known(world(100, seed=2)))
    assert three_species.species == ("first", "second", "third")


# A new region ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_low_rate_improves_on_a_shifted_region_and_keeps_scaler_and_schema():
    every_site = {"epochs": 15, "holdout": 0, "keep": "last", "batch": 128}
    model = trained("group", sites=known(world(300)), **every_site, lr=0.02)
    region, test = (known(world(n, seed=s, shift=1.0)) for n, s in ((300, 5), (300, 6)))
    tuned_model = gm.finetune(model, region, train="all", training=quick(**every_site, lr=0.005))
    auc = [
        float(gm.evaluate(m, test)["auc"].sel(species="first", subset="all"))
        for m in (model, tuned_model)
    ]
    assert auc[1] > auc[0] + 0.05
    assert tuned_model.schema == model.schema
    for after, before in zip(
        (tuned_model.scaler.mean, tuned_model.scaler.std), (model.scaler.mean, model.scaler.std)
    ):
        assert after == before  # only the training range is wider


def test_the_rate_is_a_tenth_of_that_of_the_model(model):
    sites = known(world(80, seed=3))
    tuned_model = gm.finetune(
        model,
        sites,
        train="all",
        training={"epochs": 1, "epoch_steps": 1},
        validation=np.arange(80) % 4 == 0,
    )
    step = tuned_model.about["finetuning"][0]
    assert step["training"]["lr"] == pytest.approx(model.about["training"]["lr"] / 10)
    changes = [not torch.equal(v, weights(tuned_model)[k]) for k, v in weights(model).items()]
    assert all(changes)


def test_all_learns_old_and_new_species_together(model):
    sites = world(seed=1).drop_vars(["vh", "profile"]).sel(species=["second", "third"])
    tuned_model = gm.finetune(model, sites, train="all", training=quick(epochs=2))
    assert tuned_model.species == ("first", "second", "third")
    assert not torch.equal(weights(tuned_model)["head.weight"][1], weights(model)["head.weight"][1])


@pytest.mark.filterwarnings("default::geomiam.errors.MissingModality")
def test_a_region_may_lack_a_modality(model):
    with pytest.warns(MissingModality, match="soil"):
        tuned_model = gm.finetune(
            model, known(world()).drop_vars(["clay", "ndvi"]), train="all", training=quick(epochs=1)
        )
    assert list(tuned_model.schema.modalities) == list(OLD)


# Frozen parts ------------------------------------------------------------------------------------


class Pool(torch.nn.Module):
    """A custom encoder that keeps a mean of what it sees in training, as batch normalisation does."""

    width = 4

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def forward(self, x, observed):
        if self.training:
            self.steps += 1
            self.mean += 0.1 * (x.mean(0) - self.mean)
        return self.linear(x - self.mean)


@pytest.mark.parametrize("frozen", [True, False])
def test_backbones_stay_as_they_are_in_growth_and_frozen_ones_always(frozen):
    backbone = Pool().requires_grad_(not frozen)
    network = gm.NetworkConfig(**SMALL)
    model = gm.fit(
        known(world()),
        network=network.model_copy(update={"backbones": {"ndvi": backbone}}),
        training=quick(epochs=2),
    )
    grown_model = gm.finetune(model, pair(world(seed=1)), train="new", training=quick(epochs=2))
    same_bits(model, grown_model, known(world(100, seed=2)), world(100, seed=2))
    tuned_model = gm.finetune(
        grown_model, pair(world(seed=1)), train="all", training=quick(epochs=2)
    )
    encoder_weights = [k for k in weights(model) if ".encoder." in k]
    assert len(encoder_weights) == 4
    assert [torch.equal(weights(tuned_model)[k], weights(model)[k]) for k in encoder_weights] == [
        frozen
    ] * 4
    flags = {p.requires_grad for k, p in grown_model.network.named_parameters() if ".encoder." in k}
    assert flags == {not frozen}


def test_a_learned_explainer_is_dropped_and_reported():
    model = gm.explain.fit_explainer(trained("token"), known(world(60)), epochs=1, width=8)
    grown_model = gm.finetune(model, pair(world(seed=1)), train="new", training=quick(epochs=1))
    assert grown_model.network.explainer is None and grown_model.config.explainer == 0
    assert "explainer" not in grown_model.about
    assert grown_model.about["finetuning"][0]["explainer"] == "dropped"
    again = gm.explain.fit_explainer(grown_model, pair(world(60)), epochs=1, width=8)
    explanation = gm.shapley(
        pair(world(60)), again, options=gm.explain.ShapleyOptions(method="amortised")
    )
    full = gm.predict(pair(world(60)), again)["suitability"]
    total = (
        explanation["shapley"].sum("group", skipna=False) + explanation["base_value"]
    ).transpose(*full.dims)
    np.testing.assert_allclose(total, full, atol=1e-5)


# Errors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: known(world()), "2 species of the model and 0 new ones.*pass train='all'"),
        (lambda: pair(world()), r"1 new modalities \['radar'\]: pass train='new' or train='all'"),
        (lambda: world(), r"2 species of the model and 1 new.*pass train='head' or train='all'"),
    ],
)
def test_what_learns_must_be_stated(model, make, message):
    with pytest.raises(SelectionError, match=message):
        gm.finetune(model, make())


@pytest.mark.parametrize(
    ("make", "train", "message"),
    [
        (lambda: known(world()), "new", "needs modalities that the model lacks"),
        (lambda: known(world()), "head", "needs species that the model lacks"),
        (lambda: world(), "new", r"found others, \['third'\]: train their rows first"),
        (lambda: known(world()), "body", "train='body': choose the part to train"),
    ],
)
def test_sites_that_do_not_fit_are_refused(model, make, train, message):
    with pytest.raises(SelectionError, match=message):
        gm.finetune(model, make(), train=train)


def test_fusions_that_cannot_grow_are_named():
    with pytest.raises(SelectionError, match="fusion='late' cannot take new predictors"):
        gm.finetune(trained("late", epochs=1), pair(world()), train="new", training=quick(epochs=2))


def test_variables_of_a_known_modality_and_other_data_are_refused(model):
    sites = pair(world())
    with pytest.raises(SchemaError, match=r"variables \['vh'\] are new in modality 'soil'"):
        wet = sites.assign(vh=sites["vh"].assign_attrs(modality="soil")).drop_vars("profile")
        gm.finetune(model, wet, train="new")
    radar = Modality(name="radar", variables={"bio1": variable("bio1")})
    with pytest.raises(SchemaError, match=r"\['bio1'\] belong to another modality"):
        gm.finetune(model, sites, schema=Schema(modalities={"radar": radar}), train="new")
    with pytest.raises(SelectionError, match="train='all' takes no new modalities"):
        only = Modality(name="radar", variables={"vh": variable("vh")})
        gm.finetune(model, sites, schema=Schema(modalities={"radar": only}), train="all")
    with pytest.raises(MissingVariable, match=r"predictors \(vh, profile\) are NaN at all"):
        gm.finetune(
            model,
            sites.assign(vh=sites["vh"] * np.nan, profile=sites["profile"] * np.nan),
            train="new",
        )
    with pytest.raises(VariableMismatch, match="none of the labels of 'month'"):
        gm.finetune(model, known(world()).assign_coords(month=[2, 3, 5, 6]), train="all")
    with pytest.raises(SchemaError, match="have the names of groups"):
        soil2 = Modality(name="soil2", variables={"vh": variable("vh")})
        schema = model.schema.model_copy(update={"groups": {"soil2": model.schema.groups["soil"]}})
        grown_schema(schema, Schema(modalities={"soil2": soil2}))


def test_losses_and_labels_must_suit_the_model(model):
    with pytest.raises(
        SelectionError, match=r"whose link is 'logit'.*use TrainingConfig\(loss='au"
    ):
        gm.finetune(model, known(world()), train="all", training=quick(loss="maxent"))
    with pytest.raises(LabelError, match="labels have one class"):
        only = known(world())
        gm.finetune(model, only.assign(presence=only["presence"] * 0 + 1), train="all")


def test_new_species_would_change_the_shares_of_the_old():
    sites = known(world())
    first = (sites["presence"].sel(species="first") == 1).values
    labels = np.stack([first, ~first], 1).astype(float)
    model = trained(
        "group", sites=sites.assign(presence=(("site", "species"), labels)), loss="cross-entropy"
    )
    with pytest.raises(SelectionError, match="shares of all species"):
        gm.finetune(model, sites.assign_coords(species=["first", "fourth"]), train="head")


# The page ----------------------------------------------------------------------------------------


def test_the_code_of_the_page_runs_from_top_to_bottom():
    page = (Path(gm.__file__).parents[1] / "docs" / "howto" / "finetuning.md").read_text(
        encoding="utf-8"
    )
    names: dict = {"__name__": "page"}
    for code in re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE):
        exec(compile(code, "finetuning.md", "exec"), names)
    assert names["radar"].config.grown == ("radar",)
