"""The command line: it teaches, it maps, and it fails in one line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from helpers_small import tiny_sites
from typer.testing import CliRunner

import geomiam as gm
from geomiam.cli import app as cli
from geomiam.errors import OccurrencesLeftOut, RecordsMerged, TrainedOnTheseSites

VERBS = {
    "demo": ["--out", "--overwrite", "bundled records"],
    "build": [
        "CATALOG",
        "--out",
        "--like",
        "--bounds",
        "--bbox",
        "--root",
        "--plan",
        "from a folder of files",
    ],
    "records": [
        "SOURCE",
        "--out",
        "--species",
        "--doi",
        "--land",
        "--thin",
        "--no-remove",
        "counted",
    ],
    "sample": [
        "CUBE",
        "RECORDS",
        "--out",
        "--background",
        "--target-group",
        "--bias",
        "--within",
        "--polygon",
        "--points",
        "--keep",
        "--crs",
        "--no-thin",
        "--snap",
        "--require",
        "--mask",
    ],
    "correlations": ["DATA", "--method", "--vif", "variance inflation", "subset"],
    "split": ["SITES", "--train", "--test", "--share", "--block", "spatial blocks"],
    "fit": [
        "SITES",
        "--out",
        "--schema",
        "--masking",
        "miam",
        "--fusion",
        "--members",
        "--checkpoint",
        "--block",
        "--recipe",
        "ume-mma",
        "--start",
        "--reference-sites",
    ],
    "pretrain": ["DATA", "--out", "--cells", "--masking", "--epochs", "without labels"],
    "finetune": ["MODEL", "SITES", "--out", "--train", "new species", "new predictors"],
    "calibrate": ["MODEL", "SITES", "--out", "--blocks", "--limit", "--interval", "rate of errors"],
    "evaluate": ["MODEL", "SITES", "--subsets", "unimodal", "every", "--metrics", "--figure"],
    "cross-validate": ["SITES", "--splits", "knndm", "--area", "--folds", "--metrics", "per fold"],
    "response": ["MODEL", "VARIABLES", "--data", "--kind", "--figure", "training range"],
    "predict": [
        "MODEL",
        "CUBE",
        "--out",
        "--using",
        "landsat[time=2018]",
        "--species",
        "--interval",
        "--novelty",
        "--clamp",
    ],
    "explain": [
        "MODEL",
        "CUBE",
        "--out",
        "--group",
        "--order",
        "--using",
        "--species",
        "--overwrite",
    ],
    "classify": ["MODEL", "MAP", "--out", "--kind", "omission-10", "presence and absence"],
    "project": ["MODEL", "SCENARIOS", "--out", "NAME=PATH", "--sites", "loss of skill"],
    "change": ["BEFORE", "AFTER", "--threshold", "--model", "--figure", "km²", "overlap"],
    "red-list": ["RECORDS", "--cell", "AOO", "EOO", "Criterion B"],
    "report": [
        "MODEL",
        "--projection",
        "--change",
        "--scores",
        "--map",
        "--sites",
        "--test",
        "--texts",
        "--points",
        "ODMAP",
    ],
    "export": ["MAP", "OUT", "--kind", "--layer", "--style", "--metadata", "EBVCube"],
    "info": ["PATH", "Model directory, catalog, cube, sites, map, maps of scenarios"],
}

CATALOG = """\
name: tiny
title: A tiny catalog
modalities:
  climate:
    title: Weather
    variables:
      bio1: {kind: scalar, units: degC}
  soil:
    variables:
      clay: {kind: scalar}
      ndvi: {kind: series, window: 2}
