"""The NCEAS benchmark: the layout read value by value, and the benchmark on a small folder."""

from __future__ import annotations

import itertools
import json
import sys
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from conftest import SHARED, needs_shared
from sklearn.metrics import roc_auc_score

import geomiam as gm
from geomiam.baselines.forest import DownSampledForest
from geomiam.baselines.registry import BASELINES
from geomiam.errors import OccurrenceError
from geomiam.geo.lengths import as_text
from geomiam.splits.reading import places_of
from geomiam_bench import readers
from geomiam_bench.disdat import Plan, benchmark, write_results
from geomiam_bench.disdat_summary import summarise
from geomiam_bench.readers.disdat import FILES

NETWORK = gm.NetworkConfig(width=8, heads=2, depth=1, inner=0, frequencies=4, sigma=0.1, members=2)
TRAINING = gm.TrainingConfig(epoch_steps=1, loss="maxent", epochs=2, batch=64, keep="last")
GROUPS = {"bird": ["b1", "b2"], "tree": ["t1", "t2"]}
PREDICTORS = {
    "rain": {"description": "Rain", "units": "mm", "modality": "climate", "type": "continuous"},
    "heat": {"description": "Heat", "units": "degC", "modality": "climate", "type": "continuous"},
    "rock": {"description": "Rock", "units": "class", "modality": "soil", "type": "categorical"},
}


