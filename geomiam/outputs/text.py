"""HTML tables for notebooks, and Markdown. Every text is escaped, since names come from files."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence

from geomiam.errors import printable

TABLE = "<div><strong>{}</strong><table>{}</table></div>"
CELL = "text-align: left; vertical-align: top; padding: 0.1em 1em 0.1em 0"


def facts_html(title: str, values: Mapping[str, object]) -> str:
    """Return a table of names and values."""
    rows = "".join(f"<tr>{_cell('th', k)}{_cell('td', v)}</tr>" for k, v in values.items())
    return TABLE.format(_escaped(title), rows)


def table_html(title: str, head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Return a table with a row of headings."""
    lines = "".join(f"<tr>{''.join(_cell('td', v) for v in row)}</tr>" for row in rows)
    names = "".join(_cell("th", name) for name in head)
    return TABLE.format(_escaped(title), f"<thead><tr>{names}</tr></thead><tbody>{lines}</tbody>")


def _cell(tag: str, value: object) -> str:
    return f'<{tag} style="{CELL}">{_escaped(value)}</{tag}>'


def _escaped(value: object) -> str:
    return html.escape(printable(str(value))).replace("\n", "<br>")


def markdown_cell(text: object) -> str:
    """Return a text for one cell of a table, with HTML, line breaks and Markdown characters escaped."""
    line = html.escape(" ".join(str(text).split()), quote=False)
    return re.sub(r"([|`\[\]*_\\])", r"\\\1", line)


def markdown_block(text: str) -> str:
    """Return a text as a fenced code block, with a fence longer than any run of backticks in the text."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"
