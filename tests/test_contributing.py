"""The examples of CONTRIBUTING.md run: each adds a part by one class or function and one line."""

from __future__ import annotations

import re

import numpy as np
import pytest
from helpers_examples import ROOT, example, run_example
from helpers_small import TINY_NETWORK, quick, tiny_sites

import geomiam as gm
from geomiam.baselines import BASELINES
from geomiam.masking import STRATEGIES, Strategy
from geomiam.metrics import METRICS
from geomiam.schema.source import FORMATS


@pytest.fixture(autouse=True)
def registries(monkeypatch):
    """Every test starts with the registries of the package."""
    for registry in (BASELINES, FORMATS, METRICS, STRATEGIES):
        for name in set(registry) & {"prevalence", "text", "mean_difference", "one-hidden"}:
            monkeypatch.delitem(registry, name)
    before = [dict(r) for r in (BASELINES, FORMATS, METRICS, STRATEGIES)]
    yield
    for registry, names in zip((BASELINES, FORMATS, METRICS, STRATEGIES), before):
        registry.clear()
        registry.update(names)


def test_a_masking_strategy_is_a_class_and_a_line(tmp_path):
    strategy = run_example("How to add a masking strategy")["OneHidden"]
    assert isinstance(strategy(), Strategy)
    training = quick(epochs=1)
    model = gm.fit(tiny_sites(), masking="one-hidden", network=TINY_NETWORK, training=training)
    model = gm.load_model(model.save(tmp_path / "model"))
    assert model.about["masking"] == {"name": "one-hidden", "per_sample": True}
    assert set(model.history.filter(like="p_").values.ravel()) == {1 / 2}
    assert gm.masking.named(**model.about["masking"]) == strategy()


def test_a_strategy_without_a_name_is_refused_with_the_line_that_names_it():
    strategy = run_example("How to add a masking strategy")["OneHidden"]
    del STRATEGIES["one-hidden"]
    with pytest.raises(gm.errors.SettingError, match=r"STRATEGIES\['name'\] = OneHidden"):
        gm.masking.to_dict(strategy())


def test_a_metric_is_a_function_and_a_line():
    metric = run_example("How to add a metric")["mean_difference"]
    labels = np.array([[1, 0], [1, 1], [0, np.nan], [0, 1]])
    scores = np.array([[0.9, 0.2], [0.5, np.nan], [0.1, 0.3], [0.3, 0.4]])
    np.testing.assert_allclose(metric(labels, scores), [0.5, 0.2])
    together = gm.metrics.measure(labels, scores, ["auc", "mean_difference", "tss"])
    assert list(together) == ["auc", "mean_difference", "tss"]
    np.testing.assert_array_equal(together["mean_difference"], metric(labels, scores))
    np.testing.assert_array_equal(together["tss"], gm.metrics.tss(labels, scores))
    sites = tiny_sites()
    model = gm.fit(sites, network=TINY_NETWORK, training=quick(epochs=1))
    with pytest.warns(gm.errors.TrainedOnTheseSites):
        table = gm.evaluate(model, sites, metrics=["mean_difference"], subsets="all")
    logits = gm.predict(sites, model, scale="logit")["suitability"].transpose("site", "species")
    expected = metric(sites["presence"].transpose("site", "species").values, logits.values)
    np.testing.assert_allclose(table["mean_difference"].squeeze("subset"), expected, atol=1e-5)


def test_a_baseline_is_a_class_and_a_line():
    run_example("How to add a baseline")
    sites = tiny_sites()
    baseline = gm.baselines.fit_baseline(
        "prevalence", sites, gm.infer_schema(sites), options={"prior": 0.5}
    )
    share = sites["presence"].mean("site") + 0.5
    np.testing.assert_allclose(baseline.scores(sites)[0], share, rtol=1e-6)
    table = gm.evaluate(baseline, sites, schema=gm.infer_schema(sites))
    assert (table["auc"].sel(subset="all") == 0.5).all()
    with pytest.raises(gm.errors.SettingError, match=r"no option \['trees'\]; it has prior"):
        gm.baselines.fit_baseline("prevalence", sites, gm.infer_schema(sites), options={"trees": 3})


def test_a_raster_format_is_a_class_and_a_line_and_a_catalog_is_a_file(tmp_path):
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.savetxt(tmp_path / "bio1.txt", rows)
    catalog = tmp_path / "catalog.yaml"
    catalog.write_text(example("How to add a catalog", language="yaml"), encoding="utf-8")
    with pytest.raises(gm.errors.SchemaError, match=r"'text' is not a kind; use one of raster"):
        gm.build_cube(catalog)
    run_example("How to add a raster format")
    np.testing.assert_array_equal(gm.build_cube(catalog)["bio1"], rows)


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/explanation/architecture.md"])
def test_paths_that_the_page_names_exist(page):
    text = re.sub(r"^```.*?^```", "", (ROOT / page).read_text("utf-8"), flags=re.S | re.M)
    paths = {p for p in re.findall(r"`([\w./-]+(?:/|\.py|\.toml|\.sh|\.yaml))`", text)}
    assert len(paths) > 8
    folders = (ROOT, ROOT / "geomiam")
    left = [p for p in paths if not any((f / p).exists() for f in folders)]
    assert set(left) <= {"docs/_build"}, left
    links = [t for t in re.findall(r"\]\(([^)#]+)", text) if "://" not in t]
    assert not [t for t in links if not ((ROOT / page).parent / t).exists()]


def test_make_targets_that_the_page_names_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"\bmake ([a-z]+)\b", page))
    assert targets >= {"fast", "test", "demo", "docs"}
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
