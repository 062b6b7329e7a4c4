"""Tables and numbers in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(head: Sequence, rows: Iterable[Sequence]) -> str:
    """Return a Markdown table with one line per row."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def as_number(value: float | None, digits: int) -> str:
    """Return a number with a minus sign; a dash for None."""
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")