"""


def run(monkeypatch, capsys, *words: object) -> tuple[int, str, str]:
    """Run ``geomiam`` in this process, through ``main``: exit code, output, errors."""
    monkeypatch.setattr(sys, "argv", ["geomiam", *map(str, words)])
    try:
        cli.main()
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    output = capsys.readouterr()
    return code, output.out, output.err


@pytest.fixture
def geomiam(monkeypatch, capsys):
    """Call the command line."""
    return lambda *words: run(monkeypatch, capsys, *words)


@pytest.fixture
def fails(geomiam):
    """Call the command line, which fails in one line that is returned."""

    def call(*words) -> str:
        code, out, err = geomiam(*words)
        assert code == 1
        assert "Traceback" not in out + err
        assert err.startswith("error: ") and err.count("\n") == 1, err
        return err

    return call


def make_cube() -> xr.Dataset:
    """8 × 10 cells of 1° with two modalities and gaps; one cell empty."""
    import odc.geo.xr  # noqa: F401

    rng = np.random.default_rng(0)

    def layer(modality: str, *dims: int, **attrs: str) -> tuple:
        values = rng.normal(size=(*dims, 8, 10)).astype(np.float32)
        values[..., rng.random((8, 10)) < 0.15] = np.nan
        values[..., 3, 4] = np.nan
        return (*("month",) * len(dims), "y", "x"), values, {"modality": modality, **attrs}

    cube = xr.Dataset(
        {
            "bio1": layer("climate", units="degC"),
            "clay": layer("soil"),
            "ndvi": layer("soil", 4),
        },
        coords={"y": 47.5 - np.arange(8.0), "x": np.arange(10.0) + 0.5, "month": [1, 4, 7, 10]},
    )
    return cube.odc.assign_crs("EPSG:4326")


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with a cube, records and a catalog, and what ``sample`` and ``fit`` make of them."""
    folder = tmp_path_factory.mktemp("home")
    cube = make_cube()
    gm.write_cube(cube, folder / "cube.zarr")
    rows, cols = np.nonzero(np.isfinite(cube["bio1"].values))
    warm = cube["bio1"].values[rows, cols]
    frames = [
        pd.DataFrame(
            {
                "species": name,
                "lon": cube["x"].values[cols],
                "lat": cube["y"].values[rows],
                "presence": (sign * warm > 0).astype(int),
            }
        )
        for name, sign in [("Lilium warm", 1), ("Lilium cold", -1)]
    ]
    pd.concat(frames).to_csv(folder / "records.csv", index=False)
    (folder / "catalog.yaml").write_text(CATALOG, encoding="utf-8")
    runner = CliRunner()
    for line in [
        "sample cube.zarr records.csv --out sites.zarr",
        "fit sites.zarr --schema catalog.yaml --out model --width 8 --epochs 4 --block 200 --seed 1 "
        "--checkpoint run --reference-sites 60",
    ]:
        files = {w for w in line.split() if "." in w or w in ("model", "run")}
        paths = [str(folder / w) if w in files else w for w in line.split()]
        outcome = runner.invoke(cli.app, paths, catch_exceptions=False)
        assert outcome.exit_code == 0, outcome.output
    return folder


def test_without_words_the_help_is_shown(geomiam):
    _, out, err = geomiam()
    assert "geomiam sample cube.zarr records.parquet --out sites.zarr" in out + err


def test_the_help_walks_from_records_to_an_explained_map():
    text = CliRunner().invoke(cli.app, ["--help"]).output
    verbs = ("records", "sample", "split", "fit", "evaluate", "predict", "explain")
    steps = [text.index(f"geomiam {v} ") for v in verbs]
    assert steps == sorted(steps)
    fit_input = re.search(r"geomiam fit (\S+)", text)[1]
    evaluate_input = re.search(r"geomiam evaluate \S+ (\S+)", text)[1]
    assert fit_input != evaluate_input  # the help holds sites out
    assert f"--train {fit_input} --test {evaluate_input}" in text
    assert "geomiam demo" in text
    for verb in VERBS:
        assert re.search(rf"^\s+{verb}\s+\w", text, re.M), verb


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_every_verb_teaches(verb):
    outcome = CliRunner().invoke(cli.app, [verb, "--help"], env={"COLUMNS": "200"})
    assert outcome.exit_code == 0
    text = " ".join(outcome.output.split())
    for word in VERBS[verb]:
        assert word.lower() in text.lower(), word
    options = re.findall(r"^\s+(?:-\w, )?--(\w[\w-]*)", outcome.output, re.M)
    assert "help" in options
    for line in outcome.output.splitlines():  # no option without a word of explanation
        if re.match(r"\s+(-\w, )?--\w", line):
            words = re.sub(r"\[(required|default:).*", "", line).strip().split("  ")[-1]
            assert len(words.split()) >= 2, line


