"""The interactive map of a report: its values are those of the map, and its script is the only one that runs."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
import xarray as xr

import geomiam as gm
from geomiam.reports import values_map
from geomiam.reports.evidence import Evidence

pytestmark = pytest.mark.filterwarnings("ignore")
HOSTILE = "</script><script>alert(1)</script><!--<img src=x onerror=alert(1)>\"'&"
GROUPS = ["climate", "terrain"]


@pytest.fixture(scope="module")
def model(small_model, sites) -> gm.Model:
    elsewhere = sites.assign_coords(x=sites["x"] + 0.1, y=sites["y"] + 0.1)
    return gm.calibrate(small_model("group+sum"), elsewhere)


@pytest.fixture(scope="module")
def maps(cube, model) -> xr.Dataset:
    """A map with every layer, of other places than the sites."""
    warmer = cube.assign(bio1=cube["bio1"] + 1)
    layers = gm.predict(warmer, model, spread=True, interval=0.7)
    options = gm.ValueOptions(neighbours=3)
    value = gm.value_of_information(warmer, model, groups=GROUPS, options=options)
    return layers.assign(gm.novelty(warmer, model).data_vars).assign(value.data_vars)


@pytest.fixture(scope="module")
def explanation(cube, model) -> xr.Dataset:
    return gm.shapley(cube.assign(bio1=cube["bio1"] + 1), model, order=2)


@pytest.fixture(scope="module")
def section(model, maps, explanation) -> str:
    """The section for two species."""
    options = gm.reports.ReportOptions(species=2)
    evidence = Evidence.of(model, options=options, maps=maps, explanation=explanation)
    return values_map.values_map(evidence).html()


@pytest.fixture(scope="module")
def report_text(tmp_path_factory, model, maps) -> str:
    """A page with few figures."""
    options = gm.reports.ReportOptions(species=1, responses=0)
    path = tmp_path_factory.mktemp("report") / "r.html"
    some_layers = maps[["suitability", "dissimilarity"]]
    return gm.report(model, path, maps=some_layers, options=options).read_text(encoding="utf-8")


def data_of(text: str) -> dict:
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', text)[1])


def codes_of(layer: dict, data: dict) -> np.ndarray:
    codes = np.frombuffer(base64.b64decode(layer["codes"]), np.uint8)
    return codes.reshape(data["rows"], data["columns"])


def numbers_of(layer: dict, data: dict) -> np.ndarray:
    codes = codes_of(layer, data).astype(float)
    codes[codes == values_map.GAP] = np.nan
    return layer["low"] + codes / values_map.LAST * (layer["high"] - layer["low"])


def test_numbers_and_classes_of_the_page_are_those_of_the_map(section, maps, explanation):
    data = data_of(section)
    assert (data["rows"], data["columns"]) == (12, 14) and len(data["species"]) == 2
    layers = {(layer["species"], layer["title"]): layer for layer in data["layers"]}
    assert len(layers) == len(data["layers"]) == 2 * 6 + 5
    for number, name in enumerate(data["species"]):
        of_species = {
            "suitability": maps["suitability"].sel(species=name),
            "spread over members": maps["spread"].sel(species=name),
            "expected change if it were observed": maps["value_of_information"]
            .sel(species=name)
            .max("group"),
        }
        for title, expected in of_species.items():
            layer = layers[number, title]
            clipped_values = expected.clip(layer["low"], layer["high"])
            step = (layer["high"] - layer["low"]) / values_map.LAST
            np.testing.assert_allclose(numbers_of(layer, data), clipped_values, atol=0.51 * step)
        limiting = gm.explain.limiting(explanation)["limiting"].sel(species=name)
        layer = layers[number, "limiting group"]
        groups = np.array([*layer["labels"], *[""] * 256])[codes_of(layer, data)]
        meanings = np.array(["", *limiting.attrs["flag_meanings"].split()])
        np.testing.assert_array_equal(groups, meanings[limiting.fillna(0).values.astype(int)])
    layer = layers[None, "observed groups"]
    labels = np.array(layer["labels"])[codes_of(layer, data)]
    for row, column in ((0, 0), (5, 7), (11, 3)):
        bits = int(maps["observed"][row, column])
        names = [g for i, g in enumerate(json.loads(explanation.attrs["groups"])) if bits >> i & 1]
        assert labels[row, column] == (" + ".join(names) or "none")


def test_a_cell_is_new_on_the_page_exactly_where_it_is_new_on_the_map(section, maps):
    data = data_of(section)
    layer = next(row for row in data["layers"] if row["title"].startswith("MESS"))
    numbers = numbers_of(layer, data)
    zero = np.rint(-layer["low"] / (layer["high"] - layer["low"]) * values_map.LAST)
    assert layer["low"] < 0 < layer["high"]
    is_new = codes_of(layer, data) < zero
    np.testing.assert_array_equal(is_new, maps["mess"].values < 0)
    np.testing.assert_array_equal(np.isnan(numbers), maps["mess"].isnull())
    assert is_new.any() and not is_new.all()


def test_only_the_script_of_the_package_may_run(report_text):
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', report_text)[1]
    scripts = re.findall(r"<script>(.*?)</script>", report_text, re.DOTALL)
    assert scripts == [values_map.SCRIPT]
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert policy.endswith(f"; script-src 'sha256-{digest}'") and "default-src 'none'" in policy
    for unsafe in ("innerHTML", "eval(", "Function(", "http", "fetch(", "document.write"):
        assert unsafe not in values_map.SCRIPT


def test_a_static_report_has_no_script(tmp_path, model, maps):
    options = gm.reports.ReportOptions(species=1, responses=0, interactive=False)
    some_layers = maps[["suitability"]]
    text = gm.report(model, tmp_path / "r.html", maps=some_layers, options=options).read_text(
        "utf-8"
    )
    assert "<script" not in text and "script-src" not in text and 'id="values"' not in text


def test_names_cannot_leave_the_data_of_the_script(model, maps, cube):
    names = (HOSTILE, "b", "c")
    hostile = dataclasses.replace(model, species=names)
    hostile_maps = maps.assign_coords(species=list(names)).assign_attrs(model_id=hostile.id)
    options = gm.reports.ReportOptions(species=3)
    evidence = Evidence.of(hostile, options=options, maps=hostile_maps)
    text = values_map.values_map(evidence).html()
    assert data_of(text)["species"][0] == HOSTILE
    assert text.count("<script") == text.count("</script") == 1 and "<!--" not in text
    assert "<img src=x" not in text


def test_the_map_is_thinned_and_north_is_at_the_top(model, maps, monkeypatch):
    monkeypatch.setattr(values_map, "MOST_SIDE", 5)
    options = gm.reports.ReportOptions(species=1)
    upside_down = maps.isel(y=slice(None, None, -1), x=slice(None, None, -1))
    evidence = Evidence.of(model, options=options, maps=upside_down[["suitability"]])
    text = values_map.values_map(evidence).html()
    data = data_of(text)
    assert (data["rows"], data["columns"]) == (4, 5) and "one row and column in 3" in text
    y, x = ([float(v) for v in data[d]] for d in "yx")
    assert y == sorted(y, reverse=True) and x == sorted(x)
    name = data["species"][0]
    cells = maps["suitability"].sel(species=name, y=y, x=x)
    np.testing.assert_allclose(numbers_of(data["layers"][0], data), cells, atol=0.002)


def test_limits_keep_zero_and_nearly_all_values():
    values = np.concatenate([np.linspace(-3, 50, 999), [-1e6, 1e6]])
    layer = values_map.numbers("a", xr.DataArray(values[None], dims=("y", "x")), cmap="OrRd")
    assert -4 < layer["low"] < -2 and 45 < layer["high"] < 55
    assert layer["below"] and layer["above"] and layer["digits"] == 0
    zero = -layer["low"] / (layer["high"] - layer["low"]) * values_map.LAST
    assert zero == pytest.approx(round(zero))
    flat = values_map.numbers("a", xr.DataArray(np.zeros((1, 3)), dims=("y", "x")), cmap="OrRd")
    assert (flat["low"], flat["high"], flat["digits"]) == (0.0, 1.0, 2)


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs the browser chromium")
def test_the_script_runs_under_the_policy_and_lists_the_best_cell(tmp_path, report_text, maps):
    path = tmp_path / "r.html"
    path.write_text(report_text, encoding="utf-8")
    command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += [f"--user-data-dir={tmp_path}/profile", path.as_uri()]
    page = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    readout = re.search(r'<div class="readout">(.*?)</div>', page, re.DOTALL)[1]
    rows = dict(re.findall(r"<tr><th>(.*?)</th><td>(.*?)</td></tr>", readout))
    name = data_of(report_text)["species"][0]
    best = maps["suitability"].sel(species=name)
    assert float(rows["suitability"]) == pytest.approx(float(best.max()), abs=0.01)
    cell = maps.sel(y=float(rows["y"]), x=float(rows["x"]), species=name, method=None)
    assert float(rows["dissimilarity index"]) == pytest.approx(
        float(cell["dissimilarity"]), abs=0.1
    )
    assert page.count("<select") == 1 and "<canvas" in page
