"""The default fit: settings from the data, members chosen on spatial folds, and what is reported."""

from __future__ import annotations

import itertools
import math
import re
import warnings

import numpy as np
import pytest
import torch
import xarray as xr
from helpers_small import TINY_NETWORK, quick, tiny_sites
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

import geomiam as gm
from geomiam.errors import SettingError, TrainingWarning
from geomiam.evaluation.evaluate import Masked
from geomiam.model.saved_model import card
from geomiam.training import advice, loop
from geomiam.training import choice as choice_module
from geomiam.training import observations as observations_module
from geomiam.training.choice import (
    Folds,
    auc_by_block,
    choice_reason,
    choose,
    predicted_sites,
)
from geomiam.training.rule import make_plan, training_steps


def labels_of(n: int, species: int, presences: int) -> np.ndarray:
    """Labels with the same number of presences for every species."""
    labels = np.zeros((n, species), np.float32)
    labels[:presences] = 1
    return labels


def survey(n: int, species: int = 4, seed: int = 0) -> xr.Dataset:
    """Sites in two modalities whose species follow linear functions of four variables."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, 4)).astype(np.float32)
    chance = 1 / (1 + np.exp(-z @ np.linspace(-2, 2, 4 * species).reshape(4, species)))
    ds = xr.Dataset(
        {
            f"v{i}": ("site", z[:, i], {"modality": "climate" if i < 2 else "soil"})
            for i in range(4)
        },
        coords={
            "x": ("site", rng.uniform(0, 10, n)),
            "y": ("site", rng.uniform(40, 50, n)),
            "species": [f"Quercus {i}" for i in range(species)],
        },
    )
    ds["presence"] = (("site", "species"), (rng.random(chance.shape) < chance).astype(np.float32))
    return ds.assign_coords(spatial_ref=xr.DataArray(0, attrs={"crs_wkt": "EPSG:4326"}))


# Length ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sites", "steps"), [(78, 25), (128, 25), (300, 27), (3200, 25), (10_000, 79)]
)
def test_an_epoch_has_at_least_25_steps(sites, steps):
    config = gm.TrainingConfig()
    assert config.steps_per_epoch(sites) == steps
    assert gm.TrainingConfig(epoch_steps=1).steps_per_epoch(sites) == math.ceil(sites / 128)


def test_few_sites_are_passed_several_times(monkeypatch):
    rows, real = [], observations_module.hide
    monkeypatch.setattr(
        observations_module, "hide", lambda p, **k: rows.append(k["n"]) or real(p, **k)
    )
    settings = quick(epochs=2, batch=32, epoch_steps=10, holdout=0, keep="last")
    gm.fit(tiny_sites(100), network=TINY_NETWORK, training=settings)
    assert rows == [32, 32, 32, 4] * 3 * 2  # 4 steps a pass, 3 passes make at least 10 steps


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({"steps": 200}, 20),
        ({"steps": 100, "warmup": 0.5}, 50),
        ({"steps": 100_000, "epochs": 100_000}, 100),  # not longer than for MIAM's settings
        ({"warmup": 7}, 7),
        ({"warmup": 0}, 0),
    ],
)
def test_the_warm_up_is_a_share_of_the_steps(settings, steps):
    assert gm.TrainingConfig(**settings).warmup_steps(78) == steps


def test_the_optimizer_gets_the_warm_up(monkeypatch):
    options = []

    class Recorded(loop.OneVector):
        def __init__(self, *args, warmup_steps, **settings):
            options.append(warmup_steps)
            super().__init__(*args, warmup_steps=warmup_steps, **settings)

    monkeypatch.setattr(loop, "OneVector", Recorded)
    settings = gm.TrainingConfig(steps=40, epoch_steps=10, batch=20, holdout=0, keep="last")
    model = gm.fit(tiny_sites(100), network=TINY_NETWORK, training=settings)
    assert options == [4] and len(model.history) == 4  # 10 steps an epoch


@pytest.mark.parametrize(
    ("n", "species", "presences", "steps"),
    [
        (50, 40, 20, 300),
        (500, 10, 100, 500),
        (1000, 10, 100, 1000),
        (2040, 1, 40, 400),  # few presences count, not the background
        (4000, 20, 400, 2000),  # 1000 × √(4000 / 1000)
    ],
)
def test_steps_follow_from_sites_and_presences(n, species, presences, steps):
    assert training_steps(labels_of(n, species, presences)) == steps


def test_the_speed_of_a_long_history_is_that_of_the_plain_recursion():
    from geomiam.masking.scores import balance

    scores = np.random.default_rng(0).uniform(0.5, 1, (300, 3))
    for smoothing in (0.0, 0.5, 0.9):
        average, step = scores[0], np.zeros(3)
        for row in scores[1:]:
            next_average = smoothing * average + (1 - smoothing) * row
            average, step = next_average, np.abs(next_average - average)
        actual = balance(scores, smoothing=smoothing, eps=1e-9)
        np.testing.assert_allclose(actual.d, step + 1e-9, rtol=1e-9)
        assert actual.epoch == 300


# The plan ----------------------------------------------------------------------------------------


def test_the_plan_follows_from_the_data():
    small_plan = make_plan(labels_of(100, 40, 30))
    assert small_plan.choices == ("linear", "quadratic", "sum", "group") and small_plan.folds == 3
    assert small_plan.network.fusion == "linear+sum"
    assert (small_plan.network.width, small_plan.training.lr) == (64, 3e-3)
    assert (small_plan.training.holdout, small_plan.training.keep) == (0, "last")
    assert small_plan.training_of("linear").lr == pytest.approx(9e-3)
    assert small_plan.training_of("sum").lr == 3e-3
    complete = [small_plan.training_of(kind).complete for kind in small_plan.choices]
    assert complete == [0.25, 0.25, 0, 0]
    assert make_plan(labels_of(49, 40, 20)).training_of("linear").complete == 0
    steps = small_plan.training.steps
    with_species = make_plan(labels_of(100, 40, 30), community=True)
    assert with_species.training.steps == 2 * steps and "doubled" in with_species.reasons[0]
    by_hand = make_plan(labels_of(100, 40, 30), training={"epochs": 5}, community=True)
    assert by_hand.training.steps is None and "doubled" not in by_hand.reasons[0]
    large_plan = make_plan(labels_of(500, 1, 150))
    assert large_plan.choices == ("linear", "quadratic", "sum", "group")
    rare = make_plan(labels_of(500, 1, 40))
    assert rare.choices == () and rare.network.fusion == "linear+sum+group" and rare.folds == 1
    assert any("40 labels of the rarer class" in reason for reason in rare.reasons)
    assert make_plan(labels_of(5000, 20, 500)).folds == 1
    assert make_plan(labels_of(20, 20, 10)).folds == 0


def test_the_plan_states_why_members_are_not_chosen():
    labels = labels_of(100, 5, 40)
    cases = {
        "fewer than 30 sites: fixed members": make_plan(labels_of(20, 20, 10)),
        "validation= is given: fixed members": make_plan(labels, validation_given=True),
        "held-out sites choose the epoch: fixed members": make_plan(
            labels, training={"holdout": 0.2}
        ),
    }
    for reason, plan in cases.items():
        assert reason in plan.reasons and plan.choices == ()
    assert not any("fixed members" in reason for reason in make_plan(labels).reasons)
    assert (
        "linear and quadratic members: learning rate 0.009, 3 times that of the others, 25% of the rows complete"
        in make_plan(labels).reasons
    )
    assert len(make_plan(labels, network={"fusion": "sum"}).reasons) == 1  # no such member


def test_what_is_configured_by_hand_is_used_as_it_is():
    labels = labels_of(100, 5, 40)
    training = gm.TrainingConfig(epochs=7, lr=0.5)
    plan = make_plan(labels, network=TINY_NETWORK, training=training)
    assert plan.network == TINY_NETWORK and plan.training == training
    assert plan.choices == () and plan.folds == 0 and plan.training_of("linear") == training
    assert make_plan(labels, network=TINY_NETWORK).folds == 1  # one cheap fit validates it


def test_a_mapping_changes_single_settings_of_the_rule():
    labels = labels_of(100, 5, 40)
    plan = make_plan(labels, network={"width": 32}, training={"loss": "maxent", "steps": 77})
    assert (plan.network.width, plan.network.heads) == (32, 4) and plan.choices
    assert (plan.training.loss, plan.training.steps, plan.training.keep) == ("maxent", 77, "last")
    fixed = make_plan(labels, network={"fusion": "sum"}, training={"lr": 0.1})
    assert fixed.choices == () and fixed.training_of("sum").lr == 0.1
    assert fixed.training_of("linear").complete == 0.25
    all_masked = make_plan(labels, training={"complete": 0})
    assert all_masked.training_of("linear").complete == 0
    assert all_masked.training_of("linear").lr == pytest.approx(9e-3)
    with_holdout = make_plan(labels, training={"holdout": 0.2})
    assert (
        with_holdout.training.keep == "best"
        and with_holdout.training.steps is None
        and with_holdout.folds == 0
    )
    with pytest.raises(SettingError, match="epoch"):
        make_plan(labels, training={"epoch": 3})
    with pytest.raises(SettingError, match="width 30 is not a multiple of heads 4"):
        make_plan(labels, network={"width": 30})


# The choice --------------------------------------------------------------------------------------


def test_auc_and_error_over_blocks_are_those_of_plain_loops():
    rng = np.random.default_rng(0)
    y = (rng.random((40, 2)) < 0.4).astype(float)
    y[3, 0] = np.nan
    z, blocks = rng.normal(size=(40, 2)).round(1), rng.integers(0, 9, 40)
    fold = np.arange(40) % 3
    influence, values = np.zeros(9), []
    for s in range(2):
        win = lambda a, b, s=s: 1.0 * (z[a, s] > z[b, s]) + 0.5 * (z[a, s] == z[b, s])  # noqa: E731
        sides = [[np.flatnonzero((y[:, s] == v) & (fold == h)) for v in (1, 0)] for h in range(3)]
        weights = np.array([len(a) * len(b) / (len(a) + len(b) + 1) for a, b in sides])
        weights /= weights.sum()
        aucs = [np.mean([win(a, b) for a, b in itertools.product(*pair)]) for pair in sides]
        values.append(weights @ aucs)
        for weight, auc, (ones, zeros) in zip(weights, aucs, sides):
            for a in ones:
                share = np.mean([win(a, b) for b in zeros]) - auc
                influence[blocks[a]] += weight * share / len(ones) / 2
            for b in zeros:
                share = np.mean([win(a, b) for a in ones]) - auc
                influence[blocks[b]] += weight * share / len(zeros) / 2
    score, actual = auc_by_block(y, z, blocks, fold)
    assert score == pytest.approx(np.mean(values))
    np.testing.assert_allclose(actual, influence, atol=1e-12)


def test_the_largest_mix_within_a_standard_error_of_the_best_is_used():
    rng = np.random.default_rng(1)
    y = (rng.random((300, 3)) < 0.5).astype(np.float32)
    signal = (y + rng.normal(size=y.shape))[None]
    noise = {k: rng.normal(size=signal.shape) for k in ("linear", "sum", "group")}
    blocks = np.arange(300) % 30

    def chosen(**logits):
        return choose(Folds(y, blocks, blocks % 3, logits))

    kinds, scores = chosen(linear=noise["linear"], sum=signal, group=noise["group"])
    assert kinds == ("sum",) and len(scores) == 7
    within = gm.metrics.auc_within_folds(y, signal[0], blocks % 3)
    assert scores["sum"] == pytest.approx(within.mean(), abs=1e-4)
    same = signal + 1e-3 * noise["sum"]  # a smaller mix may be better by chance
    assert chosen(linear=signal, sum=same)[0] == ("linear", "sum")
    assert chosen(linear=signal, sum=same, group=signal + noise["group"])[0] == ("linear", "sum")
    equal_parts = {k: signal + noise[k] for k in noise}  # each alone is poorer than the mean of all
    assert chosen(**equal_parts)[0] == ("linear", "sum", "group")


def test_the_reason_of_the_choice_names_the_best_mix():
    auc_by_mix = {"linear": 0.71234, "sum": 0.7, "linear+sum": 0.71}
    assert choice_reason(("linear",), auc_by_mix) == "the highest AUC of 3 mixes, 0.712"
    text = choice_reason(("linear", "sum"), auc_by_mix)
    assert text.startswith("AUC 0.710; of 3 mixes linear has the highest, 0.712")
    assert "no species" in choice_reason(("linear", "sum"), dict.fromkeys(auc_by_mix))


def test_all_kinds_are_used_where_nothing_can_be_scored():
    logits = {k: np.zeros((1, 6, 1)) for k in ("linear", "sum")}
    folds = Folds(np.zeros((6, 1)), np.arange(6), np.arange(6) % 3, logits)
    kinds, scores = choose(folds)
    assert kinds == ("linear", "sum") and set(scores.values()) == {None}


def test_predictions_of_the_folds_are_bounded(monkeypatch):
    held_out = [np.arange(90) % 3 == k for k in range(2)]
    assert predicted_sites(held_out, 10).tolist() == [i for i in range(90) if i % 3 < 2]
    monkeypatch.setattr(choice_module, "MOST_NUMBERS", 200)
    assert len(predicted_sites(held_out, 10)) == 20


# Members without a hidden layer ------------------------------------------------------------------


def logits_at(model: gm.Model, points: np.ndarray) -> np.ndarray:
    """Logits ``(n, S)`` at values of v0 and v1; the others are 0."""
    zeros = np.zeros(len(points), np.float32)
    table = {"v0": points[:, 0], "v1": points[:, 1], "v2": zeros, "v3": zeros}
    return Masked(model).scores(xr.Dataset({k: ("site", v) for k, v in table.items()}))


@pytest.mark.parametrize(("fusion", "bent"), [("linear", False), ("quadratic", True)])
def test_a_member_without_hidden_layer_adds_up_its_variables(fusion, bent, tmp_path):
    sites = survey(60)
    settings = {"fusion": fusion, "width": 8, "heads": 2, "members": 2}
    training = quick(epochs=20, holdout=0, keep="last")
    model = gm.fit(sites, network=gm.NetworkConfig(**settings), training=training)
    a, b, c, d = logits_at(model, np.array([[0, 0], [2, 0], [0, 1], [2, 1]], np.float32))
    np.testing.assert_allclose(d - c, b - a, atol=1e-4)  # no interaction
    low, middle, high = logits_at(model, np.array([[-1, 0], [0, 0], [1, 0]], np.float32))
    assert bool(np.abs(high - 2 * middle + low).max() > 1e-2) == bent
    again = gm.load_model(model.save(tmp_path / "model"))
    assert again.id == model.id and again.config.kinds == (fusion,)


def test_hidden_tokens_of_one_number_may_be_computed_or_sorted_out():
    for fusion in ("linear", "quadratic", "sum", "group"):
        from helpers_small import random_arrays, schema_of, untrained, variable

        from geomiam.tokens.encode import encode

        schema = schema_of(a=[variable("p"), variable("q", "circular")], b=[variable("r")])
        model = untrained(schema, fusion=fusion, dropout=0.0)
        member = model.network.members[0]
        block = encode(random_arrays(schema, 30), layout=model.layout, scaler=model.scaler)
        values = [torch.as_tensor(v) for v in block.values]
        visible = torch.as_tensor(block.observed) & (torch.rand(block.observed.shape) < 0.7)
        model.network.train()
        assert member.dense
        direct = model.network(values, visible)
        member.dense = False
        torch.testing.assert_close(model.network(values, visible), direct, rtol=1e-4, atol=1e-5)


# The fit -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def default():
    """A default fit of 60 sites, and 400 other sites of the same truth."""
    sites = survey(460)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrainingWarning)
        return gm.fit(sites.isel(site=slice(60)), rng=0), sites


@pytest.mark.slow
def test_the_default_is_as_good_as_a_logistic_regression(default):
    model, sites = default
    x = np.stack([sites[f"v{i}"].values for i in range(4)], 1)
    y, scores = sites["presence"].values, Masked(model).scores(sites.drop_vars("presence"))
    aucs = {"default": [], "regression": []}
    for s in range(y.shape[1]):
        line = LogisticRegression(C=0.3).fit(x[:60], y[:60, s])
        aucs["regression"].append(roc_auc_score(y[60:, s], line.decision_function(x[60:])))
        aucs["default"].append(roc_auc_score(y[60:, s], scores[60:, s]))
    assert np.mean(aucs["default"]) > np.mean(aucs["regression"]) - 0.015


@pytest.mark.slow
def test_the_fit_reports_its_rule_and_its_validation(default):
    model, _ = default
    rule, validation = model.about["rule"], model.about["validation"]
    assert rule["fusion"] == model.config.fusion and model.config.members == len(model.config.kinds)
    assert set(rule["inner_auc"]) >= {"linear", "quadratic", "sum", "linear+sum"}
    assert model.about["sites"] == {"train": 60, "validation": 0}
    assert validation["folds"] == 3 and 0 < validation["standard_error"] < 0.2
    assert model.about["validation_auc"]["all"] == pytest.approx(
        rule["inner_auc"][rule["fusion"]], abs=1e-3
    )
    assert set(model.about["validation_auc"]) == {"climate", "soil", "all"}
    assert model.about["training_auc"]["all"] > model.about["validation_auc"]["all"]
    for text in (str(model), card(model)):
        assert "300 optimiser steps" in text and "chosen on spatial folds" in text
        assert rule["choice"] in text and "the highest" in text


# Warnings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("best", "epochs", "steps", "message"),
    [
        ([3, 9], [10, 10], 400, r"best epoch is the last of 10.*\{'epochs': 20\}"),
        ([3], [10], 90, "90 optimiser steps are few: training ended too early"),
        ([3], [10], 400, None),
        ([8], [9], 90, None),  # patience ended it
    ],
)
def test_a_run_that_ends_too_early_is_reported(best, epochs, steps, message):
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        advice.ended_early(best, epochs, epoch_limit=10, steps=steps)
    assert len(heard) == (message is not None)
    assert not message or re.search(message, str(heard[0].message))


def test_a_fit_of_few_steps_is_reported():
    with pytest.warns(TrainingWarning, match="training ended too early"):
        gm.fit(tiny_sites(60), network=TINY_NETWORK, training=quick(epochs=2))


def test_few_validation_presences_are_reported_once_with_the_remedy():
    with pytest.warns(TrainingWarning) as heard:
        gm.fit(tiny_sites(100), network=TINY_NETWORK, training=quick())
    (few_presences,) = [str(w.message) for w in heard if "validation presences" in str(w.message)]
    assert (
        "Quercus 0 (" in few_presences
        and "Quercus 1 (" in few_presences
        and "without training=" in few_presences
    )


def test_species_with_hardly_any_presence_are_listed():
    labels = labels_of(50, 8, 3)
    with pytest.warns(
        TrainingWarning, match=r"fewer than 5 presences: a \(3\), .* and 3 more species"
    ):
        advice.few_presences(labels, list("abcdefgh"))


@pytest.mark.parametrize("varying", [None, "bio1", "ndvi", "cover"])
def test_predictors_that_are_all_constant_are_reported(varying):
    sites = tiny_sites(40).drop_vars("clay")
    sites["bio1"] = sites["bio1"] * 0 + 300 * (1 + 4e-7 * (sites["site"] % 2))  # float32 rounds so
    sites["ndvi"] = sites["ndvi"] * 0 + np.arange(sites.sizes["month"])
    sites["cover"] = ("site", np.full(40, 3.0), {"kind": "categorical"})
    if varying:
        sites[varying] = sites[varying].where(sites["site"] != 7, sites[varying] + 1)
    sites["bio1"] = sites["bio1"].where(sites["site"] != 3)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        gm.fit(sites, network=TINY_NETWORK, training=quick(epochs=1))
    about = [str(w.message) for w in heard if "all predictors are constant" in str(w.message)]
    assert len(about) == (varying is None)
    assert varying or "add predictors that vary between the sites" in about[0]


@pytest.mark.parametrize(
    ("training", "validation", "has_warning"), [(0.99, 0.7, True), (0.8, 0.7, False)]
)
def test_a_large_gap_between_training_and_validation_is_reported(training, validation, has_warning):
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        advice.large_gap(training, validation, steps=1000)
        advice.large_gap(training, None, steps=1000)
    assert len(heard) == has_warning
    assert not has_warning or "training AUC 0.99, validation AUC 0.70" in str(heard[0].message)


@pytest.mark.parametrize(("steps", "advised_steps"), [(1000, "{'steps': 500}"), (60, None)])
def test_fewer_steps_are_fewer_than_the_run_had(steps, advised_steps):
    with pytest.warns(TrainingWarning, match="Use fewer predictors") as heard:
        advice.large_gap(0.99, 0.7, steps=steps)
    text = str(heard[0].message)
    assert advised_steps in text if advised_steps else "steps" not in text


def series_survey(n: int) -> xr.Dataset:
    """Sites of three species: an optimum or a minimum in the mean of four months, or a trend from first to last."""
    rng = np.random.default_rng(0)
    steps = rng.normal(size=(n, 4)) + 2 * rng.normal(size=(n, 1))
    score = 2 - steps.mean(1) ** 2
    trend = steps[:, 3] - steps[:, 0]
    chance = 1 / (1 + np.exp(-2 * np.stack([score, -score, trend], 1)))
    return xr.Dataset(
        {
            "rain": (("site", "month"), steps.astype("f4"), {"modality": "weather"}),
            "presence": (("site", "species"), (rng.random((n, 3)) < chance).astype("f4")),
        },
        coords={
            "month": range(4),
            "x": ("site", rng.uniform(0, 10, n)),
            "y": ("site", rng.uniform(40, 50, n)),
            "species": ["optimum", "minimum", "trend"],
        },
        attrs={"crs": "EPSG:4326"},
    )


def test_members_without_attention_read_optima_and_single_months_of_a_series():
    sites, test = series_survey(400), series_survey(700).isel(site=slice(400, None))
    auc = {}
    for fusion in ("linear", "quadratic"):
        model = gm.fit(sites, network={"fusion": fusion}, training={"steps": 200}, validation=False)
        assert model.config.squares and model.config.private_windows
        auc[fusion] = gm.metrics.auc(test["presence"].values, Masked(model).scores(test))
    assert auc["linear"][:2].mean() < 0.65 and auc["quadratic"][:2].mean() > 0.85
    assert min(auc["linear"][2], auc["quadratic"][2]) > 0.85
    shared = gm.fit(
        sites,
        network={"fusion": "quadratic", "private_windows": False},
        training={"steps": 200},
        validation=False,
    )
    assert gm.metrics.auc(test["presence"].values, Masked(shared).scores(test))[2] < 0.65


def test_settings_that_were_saved_before_these_existed_have_shared_linear_windows():
    new_fields = {"squares", "private_windows"}
    saved_fields = {k: v for k, v in TINY_NETWORK.model_dump().items() if k not in new_fields}
    assert gm.NetworkConfig.model_validate(saved_fields) == TINY_NETWORK
    assert not (TINY_NETWORK.squares or TINY_NETWORK.private_windows)
