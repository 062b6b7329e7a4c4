"""The measure of the graphs of lazy calls: tasks per block, slopes, and a figure."""

from __future__ import annotations

import pytest

pytest.importorskip("odc.stac", reason="needs pip install 'geomiam[stac]'")

from geomiam_bench import graphs, map_ratio
from geomiam_bench.pages.performance_graphs import graphs as section


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_tasks_grow_with_the_blocks_and_not_with_the_cells_of_a_block(monkeypatch, tmp_path):
    monkeypatch.setattr(graphs, "CHUNK", 50)
    results = graphs.run((100, 200), ((1, 1000), (1, 500)))
    for name in ("predict", "predict, spread", "shapley", "novelty", "build_cube"):
        small, large = results["calls"][name]
        assert (small["blocks"], large["blocks"]) == (4, 16)
        assert large["tasks"] / large["blocks"] <= small["tasks"] / small["blocks"] <= 40, name
    assert results["slopes"]["predict"]["tasks"] <= 1.01  # cells grow as the blocks
    assert set(results["calls"]) == set(results["slopes"]) and "`gm.sentinel2`" in section(results)
    graphs.draw(results, tmp_path / "graphs.png")
    assert (tmp_path / "graphs.png").stat().st_size > 10_000


@pytest.mark.slow
def test_the_ratio_of_a_map_is_that_of_its_seconds(tmp_path):
    sizes = {"groups": 2, "tokens": 3, "width": 8, "species": 1}
    tiny = map_ratio.Configuration("sum", sizes, side=16, columns=2)
    result = map_ratio.measure(tiny, tmp_path, repeat=1)
    (bare,), (map_seconds,) = result["bare"], result["map"]
    assert 0 < result["ratio"] < 1 and result["ratio"] == pytest.approx(
        bare / map_seconds, abs=0.02
    )
    assert (result["cells"], result["blocks"]) == (4 * 16**2, 4)
