"""``response``, ``project``, ``change``, ``red-list`` and ``cross-validate``: the numbers of the library, on files."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from typer.testing import CliRunner

import geomiam as gm
from geomiam.cli.app import app
from geomiam.cli.evaluate import FoldFlags
from geomiam.errors import GeomiamError, MissingVariable, OutputBusy, OutputRefused, SettingError

pytestmark = pytest.mark.filterwarnings("ignore")


def geomiam(*words: object) -> str:
    """Return the output of a command that ends well; raise the error of another one."""
    result = CliRunner().invoke(app, list(map(str, words)))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def table_of(*words: object) -> pd.DataFrame:
    return pd.DataFrame(json.loads(geomiam(*words, "--json")))


@pytest.fixture(scope="module")
def home(tmp_path_factory, cube, sites, small_model) -> Path:
    """A model, sites, and cubes of two times, the later without images."""
    folder = tmp_path_factory.mktemp("home")
    small_model("sum").save(folder / "model")
    gm.write_sites(sites, folder / "sites.zarr")
    gm.write_cube(cube, folder / "now.zarr")
    future = cube.drop_vars(["landsat", "chip"])
    gm.write_cube(future.assign(bio1=future["bio1"] + 1), folder / "2070.zarr")
    scenarios = [folder / "now.zarr", f"later={folder / '2070.zarr'}"]
    words = ("--sites", folder / "sites.zarr", "--out", folder / "times.zarr")
    geomiam("project", folder / "model", *scenarios, *words)
    return folder


def test_a_response_curve_is_printed_and_drawn(home, tmp_path):
    data = ("--data", home / "sites.zarr")
    words = ("response", home / "model", "bio1", *data, "--points", 7, "-s", "species 1")
    text = geomiam(*words, "--csv", "--figure", tmp_path / "bio1.png")
    rows = pd.read_csv(io.StringIO(text))
    curve = gm.explain.response(
        home / "model",
        gm.open_sites(home / "sites.zarr").load(),
        "bio1",
        species="species 1",
        options=gm.explain.ResponseOptions(points=7),
    )
    np.testing.assert_allclose(rows["response"], curve["response"][0], rtol=1e-6)
    np.testing.assert_allclose(rows["bio1"], curve["bio1"], rtol=1e-6)
    assert list(rows["outside_bio1"]) == curve["outside_bio1"].values.tolist()
    assert (tmp_path / "bio1.png").stat().st_size > 10_000
    best = f"{float(curve['response'].max()):.4f}"
    text = geomiam(*words)
    assert "bio1 [degC]: training range" in text and text.splitlines()[-1].split()[0] == best


def test_a_surface_and_a_predictor_alone(home):
    rows = table_of("response", home / "model", "bio1", "bio12", "--kind", "alone", "--points", 4)
    surface = gm.explain.response(
        home / "model",
        None,
        ["bio1", "bio12"],
        kind="alone",
        options=gm.explain.ResponseOptions(points=4),
    )
    values = rows["response"].to_numpy().reshape(3, 4, 4)
    np.testing.assert_allclose(values, surface["response"], rtol=1e-6)


def test_scenarios_are_mapped_with_the_loss_of_skill(home, cube, sites, tmp_path):
    later = cube.drop_vars(["landsat", "chip"]).assign(bio1=cube["bio1"] + 1)
    expected = gm.project(home / "model", {"now": cube, "later": later}, sites=sites)
    written = gm.Projection.open(home / "times.zarr")
    pd.testing.assert_frame_equal(written.table, expected.table, check_exact=False, rtol=1e-5)
    np.testing.assert_allclose(
        written["later"]["suitability"], expected["later"]["suitability"], atol=1e-6
    )
    words = ("project", home / "model", home / "2070.zarr")
    text = geomiam(*words, "--out", tmp_path / "m.zarr")
    assert "2070, without landsat, chip" in text and "1 maps" in text
    assert "later" in geomiam("info", home / "times.zarr")
    with pytest.raises(GeomiamError, match=r"pass NAME=PATH, such as '2070 2="):
        geomiam(*words, home / "2070.zarr", "--out", tmp_path / "n.zarr")
    with pytest.raises(OutputRefused, match="overlaps"):
        geomiam(*words, "--out", home / "2070.zarr", "--overwrite")
    gm.write_cube(cube[["bio1"]].rename(bio1="other_layer"), tmp_path / "none.zarr")
    with pytest.raises(MissingVariable, match="scenario 'none' has none of the predictors"):
        geomiam("project", home / "model", tmp_path / "none.zarr", "--out", tmp_path / "n.zarr")


def test_range_change_is_that_of_the_library(home, tmp_path):
    pair = (home / "times.zarr" / "now", home / "times.zarr" / "later")
    files = ("--out", tmp_path / "c.zarr", "--figure", tmp_path / "c.png")
    maps = [gm.Projection.open(home / "times.zarr")[n].load() for n in ("now", "later")]
    limit = round(float(maps[0]["suitability"].median()), 3)
    rows = table_of("change", *pair, "--threshold", limit, *files).set_index("species")
    change = gm.ranges.change(*maps, threshold=limit)
    shift, overlap = gm.ranges.shift(*maps, threshold=limit), gm.ranges.overlap(*maps)
    for name in rows.index:
        part, row = change.sel(species=name), rows.loc[name]
        expected = {
            "gain_km2": part["area"].sel({"class": "gain"}),
            "loss_km2": part["area"].sel({"class": "loss"}),
            "after_km2": part["area_after"],
            "percent_change": part["percent_change"],
            "shift_km": shift["distance"].sel(species=name),
            "schoener_d": overlap["schoener_d"].sel(species=name),
        }
        for column, value in expected.items():
            assert row[column] == pytest.approx(float(value), nan_ok=True), column
    stored_data = xr.open_dataset(tmp_path / "c.zarr", engine="zarr", consolidated=False)
    np.testing.assert_array_equal(stored_data["change"], change["change"])
    assert (tmp_path / "c.png").stat().st_size > 10_000
    text = geomiam("change", *pair, "--threshold", 0.5)
    assert text.splitlines()[1].endswith("species 0") and "overlap D" in text


def test_thresholds_of_the_model_classify_both_maps(home, tmp_path):
    limits = xr.Dataset(
        {"threshold": (("kind", "species"), [[0.4, 0.5, 0.6]])},
        coords={"kind": ["max-tss"], "species": [f"species {i}" for i in range(3)]},
    )
    model = gm.load_model(home / "model").with_thresholds(limits)
    model.save(tmp_path / "model")
    pair = (home / "times.zarr" / "now", home / "times.zarr" / "later")
    rows = table_of("change", *pair, "--model", tmp_path / "model").set_index("species")
    for name, limit in zip(limits["species"].values, (0.4, 0.5, 0.6)):
        expected = table_of("change", *pair, "--threshold", limit).set_index("species")
        assert rows.loc[name, "gain_km2"] == expected.loc[name, "gain_km2"]
    with pytest.raises(GeomiamError, match="pass one of them"):
        geomiam("change", *pair, "--model", tmp_path / "model", "--threshold", 0.5)
    with pytest.raises(SettingError, match="threshold="):
        geomiam("change", *pair)
    with pytest.raises(GeomiamError, match=r"several maps; pass one of .*times.zarr/now"):
        geomiam("change", home / "times.zarr", pair[0], "--threshold", 0.5)


def test_the_red_list_takes_records_and_sites(home, tmp_path):
    table = pd.DataFrame({"Art": ["a"] * 4, "lon": [0.0, 1, 1, 0], "lat": [0.0, 0, 1, 1]})
    table.to_csv(tmp_path / "r.csv", index=False)
    rows = table_of("red-list", tmp_path / "r.csv", "--species", "Art", "--cell", "4 km")
    assert rows["aoo"].tolist() == [64] and rows["eoo"].round().tolist() == [12308]
    rows = table_of("red-list", home / "sites.zarr")
    expected = gm.ranges.red_list(gm.open_sites(home / "sites.zarr"))
    np.testing.assert_allclose(rows["eoo"], expected["eoo"])
    assert geomiam("red-list", home / "sites.zarr").splitlines()[-1].endswith("species 2")


def test_cross_validation_is_that_of_the_library(home, tmp_path):
    files = ("--out", tmp_path / "scores.zarr", "--figure", tmp_path / "folds.png")
    small = ("--fusion", "linear", "--members", 1, "--width", 8, "--epochs", 1, "--seed", 3)
    words = ("cross-validate", home / "sites.zarr", "--folds", 2, "--block", "50 km", *small)
    rows = table_of(*words, "--subsets", "all", "--metrics", "auc,tss", *files)
    expected = gm.cross_validate(
        gm.open_sites(home / "sites.zarr").load(),
        splits=gm.splits.SpatialBlocks(2, size="50 km", rng=3),
        metrics=["auc", "tss"],
        subsets="all",
        network={"fusion": "linear", "members": 1, "width": 8},
        training={"epochs": 1},
        rng=3,
    )
    np.testing.assert_allclose(rows["mean_auc"], expected["mean_auc"])
    np.testing.assert_allclose(rows["mean_tss"], expected["mean_tss"])
    stored_data = xr.open_dataset(tmp_path / "scores.zarr", engine="zarr", consolidated=False)
    np.testing.assert_array_equal(stored_data["fold"], expected["fold"])
    assert (tmp_path / "folds.png").stat().st_size > 10_000
    assert "species 2" in geomiam("info", tmp_path / "scores.zarr", "--csv")
    out = tmp_path / "r.html"
    geomiam("report", home / "model", "--scores", tmp_path / "scores.zarr", "--out", out)
    text = out.read_text(encoding="utf-8")
    assert "Cross-validation" in text and f"{float(expected['mean_tss'][0]):.3f}" in text


def test_folds_have_names(home, sites):
    area = home / "now.zarr"
    make = {
        name: FoldFlags(name, 3, area=area if name == "knndm" else None).splitter(1)
        for name in ("blocks", "checkerboard", "environment", "knndm", "random")
    }
    assert isinstance(make["environment"], gm.splits.EnvironmentalBlocks)
    assert isinstance(make["checkerboard"], gm.splits.Checkerboard)
    same_splitter = gm.splits.NearestNeighbourMatching(gm.open_cube(area), 3, rng=1)
    for fold, same_fold in zip(make["knndm"].split(sites), same_splitter.split(sites)):
        np.testing.assert_array_equal(fold[1], same_fold[1])
    tests = [test for _, test in make["random"].split(np.zeros((30, 1)))]
    assert sorted(np.concatenate(tests)) == list(range(30)) and tests[0].tolist() != list(range(10))
    for name, words in {
        "loo": {},
        "knndm": {},
        "random": {"block": "9 km"},
        "blocks": {"area": area},
    }.items():
        with pytest.raises(GeomiamError, match=r"use blocks|needs --area|has none of"):
            FoldFlags(name, 3, **words).splitter(0)


def test_an_output_is_locked_until_the_verb_ends(tmp_path):
    import threading

    from geomiam.cli.outputs import reserve, with_locks
    from geomiam.outputs.check import locked_output
    from geomiam.outputs.kinds import MAP

    errors: list[BaseException] = []

    def write() -> None:
        try:
            with locked_output(tmp_path / "m.zarr", False, kind=MAP):
                pass
        except OutputBusy as error:
            errors.append(error)

    def in_another_thread() -> None:
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()

    def verb() -> None:
        reserve(tmp_path / "m.zarr", False, kind=MAP)
        in_another_thread()

    with_locks(verb)()
    assert len(errors) == 1
    in_another_thread()
    assert len(errors) == 1
