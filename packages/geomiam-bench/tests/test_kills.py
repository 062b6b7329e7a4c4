"""Writers and workers that are killed: every map that was resumed equals the undisturbed one."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

SMALLER = """
import runpy
import geomiam_bench.kills
geomiam_bench.kills.CHUNK = 12  # cells; reading and writing weigh, not the network
runpy.run_module("geomiam_bench", run_name="__main__", alter_sys=True)
"""


@pytest.mark.slow
def test_writers_and_workers_that_are_killed(tmp_path):
    """The long version is geomiam-bench kills --kills 100."""
    out = tmp_path / "kills.json"
    command = [
        sys.executable,
        "-c",
        SMALLER,
        "kills",
        "--kills",
        "2",
        "--worker-kills",
        "1",
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    subprocess.run([*command, "--json", str(out)], check=True, env=environment, timeout=300)
    results = json.loads(out.read_text())
    assert results["writer"]["kills"] == 2 and results["worker"]["kills"] >= 1
    for road in ("writer", "worker"):
        assert results[road]["maps"] >= 1
        assert results[road]["unequal"] == results[road]["needless"] == 0
        assert results[road]["again"] <= 2 * results[road]["kills"]
