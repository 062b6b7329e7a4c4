"""Subset tables and spatial cross-validation."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import xarray as xr
from conftest import train_small
from helpers_scores import auc_of_folds
from helpers_small import tiny_sites
from sklearn.metrics import roc_auc_score

import geomiam as gm
from geomiam.errors import (
    LabelError,
    OutsideTrainingRange,
    SelectionError,
    SettingError,
    TrainingWarning,
)
from geomiam.evaluation.evaluate import score
from geomiam.evaluation.subsets import name_subsets
from geomiam.metrics import METRICS, auc
from geomiam.metrics.registry import ON_PROBABILITIES
from geomiam.splits import site_blocks, spatial_folds
from geomiam.splits.reading import places_of


@pytest.fixture(scope="module")
def model(either_model):
    return either_model


def test_each_subset_is_scored_as_scikit_learn_scores_its_predictions(model, sites):
    table = gm.evaluate(model, sites, subsets="unimodal+leave-one-out+all")
    for subset in ("climate", "terrain", "all"):
        using = None if subset == "all" else [subset]
        maps = gm.predict(sites, model, using=using, scale="logit")["suitability"]
        for name in sites["species"].values:
            truth, guess = sites["presence"].sel(species=name).values, maps.sel(species=name).values
            valid = np.isfinite(truth) & np.isfinite(guess)
            expected = roc_auc_score(truth[valid], guess[valid])
            assert float(table["auc"].sel(subset=subset, species=name)) == pytest.approx(
                expected, abs=1e-12
            )
    np.testing.assert_allclose(table["mean_auc"], table["auc"].mean("species"))


def test_every_metric_of_the_table_is_that_of_the_predictions(model, sites):
    """Logits where sites are compared, probabilities where the number is judged."""
    table = gm.evaluate(model, sites, subsets="all", metrics=list(METRICS))
    labels = sites["presence"].values
    for name, metric in METRICS.items():
        scale = "probability" if name in ON_PROBABILITIES else "logit"
        maps = gm.predict(sites, model, scale=scale)["suitability"].transpose("site", "species")
        expected = metric(labels, maps.values)
        np.testing.assert_allclose(table[name].sel(subset="all"), expected, rtol=1e-4, atol=1e-5)
        assert int(table[f"unscored_{name}"][0]) == int(np.isnan(expected).sum())
    frame = table["auc"].to_dataframe().reset_index()
    assert set(frame) >= {"subset", "species", "auc"} and len(frame) == sites.sizes["species"]


def test_parts_of_a_modality_are_subsets_too(model, sites):
    """One variable, one year, one band, the centre patch; and the table states what each shows."""
    subsets = {
        "one year": "landsat[time=2014]",
        "one band": "landsat[band=red]",
        "centre": "sentinel2[centre]",
        "two": ["climate", "bio12", "cover"],
        "all": None,
    }
    table = gm.evaluate(model, sites, subsets=subsets)
    shows = table["shows"].to_pandas()
    assert shows.loc["one year", "landsat"] == pytest.approx(1 / 7)
    assert shows.loc["one band", "landsat"] == pytest.approx(1 / 2)
    assert 0 < shows.loc["centre", "sentinel2"] < 1
    assert shows.loc["two"].to_dict() == {
        m: float(m in ("climate", "cover")) for m in model.schema.modalities
    }
    assert (shows.loc["all"] == 1).all()
    alone = gm.evaluate(model, sites, subsets="variables")
    assert list(alone["subset"].values) == list(model.schema.variables)
    maps = gm.predict(sites, model, using="landsat[time=2014]", scale="logit")["suitability"]
    expected = METRICS["auc"](sites["presence"].values, maps.transpose("site", "species").values)
    np.testing.assert_allclose(table["auc"].sel(subset="one year"), expected, atol=1e-12)


def test_anything_that_scores_sites_can_be_evaluated(sites, model):
    class Bio1:
        species = ("species 0", "species 1", "species 2")

        def scores(self, sites, *, using=None):
            return np.repeat(sites["bio1"].values[:, None], 3, 1)

    table = gm.evaluate(Bio1(), sites, subsets="all", schema=gm.infer_schema(sites))
    expected = METRICS["auc"](sites["presence"].values, Bio1().scores(sites))
    np.testing.assert_allclose(table["auc"][0], expected)
    with pytest.raises(SelectionError, match=r"has no schema: pass schema="):
        gm.evaluate(Bio1(), sites)
    with pytest.raises(SelectionError, match=r"no metric \['deviance'\]; choose from auc"):
        gm.evaluate(model, sites, metrics=["deviance"])
    Bio1.species = ("species 0",)
    with pytest.raises(SelectionError, match=r"Bio1 lacks 2 of 3 species"):
        gm.evaluate(Bio1(), sites, schema=gm.infer_schema(sites))


def test_kinds_of_subsets_are_all_there(model):
    count = len(model.schema.modalities)
    assert len(name_subsets(model.schema, "every")) == 2**count - 1
    assert len(name_subsets(model.schema, "pairs")) == count * (count - 1) // 2
    assert len(name_subsets(model.schema, "unimodal+leave-one-out+all")) == 2 * count + 1
    subsets = name_subsets(
        model.schema, {"one year": "landsat[time=2018]", "two": ["climate", "cover"]}
    )
    assert list(subsets) == ["one year", "two"]
    with pytest.raises(
        SelectionError, match=r"'triples' is no kind of subset; join some of unimodal, pairs"
    ):
        name_subsets(model.schema, "triples")


def test_folds_keep_blocks_whole_and_share_the_presences(sites):
    labels = sites["presence"].values
    blocks = site_blocks(sites, 50).number
    fold = spatial_folds(labels, blocks, folds=4, rng=np.random.default_rng(0))
    assert set(fold) == {0, 1, 2, 3}
    for b in np.unique(blocks):
        assert len(set(fold[blocks == b])) == 1
    with pytest.raises(LabelError, match=r"spatial blocks cannot be dealt into 500 folds"):
        spatial_folds(labels, blocks, folds=500, rng=np.random.default_rng(0))


def test_cross_validation_predicts_each_site_by_the_model_that_never_saw_its_block(
    sites, monkeypatch
):
    from geomiam.evaluation import cross_validate as crossval

    fits = []
    fit, scores = crossval.fit, crossval.subset_scores

    def watched_fit(train, *args, **options):
        fits.append([train])
        return fit(train, *args, **options)

    def watched_scores(model, test, subsets):
        fits[-1].append(test)
        return scores(model, test, subsets)

    monkeypatch.setattr(crossval, "fit", watched_fit)
    monkeypatch.setattr(crossval, "subset_scores", watched_scores)
    options = {
        "network": gm.NetworkConfig(width=8, heads=2, depth=1, inner=0, frequencies=4),
        "training": gm.TrainingConfig(epoch_steps=1, epochs=1, batch=64, block=50),
    }
    table = gm.cross_validate(
        sites,
        gm.infer_schema(sites),
        splits=gm.splits.SpatialBlocks(3, size="100 km"),
        subsets="all",
        **options,
    )
    assert sum(test.sizes["site"] for _, test in fits) == sites.sizes["site"]
    for train, test in fits:
        squares = [{tuple(c) for c in places_of(part, None).squares(100)} for part in (train, test)]
        assert not squares[0] & squares[1]
    predictable = np.isfinite(gm.predict(sites, fit(sites, rng=0, **options))["suitability"]).all(
        "species"
    )
    assert table["sites"].values.tolist() == [int(predictable.sum())]
    assert 0 <= float(table["mean_auc"][0]) <= 1


QUICK = {
    "network": gm.NetworkConfig(width=8, heads=2, depth=1, inner=0, frequencies=4),
    "training": gm.TrainingConfig(epoch_steps=2, epochs=1, batch=64, holdout=0, keep="last"),
}


def test_cross_validation_returns_every_metric_and_the_predictions_behind_it():
    from sklearn.metrics import brier_score_loss, roc_auc_score

    data = tiny_sites(120)
    table = gm.cross_validate(
        data,
        subsets="unimodal+all",
        metrics=["auc", "brier", "tss", roc_auc_score],
        splits=gm.splits.SpatialBlocks(3),
        **QUICK,
    )
    assert table["suitability"].dims == ("subset", "site", "species")
    assert set(table["fold"].values) == {0, 1, 2}
    xr.testing.assert_equal(table["presence"].astype(float), data["presence"].astype(float))
    np.testing.assert_array_equal(table["x"], data["x"])
    for name in table["subset"].values:
        subset_table = table.sel(subset=name)
        for species in table["species"].values:
            p = subset_table["suitability"].sel(species=species).values
            y, valid = data["presence"].sel(species=species).values, np.isfinite(p)
            actual = subset_table[["auc", "brier"]].sel(species=species)
            expected = auc_of_folds(y, p, table["fold"].values)
            assert float(actual["auc"]) == pytest.approx(expected, abs=1e-3)
            all_pairs = roc_auc_score(y[valid], p[valid])
            assert float(subset_table["roc_auc_score"].sel(species=species)) == all_pairs
            assert float(actual["brier"]) == pytest.approx(brier_score_loss(y[valid], p[valid]))
    assert (
        table["suitability"].attrs["long_name"] == "out-of-fold prediction: probability of presence"
    )
    assert gm.plot.subsets(table, metric="tss")


def test_cross_validation_takes_any_splitter():
    from sklearn.model_selection import KFold, StratifiedKFold

    data = tiny_sites(90, species=1)
    half = np.arange(90) < 45
    pairs = [(np.flatnonzero(half), np.flatnonzero(~half)[:30])]
    cases = {
        "environment": (gm.splits.EnvironmentalBlocks(folds=2), {0, 1}),
        "rows": (KFold(2), {0, 1}),
        "strata": (StratifiedKFold(3), {0, 1, 2}),
        "pairs": (pairs, {-1, 0}),
    }
    for splits, folds in cases.values():
        table = gm.cross_validate(data, splits=splits, subsets="all", **QUICK)
        assert set(table["fold"].values) == folds
        in_test = table["fold"].values >= 0
        assert table["suitability"].isel(site=~in_test).isnull().all()
        assert "block_km" not in table.attrs
    expected = gm.predict(data.isel(site=pairs[0][1]), gm.fit(data.isel(site=half), rng=0, **QUICK))
    predictions = gm.cross_validate(data, splits=pairs, subsets="all", **QUICK)["suitability"]
    np.testing.assert_allclose(
        predictions.isel(subset=0, site=pairs[0][1]).transpose("species", "site"),
        expected["suitability"],
        rtol=1e-5,
    )
    twice = [(np.arange(45), np.arange(45, 90)), (np.arange(45), np.arange(80, 90))]
    with pytest.raises(LabelError, match="tests 10 sites more than once"):
        gm.cross_validate(data, splits=twice, **QUICK)
    for splits, match in (
        ([(np.arange(90), [])], "without training or test sites"),
        ([], "without training or test sites"),
        ([(np.arange(90), np.arange(80, 90))], "trains on 10 of the sites that it tests"),
        ([(np.arange(45), np.arange(85, 95))], "rows outside 0 to 89"),
        ([([0.5, 1.0], [2])], "are no folds"),
        ("blocks", "are no folds"),
    ):
        with pytest.raises(LabelError, match=match):
            gm.cross_validate(data, splits=splits, **QUICK)
    with pytest.raises(ValueError, match="Cannot have number of splits n_splits=91"):
        gm.cross_validate(data, splits=KFold(91), **QUICK)
    with pytest.raises(SelectionError, match="no metric"):
        gm.cross_validate(data, metrics="boice", **QUICK)


def test_options_of_fit_hold_for_every_fold(tmp_path):
    data = tiny_sites(90, species=1)
    run = {"validation": np.arange(90) % 5 == 0, "checkpoint": tmp_path / "runs"}
    gm.cross_validate(
        data,
        splits=gm.splits.SpatialBlocks(2),
        subsets="all",
        network=QUICK["network"],
        training=gm.TrainingConfig(epoch_steps=1, epochs=1, batch=64),
        fit_options=run,
    )
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["fold-0", "fold-1"]


def test_all_folds_have_the_loss_that_all_labels_ask_for(monkeypatch):
    from geomiam.evaluation import cross_validate as crossval

    losses = []

    def watched(*args, **options):
        model = fit(*args, **options)
        losses.append(model.about["loss"]["name"])
        return model

    fit = crossval.fit
    monkeypatch.setattr(crossval, "fit", watched)
    data = tiny_sites(100, species=2)
    complete = xr.DataArray(np.arange(100) >= 15, dims="site")  # 85 % in all, all sites of one fold
    data["presence"] = data["presence"].where(complete | (data["species"] == "Quercus 0"))
    pairs = [(np.arange(50, 100), np.arange(50)), (np.arange(50), np.arange(50, 100))]
    gm.cross_validate(data, splits=pairs, subsets="all", **QUICK)
    gm.cross_validate(tiny_sites(100), splits=pairs, subsets="all", **QUICK)
    rule = {"network": QUICK["network"], "training": {"steps": 2}}
    gm.cross_validate(data, splits=pairs, subsets="all", **rule)
    rule["training"] = {"steps": 2, "loss": "maxent"}
    gm.cross_validate(data, splits=pairs[:1], subsets="all", **rule)
    assert losses == ["weighted-bce"] * 2 + ["bce"] * 2 + ["weighted-bce"] * 2 + ["maxent"]


def test_a_warning_of_several_folds_is_issued_once():
    data = tiny_sites(90, species=2)
    data["presence"][:, 0] = 0.0
    data["presence"][[0, 2, 32], 0] = 1.0  # two of them train in one fold, three in the other
    pairs = [(np.arange(90) % 3 != k, np.arange(90) % 3 == k) for k in (0, 1)]
    pairs = [tuple(np.flatnonzero(side) for side in pair) for pair in pairs]
    with pytest.warns(TrainingWarning) as record:
        gm.cross_validate(data, splits=pairs, subsets="all", **QUICK)
    texts = [str(w.message) for w in record]
    (few_presences,) = [t for t in texts if "fewer than 5 presences" in t]
    assert few_presences.startswith("in 2 of 2 folds: ") and "Quercus 0 (2)" in few_presences
    assert len([w for w in record if w.category is OutsideTrainingRange]) <= 1
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("ignore", TrainingWarning)  # the filters of the caller hold
        gm.cross_validate(data, splits=pairs, subsets="all", **QUICK)
    assert not [w for w in record if issubclass(w.category, TrainingWarning)]


def test_training_is_drawn_of_every_model_with_epochs():
    data = tiny_sites(60, species=1)
    quick = QUICK | {"training": gm.TrainingConfig(epoch_steps=1, epochs=2, batch=64)}
    model, encoder = gm.fit(data, **quick), gm.pretrain(data, **quick)
    for name, metric in ((model, "AUC"), (encoder, "R²")):
        left, right = gm.plot.training(name.history)
        assert metric in left.get_ylabel()
        labels = [line.get_label() for line in left.lines]
        assert labels == ["climate", "soil", "all"] and len(right.lines) == 2
        key = {"AUC": "auc", "R²": "r2"}[metric]
        np.testing.assert_allclose(left.lines[2].get_ydata(), name.history[f"{key}_all"])
    with pytest.raises(SelectionError, match=r"gm\.evaluation\.probe has none"):
        gm.plot.training(gm.evaluation.probe(encoder, data).history)
    without_scores = model.history.assign(auc_soil=None)
    assert np.isnan(gm.plot.training(without_scores)[0].lines[1].get_ydata()).all()


def test_a_softmax_model_is_scored_on_probabilities(sites):
    single = sites.copy()
    first = np.nan_to_num(sites["presence"].values).argmax(1)
    single["presence"] = (("site", "species"), np.eye(3, dtype=np.float32)[first])
    model = train_small(single, "group", loss="cross-entropy")
    maps = gm.predict(single, model)["suitability"].sum("species", skipna=False)
    np.testing.assert_allclose(maps.dropna("site"), 1, atol=1e-5)
    assert np.isfinite(gm.evaluate(model, single)["mean_auc"]).all()


def test_species_without_a_score_are_counted_and_leave_the_mean():
    labels = np.array([[1, 0, 1], [0, 0, 1], [1, 0, 1], [0, 0, 1]], float)
    scores = {"a": np.array([[4.0, 1, 1], [3, 1, 1], [2, 1, 1], [1, 1, 1]])}
    table = score(labels, scores, ["x", "never", "always"])
    assert table["unscored_auc"].values.tolist() == [2]
    assert (
        table["mean_auc"].values.tolist() == [0.75] == table["auc"].sel(species="x").values.tolist()
    )
    none = score(labels[:, 1:], {"a": scores["a"][:, 1:]}, ["never", "always"])
    assert np.isnan(none["mean_auc"].values).all() and none["unscored_auc"].values.tolist() == [2]
    gappy = scores["a"].copy()
    gappy[0], gappy[1, 1] = np.nan, np.nan
    assert score(labels, {"a": gappy}, ["x", "y", "z"])["sites"].values.tolist() == [3]
    assert "shows" not in table.coords


def test_species_are_matched_by_name_and_unknown_ones_are_named(model, sites):
    reversed_sites = sites.isel(species=[2, 0])
    table, expected = (gm.evaluate(model, s, subsets="all")["auc"] for s in (reversed_sites, sites))
    np.testing.assert_array_equal(table, expected.sel(species=reversed_sites["species"].values))

    class Other:
        species = tuple(sites["species"].values[:2])
        schema = model.schema

        def scores(self, data, *, using=None):
            return np.zeros((data.sizes["site"], 2))

    with pytest.raises(SelectionError, match=r"Other lacks 1 of 3 species"):
        gm.evaluate(Other(), sites, subsets="all")
    two_species = sites.isel(species=[1, 0])  # a predictor's own order of species is another one
    ranks = np.arange(sites.sizes["site"], dtype=float)
    predictor = Other()
    predictor.scores = lambda data, *, using=None: np.stack([ranks, -ranks], 1)
    actual = gm.evaluate(predictor, two_species, subsets="all")["auc"].values[0]
    np.testing.assert_allclose(
        actual, auc(two_species["presence"].values, np.stack([-ranks, ranks], 1))
    )


def test_settings_of_the_fits_are_passed_once():
    network = QUICK["network"]
    with pytest.raises(SettingError, match=r"fit_options= has \['network'\], which are arguments"):
        gm.cross_validate(tiny_sites(100), fit_options={"network": network})


def test_folds_of_single_sites_compare_all_pairs():
    """Buffered leave-one-out: no fold has two sites, so the AUC takes the predictions of all folds."""
    data = tiny_sites(60, species=1)
    folds = [(np.flatnonzero(np.arange(60) != i), np.array([i])) for i in range(0, 60, 7)]
    table = gm.cross_validate(data, subsets="all", splits=folds, **QUICK)
    y = data["presence"].values[:, 0]
    z = table["suitability"].values[0, :, 0]
    is_tested = table["fold"].values >= 0
    expected = gm.metrics.auc(y[is_tested], z[is_tested])
    assert float(table["auc"].squeeze()) == pytest.approx(expected, abs=1e-3)
