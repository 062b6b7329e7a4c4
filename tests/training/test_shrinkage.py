"""Shrinkage of the logits of a survey: the slope, and what it leaves as it is."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import xarray as xr
from helpers_small import TINY_NETWORK, quick, tiny_sites
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

import geomiam as gm
from geomiam.data.sites.table import SiteTable
from geomiam.errors import TrainingWarning
from geomiam.masking import MIAM
from geomiam.model.saved_model import card
from geomiam.training.members import Setup
from geomiam.training.shrinkage import LEAST, Shrinkage, level_of, slope_of, slope_with

SHORT = {"steps": 25, "epoch_steps": 25, "lr": 0.04}
SMALL = {"width": 8, "heads": 2}


@pytest.fixture(scope="module")
def truth() -> tuple[np.ndarray, np.ndarray]:
    """True logits and labels ``(n, S)``."""
    z = np.random.default_rng(0).normal(0, 1.5, (2000, 3))
    return z, (np.random.default_rng(1).random(z.shape) < expit(z)).astype("f4")


def fit(sites: xr.Dataset, **options) -> gm.Model:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrainingWarning)
        return gm.fit(sites, rng=0, **options)


@pytest.fixture(scope="module")
def sites() -> xr.Dataset:
    """A survey of 90 sites, the labels of which are mostly noise, so that models are overconfident."""
    survey = tiny_sites(90, species=4, seed=3)
    noise = np.random.default_rng(0).random(survey["presence"].shape) < 0.75
    random = np.random.default_rng(1).random(survey["presence"].shape) < 0.45
    survey["presence"] = survey["presence"].copy(
        data=np.where(noise, random, survey["presence"].values).astype("f4")
    )
    return survey


@pytest.fixture(scope="module")
def models(sites) -> dict[bool, gm.Model]:
    """The same fit with and without shrinkage."""
    return {
        shrink: fit(sites, network=SMALL, training=SHORT | {"shrink": shrink})
        for shrink in (True, False)
    }


# The slope ---------------------------------------------------------------------------------------


def test_the_slope_is_that_of_a_logistic_regression_with_an_intercept_for_each_species(truth):
    z, y = truth
    z = 2 * z + [-1, 0, 2]
    species = np.eye(3)[np.tile(np.arange(3), len(z))]
    columns = np.column_stack([z.ravel(), species])
    line = LogisticRegression(C=1e9, fit_intercept=False, max_iter=1000).fit(columns, y.ravel())
    assert slope_of(y, z) == pytest.approx(line.coef_[0, 0], abs=1e-3)


@pytest.mark.parametrize("factor", [1.5, 3.0])
def test_a_known_overconfidence_is_found_whatever_the_prevalence(truth, factor):
    z, _ = truth
    base = np.array([-4.0, 0.0, 1.0])
    y = (np.random.default_rng(2).random(z.shape) < expit(base + z)).astype("f4")
    assert slope_of(y, factor * z) == pytest.approx(1 / factor, rel=0.08)


def test_the_slope_never_sharpens_and_keeps_the_order(truth):
    z, y = truth
    assert slope_of(y, z / 2) == 1
    assert slope_of(1 - y, z) == LEAST > 0
    assert slope_of(y, np.zeros_like(z)) == 1  # nothing to judge by


def test_missing_labels_and_species_of_one_class_do_not_count(truth):
    z, y = truth
    gaps, far = y.copy(), 2 * z
    gaps[::2, 0], far[1::2, 1] = np.nan, np.nan
    one_class = np.ones((len(y), 1)), 9 * np.sin(np.arange(len(y)))[:, None]
    slope = slope_of(np.hstack([gaps, one_class[0]]), np.hstack([far, one_class[1]]))
    assert slope == pytest.approx(slope_of(gaps, far), abs=1e-6)
    assert slope == pytest.approx(0.5, abs=0.05)


def test_the_level_keeps_the_mean_at_the_prevalence(truth):
    z, y = truth
    share = y.mean(0)
    for slope in (1.0, 0.2):
        level = level_of(3 * z, slope=slope, share=share)
        np.testing.assert_allclose(expit(level + slope * 3 * z).mean(0), share, atol=1e-5)
    np.testing.assert_allclose(level_of(0 * z, slope=1, share=share), logit(share), atol=1e-5)


def test_more_sites_multiply_the_odds_of_the_slope():
    for signal in (0.1, 1, 10):
        slope = {n: signal / (signal + 1 / n) for n in (2, 3)}
        assert slope_with(1.5, slope[2]) == pytest.approx(slope[3])
    assert slope_with(1.5, 1.0) == 1.0


def halves(y: np.ndarray, z: np.ndarray) -> Shrinkage:
    """The shrinkage of two folds."""
    fold = np.arange(len(y)) % 2
    return Shrinkage.of(y, [fold == 0, fold == 1], y, z, fold=fold)


def test_the_levels_of_the_folds_models_do_not_count_against_the_logits(truth):
    z, _ = truth
    shift = np.where(np.arange(len(z)) % 2, 0.8, -0.8)[:, None]
    y = (np.random.default_rng(2).random(z.shape) < expit(z + shift)).astype("f4")
    # The model of the sites of the other half has their prevalence.
    shrinkage = halves(y, z - shift)
    assert shrinkage.fold_slope > slope_of(y, z - shift) + 0.2
    np.testing.assert_allclose(shrinkage.base, logit(y.mean(0)), rtol=1e-4)
    assert shrinkage.slope == pytest.approx(slope_with(2, shrinkage.fold_slope), abs=1e-3)


def test_a_few_places_far_outside_the_training_range_do_not_determine_the_slope(truth):
    z, y = truth
    far = z.copy()
    far[:5] = 1e4 * (1 - 2 * y[:5])  # as wrong as possible
    assert halves(y, far).fold_slope > 0.9


# The model ---------------------------------------------------------------------------------------


def test_the_fit_scales_the_logits_about_the_prevalence_and_trains_as_without(models, sites):
    slope = models[True].about["rule"]["shrinkage"]["slope"]
    assert 0 < slope < 0.95 and "shrinkage" not in models[False].about["rule"]
    losses = [[row["loss"] for row in m.about["history"]] for m in models.values()]
    assert losses[0] == losses[1]
    base = logit(sites["presence"].mean("site").values)
    level = np.array([*models[True].about["rule"]["shrinkage"]["level"].values()])
    for using in (None, ["climate"]):
        logits = {
            k: gm.predict(sites, m, using=using, scale="logit")["suitability"]
            .transpose("site", "species")
            .values
            for k, m in models.items()
        }
        expected = level + slope * (logits[False] - base)
        np.testing.assert_allclose(logits[True], expected, atol=1e-4)


def test_ranks_within_a_species_do_not_change(models, sites):
    scores = [gm.predict(sites, m)["suitability"].values for m in models.values()]
    labels = sites["presence"].transpose(*gm.predict(sites, models[True])["suitability"].dims)
    for y, first, second in zip(labels.values, *scores):
        assert gm.metrics.auc(y, first) == pytest.approx(gm.metrics.auc(y, second), abs=1e-3)
        order = np.argsort(first, kind="stable")
        assert (np.diff(second[order]) > -1e-5).all()


def test_thresholds_classify_as_without_shrinkage(models, sites):
    for kind in models[True].thresholds["kind"].values:
        maps = [
            gm.predict(sites, m)["suitability"] >= m.thresholds.sel(kind=kind)
            for m in models.values()
        ]
        assert float((maps[0] == maps[1]).mean()) > 0.99


def test_explanations_and_spread_are_scaled_alike(models, sites):
    slope = models[True].about["rule"]["shrinkage"]["slope"]
    first_sites = sites.isel(site=slice(20))
    values = [gm.shapley(first_sites, m, scale="logit")["shapley"].values for m in models.values()]
    np.testing.assert_allclose(values[0], slope * values[1], atol=1e-4)
    spreads = [
        gm.predict(first_sites, m, scale="logit", spread=True)["spread"].values
        for m in models.values()
    ]
    np.testing.assert_allclose(spreads[0], slope * spreads[1], atol=1e-4)


def test_the_model_states_it_and_keeps_it_when_saved(models, sites, tmp_path):
    model = models[True]
    shrinkage = model.about["rule"]["shrinkage"]
    for text in (str(model), card(model)):
        assert f"calibration slope {shrinkage['fold_slope']:.2f}, where 1 is right" in text
        assert f"prevalence of each species (log-odds times {shrinkage['slope']:.2f})" in text
    saved_model = gm.load_model(model.save(tmp_path / "model"))
    assert saved_model.id == model.id and saved_model.about["rule"]["shrinkage"] == shrinkage
    xr.testing.assert_equal(gm.predict(sites, saved_model), gm.predict(sites, model))


def test_a_slope_of_one_is_stated_as_no_correction():
    zeros = np.zeros(1)
    text = Shrinkage(1.0, 1.0, zeros, zeros).text()
    assert "not too extreme" in text and "slope 1.00" in text and "times" not in text


def test_a_model_of_one_member_is_scaled_too(models, sites):
    model = copy.deepcopy(fit(sites, network=TINY_NETWORK, training=quick(epochs=1)))
    before = gm.predict(sites, model, scale="logit")["suitability"].values
    base, level = np.full((2, len(model.species)), [[-1.0], [2.0]], "f4")
    Shrinkage(0.5, 0.5, base, level).apply(model.network)
    after = gm.predict(sites, model, scale="logit")["suitability"].values
    np.testing.assert_allclose(after, 2 + 0.5 * (before + 1), atol=1e-5)


# Where it does not apply -------------------------------------------------------------------------


def shrinks(sites: xr.Dataset, *, validation_given: bool = False, **options) -> bool:
    return Setup.of(
        SiteTable.read(sites, gm.infer_schema(sites)).checked(),
        MIAM(),
        network=options.get("network"),
        training=options.get("training"),
        warm_start=options.get("warm_start", False),
        backbones={},
        validation_given=validation_given,
    ).shrinks


@pytest.mark.parametrize(
    "options",
    [
        {"training": {"loss": "weighted-bce"}},
        {"training": {"shrink": False}},
        {"training": {"holdout": 0.2}},
        {"training": quick(epochs=1)},
        {"network": {"fusion": "sum"}},
        {"validation_given": True},
    ],
    ids=["relative suitability", "off", "held-out sites", "config", "fixed kind", "no folds"],
)
def test_no_shrinkage_without_a_survey_and_a_choice_of_members(sites, options):
    assert shrinks(sites) and not shrinks(sites, **options)


def test_no_shrinkage_with_background_even_for_the_loss_of_surveys(sites):
    background = sites.assign_coords(background=("site", np.arange(90) > 60))
    background["presence"] = background["presence"].where(~background["background"], 0)
    assert not shrinks(background, training={"loss": "bce"})


@pytest.mark.parametrize("name", ["masksdm", "ume"])
def test_published_recipes_are_not_shrunk(sites, name):
    options = gm.baselines.recipe(name).options(gm.infer_schema(sites))
    assert not shrinks(sites, network=options["network"], training=options["training"])
