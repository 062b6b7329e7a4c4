"""The page on evaluation is true: its code runs and its commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import geomiam as gm

ROOT = Path(gm.__file__).parents[1]
PAGE = (ROOT / "docs" / "howto" / "evaluation.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_code_of_the_page_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "page"}
    for code in re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE):
        exec(compile(code, "evaluation.md", "exec"), names)
    worth = names["worth"]
    total = float(worth["mean_base_value"] + worth["mean_shapley"].sum())
    assert total == pytest.approx(float(worth["mean_full_value"]), abs=1e-12)
    assert float(worth["mean_full_value"]) == pytest.approx(
        float(names["table"]["mean_auc"].sel(subset="all")), abs=1e-6
    )
    assert np.isfinite(names["sweep"]["mean_auc"]).all()
    assert not any(tmp_path.iterdir())
