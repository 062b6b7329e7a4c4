"""The generated pages, and the commands that the documentation names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from geomiam.errors import SettingError
from geomiam_bench.cli import COMMANDS, app

ROOT = Path(__file__).resolve().parents[4]
DOCS = ROOT / "docs"
RESULTS = Path(__file__).resolve().parents[2] / "results"


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """The pages, written anew from the stored results."""
    docs = tmp_path_factory.mktemp("docs")
    result = CliRunner().invoke(app, ["pages", "--docs", str(docs), "--results", str(RESULTS)])
    assert result.exit_code == 0, result.output
    return docs


@pytest.mark.slow
@pytest.mark.parametrize("page", ["benchmarks", "defaults", "performance"])
def test_the_generated_pages_follow_from_the_results(written, page):
    text = (DOCS / "explanation" / f"{page}.md").read_text(encoding="utf-8")
    assert (written / "explanation" / f"{page}.md").read_text("utf-8") == text
    for picture in re.findall(r"\]\(\.\./(images/benchmarks/[^)]+)\)", text):
        assert (DOCS / picture).stat().st_size > 10_000, picture


def test_a_folder_without_results_is_refused(tmp_path):
    result = CliRunner().invoke(app, ["pages", "--results", str(tmp_path / "none")])
    assert isinstance(result.exception, SettingError) and "--results" in str(result.exception)


def test_every_command_explains_itself():
    for name in COMMANDS:
        result = CliRunner().invoke(app, [name, "--help"])
        assert result.exit_code == 0 and "Options" in result.output, name


def test_commands_that_the_documentation_names_exist():
    pages = [*DOCS.rglob("*.md"), ROOT / "README.md", RESULTS.parent / "README.md"]
    command_names = {
        verb
        for page in pages
        for verb in re.findall(r"geomiam-bench ([a-z][a-z-]+) ?[`A-Z-]", page.read_text("utf-8"))
    }
    assert command_names <= set(COMMANDS)
    assert set(COMMANDS) == set(
        re.findall(r"^\| `geomiam-bench ([\w-]+)", pages[-1].read_text("utf-8"), re.MULTILINE)
    )
