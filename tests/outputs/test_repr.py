"""Short descriptions of schemas, models and plans, as text and as HTML with every name escaped."""

from __future__ import annotations

import warnings

import pandas as pd
import pytest
from helpers_small import TINY_NETWORK, quick, schema_of, tiny_sites, untrained, variable
from odc.geo.geobox import GeoBox

import geomiam as gm
from geomiam.outputs.text import facts_html, table_html
from geomiam.sources.build_report import CubePlan

SCRIPT = "<script>alert(1)</script>"
SCRIPT_AS_TEXT = "&lt;script&gt;alert(1)&lt;/script&gt;"


@pytest.fixture(scope="module")
def model() -> gm.Model:
    sites = tiny_sites(80, species=5).assign_coords(
        time=("site", pd.date_range("2001", periods=80))
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return gm.fit(
            sites,
            network={"width": 8, "heads": 2, "fusion": "sum", "members": 1},
            training={"steps": 2, "accelerator": "cpu"},
        )


def test_a_model_is_described_in_a_few_lines(model):
    lines = repr(model).splitlines()
    assert lines[0] == f"geomiam model {model.schema.name} ({model.id[:12]})"
    described_values = dict(line.strip().split(": ", 1) for line in lines[1:])
    assert described_values["species"] == "5 (Quercus 0, Quercus 1, Quercus 2, …)"
    auc, validation = model.about["validation_auc"]["all"], model.about["validation"]
    assert described_values["validation AUC"] == f"{auc:.3f} ± {validation['standard_error']:.3f}"
    assert described_values["sites"] == "80 train" and described_values["groups"] == "climate, soil"
    assert described_values["dates"] == "2001-01-01 to 2001-03-21"
    assert len(lines) <= 8 and "masking" in str(model)


def test_the_auc_of_training_sites_is_not_shown_as_validation():
    training = quick(epochs=1, holdout=0, keep="last")
    model = gm.fit(tiny_sites(40), network=TINY_NETWORK, training=training)
    assert model.about["validation_auc"]["all"] > 0
    assert "validation AUC" not in repr(model)


@pytest.mark.parametrize("about", [{}, {"sites": 3, "validation_auc": [1], "dates": "x"}])
def test_damaged_provenance_does_not_break_the_description(about):
    model = untrained(schema_of(climate=[variable("bio1")]))
    model.about.update(about)
    assert "species: 2" in repr(model) and "<table>" in model._repr_html_()


def test_a_schema_is_described_by_its_modalities_and_printed_by_its_variables():
    names = [f"bio{i}" for i in range(1, 20)]
    schema = schema_of(climate=[variable(n) for n in names], soil=[variable("clay")])
    assert repr(schema).splitlines() == [
        "schema: 20 variables in 2 modalities",
        "  climate (19): bio1, bio2, bio3, bio4, …",
        "  soil (1): clay",
    ]
    assert len(str(schema).splitlines()) == 22
    html = schema._repr_html_()
    assert html.count("<tr>") == 21 and "<th" in html


def test_names_from_files_are_text_in_html():
    schema = gm.Schema(
        title=SCRIPT,
        modalities={
            "climate": gm.Modality(
                name="climate", variables={"a": gm.Variable(name="a", units=SCRIPT)}
            )
        },
    )
    model = untrained(schema)
    model.about["dates"] = [SCRIPT]
    for html in (schema._repr_html_(), model._repr_html_()):
        assert SCRIPT_AS_TEXT in html and "<script" not in html
    assert "\x1b" not in repr(schema.model_copy(update={"title": "\x1b[2J"}))
    assert "<i" not in facts_html("<i>", {"<i>": "<i>"}) + table_html("<i>", ["<i>"], [["<i>"]])


def test_plans_are_tables_in_notebooks():
    row = {"variable": SCRIPT, "modality": "climate", "source": "chelsa", "kind": "raster"}
    row |= {"files": 1, "absent": 0, "crs": "EPSG:4326", "resolution": "0.01", "resampling": "mean"}
    table = pd.DataFrame([row | {"bytes": 4_000_000, "notes": [SCRIPT, "tiles"]}])
    plan = CubePlan(table, GeoBox.from_bbox((4, 50, 5, 51), resolution=0.1), ("slope",))
    html = plan._repr_html_()
    assert "10 × 10 cells" in html and "4.0 MB to read" in html and "slope" in html
    assert html.count(SCRIPT_AS_TEXT) == 2 and "<script" not in html


def test_the_plan_of_a_map_is_short(model):
    cube = tiny_sites(36)[["bio1", "clay", "ndvi"]].drop_vars(["x", "y"])
    plan = gm.plan_map(cube.chunk(site=18), model)
    assert repr(plan) == str(plan) and len(repr(plan).splitlines()) == 5
    html = plan._repr_html_()
    assert html.count("<tr>") == 5 and "cells/s" in html
