"""The README is correct: its code runs, its numbers are those of the data, its files and commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import geomiam as gm

ROOT = Path(gm.__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


SEARCHED = (
    *("species distribution model", "habitat suitability", "ecological niche model", "Maxent"),
    *("presence-only", "pseudo-absence", "GBIF"),
)


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_the_first_screen_has_the_words_that_users_search_for(page):
    text = (ROOT / page).read_text(encoding="utf-8").partition("![")[0]
    assert not [words for words in SEARCHED if words not in text]


@pytest.mark.slow
def test_the_code_of_the_readme_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "readme"}
    for code in [text for language, text in BLOCKS if language == "python"]:
        exec(compile(code, "README.md", "exec"), names)
    explanation, maps = names["why"], names["maps"]
    total = explanation["base_value"] + explanation["shapley"].sum("group", skipna=False)
    assert float(np.abs(total - maps["suitability"]).max()) < 1e-5
    assert float(np.abs(names["stored"]["suitability"] - maps["suitability"]).max()) < 1e-5
    assert names["parts"]["group"].values.tolist() == ["terrain", "summer", "rest"]
    assert names["table"]["subset"].values.tolist() == [*names["schema"].modalities, "all"]
    assert {p.name for p in tmp_path.iterdir()} == {"cube.zarr", "map.zarr", "model"}


def test_the_numbers_of_the_readme_are_those_of_the_data():
    gaps = gm.demo.load_cube().miam.coverage(gm.demo.load_schema())
    numbers = {int(n.replace(",", "")) for n in re.findall(r"\b\d+,\d{3}\b", README)}
    assert numbers == {int(gaps["cells"])}
    assert (
        int(gaps["cells_with_every_predictor"]) == 0
    )  # "None of the 19,838 land cells … has every predictor"


def test_files_that_the_readme_names_exist():
    targets = [t for t in re.findall(r"\]\(([^)]+)\)", README) if "://" not in t]
    assert len(targets) > 8
    for target in targets:
        path, _, anchor = target.partition("#")
        assert (ROOT / path).is_file(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", (ROOT / path).read_text("utf-8"), re.MULTILINE)
            assert anchor in [h.lower().replace(" ", "-") for h in headings], target
    assert "constraints.txt" in README and (ROOT / "constraints.txt").is_file()


def test_pictures_are_small_enough_to_load_at_once():
    for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", README):
        assert 10_000 < (ROOT / picture).stat().st_size < 250_000, picture


def test_commands_that_the_readme_names_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    shell = "\n".join(text for language, text in BLOCKS if language == "sh")
    targets = re.findall(r"\bmake (\w+)", shell) + re.findall(r"`make (\w+)`", README)
    assert {"demo", "test"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_readme_lists_exactly_the_verbs_of_the_command_line():
    from geomiam.cli.app import app

    sentence = re.search(r"On the command line: (.*?), each", README, re.DOTALL)
    assert sentence
    names = {name.removeprefix("geomiam ") for name in re.findall(r"`([\w -]+)`", sentence[1])}
    verbs = {c.callback.__name__.replace("_", "-") for c in app.registered_commands if c.callback}
    assert names == verbs | {g.name for g in app.registered_groups}


def test_the_limit_of_groups_is_that_of_the_code():
    from geomiam.explain.shapley_values import MOST_GROUPS

    assert f"up to {MOST_GROUPS} groups" in README


def test_the_citation_names_the_version_and_both_papers():
    import yaml

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == gm.__version__
    assert {"title", "authors", "message", "type"} <= set(citation)
    papers = citation["references"]
    assert [p["year"] for p in papers] == [2026, 2025]
    for paper in papers:
        assert {"title", "authors", "type"} <= set(paper)
        assert paper["authors"][0]["family-names"] == "Zbinden"
        assert paper["title"].split(":")[0].split(" ")[0] in README  # MIAM, MaskSDM
        assert paper.get("doi", "") in README and paper["url"] in README
