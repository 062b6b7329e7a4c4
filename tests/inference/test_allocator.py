"""Workers of a cluster keep the memory that a block needs again at once."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

FAULTS = """
import resource
import torch
from geomiam.inference.allocator import keep_freed_memory

weight = torch.ones(64, 64)
def passes(count):
    x = torch.ones(4096, 64)
    for _ in range(count):
        x = torch.relu(x @ weight) / 64
def faults():
    passes(20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    passes(200)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
before = faults()
print(keep_freed_memory(), before, faults())
"""


def page_faults(setting: dict[str, str]) -> tuple[str, int, int]:
    """Whether the allocator accepted, and page faults of 200 passes over one megabyte before and after."""
    run = [sys.executable, "-c", FAULTS]
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    process = subprocess.run(run, capture_output=True, text=True, check=True, env=clean | setting)
    is_set, before, after = process.stdout.split()
    return is_set, int(before), int(after)


def test_the_allocator_is_changed_in_workers_of_dask_only(monkeypatch):
    from geomiam.inference.allocator import keep_freed_memory

    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    assert keep_freed_memory.__wrapped__() is False


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only glibc's allocator has this setting")
def test_a_worker_does_not_fault_its_memory_in_again_and_again():
    is_set, before, after = page_faults({"MALLOC_TRIM_THRESHOLD_": "65536"})  # as dask sets it
    if is_set == "False":
        pytest.skip("this system's allocator has no such setting")
    assert before > 10_000  # each pass maps its memory anew
    assert after < before / 100
