"""Hostile inputs of every family: refused clearly, or right; never damage, a hang or a traceback.

``python -m tools.hostile --count 200`` runs 1,000 of them.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # a warning is a clear answer too
    pytest.mark.skipif(sys.platform != "linux", reason="processes are watched through /proc"),
]
ROOT = Path(__file__).parents[1]
TITLES = {
    "models": "model files",
    "catalogs": "catalogs",
    "commands": "command line",
    "pt_files": ".pt files",
    "rasters": "rasters",
}
"""Rows of the table, by family."""


def test_hostile_inputs_are_refused_clearly_or_right():
    """In a separate process: the check forks, and a fork loses the threads of other tests."""
    command = [sys.executable, "-m", "tools.hostile", "--count", "6", "--seed", "2026"]
    command += [word for family in TITLES for word in ("--family", family)]
    process_result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    output = process_result.stdout[-3000:] + process_result.stderr[-3000:]
    assert process_result.returncode == 0, output
    for family in TITLES:
        row = rf"\| {re.escape(TITLES[family])} \| [1-9]\d* \| 0 \| \d+ \| 0 \| 0 \|"
        assert re.search(row, process_result.stdout), output


def test_the_check_itself_sees_hangs_memory_damage_and_unclear_errors(tmp_path, monkeypatch):
    from geomiam.errors import GeomiamError
    from tools.hostile import run as module
    from tools.hostile.run import Input, classify

    def spin(folder: Path) -> bool:
        while True:
            pass

    def fill(folder: Path) -> bool:
        return len(np.ones(2**28)) > 0

    def delete(folder: Path) -> bool:
        (folder.parent / "precious" / "thesis.txt").unlink()
        return True

    def refuse(folder: Path) -> bool:
        raise GeomiamError("no")

    monkeypatch.setattr(module, "CPU_SECONDS", 1.0)
    calls = {
        "damage": [spin, fill, delete, lambda f: __import__("os").abort()],
        "refused": [refuse],
        "unclear": [lambda f: {}["k"]],
        "wrong": [lambda f: False],
        "accepted": [lambda f: True],
    }
    for expected, several in calls.items():
        for call in several:
            outcome, text = classify(Input("x", expected, lambda folder: None, call))
            assert outcome == expected, text
