"""The README is true: its code runs, its files exist, its commands are commands."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import geomiam as gm

ROOT = Path(gm.__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_code_of_the_readme_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        exec(compile(block, "README.md", "exec"), names)
    total = names["why"]["base_value"] + names["why"]["shapley"].sum("group", skipna=False)
    assert float(np.abs(total - names["maps"]["suitability"]).max()) < 1e-5
    assert names["parts"]["group"].values.tolist() == ["terrain", "summer", "rest"]
    assert (tmp_path / "map.zarr").is_dir()


def test_files_that_the_readme_names_exist():
    for target in re.findall(r"\]\(([^)#]+)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target
    for target in ("constraints.txt", "CITATION.cff", "geomiam/data/western_usa/NOTICES.md"):
        assert target in README and (ROOT / target).exists()


def test_commands_that_the_readme_names_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    from geomiam.cli import app

    verbs = {c.callback.__name__ for c in app.registered_commands if c.callback}
    assert {"sample", "fit", "evaluate", "predict", "explain", "info", "demo"} <= verbs


def test_the_citation_is_valid_yaml_with_the_version():
    import yaml

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == gm.__version__
