"""The code of documentation pages, by section, so that tests run the text that users read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def example(title: str, *, page: str = "CONTRIBUTING.md", language: str = "python") -> str:
    """Return the one code block of the section with a title."""
    text = (ROOT / page).read_text(encoding="utf-8")
    section = text.split(f"# {title}\n", 1)[1]
    section = re.split(
        r"^#+ ", re.sub(r"^```.*?^```", _hide, section, flags=re.S | re.M), flags=re.M
    )[0]
    (code,) = re.findall(rf"^```{language}\n(.*?)^```", section.replace(HASH, "#"), re.S | re.M)
    return code


def run_example(title: str, *, page: str = "CONTRIBUTING.md") -> dict[str, Any]:
    """Execute the Python block of a section, and return its names."""
    names: dict[str, Any] = {"__name__": "example"}
    code = compile(example(title, page=page), page, "exec", dont_inherit=True)
    exec(code, names)
    return names


HASH = "\0"
"""Stands for # inside code, where it starts a comment and no heading."""


def _hide(match: re.Match) -> str:
    return match[0].replace("#", HASH)