@pytest.mark.parametrize("verb", VERBS)
def test_options_have_the_same_order_in_every_verb(verb):
    text = CliRunner().invoke(cli.app, [verb, "--help"]).output.partition("Options:")[2]
    options = re.findall(r"^\s+(?:-\w, )?--(\w[\w-]*)", text, re.M)
    last = [n for n in ("seed", "checkpoint", "overwrite", "json", "csv", "help") if n in options]
    assert options[-len(last) :] == last
    assert "out" not in options or options[0] == "out"


def test_the_help_lists_the_verbs_by_step():
    text = CliRunner().invoke(cli.app, ["--help"]).output
    rows = re.findall(r"^(\w[\w ]*):$|^  ([\w-]+)  ", text.partition("First look:\n")[2], re.M)
    steps = [step for step, _ in rows if step]
    assert steps == ["Data", "Model", "Check", "Map", "Ranges", "Output"]
    assert sorted(verb for _, verb in rows if verb) == sorted(VERBS)


def test_there_is_a_help_test_for_every_verb():
    names = {c.callback.__name__.replace("_", "-") for c in cli.app.registered_commands}
    assert names == set(VERBS)


def test_sample_takes_the_predictors_at_the_records(home):
    sites = gm.open_sites(home / "sites.zarr")
    cube = gm.open_cube(home / "cube.zarr", chunks=None)
    assert sites["species"].values.tolist() == ["Lilium cold", "Lilium warm"]
    at = cube["bio1"].sel(x=sites["x"], y=sites["y"])
    np.testing.assert_array_equal(sites["bio1"], at)
    np.testing.assert_array_equal(sites["presence"].sel(species="Lilium warm"), at > 0)


def test_sample_adds_background(geomiam, home, tmp_path):
    code, out, _ = geomiam(
        "sample",
        home / "cube.zarr",
        home / "records.csv",
        "--out",
        tmp_path / "s.zarr",
        "--background",
        9,
    )
    sites = gm.open_sites(tmp_path / "s.zarr")
    assert code == 0
    assert f"{sites.sizes['site']:,} sites, 2 species" in out
    assert sites.sizes["site"] > gm.open_sites(home / "sites.zarr").sizes["site"]


def test_sample_adds_background_with_a_bias_in_an_area(geomiam, home, tmp_path):
    store = tmp_path / "s.zarr"
    start = ["sample", home / "cube.zarr", home / "records.csv", "--out", store, "--overwrite"]
    area = ("--within", "200 km", "--hull", "0 km", "--outside-envelope", "bio1")
    code, out, _ = geomiam(*start, "--background", 5, "--bias", "90 km", *area, "--quantile", 0.1)
    cube, sites = gm.open_cube(home / "cube.zarr", chunks=None), gm.open_sites(store)
    expected = gm.add_background(
        gm.sample(cube, home / "records.csv"),
        cube,
        n=5,
        bias="90 km",
        area=gm.BackgroundArea(within="200 km", hull="0 km", outside_envelope="bio1", quantile=0.1),
        rng=0,
    )
    np.testing.assert_array_equal(sites["x"], expected["x"])
    assert code == 0 and "background: 5 of" in out and "(bandwidth 90 km); outside the env" in out
    sites.isel(site=slice(-3, None))[["x", "y"]].to_dataframe().to_csv(tmp_path / "points.csv")
    code, out, _ = geomiam(*start, "--points", tmp_path / "points.csv")
    assert code == 0 and "background: 3 of 3 candidates, points" in out
    code, _, err = geomiam(*start, "--background", 5, "--beyond", "9000 km")
    assert code == 1 and "--beyond '9000 km' removes" in err
    code, _, err = geomiam(*start, "--within", "9 km")
    assert code == 1 and "--within needs background; pass --background 10000" in err


