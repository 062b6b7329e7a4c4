"""The measurements for a GPU, tried on the CPU with tiny sizes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

import pytest
import torch

from geomiam_bench.gpu import measure, run_part
from geomiam_bench.gpu_parts import PARTS, TINY, timed
from geomiam_bench.pages.performance_gpu import gpu

CPU = torch.device("cpu")


def numbers(value: object) -> Iterator[float]:
    """Yield all numbers of nested results."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from numbers(item)
    elif isinstance(value, (int, float)):
        yield value


@pytest.fixture(scope="module")
def parts() -> dict:
    return {name: part.measure(CPU, TINY) for name, part in PARTS.items()}


@pytest.mark.slow
def test_every_part_measures(parts):
    assert all(math.isfinite(x) and x >= 0 for x in numbers(parts))
    assert len(list(numbers(parts["predictions"]["cells_per_second"]))) == 8
    assert {r["precision"] for r in parts["training"]["rows"]} == {"32-true", "bf16-mixed"}
    assert json.loads(json.dumps(parts)) == parts


@pytest.mark.slow
def test_the_page_reports_what_was_measured_and_what_failed(parts):
    results = {"device": "H", "torch": "2", "seconds": {}, "sizes": {"rows": 8, "copy_mib": 1}}
    text = gpu({**results, **parts})
    assert "error" not in text and text.count("| group fusion, exact") == 2
    page_text = gpu({**results, **parts, "training": {"error": "out of memory"}})
    assert "out of memory" in page_text and "| group fusion, exact" in page_text


@pytest.mark.slow
def test_a_part_that_takes_too_long_or_fails_is_recorded():
    assert run_part("products", [], seconds=0.01) == {"error": "stopped after 0 s"}
    result = run_part("products", ["--device", "none"], seconds=60)
    assert "none" in result["error"]


def test_no_part_starts_when_the_time_is_over(tmp_path):
    results = measure(tmp_path / "gpu.json", CPU, tiny=True, seconds=0)
    assert all("not started" in results[name]["error"] for name in PARTS)
    assert json.loads((tmp_path / "gpu.json").read_text("utf-8")) == results


def test_repetitions_end_with_the_time():
    calls: list[int] = []
    timed({"a": lambda: calls.append(1)}, CPU, repeat=1000, seconds=0)
    assert len(calls) == 2  # one that does not count, and one that does
