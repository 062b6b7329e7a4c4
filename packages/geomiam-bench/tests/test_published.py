"""Published per-species files, the paired table, and the standard error that the survey causes."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from geomiam.errors import OccurrenceError
from geomiam_bench.disdat_summary import summarise, survey_error
from geomiam_bench.pages.skill import merged, methods_table, paired
from geomiam_bench.published import MEANS, species_auc


def write_species(folder, region, species, values):
    folder.mkdir(exist_ok=True)
    rows = [
        {"species": species, "region": region, "model": m, "metric": k, "value": v, "time": 1.0}
        for (m, k), v in values.items()
    ]
    pd.DataFrame(rows).to_csv(folder / f"{region}_{species}.csv", index=False)


def test_published_files_give_the_auc_of_each_species(tmp_path):
    write_species(tmp_path, "A", "a1", {("Forest", "AUC"): 0.61, ("Forest", "COR"): 0.2})
    write_species(tmp_path, "A", "a2", {("Forest", "AUC"): 0.72, ("Other", "AUC"): 0.5})
    auc = species_auc(tmp_path)
    assert auc == {
        "Forest (published)": {"A": {"a1": 0.61, "a2": 0.72}},
        "Other (published)": {"A": {"a2": 0.5}},
    }
    write_species(tmp_path, "B", "b1", {("Forest", "AUC"): 0.9})
    assert species_auc(tmp_path, ["B"]) == {"Forest (published)": {"B": {"b1": 0.9}}}


def test_a_folder_that_has_no_such_files_is_refused(tmp_path):
    with pytest.raises(OccurrenceError, match="no CSV file"):
        species_auc(tmp_path)
    pd.DataFrame({"species": ["a"]}).to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(OccurrenceError, match=r"lacks the columns.*region"):
        species_auc(tmp_path)
    (tmp_path / "x.csv").unlink()
    write_species(tmp_path, "A", "a1", {("Forest", "AUC"): 0.61})
    (tmp_path / "copy.csv").write_bytes((tmp_path / "A_a1.csv").read_bytes())
    with pytest.raises(OccurrenceError, match=r"two values.*a1"):
        species_auc(tmp_path)


@pytest.mark.parametrize(("presence", "absence", "rate"), [(15, 60, 0.3), (8, 200, 0.7)])
def test_the_survey_error_is_the_spread_of_repeated_surveys(presence, absence, rate):
    """Scores of exponential distributions, for which the formula of Hanley & McNeil is exact."""
    rng = np.random.default_rng(0)
    presences = rng.exponential(1 / rate, (3000, presence, 1))
    absences = rng.exponential(1, (3000, 1, absence))
    auc = (presences > absences).mean((1, 2))  # no scores are equal
    labels = np.r_[np.ones(presence), np.zeros(absence)]
    scores = np.r_[presences[0].ravel(), absences[0].ravel()]
    assert auc[0] == pytest.approx(roc_auc_score(labels, scores))
    sites = [{"presence": [presence] * 4, "absence": [absence] * 4}]
    error = survey_error(np.full(4, np.mean(auc)), sites)
    assert error == pytest.approx(np.std(auc) / 2, rel=0.06)
    with_unscored = [{"presence": [presence] * 4 + [0], "absence": [absence] * 4 + [9]}]
    assert survey_error(np.r_[np.full(4, np.mean(auc)), np.nan], with_unscored) == error


def run_of(auc_by_label, sites=True):
    """Results of one region with three species, as the command writes them."""
    results = [
        {
            "region": "A",
            "label": label,
            "kind": "strategy" if label == "miam" else "baseline",
            "seed": seed,
            "seconds": 1.0,
            "species": ["a1", "a2", "a3"],
            **({"sites": {"presence": [9, 9, 9], "absence": [30, 30, 30]}} if sites else {}),
            "scores": {"all": {"auc": auc, "auc_prg": auc, "cor": auc}},
        }
        for label, seeds in auc_by_label.items()
        for seed, auc in enumerate(seeds)
    ]
    return {
        "settings": {"strategies": ["miam"], "background": "target-group"},
        "seconds": 1.0,
        "summary": summarise(results),
        "published": MEANS,
        "published_species": {"Forest (published)": {"A": {"a1": 0.6, "a3": 0.5}}},
        "results": results,
    }


def test_the_paired_table_compares_the_species_that_both_have(tmp_path):
    run = run_of({"miam": [[0.7, 0.8, 0.6], [0.8, 0.8, 0.4]], "rf": [[0.7, 0.7, 0.7]] * 2})
    (tmp_path / "skill.json").write_text(json.dumps(run))
    rows = paired(merged([tmp_path / "skill.json"])).splitlines()
    differences = np.array([75 - 60, 50 - 50])
    error = differences.std(ddof=1) / 2**0.5
    assert f"| Forest (published) | +7.5 ± {error:.1f} (1 of 2)" in "\n".join(rows)
    against_forest = np.array([5, 10, -20])
    error = against_forest.std(ddof=1) / 3**0.5
    assert f"| rf | {against_forest.mean():+.1f} ± {error:.1f} (2 of 3)" in "\n".join(rows)


def test_a_mean_has_the_error_of_the_survey_where_the_sites_are_counted():
    run = run_of({"miam": [[0.7, 0.8, 0.6]]})
    expected = survey_error(np.array([0.7, 0.8, 0.6]), [{"presence": [9] * 3, "absence": [30] * 3}])
    assert f"**0.700** ± {expected:.3f}" in methods_table(run)
    assert "**0.700** |" in methods_table(run_of({"miam": [[0.7, 0.8, 0.6]]}, sites=False))