def test_fit_is_the_python_call_with_the_same_settings(home):
    model = gm.load_model(home / "model")
    assert model.config.width == 8 and model.config.fusion == model.about["rule"]["fusion"]
    assert model.schema.name == "tiny"
    assert model.about["training"]["epochs"] == 4 and model.about["training"]["block"] == "200"
    assert (home / "run").is_dir() and len(model.reference) == 60
    again = gm.fit(
        gm.open_sites(home / "sites.zarr").load(),
        gm.Schema.from_yaml(home / "catalog.yaml"),
        network={"width": 8},
        training={"epochs": 4, "block": "200"},
        rng=1,
    )
    assert again.id == model.id


def test_a_model_is_pretrained_trained_and_tuned_on_files(geomiam, home, tmp_path):
    short_run = ("--epochs", 1, "--block", 200)
    small = ("--schema", home / "catalog.yaml", "--width", 8, "--cells", 60)
    code, out, _ = geomiam(
        "pretrain", home / "cube.zarr", "-o", tmp_path / "first", *small, *short_run
    )
    assert code == 0 and "an encoder" in out
    first = gm.load_model(tmp_path / "first")
    cube = gm.open_cube(home / "cube.zarr")
    schema = gm.Schema.from_yaml(home / "catalog.yaml")
    options = {
        "network": gm.NetworkConfig(width=8),
        "training": gm.TrainingConfig(epochs=1, block=200),
    }
    assert gm.pretrain(cube, schema, n=60, **options).id == first.id
    code, _, _ = geomiam(
        *(
            "fit",
            home / "sites.zarr",
            "-o",
            tmp_path / "model",
            "--start",
            tmp_path / "first",
            *short_run,
        )
    )
    model = gm.load_model(tmp_path / "model")
    assert code == 0 and model.about["warm_start"] == {"model_id": first.id}
    assert model.config.width == 8
    code, _, _ = geomiam(
        *("finetune", tmp_path / "model", home / "sites.zarr", "-o", tmp_path / "tuned"),
        *("--train", "all", *short_run),
    )
    tuned_model = gm.load_model(tmp_path / "tuned")
    assert code == 0 and tuned_model.species == model.species and tuned_model.id != model.id


def test_a_system_is_trained_by_name(geomiam, fails, home, tmp_path):
    short_run = ("--epochs", 1, "--block", 200, "--width", 8)
    code, _, _ = geomiam(
        "fit", home / "sites.zarr", "-o", tmp_path / "m", "--recipe", "ume", *short_run
    )
    model = gm.load_model(tmp_path / "m")
    assert code == 0 and model.config.fusion == "late"
    assert list(model.about["warm_start"]["branches"][0]) == list(model.schema.modalities)
    conflict = ("--recipe", "ume", "--fusion", "group")
    message = fails("fit", home / "sites.zarr", "-o", tmp_path / "other", *conflict)
    assert "--recipe ume sets --fusion itself" in message
    assert "no recipe 'umm'; choose from masksdm" in fails(
        "fit", home / "sites.zarr", "-o", tmp_path / "other", "--recipe", "umm"
    )


def test_split_holds_out_whole_blocks_and_evaluate_warns_on_training_sites(
    geomiam, fails, home, tmp_path
):
    train, test = tmp_path / "train.zarr", tmp_path / "test.zarr"
    words = ("split", home / "sites.zarr", "--train", train, "--test", test, "--block", "200 km")
    code, out, err = geomiam(*words, "--share", "0.3")
    assert code == 0, err
    assert len(out.splitlines()) == 2
    sites = gm.open_sites(home / "sites.zarr")
    held_out = gm.splits.hold_out_blocks(sites, share=0.3, block="200 km", rng=0)
    for path, part in ((train, sites.isel(site=~held_out)), (test, sites.isel(site=held_out))):
        xr.testing.assert_equal(gm.open_sites(path)["presence"], part["presence"])
    assert "exists; pass --overwrite" in fails(*words)
    into = ("split", home / "sites.zarr", "--train", train, "--overwrite")
    for path in (home / "sites.zarr", train):
        fails(*into, "--test", path)
    assert gm.open_sites(home / "sites.zarr").sizes == sites.sizes
    assert "--share 0.2" in fails(*words, "--overwrite", "--share", "1.5")
    with pytest.warns(TrainedOnTheseSites):
        geomiam("evaluate", home / "model", home / "sites.zarr")


