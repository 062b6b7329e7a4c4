"""The measure of predictors larger than memory: its sites, and the costs that its process prints."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

import geomiam as gm
from geomiam_bench import large_predictors
from geomiam_bench.pages.performance_sites import large_predictors as section

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.mark.filterwarnings("ignore")
def test_the_costs_of_a_small_fit_are_printed_and_described(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(gm.masking.STRATEGIES, "timed", large_predictors.Timed)
    monkeypatch.setattr(large_predictors, "CHUNK", 50)
    monkeypatch.setattr(large_predictors, "PIXELS", 4)
    sites = large_predictors.random_sites(200 * 3 * 4**2 * 4 / 2**30)
    assert sites.sizes["site"] == 200 and all(v.chunks for v in sites.data_vars.values())
    path = gm.write_sites(sites, tmp_path / "sites.zarr")
    large_predictors.print_fit(str(path), 5, None)
    costs = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert costs["rows"] == 200 and costs["step_ms"] > 0 and 0.05 < costs["memory_gib"] < 50
    results = {"image": [3, 4, 4], "scalars": 6, "species": 20, "steps": 5, "sizes": [costs]}
    slopes = {k: np.nan for k in large_predictors.COSTS} | {"memory_gib": 0.25}
    text = section({**results, "limit_gib": 2.0, "machine_gib": 8.0, "slopes": slopes})
    assert "power 0.25" in text and "| 200 |" in text and "more than 2 GiB" in text
