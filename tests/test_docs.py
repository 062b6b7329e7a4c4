"""The notebook runs, and the documentation builds without a warning."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

import geomiam as gm

ROOT = Path(gm.__file__).parents[1]


@pytest.mark.slow
def test_the_quickstart_notebook_runs_and_draws(tmp_path):
    from nbclient import NotebookClient

    notebook = nbformat.read(ROOT / "notebooks" / "01-quickstart.ipynb", as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs]
    pictures = [o for o in outputs if "image/png" in o.get("data", {})]
    assert len(pictures) == 3
    text = "".join(o.get("text", "") for o in outputs)
    assert "19,838 of 19,838 land cells answered" in text


def test_the_notebook_is_stored_without_outputs():
    notebook = nbformat.read(ROOT / "notebooks" / "01-quickstart.ipynb", as_version=4)
    assert not any(c.outputs for c in notebook.cells if c.cell_type == "code")


@pytest.mark.slow
def test_the_documentation_builds_without_a_warning(tmp_path):
    pytest.importorskip("sphinx")
    pytest.importorskip("myst_nb")
    options = [
        "-W",
        "--keep-going",
        "-q",
        "-D",
        "nb_execution_mode=off",
    ]  # the notebook has its own test
    command = [
        sys.executable,
        "-m",
        "sphinx",
        *options,
        "-b",
        "html",
        "docs",
        str(tmp_path / "html"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "html" / "api.html").stat().st_size > 50_000