def test_evaluate_lists_the_skill_of_each_subset(geomiam, home):
    code, out, _ = geomiam("evaluate", home / "model", home / "sites.zarr", "--subsets", "every")
    assert code == 0
    table = gm.evaluate(
        gm.load_model(home / "model"), gm.open_sites(home / "sites.zarr"), subsets="every"
    )
    head, *lines = [line.split() for line in out.splitlines() if line.strip()]
    assert head == ["auc", "unscored", "sites", "subset"]
    assert [line[-1] for line in lines] == ["climate", "soil", "all"]
    assert [float(line[0]) for line in lines] == [round(float(v), 4) for v in table["mean_auc"]]


def test_evaluate_has_many_metrics_and_a_picture(geomiam, home, tmp_path):
    picture = tmp_path / "skill.png"
    words = ["--metrics", "auc,tss,brier", "--figure", picture]
    code, out, _ = geomiam("evaluate", home / "model", home / "sites.zarr", *words)
    assert code == 0 and picture.stat().st_size > 10_000
    table = gm.evaluate(
        gm.load_model(home / "model"),
        gm.open_sites(home / "sites.zarr"),
        metrics=["auc", "tss", "brier"],
    )
    last = [float(v) for v in out.splitlines()[-1].split()[:3]]
    expected = [float(table[f"mean_{m}"][-1]) for m in ("auc", "tss", "brier")]
    assert last == pytest.approx(expected, abs=1e-4)


def test_a_map_opens_anywhere_with_its_crs(geomiam, home, tmp_path):
    import rioxarray  # noqa: F401

    out = tmp_path / "map.zarr"
    code, output, _ = geomiam("predict", home / "model", home / "cube.zarr", "--out", out)
    assert code == 0 and "79 cells predicted for 2 species" in output
    written = xr.open_dataset(out, engine="zarr", decode_coords="all", consolidated=False)
    assert written.rio.crs.to_epsg() == 4326
    assert written["suitability"].dims == ("species", "y", "x")
    expected = gm.predict(
        gm.open_cube(home / "cube.zarr", chunks=None).load(), gm.load_model(home / "model")
    )
    np.testing.assert_allclose(written["suitability"], expected["suitability"], atol=1e-6)
    np.testing.assert_array_equal(written["y"], 47.5 - np.arange(8.0))
    assert np.isnan(written["suitability"][:, 3, 4]).all()


def test_an_explanation_adds_up_to_the_map(geomiam, home, tmp_path):
    out = tmp_path / "why.zarr"
    words = ["--species", "Lilium warm", "-g", "climate", "-g", "ndvi", "--order", "2"]
    code, _, err = geomiam("explain", home / "model", home / "cube.zarr", "--out", out, *words)
    assert code == 0, err
    explanation = xr.open_dataset(out, engine="zarr", consolidated=False)
    assert explanation["group"].values.tolist() == ["climate", "ndvi", "rest"]
    assert explanation["species"].values.tolist() == ["Lilium warm"]
    total = explanation["base_value"] + explanation["shapley"].sum("group", skipna=False)
    np.testing.assert_allclose(
        total.transpose(*explanation["suitability"].dims), explanation["suitability"], atol=1e-5
    )
    assert explanation["combination"].values.tolist() == [
        "climate:ndvi",
        "climate:rest",
        "ndvi:rest",
    ]


@pytest.fixture(scope="module")
def elsewhere(home) -> Path:
    """Labelled sites at other places than the training sites."""
    sites = gm.open_sites(home / "sites.zarr")
    moved_sites = sites.assign_coords(x=sites["x"] + 0.4, y=sites["y"] + 0.4)
    return gm.write_sites(moved_sites, home / "elsewhere.zarr")


