"""Whole systems compared: the registry, equal terms, the numbers, and the page that reports them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from helpers_small import TINY_NETWORK, quick, three_modalities
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

import geomiam as gm
from geomiam.baselines.recipes import RECIPES, Recipe
from geomiam.errors import OutputExists, SelectionError
from geomiam_bench.cli import app
from geomiam_bench.comparison import trials
from geomiam_bench.comparison.costs import costs, distinct_cells
from geomiam_bench.comparison.figure import draw
from geomiam_bench.comparison.run import (
    begin,
    go_on,
    read_comparison,
    recipe_settings,
    write_comparison,
)
from geomiam_bench.comparison.systems import DEFAULT, SYSTEMS
from geomiam_bench.comparison.table import (
    as_table,
    in_situations,
    paired,
    situations,
    summary,
)
from geomiam_bench.comparison.trials import Data, SystemPlan, chosen, compare, subset_auc
from geomiam_bench.pages import systems as page

NETWORK = TINY_NETWORK.model_copy(update={"inner": 1})
FAST = {"network": NETWORK, "training": quick(epochs=2), "shares": (0.0, 0.5), "timings": 2}

SHORT = replace(DEFAULT, training={"steps": 5, "epoch_steps": 5})
"""The default fit with few steps."""


@pytest.fixture(scope="module")
def data() -> Data:
    sites = three_modalities()
    return Data(sites, gm.infer_schema(sites))


@pytest.fixture(scope="module")
def run(data, tmp_path_factory) -> dict:
    """The default fit, a published system and the trees, two seeds, written and read."""
    path = tmp_path_factory.mktemp("run") / "systems-tiny.json"
    plan = SystemPlan(("default", "masksdm", "xgboost"), seeds=2, **FAST)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SYSTEMS, "default", SHORT)
        for updated_run in go_on(begin(path, data, plan), data, plan, on_result=lambda _: None):
            write_comparison(path, updated_run)
    return read_comparison(path)


# The registry ------------------------------------------------------------------------------------


def test_a_plan_of_an_unknown_system_is_refused():
    with pytest.raises(SelectionError, match="no recipe 'guess'"):
        SystemPlan(("guess",))


@pytest.mark.parametrize("name", RECIPES)
def test_every_system_trains_and_predicts_every_subset(name, data):
    (result,) = compare(data, SystemPlan((name,), seeds=1, **FAST))
    assert set(result["scores"]) == set(data.subsets) and len(data.subsets) == 7
    values = np.array([*result["scores"].values()], float)
    assert np.isfinite(values).all() and (values >= 0).all() and (values <= 1).all()
    assert np.isfinite([*result["sweep"].values()]).all()
    assert (result["epochs"] is None) == bool(RECIPES[name].baseline)
    assert result["seconds"] > 0 and (result["parameters"] is None) == bool(RECIPES[name].baseline)


def test_the_default_system_is_a_fit_without_settings_on_all_training_sites(data, monkeypatch):
    monkeypatch.setitem(SYSTEMS, "default", SHORT)
    plan = SystemPlan(("default",), seeds=1, **FAST)
    sites = data.round(0, plan)
    predictor, _ = trials.trained(SYSTEMS["default"], sites, data.schema, plan)
    expected = gm.fit(sites.train, data.schema, training=SHORT.training, rng=0)
    np.testing.assert_array_equal(
        predictor.scores(sites.test), gm.evaluation.evaluate.Masked(expected).scores(sites.test)
    )
    assert predictor.model.config.private_windows and not DEFAULT.training
    assert recipe_settings(DEFAULT, plan, data.schema)["baseline"] == "geomiam.fit"


# Equal terms -------------------------------------------------------------------------------------


def test_all_systems_get_the_same_sites(data, monkeypatch):
    fit_calls: list[tuple] = []
    trees = gm.baselines.fit_baseline("xgboost", data.sites, data.schema, options={"rounds": 2})

    def fit(self, sites, schema, *, validation, rng, training, network):
        fit_calls.append((self.name, rng, sites["x"].values, validation, training.block))
        return trees

    monkeypatch.setattr(Recipe, "fit", fit)
    test_rows: list[np.ndarray] = []
    original = trials.subset_auc
    monkeypatch.setattr(
        trials, "subset_auc", lambda p, t, d: test_rows.append(t["x"].values) or original(p, t, d)
    )
    names = ("miam-group", "masksdm", "xgboost")
    list(compare(data, SystemPlan(names, seeds=2, **FAST)))
    assert [(s[0], s[1]) for s in fit_calls] == [(n, k) for k in range(2) for n in names]
    for k in range(2):
        first, *later_calls = fit_calls[3 * k : 3 * k + 3]
        test = test_rows[3 * k]
        for second_auc, later_rows in zip(later_calls, test_rows[3 * k + 1 : 3 * k + 3]):
            np.testing.assert_array_equal(first[2], second_auc[2])
            np.testing.assert_array_equal(first[3], second_auc[3])
            np.testing.assert_array_equal(test, later_rows)
            assert first[4] == second_auc[4]
        assert not set(first[2]) & set(test) and 0 < first[3].sum() < len(first[3])
        assert len(first[2]) + len(test) == data.sites.sizes["site"]
    assert set(test_rows[0]) != set(test_rows[3])  # another fold per seed


def test_a_survey_is_the_test_and_all_sites_train(data):
    survey = three_modalities(50)
    sites = Data(data.sites, data.schema, survey).round(0, SystemPlan(("miam-group",), **FAST))
    assert sites.test is survey and sites.train is data.sites
    is_validation = sites.validation
    blocks = gm.splits.site_blocks(data.sites).number
    assert not set(blocks[is_validation]) & set(blocks[~is_validation])


def test_scores_are_scikit_learns_where_the_subset_is_observed(data):
    class Echo:
        """Scores that ignore what may be seen, and answer everywhere, as trees do."""

        species = tuple(str(s) for s in data.sites["species"].values)

        def scores(self, sites, *, using=None):
            return np.random.default_rng(3).normal(size=(sites.sizes["site"], 3))

    auc_by_subset, labels = subset_auc(Echo(), data.sites, data), data.sites["presence"].values
    is_observed = np.isfinite(data.sites["bio1"].values)
    assert 0 < is_observed.sum() < len(is_observed)
    random_scores = Echo().scores(data.sites)
    for s in range(3):
        expected = roc_auc_score(labels[is_observed, s], random_scores[is_observed, s])
        assert auc_by_subset["climate"][s] == pytest.approx(expected, abs=1e-5)
    assert auc_by_subset["all"] != auc_by_subset["climate"]


# The numbers -------------------------------------------------------------------------------------


def test_paired_differences_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    first_auc, second_auc = rng.random((2, 3, 5))
    second_auc[1, 2] = np.nan
    comparison = paired(
        *(xr.DataArray(v, dims=("seed", "species")) for v in (first_auc, second_auc))
    )
    pairs = {
        (s, k): first_auc[s, k] - second_auc[s, k]
        for s in range(3)
        for k in range(5)
        if (s, k) != (1, 2)
    }
    n, mean = len(pairs), sum(pairs.values()) / len(pairs)

    def spread(cluster) -> float:
        sums: dict = {}
        for key, value in pairs.items():
            sums[cluster(key)] = sums.get(cluster(key), 0.0) + value - mean
        return sum(v**2 for v in sums.values()) * len(sums) / (len(sums) - 1)

    single = spread(lambda key: key)
    clustered_variance = spread(lambda key: key[0]) + spread(lambda key: key[1]) - single
    means = [np.mean([v for (_, j), v in pairs.items() if j == k]) for k in range(5)]
    assert comparison["mean"] == pytest.approx(mean)
    assert comparison["error"] == pytest.approx(max(clustered_variance, single) ** 0.5 / n)
    assert (comparison["pairs"], comparison["species"]) == (14, 5)
    assert comparison["gain"] == sum(m > 0 for m in means)


def test_with_one_seed_the_error_is_that_of_the_species():
    rng = np.random.default_rng(0)
    first_auc, second_auc = rng.random((2, 1, 8))
    comparison = paired(
        *(xr.DataArray(v, dims=("seed", "species")) for v in (first_auc, second_auc))
    )
    assert comparison["error"] == pytest.approx((first_auc - second_auc).std(ddof=1) / 8**0.5)


def test_an_error_covers_what_all_species_of_a_seed_share():
    """Networks differ by seed for all species at once: 20 species are not 20 trials then."""
    rng, hits = np.random.default_rng(0), []
    for _ in range(300):
        shared = rng.normal(size=(8, 1)) + 0.1 * rng.normal(size=(8, 20))
        comparison = paired(
            xr.DataArray(shared, dims=("seed", "species")),
            xr.zeros_like(xr.DataArray(shared, dims=("seed", "species"))),
        )
        hits.append(abs(comparison["mean"]) < 2 * comparison["error"])
    assert np.mean(hits) > 0.85  # 8 clusters; single differences as trials would give about a third


def test_subsets_are_sorted_by_what_is_missing():
    names = ["a", "b", "c"]
    assert situations(names, ["a", "b", "c", "a+b", "a+c", "b+c", "all"]) == {
        "all": ["all"],
        "one missing": ["a+b", "a+c", "b+c"],
        "one alone": names,
    }
    assert situations(["a", "b"], ["a", "b", "all"]) == {"all": ["all"], "one alone": ["a", "b"]}


def test_the_summary_is_the_mean_of_what_is_stored(run):
    result = summary(run)["masksdm"]
    rows = [r for r in run["results"] if r["system"] == "masksdm"]
    best = [r for r in run["results"] if r["system"] == "default"]
    alone = [
        [np.mean([r["scores"][m][k] for m in ("climate", "soil", "satellite")]) for k in range(3)]
        for r in rows
    ]
    assert result["auc"]["one alone"] == pytest.approx(np.mean(alone), abs=1e-5)
    assert result["seeds"]["one alone"] == pytest.approx(np.mean(alone, 1), abs=1e-5)
    gain = np.mean(
        [np.subtract(a["scores"]["all"], b["scores"]["all"]) for a, b in zip(rows, best)]
    )
    assert result["against"]["all"]["mean"] == pytest.approx(gain)
    assert result["sweep"]["at-random"] == pytest.approx(
        np.mean([r["sweep"]["at-random"] for r in rows], 0), abs=1e-5
    )
    assert result["cost"] == np.median(run["costs"]["masksdm"]) > 0
    assert run["summary"]["masksdm"] == json.loads(json.dumps(result))


def test_cells_to_time_are_all_different_and_classes_stay_classes(data):
    cells = distinct_cells(data, n=400)
    assert cells.sizes["site"] == 400
    for name in data.schema.variables:
        assert (
            np.isfinite(cells[name].transpose("site", ...).values.reshape(400, -1)).any(1).mean()
            > 0.7
        )
    assert len(np.unique(cells["bio1"].dropna("site"))) == int(cells["bio1"].notnull().sum())
    assert set(np.unique(cells["rock"])) <= {1.0, 2.0, 3.0}
    plan = SystemPlan(("miam-group", "xgboost"), **FAST)
    comparison = costs(data, plan)
    assert {n: len(v) for n, v in comparison.items()} == {"miam-group": 2, "xgboost": 2}
    assert min(map(min, comparison.values())) > 0


# A run, its picture and its page -------------------------------------------------------------------


def test_a_run_goes_on_with_more_systems_and_refuses_other_settings(
    run, data, tmp_path, monkeypatch
):
    path = tmp_path / "run.json"
    write_comparison(path, run)
    plan = SystemPlan(("default", "miam-token"), seeds=2, **FAST)
    trained_names = []
    original = Recipe.fit
    monkeypatch.setattr(
        Recipe,
        "fit",
        lambda self, *a, **k: trained_names.append(self.name) or original(self, *a, **k),
    )
    monkeypatch.setattr(
        "geomiam_bench.comparison.run.costs", lambda d, p: {n: [1.0] for n in p.systems}
    )
    *_, updated_run = go_on(begin(path, data, plan), data, plan, on_result=lambda _: None)
    assert trained_names == ["miam-token"] * 2
    assert updated_run["results"][: len(run["results"])] == run["results"]
    assert set(updated_run["costs"]) == {"default", "masksdm", "xgboost", "miam-token"}
    second_auc = replace(
        plan, training=quick(epochs=9)
    )  # this difference is reported before those that follow from it
    with pytest.raises(OutputExists, match=r"a run with another training; pass --overwrite"):
        begin(path, data, second_auc)


def test_the_picture_has_every_system(run):
    figure = draw(run)
    axes = [a for sub in figure.subfigs for a in sub.axes]
    assert [t.get_text() for t in axes[0].get_yticklabels()] == sorted(
        run["summary"], key=lambda n: np.mean(list(run["summary"][n]["auc"].values()))
    )
    curves = [a for a in axes if a.get_title() in ("at random", "by modality")]
    assert len(axes) == 5 and all(len(a.lines) == 3 for a in curves)
    for line in curves[0].lines:
        expected = run["summary"][line.get_label()]["sweep"]["at-random"]
        np.testing.assert_allclose(line.get_ydata(), expected)


def test_the_page_reports_the_best_system_of_each_situation(run, tmp_path):
    path = tmp_path / "systems-tiny.json"
    write_comparison(path, run)
    text = page.systems_section([path], tmp_path)
    kinds = in_situations(as_table(run["results"]), ["climate", "soil", "satellite"])
    means = kinds.mean(("seed", "species"))
    for situation, start in page.SITUATION_WORDS.items():
        best = str(means["system"].values[means.sel(situation=situation).values.argmax()])
        value = float(means.sel(situation=situation).max())
        assert f"{start}, {best} is best ({value:.3f})" in text
    assert "Over 3 cases" in text and (tmp_path / "systems-tiny.png").stat().st_size > 10_000
    assert all(f"| {name} | " in text for name in run["summary"])


def test_a_difference_counts_from_two_errors():
    assert page.clear({"mean": -0.05, "error": 0.02}) and page.clear({"mean": 0.05, "error": 0.02})
    assert not page.clear({"mean": 0.03, "error": 0.02})
    assert not page.clear({"mean": 0.03, "error": None})


def test_the_parts_are_the_whole_minus_the_whole_without(run):
    """With other names: one system counts as the whole, another as the whole without a part."""
    renamed_run = json.loads(json.dumps(run))
    for r in renamed_run["results"]:
        r["system"] = {"default": "maestro", "masksdm": "maestro-no-ramp"}.get(
            r["system"], "xgboost"
        )
    renamed_run["systems"] = {
        "maestro": {**run["systems"]["default"]},
        "maestro-no-ramp": {**run["systems"]["masksdm"], "without": "ramp"},
        "xgboost": run["systems"]["xgboost"],
    }
    text = page.part_effects(renamed_run)
    gain = -100 * run["summary"]["masksdm"]["against"]["all"]["mean"]
    assert f"| ramp | {gain:+.1f} ± " in text and "masks of" not in text
    assert page.part_effects(run) == ""


def test_the_command_writes_results_and_a_picture_and_goes_on(tmp_path):
    gm.write_sites(three_modalities(), tmp_path / "sites.zarr")
    out, picture = tmp_path / "a" / "out.json", tmp_path / "a" / "out.png"
    command = ["systems", tmp_path / "sites.zarr", "--json", out, "--figure", picture]
    command += ["--systems", "miam-group,xgboost", "--seeds", "1", "--epochs", "1"]
    result = CliRunner().invoke(app, list(map(str, command)))
    assert result.exit_code == 0, result.output
    assert "miam-group" in result.output and picture.stat().st_size > 10_000
    before = read_comparison(out)
    again = CliRunner().invoke(app, list(map(str, command)))
    assert again.exit_code == 0 and read_comparison(out) == before
    second_auc = CliRunner().invoke(app, [*map(str, command[:-1]), "2"])
    assert second_auc.exit_code != 0 and isinstance(second_auc.exception, OutputExists)


def test_the_command_is_listed_and_explained():
    help_of = lambda *words: CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "200"})  # noqa: E731
    assert "systems" in help_of().output
    text = help_of("systems").output
    for word in ("data", "--json", "--systems", "--seeds", "--tune", "--figure", "UME"):
        assert word in text, word


def test_what_does_not_differ_on_the_data_is_not_trained(data):
    plain = Data(data.sites, data.schema.subset(["climate", "soil"]))
    plan = SystemPlan(("miam-group",), **FAST)
    full_plan = replace(plan)
    object.__setattr__(full_plan, "systems", ("miam-group", "maestro", "maestro-no-symbols"))
    assert [s.name for s in chosen(plain, full_plan)] == ["miam-group", "maestro"]
    assert len(chosen(data, full_plan)) == 3
