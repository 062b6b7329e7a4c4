"""The sections of a report on missing data, interactions and limiting groups."""

from __future__ import annotations

import re

import pytest
import xarray as xr

import geomiam as gm
from geomiam.reports.contributions import contributions
from geomiam.reports.evidence import Evidence
from geomiam.reports.uncertainty import value

pytestmark = pytest.mark.filterwarnings("ignore")
OPTIONS = gm.reports.ReportOptions(species=1)


@pytest.fixture(scope="module")
def model(small_model) -> gm.Model:
    return small_model("group")


def captions(html: str) -> list[str]:
    return re.findall(r'<img alt="([^"]*)"', html)


@pytest.mark.parametrize("weights", [None, {"species 0": 1.0, "species 2": 1.0}])
def test_the_value_of_missing_data_is_that_of_the_map(crop, model, weights):
    options = gm.ValueOptions(neighbours=3, weights=weights)
    layers = gm.value_of_information(crop, model, groups=["climate", "terrain"], options=options)
    maps = gm.predict(crop, model).assign(layers.data_vars)
    evidence = Evidence.of(model, options=OPTIONS, maps=maps)
    html = value(evidence).html()
    name = evidence.figure_species[0]
    table = gm.explain.mean_value(layers)
    table = table if weights else table.sel(species=name)
    for group in ("climate", "terrain"):
        cells = [f"{float(table[c].sel(group=group)):.3f}" for c in ("lacking", "value", "gain")]
        expected = "".join(f'<td class="number">{c}</td>' for c in cells)
        assert f"<td>{group}</td>{expected}" in html
    assert captions(html)[0].startswith("Set of species" if weights else name)
    no_values = maps.assign(value_of_information=maps["value_of_information"].where(False))
    assert not value(Evidence.of(model, options=OPTIONS, maps=no_values)).parts


def test_interactions_and_limiting_groups_follow_the_layers(crop, model):
    explanation = gm.shapley(crop, model, order=2)
    evidence = Evidence.of(model, options=OPTIONS, explanation=explanation)
    texts = captions(contributions(evidence).html())
    assert [t.split(": ")[1].split(" ")[0] for t in texts] == ["Shapley", "main", "limiting"]

    def without(*names: str) -> list[str]:
        part: xr.Dataset = explanation.drop_vars(names)
        return captions(contributions(Evidence.of(model, options=OPTIONS, explanation=part)).html())

    assert len(without("interaction")) == 2 and len(without("interaction", "observed")) == 1
