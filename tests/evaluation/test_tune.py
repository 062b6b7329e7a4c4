"""Trials against cross-validations by hand, and the recommendation against plain arithmetic."""

import importlib

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from helpers_small import tiny_sites
from scipy.stats import loguniform
from sklearn.metrics import log_loss, roc_auc_score

import geomiam as gm
from geomiam.errors import LabelError, SelectionError, SettingError

module = importlib.import_module("geomiam.evaluation.tune")
FOLD = np.arange(120) % 3
PAIRS = [(np.flatnonzero(FOLD != f), np.flatnonzero(FOLD == f)) for f in range(3)]


def scores_of(data, steps, *, masking="miam"):
    """Suitability that is better for more steps, ``(2 subsets, n, S)``."""
    rng = np.random.default_rng(len(masking))
    presence = data["presence"].values
    noise = rng.random((2, *presence.shape))
    strength = 0.1 + steps / 2000
    return strength * presence + (1 - strength) * noise


@pytest.fixture
def calls(monkeypatch):
    """Replaces the trainings by scores of the settings; lists what each trial was called with."""
    options_of_trials = []

    def cross_validate(sites, schema, *, splits, **options):
        options_of_trials.append(options)
        steps = (options.get("training") or {}).get("steps", 500)
        scores = scores_of(sites, steps, masking=options["fit_options"].get("masking", "miam"))
        return xr.Dataset(
            {
                "presence": sites["presence"],
                "suitability": (("subset", "site", "species"), scores),
                "fold": ("site", FOLD),
            },
            coords={"subset": ["climate", "all"], "species": sites["species"].values},
        )

    monkeypatch.setattr(module, "cross_validate", cross_validate)
    return options_of_trials


@pytest.mark.parametrize("metric", ["auc", "log_loss"])
def test_scores_gains_and_errors_are_those_of_the_folds(calls, metric):
    data = tiny_sites(120)
    space = {"training.steps": [None, 100, 1500], "masking": ["uniform"]}
    tuning = gm.tune(data, space=space, trials=4, splits=PAIRS, metric=metric)
    table = tuning.table
    assert calls[0]["fit_options"] == {} and "training" not in calls[0]  # the default fit
    assert sorted(table["training.steps"].dropna()) == [100, 1500]
    reference = {"auc": roc_auc_score, "log_loss": log_loss}[metric]
    for trial in table.index:
        steps = tuning.settings[trial].get("training.steps", 500)
        scores = scores_of(data, steps, masking=tuning.settings[trial].get("masking", "miam"))
        for f in range(3):
            y, z = data["presence"].values[FOLD == f], scores[:, FOLD == f]
            values = [reference(y[:, s], z[i, :, s]) for i in range(2) for s in range(2)]
            assert table.loc[trial, f"fold_{f}"] == pytest.approx(np.mean(values), rel=1e-6)
    by_fold = table[[f"fold_{f}" for f in range(3)]].values
    gains = (by_fold - by_fold[0]) * (1 if metric == "auc" else -1)
    np.testing.assert_allclose(table["mean"], by_fold.mean(1))
    np.testing.assert_allclose(table["gain"], gains.mean(1), atol=1e-12)
    np.testing.assert_allclose(table["gain_error"], gains.std(1, ddof=1) / 3**0.5)
    strongest = table.index[table["training.steps"] == 1500][0]
    assert tuning.winner == tuning.recommended == strongest
    assert tuning.best == {"training": {"steps": 1500}, "masking": "uniform"}
    assert "optimistic" in tuning.reason and f"trial {strongest} is better" in str(tuning)


@pytest.mark.parametrize(("gain", "trial"), [(0.021, 1), (0.019, 0), (np.nan, 0)])
def test_a_gain_within_its_error_recommends_the_default_fit(gain, trial):
    table = pd.DataFrame({"mean": [0.8, 0.8], "gain": [0.0, gain], "gain_error": [0.0, 0.02]})
    tuning = gm.evaluation.Tuning(table, ({}, {"network.fusion": "sum"}), "auc")
    assert tuning.recommended == trial
    assert tuning.best == ({"network": {"fusion": "sum"}} if trial else {})
    assert ("The default is recommended" in tuning.reason) == (trial == 0)


def test_settings_are_drawn_once_and_those_of_the_default_are_left_out():
    space = {"network.width": [None, 32, 64], "training.steps": [None, 300]}
    settings = module.draw_settings(space, 99, rng=0)
    assert settings[0] == {} and len(settings) == 6
    assert len({tuple(s.items()) for s in settings}) == 6
    rates = module.draw_settings({"training.lr": loguniform(1e-3, 1e-2)}, 5, rng=1)[1:]
    assert len({s["training.lr"] for s in rates}) == 5
    assert all(type(s["training.lr"]) is float and 1e-3 <= s["training.lr"] <= 1e-2 for s in rates)
    assert len(module.draw_settings(gm.evaluation.SPACE, 11, rng=0)) == 12


def test_everything_is_checked_before_the_first_training(calls):
    data = tiny_sites(120)
    for space in ({"training.speed": [1]}, {"width": [1]}, {"masking": []}, {"masking": "uniform"}):
        with pytest.raises(SelectionError, match="names are 'masking', 'network"):
            gm.tune(data, space=space, splits=PAIRS)
    with pytest.raises(SelectionError, match="must map names"):
        gm.tune(data, space=["network.fusion"], splits=PAIRS)
    with pytest.raises(SettingError, match="no masking strategy 'unifrom'"):
        gm.tune(data, space={"masking": ["unifrom"]}, splits=PAIRS)
    with pytest.raises(SettingError, match="lr"):
        gm.tune(data, space={"training.lr": [-1.0]}, splits=PAIRS)
    with pytest.raises(SelectionError, match="cannot be chosen by metric='omission'"):
        gm.tune(data, metric="omission")
    with pytest.raises(SettingError, match="trials must be at least 2"):
        gm.tune(data, trials=1)
    assert not calls
    data["presence"][:] = 1.0
    with pytest.raises(LabelError, match="the default fit has no score"):
        gm.tune(data, space={"masking": ["uniform"]}, splits=PAIRS)


def test_trials_are_cross_validations_and_resume_without_training(tmp_path, monkeypatch):
    data = tiny_sites(28)  # too few for a choice of members, which takes long
    space = {"network.fusion": ["linear"], "training.steps": [25], "masking": ["uniform"]}
    options = {"space": space, "trials": 2, "splits": gm.splits.SpatialBlocks(2), "rng": 1}
    tuning = gm.tune(data, subsets="all", checkpoint=tmp_path, **options)
    by_hand = gm.cross_validate(
        data,
        splits=gm.splits.SpatialBlocks(2),
        network={"fusion": "linear"},
        training={"steps": 25},
        fit_options={"masking": "uniform"},
        rng=1,
    )
    for f in range(2):
        rows = by_hand["fold"].values == f
        z = by_hand["suitability"].sel(subset="all").values[rows]
        expected = np.mean(
            [roc_auc_score(data["presence"].values[rows, s], z[:, s]) for s in range(2)]
        )
        assert tuning.table.loc[1, f"fold_{f}"] == pytest.approx(expected, abs=1e-12)
    loop = importlib.import_module("geomiam.training.loop")
    monkeypatch.setattr(loop, "_epoch", None)  # a training would fail
    again = gm.tune(data, subsets="all", checkpoint=tmp_path, **options)
    pd.testing.assert_frame_equal(again.table, tuning.table)
