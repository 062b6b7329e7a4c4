"""Table 1 of MIAM: its columns, and a run that is stopped and continued."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from helpers_readers import geoplant_folder
from typer.testing import CliRunner

from geomiam.data.predictors import bind
from geomiam.errors import OutputExists
from geomiam.tokens.layout import Layout
from geomiam.tokens.select import visible_tokens
from geomiam_bench import geoplant, readers
from geomiam_bench.cli import app


def test_the_columns_show_the_tokens_that_the_table_names(tmp_path):
    sites = readers.geoplant(geoplant_folder(tmp_path, surveys=2, size=128))
    layout = Layout.of(bind(readers.geoplant_schema(sites), sites))
    token_counts = {
        n: int(visible_tokens(layout, using).sum()) for n, using in geoplant.COLUMNS.items()
    }
    assert list(token_counts) == geoplant.PUBLISHED["columns"][:-1]
    assert list(token_counts.values()) == [1, 19, 4, 76, 4, 48, 202, 100, 250, 148, 302, 350]
    for row in geoplant.PUBLISHED["rows"].values():
        assert np.mean(row[:-1]) == pytest.approx(row[-1], abs=0.0501)  # the paper rounds


@pytest.mark.slow
def test_the_table_is_computed_and_an_interrupted_one_goes_on(tmp_path, monkeypatch):
    root = geoplant_folder(tmp_path / "data", surveys=80, size=10)
    shutil.rmtree(root / "SatelliteTimeSeries")
    shutil.rmtree(root / "BioclimTimeSeries")
    out = tmp_path / "out.json"
    monkeypatch.setattr(geoplant, "BLOCK", "300 km")  # 80 sites lie farther apart than real ones

    def run(*arguments):
        small = (
            "--epochs 1 --width 8 --depth 1 --heads 2 --fusion group --min-records 5 --coarsen 2"
        )
        line = ["geoplant", str(root), "--json", str(out), "--accelerator", "cpu"]
        result = CliRunner().invoke(app, [*line, *small.split(), *arguments])
        if result.exception:
            raise result.exception
        return json.loads(out.read_text()), result.output

    first, text = run("--rows", "dropout")
    columns = ["BIO1", "WorldClim", "centre patch", "Tabular", "Satellite", "Tab+Sat", "All"]
    assert list(first["rows"]["dropout"]["auc"]) == columns  # there is no series
    assert "Time series" in first["data"]["left_out"] and "published" in text
    assert first["data"]["train"] + first["data"]["validation"] + first["data"]["test"] == 80
    resumed_rows, _ = run("--rows", "dropout,constant")
    assert (
        resumed_rows["rows"]["dropout"] == first["rows"]["dropout"]
    )  # not trained again: equal seconds
    assert set(resumed_rows["rows"]) == {"dropout", "constant"}
    with pytest.raises(OutputExists, match="other settings"):
        run("--rows", "dropout", "--seed", "1")
