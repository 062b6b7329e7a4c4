"""Reports: what the page contains, that names cannot change it, and that ODMAP is filled or marked."""

from __future__ import annotations

import dataclasses
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

import geomiam as gm
from geomiam.cli.app import app
from geomiam.errors import OutputExists, OutputRefused, SelectionError
from geomiam.reports import evidence as evidence_module
from geomiam.reports.fields import FIELDS, MISSING
from geomiam.reports.uncertainty import novelty, uncertainty

pytestmark = pytest.mark.filterwarnings("ignore")
HOSTILE = "<img src=x onerror=alert(1)>\"'&$x$"
VOID = {"meta", "img", "br"}


@pytest.fixture(scope="module")
def model(small_model) -> gm.Model:
    return small_model("group")


@pytest.fixture(scope="module")
def explanation(cube, model) -> xr.Dataset:
    return gm.shapley(cube, model)


class Page(HTMLParser):
    """Tags, attributes and text of a page; fails where tags are not nested."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data if self.open[-1:] not in (["style"], ["script"]) else ""

    def sections(self) -> list[str | None]:
        return [attrs["id"] for tag, attrs in self.tags if tag == "section"]


def page_of(path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def test_a_full_report_has_every_section(tmp_path, model, cube, sites, explanation):
    import matplotlib.pyplot as plt

    figures = plt.get_fignums()
    table = gm.evaluate(model, sites, metrics=["auc", "tss"])
    options = gm.reports.ReportOptions(species=2, responses=2, points=True)
    path = gm.report(
        model, tmp_path / "r.html", table=table, maps=explanation, sites=sites, options=options
    )
    page = page_of(path)
    assert page.sections() == [
        *("summary", "maps", "values", "skill", "thresholds", "responses", "contributions"),
        *("limits", "sources", "odmap", "cite"),
    ]
    pictures = [attrs for tag, attrs in page.tags if tag == "img"]
    # maps and that of values, skill, presence, curves, Shapley maps, limiting groups
    assert len(pictures) == 3 + 1 + 2 + 2 * 2 + 2 + 2
    assert all(p["src"].startswith("data:image/png;base64,") and p["alt"] for p in pictures)
    assert f"{float(table['mean_auc'][-1]):.3f}" in page.text
    assert model.id in page.text and "oljjAkgZN4" in page.text
    assert "1 further species" in page.text
    assert plt.get_fignums() == figures  # its own figures are closed


def test_thresholds_and_the_area_of_presence_are_those_of_the_map(tmp_path, model, explanation):
    page = page_of(gm.report(model, tmp_path / "r.html", maps=explanation))
    for name in model.species:
        threshold = float(model.thresholds.sel(kind="max-tss", species=name))
        is_present = (explanation["suitability"].sel(species=name) >= threshold).values
        area = gm.ranges.cell_areas(explanation).broadcast_like(explanation["suitability"][0])
        assert f"{threshold:.3f}" in page.text
        assert f"{float(area.values[is_present].sum()):,.0f}" in page.text
    no_thresholds = dataclasses.replace(
        model, about={k: v for k, v in model.about.items() if k != "thresholds"}
    )
    page = page_of(gm.report(no_thresholds, tmp_path / "none.html"))
    assert "thresholds" not in page.sections()


@pytest.fixture(scope="module")
def doubtful(cube, sites, small_model) -> tuple[gm.Model, xr.Dataset]:
    """A calibrated ensemble, and a warmer map with the spread, prediction sets and novelty of each cell."""
    elsewhere = sites.assign_coords(x=sites["x"] + 0.1, y=sites["y"] + 0.1)
    model = gm.calibrate(small_model("group+sum"), elsewhere)
    warmer = cube.assign(bio1=cube["bio1"] + 1)
    options = gm.PredictOptions(clamp=True)
    maps = gm.predict(warmer, model, spread=True, interval=0.7, options=options)
    return model, maps.assign(gm.novelty(warmer, model).data_vars)


def test_uncertainty_and_novelty_of_the_map_have_sections(tmp_path, doubtful):
    model, maps = doubtful
    options = gm.reports.ReportOptions(species=1)
    page = page_of(gm.report(model, tmp_path / "r.html", maps=maps, options=options))
    assert page.sections()[4:7] == ["thresholds", "uncertainty", "novelty"]
    captions = [attrs["alt"] for tag, attrs in page.tags if tag == "img"]
    assert sum("members disagree" in c for c in captions) == 1
    assert sum("prediction sets of level 70%" in c for c in captions) == 1
    name = max(model.species, key=model.about["presences"].get)
    spread = maps["spread"].sel(species=name)
    numbers = "".join(f"{float(spread.quantile(q)):.3f}" for q in (0.5, 0.9))
    assert f"{name}{numbers}" in page.text
    sets = maps["prediction_set"].sel(species=name).values
    sets = sets[np.isfinite(sets)]
    assert name + "".join(f"{(sets == code).mean():.1%}" for code in (2, 1, 3, 0)) in page.text
    assert "at most 30% have a set without 'present'" in page.text
    count = np.isfinite(maps["mess"]).sum()
    outside = float((maps["inside"] == 0).sum() / count)
    beyond = float((maps["mess"] < 0).sum() / count)
    assert 0 < outside < 1 and 0 < beyond < 1
    assert f"outside the area of applicability (dissimilarity index){outside:.1%}" in page.text
    assert f"a predictor outside its training range (MESS){beyond:.1%}" in page.text
    text = gm.reports.odmap(model, maps=maps).set_index("key")["text"]
    assert f"(dissimilarity index): {outside:.1%} of the cells" in text["novelty"]
    sites_text = f"from {len(model.calibration):,} calibration sites"
    assert text["algorithm_uncertainty"].startswith("standard deviation over 2 ensemble members")
    assert sites_text in text["algorithm_uncertainty"] and "(clamping)" in text["extrapolation"]


def test_each_layer_of_uncertainty_is_shown_without_the_others(doubtful):
    model, maps = doubtful
    titles = {"spread": "members", "prediction_set": "Prediction sets", "inside": "applicability"}
    for layer, title in titles.items():
        part = maps[["suitability", layer]]
        options = gm.reports.ReportOptions(species=1)
        evidence = evidence_module.Evidence.of(model, options=options, maps=part)
        text = Page(uncertainty(evidence).html() + novelty(evidence).html()).text
        assert [t for t in titles.values() if t in text] == [title]


def test_a_cross_validation_states_its_blocks(tmp_path, model, sites):
    small = {
        "network": gm.NetworkConfig(fusion="sum", members=1, width=8, heads=1, depth=1, inner=0),
        "training": gm.TrainingConfig(epochs=1, epoch_steps=1, batch=32, block=50),
    }
    blocks = gm.splits.SpatialBlocks(2, size="50 km", rng=0)
    table = gm.cross_validate(sites, splits=blocks, subsets="all", **small)
    text = page_of(gm.report(model, tmp_path / "r.html", table=table)).text
    assert "Cross-validation" in text and "spatial blocks of 50 km" in text
    assert f"{float(table['mean_auc'][-1]):.3f}" in text
    assert "No independent test" not in text


def test_a_report_of_the_model_alone_has_no_empty_section(tmp_path, model):
    page = page_of(gm.report(model, tmp_path / "r.html"))
    assert page.sections() == [
        *("summary", "skill", "thresholds", "limits", "sources", "odmap", "cite")
    ]
    assert not [tag for tag, _ in page.tags if tag in ("img", "script", "link", "iframe")]
    assert page.text.count(MISSING) > 20


def test_the_page_loads_nothing_and_runs_no_script(tmp_path, model, explanation):
    options = gm.reports.ReportOptions(species=1, interactive=False)
    path = gm.report(model, tmp_path / "r.html", maps=explanation, options=options)
    page = page_of(path)
    policy = next(a["content"] for t, a in page.tags if a.get("http-equiv"))
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    for _, attrs in page.tags:
        assert not [k for k in attrs if k.startswith("on")]
        assert attrs.get("href", "#").startswith("#") and attrs.get("src", "data:").startswith(
            "data:"
        )
    assert "url(" not in path.read_text(encoding="utf-8")
    assert "@media print" in path.read_text(encoding="utf-8")


def test_names_from_files_are_text(tmp_path, sites, explanation, model):
    records = {"origin": {"title": HOSTILE, "doi": HOSTILE, "query": "</td></table><script>"}}
    hostile = sites.assign_coords(species=[HOSTILE, "b & c", "</style><script>"])
    hostile.attrs |= {"records": json.dumps(records), "sources": json.dumps([{"source": HOSTILE}])}
    model = dataclasses.replace(
        model, species=tuple(hostile["species"].values), about={**model.about}
    )
    from geomiam.training.provenance import data_sources

    model.about.update(data_sources(hostile))
    maps = explanation.assign_coords(species=list(model.species)).assign_attrs(model_id=model.id)
    table = gm.evaluate(model, hostile)
    options = gm.reports.ReportOptions(
        title=HOSTILE, texts={"authors": HOSTILE + "\x1b"}, responses=1
    )
    path = gm.report(
        model,
        tmp_path / "r.html",
        table={HOSTILE: table},
        maps=maps,
        sites=hostile,
        options=options,
    )
    page = page_of(path)
    scripts = [attrs.get("type") for tag, attrs in page.tags if tag == "script"]
    assert scripts == [
        "application/json",
        None,
    ]  # the values of the map, and the script that reads them
    assert not [tag for tag, _ in page.tags if tag in ("iframe", "object")]
    assert page.text.count(HOSTILE) >= 6
    assert "\x1b" not in path.read_text(encoding="utf-8")
    assert all("onerror" not in attrs for _, attrs in page.tags)


def test_only_a_report_is_replaced(tmp_path, model):
    path = gm.report(model, tmp_path / "r.html")
    with pytest.raises(OutputExists, match="overwrite=True"):
        gm.report(model, path)
    gm.report(model, path, overwrite=True)
    page = tmp_path / "thesis.html"
    page.write_text("<p>my thesis, made with geomiam</p>")
    with pytest.raises(OutputRefused, match="is no report of geomiam"):
        gm.report(model, page, overwrite=True)
    assert "thesis" in page.read_text()


def test_a_report_that_fails_leaves_no_file(tmp_path, model, cube):
    with pytest.raises(SelectionError, match="no variable 'suitability'"):
        gm.report(model, tmp_path / "r.html", maps=cube)
    with pytest.raises(SelectionError, match="no dim 'subset'"):
        gm.report(model, tmp_path / "r.html", table=cube)
    with pytest.raises(SelectionError, match="of the model 0000"):
        maps = gm.predict(cube, model).assign_attrs(model_id="0" * 64)
        gm.report(model, tmp_path / "r.html", maps=maps)
    assert not list(tmp_path.iterdir())


def test_every_field_of_odmap_is_filled_or_marked(model, sites, explanation):
    fields = gm.reports.odmap(model, table=gm.evaluate(model, sites), maps=explanation)
    assert list(fields["key"]) == list(FIELDS) and len(fields) == 84
    assert list(fields["section"].unique()) == [
        *("Overview", "Data", "Model", "Assessment", "Prediction"),
    ]
    assert fields["text"].str.len().min() > 0
    is_marked = fields["text"].str.startswith(MISSING)
    assert (is_marked == ~fields["complete"]).all()
    text = fields.set_index("key")["text"]
    assert text["taxon"] == "species 0, species 1, species 2"
    assert f"{model.about['sites']['train']:,} sites" in text["training_data"]
    assert "EPSG:4326" in text["predictors_crs"] and "EPSG:4326" in text["extent"]
    assert text["predictors_extent"] == "map: x 5 to 8.25, y 47.25 to 50"
    assert "bio1 [degC]" in text["predictors"]
    assert f"geomiam {gm.__version__}" in text["software"]


def test_texts_of_the_author_replace_those_of_the_model(model):
    texts = {"authors": "A. Author", "taxon": "Oaks"}
    fields = gm.reports.odmap(model, texts=texts).set_index("key")
    assert fields.loc["authors", "text"] == "A. Author" and fields.loc["taxon", "text"] == "Oaks"
    assert fields.loc["authors", "complete"]
    with pytest.raises(SelectionError, match=r"\['autors'\] are no fields"):
        gm.reports.ReportOptions(texts={"autors": "A"})


def test_records_and_background_are_in_the_protocol(model, sites):
    from geomiam.training.provenance import data_sources

    records = {
        "origin": {"doi": "10.15468/dl.abcdef", "query": "is Quercus", "citation": "GBIF.org"},
        "cleaning": {"rows": 9, "removed": 2, "tests": [{"test": "zero", "flagged": 2}]},
    }
    rows = [{"variable": v, "source": "chelsa", "resampling": "average"} for v in ("bio1", "bio12")]
    attrs = {"records": json.dumps(records), "sources": json.dumps(rows)}
    attrs |= {"background_kind": "random", "background_drawn": np.int64(50)}
    attrs |= {"background_area": "within 9 km of the presences", "background_bias": "weighted by b"}
    about = data_sources(sites.assign_attrs(attrs))
    assert json.loads(json.dumps(about)) == about
    assert about["sources"][0]["variables"] == ["bio1", "bio12"]
    model = dataclasses.replace(model, about={**model.about, **about})
    text = gm.reports.odmap(model).set_index("key")["text"]
    assert "10.15468/dl.abcdef" in text["records_source"] and "zero (2)" in text["cleaning"]
    assert text["background"] == (
        "random, 50 points, by gm.add_background; weighted by b; within 9 km of the presences"
    )
    assert text["response"] == "presence and background"
    assert "average" in text["predictors_processing"]


@pytest.mark.parametrize("text", ["{", "[1]", '"x"', "[" * 100_000, "null", "x" * 2**21])
def test_damaged_attributes_of_sites_are_left_out(sites, text):
    from geomiam.training.provenance import data_sources

    about = data_sources(sites.assign_attrs(records=text, sources=text, sampled=text))
    assert set(about) == {"crs"}


def test_damaged_provenance_does_not_prevent_a_report(tmp_path, model):
    for value in (None, 3, "x", [], {}, {"tests": 3}, {"a": None}):
        keys = ("sites", "presences", "validation", "records", "loss", "rule", "masking", "extent")
        about = dict.fromkeys((*keys, "sources", "coverage", "validation_auc", "dates"), value)
        model = dataclasses.replace(model, about=about)
        gm.report(model, tmp_path / "r.html", overwrite=True)


def test_limits_name_rare_species_and_the_training_range(tmp_path, model, cube):
    warm = cube.copy()
    warm["bio1"] = warm["bio1"] + 100
    about = {**model.about, "presences": {"species 0": 5, "species 1": 300, "species 2": 30}}
    model = dataclasses.replace(model, about=about)
    text = page_of(gm.report(model, tmp_path / "r.html", maps=gm.predict(warm, model))).text
    assert "Fewer than 30 presences trained species 0." in text
    share = float(gm.predict(warm, model)["outside_range"].mean())
    assert f"On average {share:.1%} of the predictors" in text


def test_a_large_map_is_read_at_every_nth_cell(tmp_path, model, cube, monkeypatch):
    monkeypatch.setattr(evidence_module, "MOST_CELLS", 5)
    maps = gm.predict(cube.chunk({"y": 4}), model)
    text = page_of(gm.report(model, tmp_path / "r.html", maps=maps)).text
    assert "every 3th" not in text and "one row and column in 3" in text
    assert "12 × 14 cells" in text and "0.25 degrees (EPSG:4326)" in text


def test_lengths_of_projected_maps_are_in_metres(tmp_path, model, cube):
    options = gm.reports.ReportOptions(species=1)
    maps = gm.predict(cube, model)
    maps = maps.drop_vars("spatial_ref").assign_coords(
        x=4_000_000.0 + 5_000 * np.arange(maps.sizes["x"]),
        y=3_000_000.0 - 5_000 * np.arange(maps.sizes["y"]),
    )
    text = page_of(gm.report(model, tmp_path / "a.html", maps=maps, options=options)).text
    assert "5,000 units of the coordinates; 12 × 14 cells" in text
    maps = maps.odc.assign_crs("EPSG:3035")
    text = page_of(gm.report(model, tmp_path / "b.html", maps=maps, options=options)).text
    assert "5,000 m (EPSG:3035); 12 × 14 cells" in text and "x 4,000,000 to 4,065,000" in text


@pytest.fixture(scope="module")
def projection(model, cube, sites) -> gm.Projection:
    later = cube.drop_vars("landsat").assign(bio1=cube["bio1"] + 5)
    return gm.project(model, {"now": cube, "2070": later}, sites=sites, metric="tss")


def test_other_times_have_maps_the_loss_of_skill_and_areas(tmp_path, model, projection):
    pair = projection["now"], projection["2070"]
    medians = pair[0]["suitability"].median(["y", "x"])
    limits = dict(zip(model.species, medians.values.tolist()))
    change = gm.ranges.change(*pair, threshold=limits)
    change = change.merge(gm.ranges.shift(*pair, threshold=limits))
    path = gm.report(
        model,
        tmp_path / "r.html",
        projection=projection,
        changes={"now to 2070": change},
        options=gm.reports.ReportOptions(species=3),
    )
    page = page_of(path)
    assert page.sections()[3:5] == ["scenarios", "limits"]
    pictures = [attrs["alt"] for tag, attrs in page.tags if tag == "img"]
    assert pictures == [
        *(f"species {i}, {name}" for i in range(3) for name in ("now", "2070")),
        *(f"now to 2070: species {i}" for i in range(3)),
    ]
    row = projection.table.loc["2070"]
    scores = f"2070{row['skill']:.3f}{row['skill_all']:.3f}{row['skill_loss']:.3f}"
    assert f"{scores}{row['outside_range']:.1%}" in page.text
    assert "2070 is predicted without landsat" in page.text
    assert "mean tss over species, on held-out sites" in page.text
    assert f"2070 ({row['skill']:.3f} in place of {row['skill_all']:.3f})" in page.text
    for name in model.species:
        part = change.sel(species=name)
        areas = dict(zip(part["class"].values, part["area"].values))
        numbers = [part["area_before"], part["area_after"], areas["gain"], areas["loss"]]
        text = "".join(f"{float(n):,.0f}" for n in [*numbers, areas["stable_present"]])
        percent = f"{float(part['percent_change']):+.1f} %"
        shift = f"{float(part['distance']):,.0f} km {part['direction'].item()}"
        assert f"{name}{text}{percent}{shift}" in page.text


def test_a_range_change_of_one_species_needs_no_projection(tmp_path, model, projection):
    maps = [projection[n]["suitability"].sel(species="species 1") for n in ("now", "2070")]
    change = gm.ranges.change(*maps, threshold=2)  # no cell is suitable
    page = page_of(gm.report(model, tmp_path / "r.html", changes=change))
    assert "Range changespeciesbefore" in page.text
    assert "species 100000no valueno value" in page.text
    with pytest.raises(SelectionError, match=r"pass gm\.ranges\.change"):
        gm.report(model, tmp_path / "r.html", changes=maps[0].to_dataset(), overwrite=True)
    with pytest.raises(SelectionError, match="of the model 0000"):
        tree = xr.DataTree.from_dict({"now": projection["now"].assign_attrs(model_id="0" * 64)})
        other_projection = gm.Projection(tree, projection.table.loc[["now"]])
        gm.report(model, tmp_path / "r.html", projection=other_projection, overwrite=True)


def test_scenarios_are_in_the_protocol(model, projection, cube):
    fields = gm.reports.odmap(model, projection=projection).set_index("key")
    text = fields["text"]
    assert text["scenarios"] == "maps for now, 2070"
    assert text["transfer_extent"] == "x 5 to 8.25, y 47.25 to 50"
    assert text["transfer_resolution"] == "0.25 degrees (EPSG:4326); 12 × 14 cells"
    assert text["transfer_processing"] == (
        "2070 is predicted without landsat, which the scenario lacks."
    )
    outside = projection.table["outside_range"]
    assert f"now: {outside['now']:.1%}, 2070: {outside['2070']:.1%}" in text["novelty"]
    assert text["scenario_uncertainty"].startswith("2 scenarios")
    assert not fields.loc["transfer_source", "complete"]
    part = gm.project(model, {"all": cube, "east": cube.isel(x=slice(7, None))})
    text = gm.reports.odmap(model, projection=part).set_index("key")["text"]
    assert "east: x 6.75 to 8.25" in text["transfer_extent"]
    assert text["transfer_processing"] == "All scenarios have all predictors of the model."


def test_an_encoder_has_no_report(tmp_path, model):
    with pytest.raises(SelectionError, match="encoder"):
        gm.report(dataclasses.replace(model, species=()), tmp_path / "r.html")


def test_the_command_line_writes_a_report_from_files(tmp_path, model, cube, sites):
    model = str(model.save(tmp_path / "model"))
    gm.write_map(cube, model, tmp_path / "map.zarr", shapley=True)
    gm.write_sites(sites, tmp_path / "sites.zarr")
    (tmp_path / "texts.yaml").write_text("authors: A. Author\n")
    out = tmp_path / "report.html"
    arguments = ["report", model, "--out", str(out), "--map", str(tmp_path / "map.zarr")]
    arguments += ["--sites", str(tmp_path / "sites.zarr"), "--test", str(tmp_path / "sites.zarr")]
    arguments += ["--texts", str(tmp_path / "texts.yaml"), "--title", "Oaks", "--species", "1"]
    maps = {"now": cube, "<b>later": cube.drop_vars("chip")}
    gm.project(model, maps).write(tmp_path / "times.zarr")
    pair = [str(tmp_path / "times.zarr" / name) for name in maps]
    change = ["change", *pair, "--threshold", "0.5", "--out", str(tmp_path / "change.zarr")]
    assert CliRunner().invoke(app, change).exit_code == 0
    arguments += ["--projection", str(tmp_path / "times.zarr")]
    arguments += ["--change", f"<i>soon={tmp_path / 'change.zarr'}"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert re.search(r"\d+ of 84 fields of ODMAP are filled", result.output)
    assert "hypotheses" in result.output and "authors," not in result.output
    page = page_of(out)
    assert {"contributions", "responses", "scenarios"} <= set(page.sections())
    assert "<b>later is predicted without chip" in page.text and "<i>soon" in page.text
    filled_count = int(re.search(r"(\d+) of 84", result.output)[1])
    assert page.text.count(f"{MISSING}: ") == 84 - filled_count
    assert "A. Author" in page.text and "<title>Oaks</title>" in out.read_text("utf-8")
