"""Criteria on presence records against the stored AUC on surveys."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from conftest import SHARED, needs_shared
from scipy.stats import spearmanr
from typer.testing import CliRunner

import geomiam as gm
from geomiam.errors import SelectionError
from geomiam_bench import criteria
from geomiam_bench.cli import app
from geomiam_bench.criteria_configurations import CONFIGURATIONS, survey_auc
from geomiam_bench.pages import criteria as page
from geomiam_bench.pages.criteria import Compared, centred, criteria_section

RESULTS = Path(criteria.__file__).parents[1] / "results"
FOLDER = SHARED / "disdat"


@pytest.fixture(scope="module")
def records():
    return criteria.Records.read(FOLDER, "AWT")


@pytest.fixture(scope="module")
def folds(records):
    return criteria.block_folds(records)


class Spy:
    """Keeps the places of its training sites; a score is the first predictor, for every species."""

    def __init__(self) -> None:
        self.places: list[set] = []

    def train(self, sites: xr.Dataset, schema: gm.Schema, seed: int) -> Spy:
        self.places.append(set(zip(sites["x"].values.tolist(), sites["y"].values.tolist())))
        self.species = sites.sizes["species"]
        return self

    def scores(self, sites: xr.Dataset) -> np.ndarray:
        self.scored = set(zip(sites["x"].values.tolist(), sites["y"].values.tolist()))
        assert not self.scored & self.places[-1]
        return np.repeat(sites["bc01"].values[:, None], self.species, 1)


@needs_shared
@pytest.mark.parametrize("background", ["target-group", "random"])
def test_a_fold_is_predicted_by_a_model_without_its_sites(records, folds, background):
    spy = Spy()
    configuration = replace(CONFIGURATIONS["sum"], train=spy.train, background=background)
    scores = criteria.predictions(records, configuration, folds)
    assert len(spy.places) == criteria.FOLDS
    count = records.visited.sizes["site"] + criteria.RANDOM_SITES * (background == "random")
    assert sum(map(len, spy.places)) == pytest.approx((criteria.FOLDS - 1) * count, rel=0.01)
    for values, sites in zip(scores, (records.visited, records.random), strict=True):
        assert (values == sites["bc01"].values[:, None]).all()


@needs_shared
def test_folds_hold_out_whole_blocks_and_whole_clusters(records, folds):
    environment_folds = criteria.environment_folds(records)
    places, environment = records.places(), records.environment()
    for (fold, near), (x, b) in ((environment_folds, environment), (folds, places)):
        assert set(fold) == set(range(criteria.FOLDS)) and len(near) == criteria.RANDOM_SITES
        squares = ((b[:50, None] - x) ** 2).sum(-1)
        np.testing.assert_array_equal(near[:50], fold[squares.argmin(1)])
    # A site and its nearest one share a fold much more often than by chance, in the space of the folds.
    for fold, x in ((environment_folds[0], environment[0]), (folds[0], places[0])):
        squares = ((x[:, None] - x) ** 2).sum(-1)
        np.fill_diagonal(squares, np.inf)
        assert (fold == fold[squares.argmin(1)]).mean() > 0.8


@needs_shared
def test_each_criterion_reads_its_own_sites(records, folds):
    rng, labels = np.random.default_rng(0), records.labels
    scores = tuple(rng.normal(size=(len(f), labels.shape[1])) for f in folds)
    values = criteria.criteria(records, folds, scores)
    np.testing.assert_array_equal(
        values["visited sites"], gm.metrics.auc_within_folds(labels, scores[0], folds[0])
    )
    single = (labels == 1).sum(1) < criteria.WELL_VISITED
    without = np.where(single[:, None], -9.0, scores[0]), scores[1]
    is_changed = {
        name: not np.array_equal(v, values[name], equal_nan=True)
        for name, v in criteria.criteria(records, folds, without).items()
    }
    assert not is_changed.pop("well-visited sites") and all(is_changed.values())
    other_background = scores[0], np.full_like(scores[1], -9.0)
    above = criteria.criteria(records, folds, other_background)
    assert np.nanmin(above["random sites"]) == 1
    for name in set(values) - {"random sites"}:
        np.testing.assert_array_equal(above[name], values[name])


@needs_shared
@pytest.mark.parametrize("region", ["AWT", "NSW"])
def test_every_configuration_has_a_stored_auc_on_the_survey(region):
    auc = {
        name: survey_auc(c, region, folder=FOLDER, results=RESULTS)
        for name, c in CONFIGURATIONS.items()
    }
    assert {len(set(v) - {"nsw30"}) for v in auc.values()} == {40 if region == "AWT" else 53}
    assert len({tuple(v.values()) for v in auc.values()}) == len(CONFIGURATIONS)
    by_background = [
        np.mean(list(auc[f"logistic regression{name}"].values())).round(3)
        for name in ("", ", random background")
    ]
    assert by_background == ([0.719, 0.674] if region == "AWT" else [0.713, 0.702])


def test_weights_are_even_in_space_and_follow_the_region():
    places = np.array([[0, 0], [0, 1], [1, 0], [9, 9]], float)
    np.testing.assert_allclose(criteria.even_weights(places, 1.2), [1 / 3, 1 / 2, 1 / 2, 1])
    rng = np.random.default_rng(0)
    visited_sites, random_sites = rng.normal(0, 1, (800, 1)), rng.normal(0.7, 1, (800, 1))
    weights = criteria.region_weights(visited_sites, random_sites)
    assert np.average(visited_sites[:, 0], weights=weights) == pytest.approx(0.7, abs=0.15)


def test_unknown_names_are_refused(tmp_path):
    arguments = ["criteria", str(tmp_path), "--only", "sum;oracle", "--json", f"{tmp_path}/o.json"]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, SelectionError) and "'oracle'" in str(result.exception)


def test_correlations_by_hand():
    survey = np.array([[70.0, 60, 50], [72, 64, 56], [80, 61, 45]])
    criterion = np.array([[60.0, 55, 50], [61, 58, np.nan], [70, 50, 51]])
    pair, species = Compared(survey, criterion), np.arange(3)
    # means over species: 60, 64, 62 and 55, 59.5, 57
    assert pair.of_configurations(species) == pytest.approx(1)
    assert pair.loss(species) == pytest.approx(0)
    assert Compared(survey, -criterion).loss(species) == pytest.approx(4)
    expected = spearmanr(
        (survey[:, :2] - survey[:, :2].mean(0) - survey[:, :2].mean(1, keepdims=True)).ravel(),
        (
            criterion[:, :2] - criterion[:, :2].mean(0) - criterion[:, :2].mean(1, keepdims=True)
        ).ravel(),
    )
    assert pair.of_species(species) == pytest.approx(expected.statistic)
    np.testing.assert_allclose(centred(survey).sum(0), 0, atol=1e-9)


def test_the_section_has_a_row_for_each_criterion(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "DRAWS", 40)
    rng, names = np.random.default_rng(0), ["visited sites", "random sites"]
    rows = [
        {
            "region": "AWT",
            "folds": "blocks",
            "configuration": f"c{i}",
            "is_network": i > 2,
            "background": "random" if i == 0 else "target-group",
            "survey": (0.6 + i / 20 + rng.normal(0, 0.01, 12)).round(4).tolist(),
            "criteria": {
                "visited sites": (0.6 + i / 20 + rng.normal(0, 0.01, 12)).round(4).tolist(),
                "random sites": (0.9 - i / 20 + rng.normal(0, 0.01, 12)).round(4).tolist(),
            },
        }
        for i in range(6)
    ]
    rows += [{**row, "folds": "environment"} for row in rows[:4]]
    path = tmp_path / "criteria.json"
    path.write_text(json.dumps({"rows": rows}))
    lines = criteria_section(path).splitlines()
    assert [line for line in lines if line.startswith("**AWT**")] == [
        "**AWT**, folds of blocks, all configurations (6)",
        "**AWT**, folds of blocks, target-group background (5)",
        "**AWT**, folds of blocks, networks (3)",
        "**AWT**, folds of environment, the configurations with both (4)",
    ]
    environment = lines[
        lines.index("**AWT**, folds of environment, the configurations with both (4)") :
    ]
    assert [line.split(" | ")[0] for line in environment[4:7]] == [
        "| **blocks, visited sites**",
        "| environment, visited sites",
        "| environment, random sites",
    ]
    assert environment[5].split(" | ")[2] == "+0.00 ± 0.00"  # the same values
    assert any(line.endswith("beyond two standard deviations: none.") for line in lines)
    first_row, second_row = (
        next(line for line in lines if f"blocks, {name}" in line).split(" | ") for name in names
    )
    assert first_row[1].startswith("+1.00 ± ") and first_row[2] == ""
    assert second_row[1].startswith("-1.00 ± ") and second_row[2].startswith("**-2.00 ± ")
    assert first_row[4] == "" and first_row[5] == "0.0 |" and float(second_row[5].split()[0]) > 20
    best = [line for line in lines if line.startswith("| c5 ")]
    assert len(best) == 1 and best[0].count("|") == 4
