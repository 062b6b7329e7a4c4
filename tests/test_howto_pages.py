"""The code of guides runs from top to bottom."""

from __future__ import annotations

import re

import pytest
from helpers_examples import ROOT

PAGES = (
    "background",
    "choosing-predictors",
    "community",
    "explanations",
    "novelty",
    "range-change",
    "reports",
    "response-curves",
    "thresholds",
    "tuning",
    "uncertainty",
    "value-of-information",
)
WRITTEN = {"report.html", "layers.html", "odmap.csv", "future.html", "calibrated"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_the_page_runs(page, tmp_path, monkeypatch):
    import matplotlib.pyplot as plt

    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "howto" / f"{page}.md").read_text(encoding="utf-8")
    names: dict = {"__name__": "page"}
    for code in re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        exec(compile(code, page, "exec"), names)
    assert {p.name for p in tmp_path.iterdir()} <= WRITTEN
    plt.close("all")
