"""The oracle: a model per subset that never saw anything else, and the gap to it."""

from __future__ import annotations

import numpy as np
import pytest

import geomiam as gm
from geomiam.baselines.oracle import part
from geomiam.data.predictors import bind
from geomiam.errors import SelectionError

NETWORK = gm.NetworkConfig(width=16, heads=2, depth=1, inner=0, frequencies=4)
TRAINING = gm.TrainingConfig(epoch_steps=1, epochs=2, batch=32, block=100, warmup=2)
SUBSETS = {"terrain": "terrain", "one year": "landsat[time=2014]", "rain": "bio12", "all": None}


@pytest.fixture(scope="module")
def model(either_model):
    return either_model


@pytest.fixture(scope="module")
def oracle(sites):
    schema = gm.infer_schema(sites)
    return gm.baselines.fit_oracle(
        sites, schema, subsets=SUBSETS, fit_options={"network": NETWORK, "training": TRAINING}
    )


def test_a_part_of_the_predictors_is_all_that_is_left(sites):
    schema = bind(gm.infer_schema(sites), sites)
    left, kept_groups = part(sites, schema, ["landsat[time=2014]", "bio12"])
    assert list(kept_groups.variables) == ["bio12", "landsat"]
    present = left["landsat"].notnull().any(["site", "band"]).values
    assert present.tolist() == [year == 2014 for year in sites["time"].dt.year.values]
    same = left["landsat"].sel(time="2014"), sites["landsat"].sel(time="2014")
    np.testing.assert_array_equal(*(a.transpose("site", ...).values for a in same))
    centre, kept_groups = part(sites, schema, "sentinel2[centre]")
    assert list(kept_groups.modalities) == ["sentinel2"]
    assert 0 < centre["chip"].notnull().any("site").sum() < 36


def test_models_of_the_oracle_never_see_the_rest(oracle, sites):
    """What a subset does not show can be anything at all."""
    wild = sites.copy()
    for name in ("bio1", "chip", "embedding", "landcover"):
        wild[name] = wild[name] * 0 + 1e6
    wild["landsat"] = wild["landsat"].where(wild["time"].dt.year == 2014, -1e6)
    for using in ("terrain", "landsat[time=2014]", "bio12"):
        np.testing.assert_array_equal(
            oracle.scores(wild, using=using), oracle.scores(sites, using=using)
        )


def test_the_gap_is_oracle_minus_model(oracle, sites, model):
    best, model_table = (gm.evaluate(p, sites, subsets=SUBSETS) for p in (oracle, model))
    actual = gm.baselines.gap(model_table, best)
    np.testing.assert_allclose(actual["gap"], best["auc"] - model_table["auc"])
    assert actual.attrs["mean"] == pytest.approx(
        float((best["mean_auc"] - model_table["mean_auc"]).mean())
    )
    with pytest.raises(SelectionError, match=r"only one of the tables has the subset \['all'\]"):
        gm.baselines.gap(model_table.sel(subset=["terrain"]), best.sel(subset=["terrain", "all"]))


def test_the_oracle_predicts_only_what_it_was_trained_for(oracle, sites):
    with pytest.raises(
        SelectionError,
        match=r"no model for 'climate'; it has models for terrain, one year, rain, all",
    ):
        oracle.scores(sites, using="climate")


def test_models_of_the_oracle_are_trained_with_nothing_hidden(oracle):
    for model in oracle.models.values():
        assert gm.masking.named(**model.about["masking"]) == gm.masking.Constant(0.0)
        hidden = [c for c in model.history if c.startswith("p_")]
        assert (model.history[hidden] == 0).all(axis=None)
    assert oracle.species == tuple(oracle.models["all"].species)


def test_the_gap_is_of_any_metric_and_names_what_differs(oracle, sites):
    options = {"subsets": ["terrain", "bio12"], "metrics": ["auc", "boyce"]}
    best = gm.evaluate(oracle, sites, **options)
    worse = best.assign(boyce=best["boyce"] - 0.25)
    actual = gm.baselines.gap(worse, best, metric="boyce")
    np.testing.assert_allclose(actual["gap"].values[np.isfinite(actual["gap"].values)], 0.25)
    assert actual.attrs == {"metric": "boyce", "mean": pytest.approx(0.25)}
    with pytest.raises(SelectionError, match=r"only one of the tables has the species"):
        gm.baselines.gap(best.isel(species=[0]), best)
