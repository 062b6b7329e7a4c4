"""The code of the page on occurrence records runs, on a small download and cube."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from helpers_records import gbif_archive, pack, records_cube

import geomiam as gm

PAGE = Path(gm.__file__).parents[1] / "docs" / "howto" / "records.md"


def test_the_code_of_the_page_runs_from_top_to_bottom(tmp_path, monkeypatch):
    pack(tmp_path / "gbif_download.zip", gbif_archive())
    monkeypatch.chdir(tmp_path)
    cube = records_cube()
    cube["land"] = cube["bio1"] * 0 + 1
    names = {"gm": gm, "np": np, "pd": pd, "cube": cube}
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)
    assert len(blocks) == 3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for block in blocks:
            exec(compile(block, str(PAGE), "exec"), names)
    assert names["sites"].sizes["site"] > 100
    assert names["counts"].set_index("test").loc["coordinates", "flagged"] == 1
    assert "country" in names["not_run"] and len(names["doubtful"]) == 0


def test_the_page_lists_every_test():
    from geomiam.data.cleaning.inputs import DESCRIPTIONS

    section = PAGE.read_text("utf-8").split("## Clean")[1].split("## Thin")[0]
    assert not [t for t in DESCRIPTIONS if f"`{t}`" not in section]
