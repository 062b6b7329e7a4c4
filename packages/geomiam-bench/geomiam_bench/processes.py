"""Measurements in separate processes, which print their results as JSON in the last line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any


def output_of(*arguments: str) -> Any:
    """Return the JSON that Python with these arguments prints in its last line; other lines are dropped."""
    command = [sys.executable, *arguments]
    process = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(process.stdout.splitlines()[-1])


def in_process(function: Callable[..., None], *arguments: Any) -> dict[str, float]:
    """Call a function of a module in a separate process, and return the costs that it prints."""
    name = function.__name__
    code = f"from {function.__module__} import {name}; {name}{arguments!r}"
    return output_of("-W", "ignore", "-c", code)


def print_costs(costs: dict[str, float]) -> None:
    """Print costs as :func:`in_process` reads them, to three decimals."""
    print(json.dumps({k: round(v, 3) for k, v in costs.items()}))
