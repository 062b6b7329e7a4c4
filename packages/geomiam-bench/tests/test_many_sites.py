"""The measure of many sites: its records, and the costs that its processes print."""

from __future__ import annotations

import json

import numpy as np
import pytest

import geomiam as gm
from geomiam_bench import many_sites
from geomiam_bench.pages.performance_sites import many_sites as section


def test_each_site_has_records_of_ten_species():
    cube = many_sites.random_cube(200)
    records = many_sites.random_records(cube, 100, 400)
    species_of_sites = records.groupby(["lon", "lat"])["species"].nunique()
    assert len(species_of_sites) == 100 and (species_of_sites == 10).all()


@pytest.mark.filterwarnings("ignore")
def test_the_costs_of_a_small_fit_are_printed_and_described(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(gm.masking.STRATEGIES, "timed", many_sites.Timed)
    monkeypatch.setattr(many_sites, "BACKGROUND", 50)
    path, rows = str(tmp_path / "sites.zarr"), []
    many_sites.print_sampling(100, 40, path)
    many_sites.print_fit(path, 5)
    outputs = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    costs = {k: v for row in outputs for k, v in row.items()}
    assert costs["rows"] == 150 and costs["species"] == 40
    assert costs["fit_gib"] > 0.05 and costs["step_ms"] > 0
    assert gm.open_sites(path)["presence"].sum() == 1000
    for factor in (1, 10):
        rows.append({k: v * factor for k, v in costs.items()} | {"store_gib": 0.1})
    results = {"records": 10, "predictors": 6, "background": 50, "steps": 5, "sizes": rows}
    slopes = {k: np.nan for k in many_sites.COSTS} | {"fit_gib": 0.25}
    text = section({**results, "slopes": slopes})
    assert "power 0.25" in text and "| 1,500 |" in text
