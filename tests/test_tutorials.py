"""The tutorials run from top to bottom: their Python code, and their commands on the same files."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import xarray as xr
from helpers_examples import ROOT
from typer.testing import CliRunner

from geomiam.cli.app import app

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
TUTORIALS = ROOT / "docs" / "tutorials"


def blocks(page: str, language: str) -> list[str]:
    text = (TUTORIALS / f"{page}.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


QUICKER = {
    "gallery": {'"steps": 120': '"steps": 30', "SpatialBlocks(4": "SpatialBlocks(2"},
    "cluster": {'chunks={"y": 10, "x": 10}': 'chunks={"y": 20, "x": 20}'},
}
"""Settings of pages, and those with which the tests run them."""


def quicker(code: str, page: str) -> str:
    for setting, small in QUICKER.get(page, {}).items():
        code = code.replace(setting, small)
    return code


def run_page(page: str, language: str = "python") -> dict:
    import matplotlib.pyplot as plt

    names: dict = {"__name__": "page"}
    for code in blocks(page, "py"):  # needs a network or a cluster
        compile(code, page, "exec")
    code_blocks = blocks(page, language)
    assert all(setting in "".join(code_blocks) for setting in QUICKER.get(page, {}))
    for code in code_blocks:
        exec(compile(quicker(code, page), page, "exec"), names)
    plt.close("all")
    return names


def test_own_data_in_python_and_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run_page("own-data")
    assert names["records"].attrs["cleaning"]["removed"] == 2  # (0, 0), and the uncertain one
    maps, cube = names["maps"], names["cube"]
    has_data = cube["bio12"].notnull() | cube["bio1"].notnull()
    assert bool(maps["suitability"].notnull().all("species").where(has_data, True).all())
    assert float(names["table"]["mean_auc"][-1]) > 0.65
    report = (tmp_path / "report.html").read_text("utf-8")
    assert "10.15468/dl.example" in report and "mode" in report and "A. Author" in report
    steps = names["__builtins__"] and blocks("own-data", "python")[1].strip().splitlines()
    assert sum(bool(line.strip()) and not line.startswith((" ", ")")) for line in steps) < 20
    (commands,) = blocks("own-data", "sh")
    lines = commands.strip().splitlines()
    assert len(lines) == 10
    for line in lines:
        result = CliRunner().invoke(app, shlex.split(line)[1:])
        assert result.exit_code == 0, (line, result.output, result.exception)
    assert {"oak.html", "map.tif", "suitability.tif"} <= {p.name for p in tmp_path.iterdir()}
    text = (tmp_path / "oak.html").read_text("utf-8")
    assert "Oak and fir" in text and "10.15468/dl.example" in text
    assert "2 of 502 records removed" in text and "Response curves" in text


def test_coming_from_maxent(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run_page("from-maxent")
    assert names["model"].link == "cloglog"
    assert "all" in names["jackknife"]["subset"].values


@pytest.mark.parametrize(("page", "number"), [("from-maxent", 15), ("from-sklearn-raster", 8)])
def test_the_calls_of_the_table_exist(page, number):
    from pkgutil import resolve_name

    text = (TUTORIALS / f"{page}.md").read_text(encoding="utf-8")
    names = set(re.findall(r"`(?:cv=)?gm\.([\w.]*\w)", text))
    assert len(names) > number
    for name in names:
        resolve_name(f"geomiam.{name}")


def test_a_future_climate_without_imagery(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run_page("future-climate")
    table = names["projection"].table
    assert table.loc["2070", "left_out"] == "ndvi" and not table.loc["now", "left_out"]
    area = names["change"]["area"].isel(species=0).to_series()
    assert area["gain"] > 2 * area["loss"]  # a species of warm places in a warmer climate
    assert (tmp_path / "future.html").is_file()


def test_a_cluster_and_a_job_that_is_killed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run_page("cluster")
    assert (tmp_path / "cluster.png").is_file()
    first, second = (
        shlex.split(line, comments=True)[1:] for line in blocks("cluster", "sh")[0].splitlines()
    )
    assert first == second
    one_thread = {**os.environ, "DASK_NUM_WORKERS": "1"}
    job = subprocess.Popen([sys.executable, "-m", "geomiam", *first], env=one_thread)
    second_row = ".again.zarr.building/suitability/c/*/1/*"  # of blocks
    while not any(tmp_path.glob(second_row)):
        assert job.poll() is None, "the map is complete before the job is killed"
        time.sleep(0.005)
    job.kill()
    job.wait()
    assert not (tmp_path / "again.zarr").exists()
    result = CliRunner().invoke(app, second)
    written, total = map(int, re.search(r"(\d+) of (\d+) blocks written", result.output).groups())
    assert result.exit_code == 0 and written < total == 20
    again = xr.open_zarr("again.zarr", consolidated=False)
    xr.testing.assert_allclose(again["shapley"], names["maps"]["shapley"], atol=1e-5)


def test_the_gallery_draws_every_figure(tmp_path, monkeypatch):
    pytest.importorskip("bokeh", reason="bokeh is not installed: pip install geomiam[interactive]")
    import geomiam as gm

    monkeypatch.chdir(tmp_path)
    names = run_page("gallery", r"\{code-cell\} python")
    figures = set(re.findall(r"gm\.plot\.(\w+)\(", (TUTORIALS / "gallery.md").read_text("utf-8")))
    assert figures == set(gm.plot.__all__) - {
        "InteractiveMap",
        "convergence",
    }  # a result, a benchmark
    assert float(names["crossed"]["mean_auc"].sel(subset="all")) > 0.9
    assert not any(tmp_path.iterdir())


@pytest.mark.skipif(not shutil.which("Rscript"), reason="R is not installed")
def test_the_r_script_runs_and_its_map_is_intact(tmp_path):
    import rasterio

    packages = ["Rscript", "-e", "library(terra); library(reticulate)"]
    if subprocess.run(packages, capture_output=True).returncode:
        pytest.skip("R terra or reticulate is not installed")
    script = tmp_path / "page.R"
    script.write_text("\n".join(blocks("from-r", "r")), encoding="utf-8")
    python = Path(sys.executable)
    paths = os.pathsep.join([str(python.parent), os.environ["PATH"]])
    settings = {"RETICULATE_PYTHON": str(python), "PYTHONPATH": str(ROOT), "PATH": paths}
    command = ["Rscript", "--vanilla", script.name]
    result = subprocess.run(
        command, cwd=tmp_path, env=os.environ | settings, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[-2000:]
    layers = [rasterio.open(tmp_path / "rasters" / f"{n}.tif") for n in ("bio1", "bio12")]
    is_gap, is_sea = (f.read(1, masked=True).mask for f in layers)
    with rasterio.open(tmp_path / "oak.tif") as oak:
        assert oak.descriptions == ("Quercus ilex",) and oak.crs.to_epsg() == 4326
        assert (oak.read(1, masked=True).mask == is_sea).all() and is_gap.sum() > is_sea.sum()
    with rasterio.open(tmp_path / "why.tif") as parts:
        assert [n.rpartition(": ")[2] for n in parts.descriptions[1:]] == ["bioclim", "landcover"]
    assert (tmp_path / "again.tif").is_file()  # by the command line


@pytest.fixture(scope="module")
def sklearn_page() -> dict:
    return run_page("from-sklearn-raster")


def test_a_stack_with_gaps_is_predicted_from_a_scikit_learn_estimator(sklearn_page):
    has_value = sklearn_page["maps"]["suitability"].notnull()
    assert int(has_value.sum()) == int(sklearn_page["stack"]["land_fraction"].notnull().sum())
    assert int(sklearn_page["stack"]["turbidity_1"].notnull().sum()) < 0.7 * int(has_value.sum())
    assert sklearn_page["search"].best_score_ > 0.75
    lazy = sklearn_page["lazy"]["suitability"]
    assert lazy.chunks
    xr.testing.assert_allclose(lazy.compute(), sklearn_page["maps"]["suitability"], atol=1e-5)


def test_the_difference_to_sklearn_raster_is_as_stated(sklearn_page):
    pytest.importorskip("sklearn_raster", reason="sklearn-raster is not installed")
    for code in blocks("from-sklearn-raster", "py"):
        exec(compile(code, "from-sklearn-raster", "exec"), sklearn_page)
    text = (TUTORIALS / "from-sklearn-raster.md").read_text(encoding="utf-8")
    rows = {
        cells[0]: cells[1:] for cells in re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|$", text, re.M)
    }
    scores, is_test = sklearn_page["scores"], sklearn_page["is_test"]
    assert f"{is_test.sum()} test sites, {sklearn_page['y_test'].sum()} presences" in text
    cells = rows["cells with a prediction, of 19,838"]
    assert cells == tuple(f"{scores[name, 'cells']:,}" for name in ("forest", "geomiam"))
    for name, auc in zip(("forest", "geomiam"), rows["AUC at the sites with every layer"]):
        assert scores[name, "complete"] == pytest.approx(float(auc), abs=0.02), name
    of_forest, of_geomiam = rows["AUC at the sites in the strips"]
    assert of_forest == "no prediction" and scores["forest", "gap"] != scores["forest", "gap"]
    assert scores["geomiam", "gap"] == pytest.approx(float(of_geomiam), abs=0.03)
