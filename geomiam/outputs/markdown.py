"""Text from files inside Markdown, where it must stay text."""

from __future__ import annotations

import html
import re


def cell(text: object) -> str:
    """Return a text as one cell of a table: no HTML, no line break, no column, link or code."""
    line = html.escape(" ".join(str(text).split()), quote=False)
    return re.sub(r"([|`\[\]*_\\])", r"\\\1", line)


def block(text: str) -> str:
    """Return a text as a block of code that it cannot end by itself."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"
