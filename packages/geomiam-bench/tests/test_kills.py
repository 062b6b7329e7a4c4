"""Writers and workers that are killed: every map that was resumed equals the undisturbed one."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_writers_and_workers_that_are_killed(tmp_path):
    """The long version is geomiam-bench kills --kills 100."""
    out = tmp_path / "kills.json"
    command = [
        sys.executable,
        "-m",
        "geomiam_bench",
        "kills",
        "--kills",
        "5",
        "--worker-kills",
        "1",
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    subprocess.run([*command, "--json", str(out)], check=True, env=environment, timeout=300)
    found = json.loads(out.read_text())
    assert found["writer"]["kills"] == 5 and found["worker"]["kills"] >= 1
    for road in ("writer", "worker"):
        assert found[road]["maps"] >= 1
        assert found[road]["unequal"] == found[road]["needless"] == 0
        assert found[road]["again"] <= 2 * found[road]["kills"]
