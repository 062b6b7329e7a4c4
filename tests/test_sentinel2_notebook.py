"""The Sentinel-2 notebook runs against a STAC server, and its stored outputs are those of the run."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import geomiam as gm

pytest.importorskip("nbformat")

import nbformat
from conftest import SHARED, needs_shared
from helpers_servers import static_api, stored_items, write_stac_catalog
from helpers_stac import serve

NOTEBOOKS = Path(gm.__file__).parents[1] / "notebooks"
QUICKER = {"epochs=60": "epochs=12", "width=48, heads=4, depth=2": "width=16, heads=2, depth=1"}
"""Settings of the notebook, and those with which the test runs it."""
STAC, COLLECTION = SHARED / "s2" / "stac", "sentinel-2-l2a"


def text_of(notebook: Any) -> str:
    """All that the cells print, and the tables."""
    outputs = [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs]
    parts = [o.get("text") or o.get("data", {}).get("text/plain", "") for o in outputs]
    return "".join(p for o, p in zip(outputs, parts) if o.get("name") != "stderr")


def pictures(notebook: Any) -> int:
    outputs = [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs]
    return sum("image/png" in o.get("data", {}) for o in outputs)


@pytest.fixture(scope="module")
def stored_value() -> Any:
    return nbformat.read(NOTEBOOKS / "02-sentinel2-gaps.ipynb", as_version=4)


@pytest.fixture(scope="module")
def api(tmp_path_factory) -> Iterator[str]:
    """A STAC API with the scenes of the notebook's place, and their files by HTTP ranges."""
    with serve(STAC) as files:
        items = stored_items(STAC, COLLECTION, files)
        server_result = [i for i in items if i["properties"]["geomiam:site"] == "B"]
        with static_api(write_stac_catalog(tmp_path_factory.mktemp("stac"), server_result)) as url:
            yield url


def test_the_stored_notebook_has_its_outputs_and_names_no_machine(stored_value):
    nbformat.validate(stored_value)
    assert pictures(stored_value) == 8
    assert not re.search(
        r"/(tmp|home|work|root|Users)/|127\.0\.0\.1|localhost:\d", str(stored_value)
    )
    assert not any(
        o.get("name") == "stderr" for c in stored_value.cells for o in c.get("outputs", [])
    )
    assert (NOTEBOOKS / "02-sentinel2-gaps.ipynb").stat().st_size < 1_000_000


@pytest.mark.slow
@needs_shared
def test_the_notebook_runs_and_its_numbers_hold(stored_value, api, tmp_path, monkeypatch):
    from nbclient import NotebookClient

    monkeypatch.setenv("GEOMIAM_STAC", api)
    monkeypatch.setenv("GEOMIAM_RADAR", str(SHARED / "s2" / "extra"))
    shutil.copytree(NOTEBOOKS / "fields", tmp_path / "fields")
    text = (NOTEBOOKS / "02-sentinel2-gaps.ipynb").read_text(encoding="utf-8")
    for setting, small in QUICKER.items():  # the scores below are reached by both
        assert setting in text
        text = text.replace(setting, small)
    run = nbformat.reads(text, as_version=4)
    location = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(run, timeout=300, resources=location).execute()  # raises where a cell does
    text = text_of(run)
    assert "18 dates, files that failed: 0" in text
    assert "cells seen on all 18 dates: 0 of 3,599" in text
    assert "3,599 of 3,599 cells have a prediction" in text
    assert "with the radar: 100% of the cells have a prediction" in text
    assert "under its clouds the image adds 0\n" in text
    assert "it has no value where it is clear: True\n" in text
    assert float(re.search(r"efficiency: largest difference (\S+)", text)[1]) < 1e-5
    assert score("all", text) > 0.8 and score("radar", text) > 0.7
    assert pictures(run) == 8
    assert [p.name for p in tmp_path.iterdir()] == ["fields"]  # it leaves nothing behind
    assert len(facts(text)) == 6 and facts(text) == facts(text_of(stored_value))


def score(subset: str, text: str) -> float:
    """The AUC of a subset in the notebook's table."""
    result = re.search(rf"^{subset} +(\d\.\d+)$", text, re.MULTILINE)
    assert result, subset
    return float(result[1])


def facts(text: str) -> list[str]:
    """What follows from the data alone, so that it is the same on every machine."""
    messages = r"^.*(?:scenes on|dates, files|on all \d+ dates|cells to learn|image alone).*$"
    return re.findall(messages, text, re.MULTILINE)
