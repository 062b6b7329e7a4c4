"""The measure of overviews: fewer bytes, and nearly the same values."""

from __future__ import annotations

import psutil
import pytest

pytest.importorskip("odc.stac", reason="needs pip install 'geomiam[stac]'")

from geomiam_bench import overviews


@pytest.mark.skipif(not hasattr(psutil.Process, "io_counters"), reason="bytes are counted on Linux")
def test_overviews_read_fewer_bytes_for_nearly_the_same_values():
    results = overviews.run(512)
    assert [(r["cell"], r["mask"]) for r in results["rows"]] == [
        *((100, "auto"), (1000, "auto"), (100, None), (1000, None))
    ]
    for row in results["rows"]:
        assert row["megabytes"]["overviews"] < row["megabytes"]["full"] / 2
        assert row["rmse"] < 0.2 * row["spread_of_cells"]
        assert row["cells_with_data"]["overviews"] <= row["cells_with_data"]["full"]
