"""Baselines: the same face as a model, and numbers that agree with scikit-learn and with NaN."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
import torch
import xarray as xr
from sklearn.metrics import roc_auc_score

import geomiam as gm
from geomiam.baselines.forest import _fit as grow
from geomiam.baselines.forest import _fit_draws as grow_draws
from geomiam.baselines.registry import fit_baseline
from geomiam.errors import LabelError, SelectionError

OPTIONS = {
    "rf": {"trees": 10},
    "rf-equal": {"trees": 3},
    "xgboost": {"rounds": 20},
    "maxent": {"features": "linear,quadratic"},
    "maxent-like": {"epochs": 5},
    "deepmaxent": {"epochs": 5},
    "tabm": {"networks": 4, "width": 16, "epochs": 3},
}
needs_elapid = pytest.mark.skipif(
    find_spec("elapid") is None, reason="elapid is not installed: pip install geomiam[maxent]"
)
AVAILABLE = [name for name in OPTIONS if name != "maxent" or find_spec("elapid")]
NAMES = [pytest.param(n, marks=needs_elapid) if n == "maxent" else n for n in OPTIONS]
DETERMINISTIC = ("xgboost", "maxent")
"""Neither boosting without subsampling nor a convex fit has anything to draw."""


@pytest.fixture(scope="module")
def schema(sites):
    return gm.infer_schema(sites)


@pytest.fixture(scope="module")
def baselines(sites, schema):
    return {n: fit_baseline(n, sites, schema, rng=0, options=OPTIONS[n]) for n in AVAILABLE}


@pytest.mark.parametrize("name", NAMES)
def test_every_site_is_scored_from_every_modality(baselines, sites, schema, name):
    for using in (None, *schema.modalities):
        scores = baselines[name].scores(sites, using=using)
        assert scores.shape == sites["presence"].shape
        assert np.isfinite(scores).all()
    assert baselines[name].species == [str(s) for s in sites["species"].values]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_used_may_as_well_be_missing(baselines, sites, schema, name):
    """using= without a modality = that modality set to NaN, and its values are inert."""
    modality, *other_modalities = schema.modalities
    without_modality = sites.copy()
    for variable in schema.modalities[modality].variables:
        without_modality[variable] = without_modality[variable] * np.nan
    expected = baselines[name].scores(sites, using=other_modalities)
    np.testing.assert_array_equal(baselines[name].scores(without_modality), expected)
    wild = sites.copy()
    for variable in schema.modalities[modality].variables:
        wild[variable] = wild[variable] * 0 + 1e30
    np.testing.assert_array_equal(baselines[name].scores(wild, using=other_modalities), expected)


@pytest.mark.parametrize("name", NAMES)
def test_one_seed_one_baseline(sites, schema, name):
    before = torch.random.get_rng_state()
    first_scores, same_seed, other_seed = (
        fit_baseline(name, sites, schema, rng=r, options=OPTIONS[name]).scores(sites)
        for r in (1, 1, 2)
    )
    np.testing.assert_array_equal(first_scores, same_seed)
    assert torch.equal(before, torch.random.get_rng_state())
    if name not in DETERMINISTIC:
        assert not np.array_equal(first_scores, other_seed)


@pytest.mark.parametrize("name", ["rf", "rf-equal", "xgboost"])
def test_sites_that_were_not_surveyed_teach_nothing(sites, schema, name):
    """What the predictors are at a site without labels moves no tree."""
    no_survey = np.arange(sites.sizes["site"]) < 20
    surveyed_only = sites.assign(presence=sites["presence"].where(~no_survey[:, None]))
    numbers = [v for v, variable in schema.variables.items() if variable.kind == "scalar"]
    order = np.r_[np.arange(20)[::-1], 20 : sites.sizes["site"]]
    shuffled_sites = surveyed_only.assign(
        {v: surveyed_only[v].copy(data=surveyed_only[v].values[order]) for v in numbers}
    )
    first, second = (
        fit_baseline(name, s, schema, rng=0, options=OPTIONS[name])
        for s in (surveyed_only, shuffled_sites)
    )
    observed = np.isfinite(first.columns.table(sites)).any(1)
    np.testing.assert_allclose(
        first.scores(sites)[observed], second.scores(sites)[observed], atol=1e-6
    )


def test_each_tree_of_a_forest_sees_as_many_absences_as_presences():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 3)).astype(np.float32)
    y = (rng.random(400) < 0.05).astype(np.float32)
    forest = grow(x, y.astype(int), rng, trees=20)
    for tree in forest.trees:
        assert tree.n_node_samples[0] <= 2 * y.sum()  # distinct rows of the bootstrap
        assert tree.weighted_n_node_samples[0] == pytest.approx(2 * y.sum())
        assert tree.value[0, 0] == pytest.approx([0.5, 0.5])


def test_forests_of_equal_samples_draw_the_absences_once():
    """The trees of one forest split between values of one draw: all presences, as many absences."""
    rng = np.random.default_rng(0)
    x = np.arange(300, dtype=np.float32)[:, None]
    y = (x[:, 0] % 30 == 0).astype(np.intp)  # 10 presences
    forest = grow_draws(x, y, rng, draws=10, trees=40)
    assert len(forest.trees) == 400
    splits = [
        {v for t in forest.trees[40 * draw :][:40] for v in t.threshold[t.feature >= 0]}
        for draw in range(10)
    ]
    assert all(len(values) <= 20 * 19 / 2 for values in splits)  # middles of two of 20 values
    assert len(set.union(*splits)) > 190  # another forest has other absences
    assert all(t.weighted_n_node_samples[0] == 20 for t in forest.trees)


@needs_elapid
def test_maxent_is_elapids_model_of_each_species(sites, schema):
    from elapid import MaxentModel

    baseline = fit_baseline("maxent", sites, schema, options=OPTIONS["maxent"])
    table = baseline.columns.table(sites).astype(float)
    for number, name in enumerate(baseline.species):
        labels = sites["presence"].sel(species=name).values
        is_surveyed = ~np.isnan(labels) & np.isfinite(table).any(1)
        medians = np.nanmedian(table[is_surveyed], 0)
        without_gaps = np.where(np.isnan(table), medians, table)
        model = MaxentModel(
            feature_types=["linear", "quadratic"], beta_multiplier=1.0, use_sklearn=True
        )
        model.fit(without_gaps[is_surveyed], labels[is_surveyed])
        expected = model.predict(without_gaps[is_surveyed])
        # The solver visits the features in random order and stops at a tolerance.
        differences = np.abs(baseline.scores(sites)[is_surveyed, number] - expected)
        assert np.median(differences) < 2e-3 and differences.max() < 0.05


def test_deepmaxent_has_the_published_layers_and_no_hidden_inputs(sites, schema):
    baseline = fit_baseline("deepmaxent", sites, schema, options={"epochs": 0})
    columns, species = baseline.columns.table(sites).shape[1], len(baseline.species)
    layers = baseline.scorer.layers
    sizes = [tuple(w.shape) for w in layers.parameters() if w.ndim == 2]
    assert sizes == [(250, columns), (250, 250), (250, 250), (species, 250)]
    x = torch.randn(4, columns)
    first, second, third, last = (m for m in layers)
    h = first(x)
    for block in (second, third):
        h = h + (h @ block.linear.weight.T + block.linear.bias).clamp(min=0)
    torch.testing.assert_close(layers(x), last(h))


@pytest.mark.parametrize("name", NAMES)
def test_baselines_learn_what_there_is_to_learn(name):
    rng = np.random.default_rng(0)
    heat = rng.normal(size=500).astype(np.float32)
    sites = xr.Dataset().assign(
        heat=("site", heat),
        rain=("site", rng.normal(size=500).astype(np.float32)),
        presence=(("site", "species"), (heat > 0.5)[:, None].astype(np.float32)),
    )
    sites = sites.assign_coords(species=["a"])
    baseline = fit_baseline(name, sites, gm.infer_schema(sites), rng=0)
    assert roc_auc_score(heat > 0.5, baseline.scores(sites)[:, 0]) > 0.95


def test_both_engines_of_boosted_trees_agree(sites, schema):
    pytest.importorskip(
        "xgboost", reason="xgboost is not installed: pip install geomiam[benchmark]"
    )
    xgboost, scikit_learn = (
        fit_baseline("xgboost", sites, schema, options={"rounds": 20, "engine": engine})
        for engine in ("xgboost", "scikit-learn")
    )
    assert (xgboost.engine, scikit_learn.engine) == ("xgboost", "scikit-learn")
    assert (
        np.corrcoef(xgboost.scores(sites).ravel(), scikit_learn.scores(sites).ravel())[0, 1] > 0.85
    )


def test_an_engine_that_is_not_there_is_reported(sites, schema):
    with pytest.raises(ValueError, match=r"engine='lightgbm' is unknown"):
        fit_baseline("xgboost", sites, schema, options={"engine": "lightgbm"})


def test_unknown_baselines_and_labels_of_one_class_are_refused(sites, schema):
    with pytest.raises(
        SelectionError, match=r"rf, rf-equal, xgboost, maxent, maxent-like, deepmaxent, tabm"
    ):
        fit_baseline("svm", sites, schema)
    with pytest.raises(LabelError, match="one class"):
        fit_baseline("rf", sites.assign(presence=sites["presence"] * 0), schema)


def test_networks_that_share_weights_learn_an_interaction(tmp_path):
    """A species of the product of two predictors, which no linear model separates."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(600, 2)).astype("f4")
    sites = xr.Dataset(
        {
            "bio1": ("site", values[:, 0], {"modality": "climate"}),
            "bio12": ("site", values[:, 1], {"modality": "climate"}),
            "presence": (("site", "species"), (values.prod(1, keepdims=True) > 0).astype("f4")),
        },
        coords={"species": ["shrub"]},
    )
    train, test = sites.isel(site=slice(400)), sites.isel(site=slice(400, None))
    options = {"networks": 4, "width": 32, "epochs": 20}
    baseline = fit_baseline("tabm", train, gm.infer_schema(train), options=options)
    scores = baseline.scores(test)[:, 0]
    assert roc_auc_score(test["presence"].values[:, 0], scores) > 0.95
    # the score is the mean over the networks, each with a separate score
    table = torch.as_tensor(baseline.columns.table(test))
    with torch.inference_mode():
        members = baseline.scorer.layers(table)
    assert members.shape == (200, 4, 1)
    np.testing.assert_allclose(scores, members.mean(1)[:, 0], atol=1e-5)
    assert members.std(1).min() > 0
