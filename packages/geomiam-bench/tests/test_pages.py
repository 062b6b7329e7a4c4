"""The generated pages, and the commands that the documentation names."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs"
RESULTS = Path(__file__).resolve().parents[1] / "results"


def read(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "page"), [("benchmarks", "benchmarks.md"), ("performance", "performance.md")]
)
def test_the_generated_pages_are_what_the_results_say(tmp_path, script, page):
    """No figure on them is typed: written anew from the stored results they are the same."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            f"geomiam_bench.pages.{script}",
            "--docs",
            str(tmp_path),
            "--results",
            str(RESULTS),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / page).read_text("utf-8") == read(page)
    for picture in re.findall(r"\]\((images/benchmarks/[^)]+)\)", read(page)):
        assert (DOCS / picture).stat().st_size > 10_000, picture


def test_commands_that_the_page_names_exist():
    from geomiam_bench.cli import app

    verbs = {c.callback.__name__ for c in app.registered_commands if c.callback}
    assert set(re.findall(r"`geomiam-bench ([\w-]+)", read("evaluation.md"))) == verbs
    for module in re.findall(r"`python -m geomiam_bench\.([\w.]+)", read("evaluation.md")):
        assert importlib.util.find_spec(f"geomiam_bench.{module}"), module