def test_a_calibrated_model_is_that_of_the_library(geomiam, fails, home, elsewhere, tmp_path):
    out, model = tmp_path / "calibrated", gm.load_model(home / "model")
    words = ("calibrate", home / "model", elsewhere, "--out", out)
    code, text, err = geomiam(*words, "--blocks", "200 km", "--limit", 50, "--seed", 3, "--json")
    assert code == 0, err
    expected = gm.calibrate(model, gm.open_sites(elsewhere), blocks="200 km", limit=50, rng=3)
    calibrated_model = gm.load_model(out)
    assert calibrated_model.calibration.digest == expected.calibration.digest
    assert calibrated_model.id == model.id and gm.load_model(home / "model").calibration is None
    row = json.loads(text)[1]
    labels, blocks = expected.calibration.labels[:, 1], expected.calibration.blocks
    count = len(np.unique(blocks[labels == 1]))
    assert row["species"] == model.species[1] and row["presences"] == (labels == 1).sum()
    assert row["absences"] == (labels == 0).sum() and row["blocks_of_presences"] == count
    assert row["level_of_presences"] == pytest.approx(count / (count + 1))
    assert "exists; pass --overwrite" in fails(*words)
    assert len(gm.load_model(out).calibration) == 50
    assert "overlaps" in fails(*words[:3], "--out", home / "model", "--overwrite")
    code, text, _ = geomiam(*words, "--overwrite")
    assert code == 0 and "64 calibration sites →" in text.splitlines()[-1]
    assert "fitted on about" in fails(*words[:2], home / "sites.zarr", *words[3:], "--overwrite")


def test_sets_and_novelty_of_clamped_values_are_mapped(geomiam, home, elsewhere, tmp_path):
    gm.calibrate(home / "model", gm.open_sites(elsewhere)).save(tmp_path / "model")
    cube = gm.open_cube(home / "cube.zarr", chunks=None).load()
    warmer = cube.assign(bio1=cube["bio1"] + 2)
    gm.write_cube(warmer, tmp_path / "warmer.zarr")
    words = ("predict", tmp_path / "model", tmp_path / "warmer.zarr", "--out", tmp_path / "m.zarr")
    code, _, err = geomiam(*words, "--interval", 0.8, "--novelty", "--clamp")
    assert code == 0, err
    stored_map = xr.open_dataset(tmp_path / "m.zarr", engine="zarr", consolidated=False)
    options = gm.PredictOptions(clamp=True)
    expected = gm.predict(warmer, tmp_path / "model", interval=0.8, options=options)
    assert abs(expected - gm.predict(warmer, tmp_path / "model"))["suitability"].max() > 1e-3
    new = gm.novelty(warmer, tmp_path / "model")
    assert (new["mess"] < 0).any() and set(np.unique(new["inside"])) >= {0, 1}
    for name, layer in {**expected, **new}.items():
        np.testing.assert_allclose(stored_map[name], layer, atol=1e-5, err_msg=name)


def test_using_is_what_the_model_may_see(geomiam, home, tmp_path):
    for words, name in [
        (["-u", "bio1", "-u", "ndvi[month=1:4]"], "some"),
        (["-u", "climate"], "one"),
    ]:
        code, _, err = geomiam(
            "predict", home / "model", home / "cube.zarr", "--out", tmp_path / name, *words
        )
        assert code == 0, err
    bio1 = gm.open_cube(home / "cube.zarr")["bio1"]
    climate_map = xr.open_dataset(tmp_path / "one", engine="zarr", consolidated=False)
    is_missing = climate_map["suitability"].isnull().all("species")
    np.testing.assert_array_equal(is_missing, bio1.isnull())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("model", ["climate (1)", "soil (3)", "Lilium cold", "width 8", "miam"]),
        (
            "cube.zarr",
            ["climate", "bio1 scalar degC a number", "ndvi series", "cells_with_every_predictor"],
        ),
        ("sites.zarr", ["bio1 scalar degC", "ndvi series", "cells_with_every_predictor"]),
        ("catalog.yaml", ["A tiny catalog", "climate (Weather)", "clay scalar", "ndvi series"]),
    ],
)
def test_info_describes_models_cubes_and_catalogs(geomiam, home, name, words):
    code, out, _ = geomiam("info", home / name)
    assert code == 0
    for word in words:
        assert word in " ".join(out.split())


