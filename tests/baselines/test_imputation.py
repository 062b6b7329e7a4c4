"""Imputation baselines: filled values against scikit-learn and numpy, and scores by hand."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy.special import expit, logit
from scipy.stats import circmean
from sklearn.impute import SimpleImputer
from sklearn.metrics.pairwise import nan_euclidean_distances

import geomiam as gm
from geomiam.baselines.filling import KINDS, nearest, typical
from geomiam.data.predictors import bind
from geomiam.errors import SelectionError

NETWORK = gm.NetworkConfig(width=16, heads=2, depth=1, inner=0, frequencies=4)
TRAINING = gm.TrainingConfig(epoch_steps=1, epochs=2, batch=32, block=100, warmup=2)


@pytest.fixture(scope="module")
def schema(sites):
    return bind(gm.infer_schema(sites), sites)


@pytest.fixture(scope="module")
def imputer_model(sites, schema):
    return gm.baselines.fit_imputed(
        sites, schema, fit_options={"network": NETWORK, "training": TRAINING}
    )


def test_typical_values_are_those_of_scikit_learn_and_scipy(sites, schema):
    for kind in ("mean", "median"):
        actual = typical(sites, schema, kind=kind)
        for name in ("bio1", "slope", "landsat", "chip", "embedding"):
            flat = sites[name].transpose("site", ...).values.reshape(sites.sizes["site"], -1)
            expected = SimpleImputer(strategy=kind).fit(flat).statistics_
            np.testing.assert_allclose(actual[name].values.ravel(), expected, rtol=1e-5, atol=1e-6)
        votes = SimpleImputer(strategy="most_frequent").fit(
            sites[["landcover"]].to_dataframe()[["landcover"]]
        )
        assert float(actual["landcover"]) == votes.statistics_[0]
        angle = circmean(sites["aspect"].values, high=360, nan_policy="omit")
        assert float(actual["aspect"]) == pytest.approx(angle, rel=1e-4)


def test_neighbours_are_the_nearest_by_what_both_have():
    rng = np.random.default_rng(0)
    x, donors = (rng.normal(size=(n, 5)) for n in (30, 80))
    for table in (x, donors):
        table[rng.random(table.shape) < 0.4] = np.nan
    distance = np.nan_to_num(nan_euclidean_distances(x, donors), nan=np.inf)
    actual = nearest(x, donors, count=4)
    np.testing.assert_allclose(
        np.take_along_axis(distance, actual, 1), np.sort(distance, 1)[:, :4], rtol=1e-6
    )


def test_mean_imputation_is_prediction_from_filled_sites(imputer_model, sites, schema):
    """Hidden variables filled by hand, then everything shown, is the same."""
    middles = typical(sites, schema)
    observed = sites[["bio1", "bio12"]].to_array().notnull().any("variable").values
    by_hand = sites.assign(
        {
            n: (sites[n].fillna(m) if n.startswith("bio") else xr.full_like(sites[n], 1) * m)
            for n, m in middles.items()
        }
    )
    expected = (
        gm.predict(by_hand, imputer_model.model)["suitability"].transpose("site", "species").values
    )
    actual = imputer_model.probability(imputer_model.scores(sites, using="climate"))
    np.testing.assert_allclose(actual[observed], expected[observed], atol=1e-5)
    assert np.isnan(actual[~observed]).all() and not observed.all()


def test_marginal_imputation_averages_over_training_sites(imputer_model, sites, schema):
    """With as many draws as sites: the mean over all donors, by a loop."""
    donors = sites.isel(site=slice(0, 12))
    marginal = gm.baselines.Imputed(imputer_model.model, donors, "marginal", draws=12)
    middles = typical(donors, schema)
    lent = donors.assign({n: donors[n].fillna(m) for n, m in middles.items()})
    complete_site = sites.isel(
        site=[int(np.flatnonzero(sites["bio1"].notnull() & sites["bio12"].notnull())[0])]
    )
    rows = []
    for i in range(12):
        row = lent.isel(site=[i]).assign(
            {
                n: lent[n].isel(site=[i]).copy(data=complete_site[n].values)
                for n in ("bio1", "bio12")
            }
        )
        rows.append(gm.predict(row, imputer_model.model)["suitability"].values.ravel())
    expected = logit(np.mean(rows, 0))
    np.testing.assert_allclose(
        marginal.scores(complete_site, using="climate")[0], expected, atol=1e-4
    )


def test_conditional_imputation_of_a_training_site_is_that_site(imputer_model, sites):
    """Its nearest neighbour is itself, so what is hidden comes back."""
    complete_sites = sites.isel(
        site=np.flatnonzero(sites[["bio1", "bio12", "slope"]].to_array().notnull().all("variable"))
    )
    near = gm.baselines.Imputed(imputer_model.model, complete_sites, "conditional", neighbours=1)
    hidden = near.scores(complete_sites, using="climate")
    scores = near.scores(complete_sites)
    np.testing.assert_allclose(hidden, scores, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_a_table_like_a_models(imputer_model, sites, kind):
    table = gm.evaluate(
        imputer_model.by(kind, draws=5), sites, subsets="unimodal+all", metrics=["auc", "brier"]
    )
    assert set(table["subset"].values) == {*imputer_model.schema.modalities, "all"}
    assert table["mean_auc"].notnull().all() and (table["mean_brier"] < 1).all()
    assert np.array_equal(
        imputer_model.by(kind, draws=5).scores(sites),
        imputer_model.by(kind, draws=5).scores(sites),
        equal_nan=True,
    )


def test_nobody_else_moves_a_prediction(imputer_model, sites):
    for kind in KINDS:
        imputer = imputer_model.by(kind, draws=5)
        np.testing.assert_allclose(
            imputer.scores(sites.isel(site=slice(0, 9)), using="terrain"),
            imputer.scores(sites, using="terrain")[:9],
            atol=1e-5,
        )


def test_wrong_kinds_and_numbers_are_refused(imputer_model):
    with pytest.raises(SelectionError, match=r"no imputation 'mode'; choose from mean, median"):
        imputer_model.by("mode")
    with pytest.raises(SelectionError, match=r"draws=0, expected 1 or more: pass draws=1"):
        imputer_model.by("marginal", draws=0)


def test_scores_are_log_odds_of_the_probability(imputer_model, sites):
    scores = imputer_model.scores(sites)
    np.testing.assert_allclose(imputer_model.probability(scores), expit(scores))


def test_ties_gaps_and_angles_have_defined_typical_values():
    rng = np.random.default_rng(0)
    series = rng.normal(size=(6, 3)).astype("f4")
    series[:, 1] = np.nan
    ds = xr.Dataset(
        {
            "cover": ("site", np.array([4, 2, 2, 4, np.nan, 7], "f4"), {"flag_values": [2, 4, 7]}),
            "aspect": (
                "site",
                np.array([350, 340, 10, np.nan, 350, 350], "f4"),
                {"units": "degrees"},
            ),
            "series": (("site", "month"), series),
        },
        coords={"month": [1, 2, 3]},
    )
    kinds = {"cover": "categorical", "aspect": "circular", "series": "series"}
    schema = bind(gm.infer_schema(ds, kinds=kinds), ds)
    for kind in ("mean", "median"):
        actual = typical(ds, schema, kind=kind)
        assert float(actual["cover"]) == 2  # of equally many, the smallest
        angle = circmean(ds["aspect"].values, high=360, nan_policy="omit")
        assert float(actual["aspect"]) == pytest.approx(angle, abs=1e-3) and 340 < angle < 360
        assert np.isnan(actual["series"].values).tolist() == [False, True, False]
        middle = {"mean": np.mean, "median": np.median}[kind](series, axis=0)
        np.testing.assert_allclose(actual["series"][[0, 2]], middle[[0, 2]], rtol=1e-5)


def test_pieces_of_the_work_change_nothing(imputer_model, sites, monkeypatch):
    from geomiam.baselines import filling, imputation

    rng = np.random.default_rng(0)
    x, donors = rng.normal(size=(23, 4)), rng.normal(size=(17, 4))
    in_one_piece = nearest(x, donors, count=3)
    before = imputer_model.by("marginal", draws=3).scores(sites, using="climate")
    monkeypatch.setattr(filling, "MEMORY", 8 * 17 * 5)
    monkeypatch.setattr(imputation, "FILLED_ROWS", 7)
    np.testing.assert_array_equal(nearest(x, donors, count=3), in_one_piece)
    after = imputer_model.by("marginal", draws=3).scores(sites, using="climate")
    np.testing.assert_allclose(after, before, atol=1e-5)
    assert nearest(x[:0], donors, count=3).shape == (0, 3)
    # A row that shares no column with any donor gets the first ones.
    np.testing.assert_array_equal(nearest(np.full((1, 4), np.nan), donors, count=2), [[0, 1]])


def test_more_lenders_than_there_are_means_all_of_them(imputer_model, sites):
    donors = sites.isel(site=slice(0, 9))
    all_donors = gm.baselines.Imputed(imputer_model.model, donors, "marginal", draws=9)
    ten_sites = sites.isel(site=slice(20, 30))
    expected = all_donors.scores(ten_sites, using="climate")
    for kind, options in (("marginal", {"draws": 500}), ("conditional", {"neighbours": 9})):
        actual = gm.baselines.Imputed(imputer_model.model, donors, kind, **options).scores(
            ten_sites, using="climate"
        )
        np.testing.assert_allclose(actual, expected, atol=1e-4)
    imputers = [
        gm.baselines.Imputed(imputer_model.model, sites, "marginal", draws=2, rng=i)
        for i in (0, 0, 1)
    ]
    a, b, c = (imputer.scores(ten_sites, using="climate") for imputer in imputers)
    np.testing.assert_array_equal(a, b)
    assert not np.allclose(a, c, equal_nan=True)


def test_a_softmax_model_is_averaged_as_shares(sites, schema):
    labels = np.eye(3, dtype="f4")[np.arange(sites.sizes["site"]) % 3]
    single = sites.assign(presence=(("site", "species"), labels))
    options = {
        "network": NETWORK,
        "training": TRAINING.model_copy(update={"loss": "cross-entropy"}),
    }
    shares = gm.baselines.fit_imputed(single, schema, fit_options=options)
    assert gm.masking.named(**shares.model.about["masking"]) == gm.masking.Constant(0.0)
    for kind in ("mean", "marginal"):
        imputer = shares.by(kind, draws=3)
        p = imputer.probability(imputer.scores(single, using="climate"))
        observed = np.isfinite(p).all(1)
        np.testing.assert_allclose(p[observed].sum(1), 1, atol=1e-5)
        np.testing.assert_allclose(
            np.log(p[observed]), imputer.scores(single, using="climate")[observed], atol=1e-6
        )
