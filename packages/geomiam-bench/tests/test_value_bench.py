"""The benchmark of the value of information: its command on tiny data, and its numbers by hand."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from helpers_small import tiny_sites
from typer.testing import CliRunner

from geomiam_bench import value
from geomiam_bench.cli import app
from geomiam_bench.pages.value import value_section


@pytest.fixture
def results_path(tmp_path, monkeypatch) -> Path:
    """The file that the command writes for one set of tiny sites."""
    sites = tiny_sites(160, gaps=0.05).drop_vars("ndvi")  # the model stores no series to draw from
    sites["slope"] = sites["bio1"].copy(data=sites["clay"].values[::-1])
    sites["slope"].attrs["modality"] = "terrain"
    monkeypatch.setattr(value, "readers", lambda folder: {"tiny": lambda: sites})
    shorter = partial(value.Settings, members=2, steps=20, share=0.4)
    monkeypatch.setattr(value, "Settings", shorter)
    path = tmp_path / "value.json"
    command = ["value", "--data", str(tmp_path), "--json", str(path), "--sets", "tiny"]
    run = CliRunner().invoke(app, [*command, "--neighbours", "5"])
    assert run.exit_code == 0, run.output
    assert "tiny" in run.output
    return path


def test_the_command_scores_every_rule_and_the_page_has_them(results_path, tmp_path):
    result = json.loads(results_path.read_text())
    assert result["settings"]["neighbours"] == 5 and result["settings"]["steps"] == 20
    of_set = result["sets"]["tiny"]
    assert sum(of_set["sites"].values()) == 160
    assert of_set["groups"] == ["climate", "soil", "terrain"]
    for key in ("species_by_species", "set"):
        scores = of_set[key]
        assert set(scores["pooled"]) == set(value.RULES)
        assert set(scores["by_group"][value.EXPECTED]) == set(of_set["groups"])
    pairs = of_set["species_by_species"]["pairs"]
    assert 0 < pairs == of_set["species"] * of_set["set"]["pairs"]
    assert of_set["species_by_species"]["pooled"][value.EXPECTED] > 0.2
    choice = of_set["choice"]
    assert choice["sites"] > 0 and 0 < choice["any group"] <= 1
    assert all(0 <= choice[rule] <= 1 for rule in value.CHOOSING)
    assert np.diff(of_set["bins"]["expected"]).min() >= 0
    section = value_section(results_path, tmp_path)
    assert f"| tiny, by species | {pairs:,} |" in section
    assert (tmp_path / "value.png").stat().st_size > 5000


def test_scores_and_choices_by_hand():
    nan = np.nan
    change = np.array([[0.4, 0.1], [nan, 0.3], [0.2, 0.6], [0.0, 0.5]])
    first = np.array([[0.9, 0.2], [nan, 0.5], [0.8, 0.1], [0.1, 0.2]])
    constant = np.broadcast_to([0.1, 0.2], (4, 2))
    rules = dict.fromkeys(value.CHOOSING, first) | {value.TRAINING: constant}
    result = value.choice(rules, change)
    # Three sites have a choice; the largest changes are 0.4, 0.6 and 0.5.
    assert result["sites"] == 3
    assert result[value.EXPECTED] == pytest.approx((0.4 + 0.2 + 0.5) / 1.5, abs=1e-4)
    assert result[value.TRAINING] == pytest.approx((0.1 + 0.6 + 0.5) / 1.5, abs=1e-4)
    assert result["any group"] == pytest.approx((0.25 + 0.4 + 0.25) / 1.5, abs=1e-4)
    assert value.size(2 * change, change)["slope"] == 0.5
    assert value.size(2 * change, change)["ratio"] == 2.0