def test_fit_prints_the_inferred_schema_and_a_kind_can_be_set(fails, geomiam, home, tmp_path):
    short_run = ["--width", 8, "--epochs", 1]
    code, out, err = geomiam(
        *("fit", home / "sites.zarr", "--out", tmp_path / "model", *short_run),
        *("--kind", "bio1=circular"),
    )
    assert code == 0, err
    assert "bio1 circular degC kinds=" in " ".join(out.split())
    assert gm.load_model(tmp_path / "model").schema.variables["bio1"].kind == "circular"
    words = ["fit", home / "sites.zarr", "--out", tmp_path / "other"]
    assert "expected VARIABLE=KIND" in fails(*words, "--kind", "bio1")
    assert "'bio', which is not a predictor" in fails(*words, "--kind", "bio=scalar")
    conflict = ["--schema", home / "catalog.yaml", "--kind", "bio1=scalar"]
    assert "leave --kind out" in fails(*words, *conflict)


@pytest.mark.parametrize("verb", ["sample", "fit", "predict", "explain"])
def test_an_output_that_exists_is_refused_and_replaced_if_requested(
    fails, geomiam, home, tmp_path, verb
):
    out = tmp_path / "out"
    words = {
        "sample": [home / "cube.zarr", home / "records.csv"],
        "fit": [home / "sites.zarr", "--width", 8, "--epochs", 1],
        "predict": [home / "model", home / "cube.zarr"],
        "explain": [home / "model", home / "cube.zarr"],
    }[verb]
    assert geomiam(verb, *words, "--out", out)[0] == 0
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    message = fails(verb, *words, "--out", out)
    assert re.search(r"out exists; pass .*overwrite", message)
    assert before == {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    assert geomiam(verb, *words, "--out", out, "--overwrite")[0] == 0


def test_a_missing_variable_is_named(fails, home, tmp_path):
    cube = gm.open_cube(home / "cube.zarr").drop_vars("clay")
    gm.write_cube(cube, tmp_path / "less.zarr")
    message = fails("predict", home / "model", tmp_path / "less.zarr", "--out", tmp_path / "m.zarr")
    assert "['clay'] are not in the data" in message and "using" in message
    assert not (tmp_path / "m.zarr").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--species", "Lilium warn"],
            "species ['Lilium warn'] are not in the model; did you mean",
        ),
        (["--using", "climat"], "'climat' is no group, modality or variable"),
        (
            ["--spread", "--interval", "0.9"],
            "--interval 0.9 needs calibration sites, and this model has none",
        ),
        (["--using", "ndvi[month=99]"], "no token lies wholly inside 'ndvi[month=99]'"),
    ],
)
def test_options_that_do_not_suit_the_model_are_reported(fails, home, tmp_path, words, message):
    assert message in fails(
        "predict", home / "model", home / "cube.zarr", "--out", tmp_path / "m", *words
    )


@pytest.mark.parametrize(
    "words",
    [
        ["predict", "nothing", "cube.zarr", "--out", "m.zarr"],
        ["predict", "model", "nothing.zarr", "--out", "m.zarr"],
        ["sample", "nothing.zarr", "records.csv", "--out", "s.zarr"],
        ["sample", "cube.zarr", "nothing.csv", "--out", "s.zarr"],
        ["fit", "nothing.zarr", "--out", "m"],
        ["fit", "sites.zarr", "--schema", "nothing.yaml", "--out", "m"],
        ["evaluate", "nothing", "sites.zarr"],
        ["info", "nothing"],
        ["info", "nothing.yaml"],
    ],
    ids=" ".join,
)
def test_a_file_that_is_not_there_is_named(fails, home, monkeypatch, words):
    monkeypatch.chdir(home)
    assert "nothing" in fails(*words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--width", "30"], "width 30 is not a multiple of heads 4"),
        (["--fusion", "cold"], "no fusion 'cold'; use one of group, sum, linear"),
        (["--loss", "hinge"], "'auto', 'bce', 'weighted-bce', 'maxent' or 'cross-entropy'"),
        (["--epochs", "0"], "greater than or equal to 1"),
        (["--masking", "mask"], "no masking strategy 'mask'; choose from: miam, uniform"),
    ],
)
def test_a_setting_out_of_range_is_named(fails, home, tmp_path, words, message):
    assert message in fails("fit", home / "sites.zarr", "--out", tmp_path / "m", *words)


