"""Escaping of text from files for Markdown."""

from __future__ import annotations

import html
import re


def cell(text: object) -> str:
    """Return a text for one cell of a table, with HTML, line breaks and Markdown characters escaped."""
    line = html.escape(" ".join(str(text).split()), quote=False)
    return re.sub(r"([|`\[\]*_\\])", r"\\\1", line)


def block(text: str) -> str:
    """Return a text as a fenced code block, with a fence longer than any run of backticks in the text."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"
