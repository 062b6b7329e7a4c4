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

accepted = keep_freed_memory() if {ask} else False
weight = torch.ones(64, 64)
def passes(count):
    x = torch.ones(4096, 64)
    for _ in range(count):
        x = torch.relu(x @ weight) / 64
passes(20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
passes(200)
print(accepted, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(*, ask: bool, env: dict[str, str]) -> tuple[str, int]:
    """Whether the allocator accepted the setting, and page faults of 200 passes over one megabyte."""
    run = [sys.executable, "-c", FAULTS.format(ask=ask)]
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    process = subprocess.run(run, capture_output=True, text=True, check=True, env=clean | env)
    output, faults = process.stdout.split()
    return output, int(faults)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only glibc's allocator has this setting")
def test_a_worker_does_not_fault_its_memory_in_again_and_again():
    dask_setting = {"MALLOC_TRIM_THRESHOLD_": "65536"}
    assert page_faults(ask=True, env={})[0] == "False"  # elsewhere nothing is changed
    _, before = page_faults(ask=False, env=dask_setting)
    output, after = page_faults(ask=True, env=dask_setting)
    if output == "False":
        pytest.skip("this system's allocator has no such setting")
    assert before > 10_000  # each pass maps its memory anew
    assert after < before / 100