def test_an_error_in_a_catalog_is_reported_with_its_line(fails, home, tmp_path):
    (tmp_path / "c.yaml").write_text(CATALOG.replace("units:", "unit:"))
    message = fails(
        "fit", home / "sites.zarr", "--schema", tmp_path / "c.yaml", "--out", tmp_path / "m"
    )
    assert "line 7" in message and "did you mean 'units'?" in message


def test_labels_of_one_class_are_refused(fails, tmp_path):
    sites = tiny_sites(20)
    sites["presence"] = xr.ones_like(sites["presence"])
    from geomiam.data.sites.store import write_sites

    write_sites(sites, tmp_path / "sites.zarr")
    assert "only presences" in fails("fit", tmp_path / "sites.zarr", "--out", tmp_path / "m")


@pytest.mark.slow
def test_the_installed_command_fails_without_a_traceback(home):
    command = Path(sys.executable).with_name("geomiam")
    process = subprocess.run(
        [command, "predict", home / "model", home / "cube.zarr", "--out", home / "model"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 1
    assert process.stdout == ""
    assert re.fullmatch(r"error: the output .*model overlaps .*; write elsewhere\n", process.stderr)


@pytest.mark.filterwarnings("default::geomiam.errors.OccurrencesLeftOut")
def test_records_are_moved_kept_and_left_out_as_requested(geomiam, home, tmp_path):
    """Two records of a species in one cell, and one beside the grid by less than a cell."""
    cube = gm.open_cube(home / "cube.zarr", chunks=None).load()
    observed = np.argwhere(np.isfinite(cube["bio1"].values))
    row, column = observed[len(observed) // 2]
    lon, lat = float(cube["x"][column]), float(cube["y"][row])
    records = pd.DataFrame(
        {
            "species": ["a", "A ", "a"],
            "lon": [lon, lon + 0.01, float(cube["x"].min()) - 0.7],
            "lat": [lat, lat, float(cube["y"][0])],
        }
    )
    records.to_csv(tmp_path / "records.csv", index=False)
    files = (home / "cube.zarr", tmp_path / "records.csv")

    def sampled(name, *options):
        with warnings.catch_warnings():
            warnings.simplefilter("error", RecordsMerged)  # the output has the number, once
            code, out, _ = geomiam("sample", *files, "-o", tmp_path / name, *options)
        assert code == 0
        return out, gm.open_sites(tmp_path / name)

    with pytest.warns(
        OccurrencesLeftOut, match="1 outside the grid; 1 of them lie within one cell"
    ):
        out, sites = sampled("thin.zarr")
    assert "3 rows, 1 share cell and species with another row (--no-thin keeps all)" in out
    assert sites.sizes["site"] == 1 and sites["species"].values.tolist() == ["a"]
    out, sites = sampled("all.zarr", "--no-thin", "--snap", "40 km")
    assert "1 moved by up to" in out and sites.sizes["site"] == 3
    _, sites = sampled("needs.zarr", "--require", "bio1", "--background", 20, "--snap", "90 km")
    assert sites["bio1"].notnull().all()


def test_sites_beyond_the_limit_of_memory_train_the_same_model(
    geomiam, home, tmp_path, monkeypatch
):
    data = []
    read = gm.open_sites
    monkeypatch.setattr(gm, "open_sites", lambda *a, **k: data.append(read(*a, **k)) or data[-1])
    command = ("fit", home / "sites.zarr", "--schema", home / "catalog.yaml")
    for limit in (2**30, 0):
        monkeypatch.setattr("geomiam.cli.train.MOST_LOADED", limit)
        code, _, _ = geomiam(*command, "--width", 8, "--steps", 3, "-o", tmp_path / f"{limit}")
        assert code == 0
    assert [s["presence"].chunks is None for s in data] == [True, False]
    first, second = (gm.load_model(tmp_path / f"{limit}").id for limit in (2**30, 0))
    assert first == second
