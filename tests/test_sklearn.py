"""MiamClassifier: scikit-learn's checks, and its tools on a table with missing values."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.inspection import partial_dependence, permutation_importance
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks

import geomiam as gm
from geomiam.sklearn import MiamClassifier

EXPECTED_FAILURES = {
    "check_methods_subset_invariance": "float32: one row and a batch differ by about 1e-6, above the "
    "tolerance of 1e-7 of the check"
}


def tiny(**settings: Any) -> MiamClassifier:
    """A classifier that is trained in a fraction of a second."""
    network = {"width": 8, "heads": 2, "fusion": "sum", "members": 1, "dropout": 0.0}
    training = {"steps": 40, "lr": 0.03, "batch": 64, "accelerator": "cpu"}
    return MiamClassifier(
        **{"network": network, "training": training, "random_state": 0} | settings
    )


def table(n: int = 120) -> tuple[pd.DataFrame, pd.Series]:
    """Three columns with gaps, of which ``heat`` decides."""
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(n, 3)), columns=["heat", "rain", "x"])
    y = pd.Series(np.where(X["heat"] + 0.3 * rng.normal(size=n) > 0, "oak", "absent"))
    return X.mask(rng.random(X.shape) < 0.15), y


X, Y = table()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks([tiny()], expected_failed_checks=lambda estimator: EXPECTED_FAILURES)
def test_scikit_learn_accepts_the_estimator(estimator, check):
    check(estimator)


def test_a_table_with_gaps_is_learned_by_names_of_classes():
    model = tiny().fit(X, Y)
    assert model.classes_.tolist() == ["absent", "oak"]
    assert model.feature_names_in_.tolist() == ["heat", "rain", "x"]
    chances = model.predict_proba(X)
    np.testing.assert_allclose(chances.sum(1), 1)
    assert roc_auc_score(Y == "oak", chances[:, 1]) > 0.9
    assert ((model.decision_function(X) > 0) == (model.predict(X) == "oak")).all()
    assert model.model_.species == ("oak",)
    assert list(model.model_.schema.variables) == ["heat", "rain", "x"]


def test_a_row_with_nothing_observed_gets_the_base_value():
    model = tiny().fit(X, Y)
    empty = pd.DataFrame(np.full((2, 3), np.nan), columns=X.columns)
    chances = model.predict_proba(empty)
    assert np.isfinite(chances).all() and np.ptp(chances[:, 1]) == 0


def test_labels_that_are_nan_count_as_not_surveyed():
    labels = np.stack([Y == "oak", Y == "absent"], 1).astype(float)
    hidden = labels.copy()
    hidden[::3, 1] = np.nan
    model = tiny().fit(X, hidden)
    zero_filled = tiny().fit(X, np.where(np.isnan(hidden), 0, hidden))
    assert model.predict_proba(X).shape == (120, 2)
    assert set(np.unique(model.predict(X))) == {0, 1}
    assert abs(model.predict_proba(X) - zero_filled.predict_proba(X)).max() > 1e-3
    column = np.where(np.arange(120) % 3, Y == "oak", np.nan)
    assert tiny().fit(X, column).classes_.tolist() == [0.0, 1.0]


def test_names_of_labels_are_the_species():
    labels = pd.DataFrame({"oak": Y == "oak", "beech": Y != "oak"}).astype(int)
    model = tiny().fit(X, labels)
    assert model.model_.species == ("oak", "beech")
    chances = model.predict_proba(X)
    assert roc_auc_score(labels["beech"], chances[:, 1]) > 0.9


def test_modalities_and_kinds_are_named_by_column_or_position():
    table = X.assign(rain=np.arange(120) % 3)
    model = tiny(modalities={"climate": ["heat"], "other": [1]}, kinds={"rain": "categorical"})
    schema = model.fit(table, Y).model_.schema
    assert {m: list(v.variables) for m, v in schema.modalities.items()} == {
        "climate": ["heat"],
        "other": ["rain"],
        "rest": ["x"],
    }
    assert schema.variables["rain"].kind == "categorical"
    assert list(tiny().fit(X, Y).model_.schema.modalities) == ["predictors"]
    with pytest.raises(ValueError, match="'cold', which is not in X; found \\['heat'"):
        tiny(modalities={"climate": ["cold"]}).fit(X, Y)
    with pytest.raises(ValueError, match="kinds= names the column 9"):
        tiny(kinds={9: "circular"}).fit(X, Y)


def test_labels_that_are_not_binary_are_refused_with_the_call_that_mends_it():
    with pytest.raises(ValueError, match="one column of 0 and 1 for each class"):
        tiny().fit(X, np.arange(120) % 3)
    with pytest.raises(ValueError, match="one class only, \\['oak'\\]"):
        tiny().fit(X, np.full(120, "oak"))
    with pytest.raises(ValueError, match=r"holds 0, 1 or NaN.*found 2"):
        tiny().fit(X, np.stack([np.arange(120) % 3, np.arange(120) % 2], 1))


def test_a_config_that_holds_sites_out_is_refused_since_rows_have_no_coordinates():
    with pytest.raises(ValueError, match="holdout=0, keep='last'"):
        tiny(training=gm.TrainingConfig()).fit(X, Y)


def test_tags_and_parameters():
    tags = get_tags(tiny())
    assert tags.input_tags.allow_nan and tags.classifier_tags.multi_label
    assert not tags.classifier_tags.multi_class
    copy = clone(tiny(masking="uniform")).set_params(random_state=3)
    assert copy.get_params()["masking"] == "uniform" and copy.random_state == 3


def test_equal_seeds_give_equal_models_and_pickle_keeps_them():
    first, second = (tiny(random_state=5).fit(X, Y) for _ in range(2))
    assert first.model_.id == second.model_.id
    assert tiny(random_state=6).fit(X, Y).model_.id != first.model_.id
    again = pickle.loads(pickle.dumps(first))  # noqa: S301
    np.testing.assert_array_equal(again.predict_proba(X), first.predict_proba(X))


def test_grid_search_finds_the_settings_that_learn():
    grid = {"training": [{"steps": 1, "lr": 1e-9, "accelerator": "cpu"}, tiny().training]}
    search = GridSearchCV(tiny(), grid, cv=2, scoring="roc_auc", error_score="raise").fit(X, Y)
    assert search.best_params_["training"] == tiny().training
    labels = pd.DataFrame({"oak": Y == "oak", "beech": Y != "oak"}).astype(int)
    scores = cross_val_score(tiny(), X, labels, cv=2, scoring="roc_auc", error_score="raise")
    assert scores.min() > 0.8


def test_partial_dependence_rises_with_the_predictor_that_decides():
    model = tiny().fit(X, Y)
    curve = partial_dependence(model, X.fillna(0), ["heat"], grid_resolution=5)["average"][0]
    assert (np.diff(curve) > 0).all()


def test_permutation_importance_ranks_the_predictor_that_decides_first():
    model = tiny().fit(X, Y)
    result = permutation_importance(model, X, Y, n_repeats=2, random_state=0, scoring="roc_auc")
    assert X.columns[result.importances_mean.argmax()] == "heat"


def test_calibration_and_pipelines_take_the_estimator():
    classifier = CalibratedClassifierCV(tiny(), cv=2).fit(X, Y)
    assert roc_auc_score(Y == "oak", classifier.predict_proba(X)[:, 1]) > 0.9
    assert make_pipeline(StandardScaler(), tiny()).fit(X, Y).score(X, Y) > 0.7


def test_importing_geomiam_does_not_load_scikit_learn():
    code = "import sys, geomiam as gm; print('sklearn' in sys.modules, gm.sklearn.MiamClassifier.__name__)"
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert process.stdout.split() == ["False", "MiamClassifier"]
