"""``--json`` and ``--csv``: the same numbers as the table for people, for programs."""

from __future__ import annotations

import io
import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers_small import TINY_NETWORK, quick, tiny_sites

import geomiam as gm
from geomiam.cli import main


@pytest.fixture
def geomiam(monkeypatch, capsys):
    """Run ``geomiam`` in this process: its output, or its message on standard error."""

    def call(*words: object) -> str:
        monkeypatch.setattr(sys, "argv", ["geomiam", *map(str, words)])
        try:
            main()
        except SystemExit as stop:
            if stop.code:
                return capsys.readouterr().err
        return capsys.readouterr().out

    return call


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    sites = tiny_sites(60)
    sites["presence"][:, 1] = 0  # a species with one class has no score
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gm.fit(sites, network=TINY_NETWORK, training=quick(epochs=1)).save(folder / "model")
    gm.write_sites(sites, folder / "sites.zarr")
    return folder


def test_scores_are_printed_as_json_and_csv(geomiam, home):
    words = ("evaluate", home / "model", home / "sites.zarr", "--metrics", "auc,tss")
    table = gm.evaluate(home / "model", gm.open_sites(home / "sites.zarr"), metrics=["auc", "tss"])
    rows = json.loads(geomiam(*words, "--json"))
    assert [r["subset"] for r in rows] == ["climate", "soil", "all"]
    np.testing.assert_allclose([r["mean_tss"] for r in rows], table["mean_tss"].values, rtol=1e-12)
    assert rows[0]["unscored_auc"] == 1 and rows[2]["sites"] == int(table["sites"][2])
    again = pd.read_csv(io.StringIO(geomiam(*words, "--csv")))
    pd.testing.assert_frame_equal(again, pd.DataFrame(rows), check_dtype=False)
    assert geomiam(*words).splitlines()[0].split() == ["auc", "tss", "unscored", "sites", "subset"]


def test_predictors_of_a_model_a_catalog_and_sites_are_printed_as_json(geomiam, home):
    names = [r["variable"] for r in json.loads(geomiam("info", home / "model", "--json"))]
    assert names == ["bio1", "clay", "ndvi"]
    rows = json.loads(geomiam("info", home / "sites.zarr", "--json"))
    assert {r["variable"]: r["modality"] for r in rows}["clay"] == "soil"
    text = geomiam("info", "worldclim", "--csv")
    schema = gm.Schema.from_yaml(gm.catalogs()["worldclim"])
    assert pd.read_csv(io.StringIO(text))["variable"].tolist() == list(schema.variables)


def test_layers_of_a_map_are_printed_as_csv(geomiam, home, tmp_path):
    data = gm.open_sites(home / "sites.zarr").drop_vars("presence")
    gm.write_map(data, home / "model", tmp_path / "map.zarr")
    rows = pd.read_csv(io.StringIO(geomiam("info", tmp_path / "map.zarr", "--csv")))
    assert {"suitability", "observed"} <= set(rows["layer"])


def test_missing_values_are_null_and_control_characters_are_escaped(capsys):
    from geomiam.cli.outputs import TableFlags

    table = pd.DataFrame({"name": ["a\x1b[2J"], "score": [np.nan]})
    TableFlags(as_json=True).say(table, "")
    assert json.loads(capsys.readouterr().out)[0] == {"name": "a\x1b[2J", "score": None}
    TableFlags(as_csv=True).say(table, "")
    assert "\x1b" not in capsys.readouterr().out


def test_one_format_at_a_time_and_for_tables_only(geomiam, home):
    assert "pass one of them" in geomiam("info", home / "model", "--json", "--csv")
    assert "pass --plan as well" in geomiam("build", "worldclim", "--json")


def test_correlations_of_sites_and_cubes_are_printed(geomiam, home, cube, tmp_path):
    rows = pd.DataFrame(json.loads(geomiam("correlations", home / "sites.zarr", "--json")))
    table = gm.correlations(gm.open_sites(home / "sites.zarr"))
    assert rows["variable"].tolist() == ["bio1", "clay"] and rows["selected"].all()
    np.testing.assert_allclose(rows["vif"], table["vif"].values)
    np.testing.assert_allclose(rows["correlation"], table["correlation"].values[0, 1])
    gm.write_cube(cube, tmp_path / "cube.zarr")
    words = ("correlations", tmp_path / "cube.zarr", "--threshold", "0.01", "--prefer", "slope")
    text = geomiam(*words, "--figure", tmp_path / "r.png")
    assert "yes  slope" in text and "with slope" in text and (tmp_path / "r.png").exists()
    assert "threshold must lie in" in geomiam(*words[:2], "--threshold", "3")
