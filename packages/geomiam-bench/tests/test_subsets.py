"""Ways of training, judged by every subset of the modalities."""

from __future__ import annotations

import json

import numpy as np
import pytest
from helpers_small import quick, tiny_sites
from typer.testing import CliRunner

from geomiam.errors import SelectionError
from geomiam_bench import subsets
from geomiam_bench.cli import app
from geomiam_bench.pages.subsets import subsets_section


def test_every_species_is_scored_from_every_subset(tmp_path, monkeypatch):
    training = quick(epochs=1, holdout=0, keep="last")
    case = subsets.Judged(tiny_sites(90), training, {"name": "miam"})
    monkeypatch.setattr(subsets, "SETS", {"tiny": lambda folder: case})
    changes = []
    real = subsets.judge
    monkeypatch.setattr(subsets, "judge", lambda *a, **k: changes.append(a[1]) or real(*a, **k))
    command = ["subsets", str(tmp_path), "--json", str(tmp_path / "out.json"), "--sets", "tiny"]
    for seeds, runs in ((1, 2), (1, 2)):  # the second call trains nothing anew
        arguments = ["--only", "one mask;4 masks", "--seeds", str(seeds)]
        result = CliRunner().invoke(app, [*command, *arguments])
        assert result.exit_code == 0, result.output
        assert len(changes) == runs
    assert changes[1] == {"training": {"masks_per_step": 4}}
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [set(r["auc"]) for r in rows] == [{"climate", "soil", "all"}] * 2
    assert rows[0]["auc"] != rows[1]["auc"]
    result = CliRunner().invoke(app, [*command, "--only", "5 masks"])
    assert isinstance(result.exception, SelectionError) and "'5 masks'" in str(result.exception)


def test_the_table_is_paired_by_species(tmp_path):
    first = {"a": [0.6, 0.8, None], "b": [0.5, 0.6, None], "all": [0.7, 0.7, None]}
    second = {"a": [0.7, 0.8, None], "b": [0.5, 0.5, None], "all": [0.7, 0.6, None]}
    rows = [
        {"set": "tiny", "candidate": c, "seed": s, "sites": 9, "modalities": ["a", "b"], "auc": auc}
        for s in (0, 1)
        for c, auc in (("one", first), ("two", second))
    ]
    path = tmp_path / "subsets.json"
    path.write_text(json.dumps({"rows": rows}))
    lines = subsets_section(path).splitlines()
    assert "| one | 70.0 | 65.0 | 62.5 | 55.0 | +0.0 |" in lines
    # By hand: all 0, −10; mean of three subsets 10/3, −20/3; single ones 5, −5; worst (b) 0, −10.
    half = {
        k: np.std(v, ddof=1) / 2**0.5 for k, v in {"m": [10 / 3, -20 / 3], "s": [5, -5]}.items()
    }
    expected = f"63.3 (-1.67 ± {half['m']:.2f}) | 62.5 (+0.00 ± {half['s']:.2f})"
    assert half["m"] == pytest.approx(5.0)
    row = next(line for line in lines if line.startswith("| two"))
    assert expected in row
    assert row.endswith("| 50.0 (-5.00 ± 5.00) | +10.0 |")


def test_the_mean_over_sets_weighs_every_set_alike(tmp_path):
    """Two sets of one and of three species: differences of 10 and 2 points have the mean 6 and the error 4."""
    rows = []
    for name, species, gain in (("small", 1, 0.1), ("large", 3, 0.02)):
        first = {"a": [0.6] * species, "b": [0.5] * species, "all": [0.7] * species}
        second = {k: [x + gain for x in v] for k, v in first.items()}
        for candidate, auc in (("one", first), ("two", second)):
            row = {"set": name, "candidate": candidate, "seed": 0, "sites": 9, "auc": auc}
            rows.append({**row, "modalities": ["a", "b"]})
    path = tmp_path / "subsets.json"
    path.write_text(json.dumps({"rows": rows}))
    lines = subsets_section(path).splitlines()
    assert "| two | +6.00 ± 4.00 | +6.00 ± 4.00 | +6.00 ± 4.00 |" in lines