def places(n: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    xy = rng.uniform(0, 10, (n, 2)).round(3)
    return pd.DataFrame(
        {
            "siteid": [f"s{i}" for i in range(n)],
            "x": xy[:, 0],
            "y": xy[:, 1],
            "lon": xy[:, 0],
            "lat": xy[:, 1],
            "rain": rng.normal(900, 200, n),
            "heat": rng.normal(15, 4, n),
            "rock": rng.integers(1, 4, n).astype("int16"),
        }
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two groups; one place is visited by both, and heat drives every species."""
    root = tmp_path_factory.mktemp("nceas")
    region_folder = root / "AAA"
    region_folder.mkdir()
    rng, sites = np.random.default_rng(0), places(160, 0)
    records = []
    for i, site in sites.iterrows():
        group = "bird" if i < 120 else "tree"
        likely = GROUPS[group][0 if site["heat"] > 15 else 1]
        records.append({**site, "species": likely, "group": group})
    records.append({**sites.iloc[0], "species": "t1", "group": "tree"})
    pd.DataFrame(records).to_parquet(region_folder / "train_po.parquet")
    places(50, 1).to_parquet(region_folder / "train_bg.parquet")
    env = places(40, 2).assign(group=["bird"] * 30 + ["tree"] * 10)
    survey_table = env[["group", "siteid", "x", "y"]].copy()
    for group, names in GROUPS.items():
        for name in names:
            present = (env["heat"] > 15) ^ (rng.random(40) < 0.2)
            survey_table[name] = present.where(env["group"] == group).astype("Int8")
    env.to_parquet(region_folder / "test_env.parquet")
    survey_table.to_parquet(region_folder / "test_pa.parquet")
    region_metadata = {"epsg": 4326, "predictors": PREDICTORS, "groups": GROUPS}
    region_metadata["published_subset"] = ["heat", "rock"]
    (root / "metadata.json").write_text(
        json.dumps({"AAA": region_metadata, "BBB": region_metadata})
    )
    return root


def test_target_group_labels_know_who_was_surveyed_where(folder):
    training, survey = readers.disdat(folder, "AAA")
    labels = training["presence"].sel(species=["b1", "b2", "t1", "t2"]).values
    assert training.sizes["site"] == 160  # the shared place is one site
    assert not np.isnan(labels[0]).any() and labels[0, 2] == 1
    assert np.isnan(labels[1:120, 2:]).all() and np.isnan(labels[120:, :2]).all()
    assert (labels[:120, :2].sum(1) == 1).all()
    survey_table = pd.read_parquet(folder / "AAA" / "test_pa.parquet")
    np.testing.assert_array_equal(
        survey["presence"].sel(species="b1").values,
        survey_table["b1"].to_numpy("float32", na_value=np.nan),
    )
    assert survey["group"].values.tolist() == survey_table["group"].tolist()


def test_random_background_contrasts_with_random_sites_only(folder):
    training, _ = readers.disdat(folder, "AAA", background="random")
    labels = training["presence"].values
    assert training.sizes["site"] == 210
    assert set(np.unique(labels[:160][~np.isnan(labels[:160])])) == {1}
    assert (labels[160:] == 0).all()


def test_groups_that_publications_merge_share_their_places(folder, monkeypatch):
    reader = sys.modules["geomiam_bench.readers.disdat"]
    split = {"AAA": {"animals": ("bird",), "all": ("tree",)}}
    monkeypatch.setattr(reader, "PUBLISHED_GROUPS", split)
    plain = readers.disdat(folder, "AAA", groups="original")[0]["presence"]
    xr.testing.assert_equal(readers.disdat(folder, "AAA")[0]["presence"], plain)
    monkeypatch.setattr(reader, "PUBLISHED_GROUPS", {"AAA": {"all": ("bird", "tree")}})
    target_group_sites, survey = readers.disdat(folder, "AAA")
    assert (
        not target_group_sites["presence"].isnull().any()
    )  # every place is background of every other species
    xr.testing.assert_equal(target_group_sites["presence"] == 1, plain == 1)
    xr.testing.assert_equal(readers.disdat(folder, "AAA", groups="original")[0]["presence"], plain)
    assert set(survey["group"].values) == {"bird", "tree"}
    with pytest.raises(OccurrenceError, match="groups='birds' is unknown"):
        readers.disdat(folder, "AAA", groups="birds")


def test_zeros_of_training_sites_are_marked_as_background(folder):
    from geomiam.data.sites.table import has_background

    for kind, expected_count in (("target-group", 160), ("random", 50)):
        training, survey = readers.disdat(folder, "AAA", background=kind)
        assert training["background"].sum() == expected_count
        assert has_background(training) and not has_background(survey)
        assert training.attrs["background_kind"] == kind


@needs_shared
def test_the_published_groups_of_new_south_wales():
    root = SHARED / "disdat"
    records = pd.read_parquet(root / "NSW" / "train_po.parquet")
    species_of_group = json.loads((root / "metadata.json").read_text())["NSW"]["groups"]
    target_group_sites = [("db", "nb"), ("ot", "ou", "rt", "ru"), ("ba",), ("sr",)]
    assert sorted(g for names in target_group_sites for g in names) == sorted(species_of_group)
    published_presence = readers.disdat(root, "NSW")[0]["presence"]
    for names in target_group_sites:
        places = records.loc[records["group"].isin(names), ["x", "y"]].drop_duplicates()
        for group in names:
            has_labels = published_presence.sel(species=species_of_group[group]).notnull()
            assert (has_labels.sum("site") == len(places)).all()
    original = readers.disdat(root, "NSW", groups="original")[0]["presence"]
    assert int(original.notnull().sum()) < int(published_presence.notnull().sum())
    for region in ("AWT", "SA"):
        same = [
            readers.disdat(root, region, groups=g)[0]["presence"] for g in ("published", "original")
        ]
        xr.testing.assert_equal(*same)


def test_the_schema_has_the_published_subset_and_its_kinds(folder):
    schema = readers.disdat_schema(folder, "AAA")
    assert list(schema.modalities) == ["climate", "soil"] and "rain" not in schema.variables
    assert schema.variables["rock"].kind == "categorical"
    full_schema = readers.disdat_schema(folder, "AAA", covariates="all")
    assert set(full_schema.variables) == set(PREDICTORS)


def test_what_is_missing_is_named(folder, tmp_path):
    with pytest.raises(OccurrenceError, match=r"BBB.*train_po"):
        readers.disdat(folder, "BBB")
    with pytest.raises(OccurrenceError, match=r"no region 'ZZZ'.*AAA"):
        readers.disdat(folder, "ZZZ")
    with pytest.raises(OccurrenceError, match=r"no metadata\.json"):
        readers.disdat(tmp_path, "AAA")
    with pytest.raises(OccurrenceError, match="target-group"):
        readers.disdat(folder, "AAA", background="none")  # type: ignore[arg-type]


@dataclass(frozen=True)
class SmallForest(DownSampledForest):
    """The forest with few trees."""

    trees: int = 50


@pytest.fixture(scope="module", autouse=True)
def small_forests():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BASELINES, "rf", SmallForest)
        yield


@pytest.fixture(scope="module")
def plan():
    return Plan(
        strategies=("miam", "uniform"),
        fusions=("group",),
        oracle=True,
        baselines=("rf",),
        seeds=2,
        subsets="unimodal+all",
        network=NETWORK,
        training=TRAINING,
    )


@pytest.fixture(scope="module")
def results(folder, plan):
    return list(benchmark(folder, plan))


@pytest.mark.slow
def test_the_benchmark_scores_every_method_on_every_subset(results):
    assert {r["label"] for r in results} == {
        "miam (group)",
        "uniform (group)",
        "oracle (group)",
        "rf",
    }
    assert {r["region"] for r in results} == {"AAA"}  # the region without files is not run
    for result in results:
        assert set(result["scores"]) == {"climate", "soil", "all"}
        assert len(result["scores"]["all"]["auc"]) == len(result["species"]) == 4


@pytest.mark.slow
def test_a_score_is_scikit_learns_on_the_species_own_survey(folder, plan, results):
    training, survey = readers.disdat(folder, "AAA")
    result = next(r for r in results if r["label"] == "miam (group)" and r["seed"] == 1)
    side = float(np.sqrt(places_of(training, None).span().prod())) / 10
    model = gm.fit(
        training,
        readers.disdat_schema(folder, "AAA"),
        masking=gm.masking.named("miam", per_sample=True, kappa=20),
        network=NETWORK,
        training=TRAINING.model_copy(update={"block": as_text(side)}),
        rng=1,
    )
    for name, got in zip(result["species"], result["scores"]["all"]["auc"]):
        label = survey["presence"].sel(species=name).values
        has_label = ~np.isnan(label)
        maps = gm.predict(survey, model, species=[name], scale="logit")["suitability"].values
        expected = roc_auc_score(label[has_label], maps.ravel()[has_label])
        assert got == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_the_summary_averages_seeds_per_species_then_species(results):
    rows = [r for r in results if r["label"] == "rf"]
    auc = np.array([r["scores"]["all"]["auc"] for r in rows], float)
    summary = summarise(results)["rf"]
    assert summary["mean_over_species"] == pytest.approx(auc.mean(), abs=1e-4)
    assert summary["regions"]["AAA"]["seeds"] == pytest.approx(auc.mean(1), abs=1e-4)


@pytest.mark.slow
def test_a_run_goes_on_where_it_stopped(folder, plan, results, tmp_path):
    path = tmp_path / "out.json"
    write_results(path, plan, results[:3])
    before = json.loads(path.read_text())["results"]
    previous_results = {(r["region"], r["label"], r["seed"]): r for r in before}
    resumed_run = benchmark(folder, plan, previous_results=previous_results)
    *stored_results, next_result = itertools.islice(resumed_run, 4)
    assert stored_results == before
    assert next_result["scores"] == results[3]["scores"]


@pytest.mark.slow
def test_predictors_never_see_the_survey(folder, plan, results, tmp_path):
    """With other labels in the survey the scores change and the models do not."""
    import shutil

    copy = shutil.copytree(folder, tmp_path / "nceas")
    survey_table = pd.read_parquet(copy / "AAA" / "test_pa.parquet")
    for name in ("b1", "b2", "t1", "t2"):
        survey_table[name] = 1 - survey_table[name]
    survey_table.to_parquet(copy / "AAA" / "test_pa.parquet")
    flipped_results = list(benchmark(copy, replace(plan, seeds=1)))
    assert [r["label"] for r in flipped_results] == [r["label"] for r in results if r["seed"] == 0]
    for first_result, flipped_result in zip(results, flipped_results):
        for subset, scores in first_result["scores"].items():
            mirrored_auc = 1 - np.array(flipped_result["scores"][subset]["auc"], float)
            np.testing.assert_allclose(np.array(scores["auc"], float), mirrored_auc, atol=2e-5)


@needs_shared
def test_the_real_regions_have_the_documented_counts():
    root = SHARED / "disdat"
    sizes = {"AWT": (1172, 442, 40), "NSW": (2516, 8746, 54), "SA": (1222, 152, 30)}
    for name, (n, m, species) in sizes.items():
        training, survey = readers.disdat(root, name)
        assert (training.sizes["site"], survey.sizes["site"]) == (n, m)
        assert training.sizes["species"] == survey.sizes["species"] == species
        assert len(FILES) == 4


def test_the_summary_of_results_that_are_written_by_hand():
    """Two regions, two seeds; one species cannot be scored, and one is left out of a mean."""

    def result(region, species, seed, auc, prg, cor):
        scores = {"auc": auc, "auc_prg": prg, "cor": cor}
        climate_scores = {"auc": [0.5] * len(auc), "auc_prg": prg, "cor": cor}
        entry = {"label": "m", "region": region, "species": species, "seed": seed, "seconds": 1.0}
        return {**entry, "scores": {"climate": climate_scores, "all": scores}}

    names = {"A": ["a1", "a2"], "NSW": ["nsw01", "nsw30"]}
    rows = [
        result("A", names["A"], 0, [0.8, None], [0.1, None], [0.2, 0.3]),
        result("A", names["A"], 1, [0.6, None], [0.3, None], [0.4, None]),
        result("NSW", names["NSW"], 0, [0.9, 0.1], [0.5, 0.5], [0.0, 0.0]),
        result("NSW", names["NSW"], 1, [0.7, 0.3], [0.5, 0.7], [0.0, 0.0]),
    ]
    has_labels = summarise(rows)["m"]
    assert has_labels["mean_over_species"] == pytest.approx((0.7 + 0.8 + 0.2) / 3, abs=1e-4)
    assert has_labels["mean_without_nsw30"] == pytest.approx((0.7 + 0.8) / 2, abs=1e-4)
    assert has_labels["mean_over_regions"] == pytest.approx((0.7 + 0.5) / 2, abs=1e-4)
    assert has_labels["species"] == 3
    first = has_labels["regions"]["A"]
    assert first["all"] == pytest.approx(0.7) and first["seeds"] == pytest.approx([0.8, 0.6])
    assert first["subsets"] == {"climate": pytest.approx(0.5), "all": pytest.approx(0.7)}
    assert first["mean_over_subsets"] == pytest.approx(0.6)
    assert first["auc_prg_median"] == pytest.approx(0.2) and first["cor"] == pytest.approx(0.3)
    assert has_labels["regions"]["NSW"]["auc_prg_median"] == pytest.approx(0.5)
    assert first["seconds"] == [1.0, 1.0] and "species_auc" not in first


def test_a_plan_lists_every_training_once():
    from geomiam_bench.disdat import entries

    plan = Plan(strategies=["miam", "uniform"], fusions=["sum", "group"], oracle=True, seeds=2)
    has_labels = entries(plan)
    assert len(has_labels) == len(set(has_labels)) == 2 * (1 + 2 * (2 + 1))
    labels = {e.label for e in has_labels}
    assert labels == {
        "rf",
        *(f"{n} ({f})" for n in ("miam", "uniform", "oracle") for f in ("sum", "group")),
    }
    assert {e.seed for e in has_labels} == {0, 1}
