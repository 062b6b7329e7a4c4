"""A schema as a table for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geomiam.schema.schema import Schema

WIDEST = 40
"""Characters of a cell, but for the last column."""


def table_of(schema: Schema) -> str:
    """Return a schema as text: a title, and a line per variable with its modality, kind and units."""
    rows = [_row(schema, m, v) for m in schema.modalities.values() for v in m.variables.values()]
    head = ("modality", "variable", "kind", "units", "values", "from")
    used = [i for i in range(len(head)) if i < 3 or any(r[i] for r in rows)]
    title = (
        f"{schema.title or schema.name}: {len(schema.variables)} variables in "
        f"{len(schema.modalities)} modalities"
    )
    return "\n".join([title, *_aligned([[row[i] for i in used] for row in (head, *rows)])])


def _row(schema: Schema, modality: Any, variable: Any) -> tuple[str, ...]:
    origin = modality.origin_of(variable.name)
    source = origin.source if origin else schema.evidence.get(variable.name, "")
    named = f"{modality.name} ({modality.title})" if modality.title else modality.name
    return named, variable.name, variable.kind, variable.units or "", _values(variable), source


def _values(variable: Any) -> str:
    """Return the sizes of the dims, or the number of classes."""
    if variable.classes:
        return f"{len(variable.classes)} classes"
    sizes = [f"{d} {len(variable.labels[d])}" if d in variable.labels else d for d in variable.dims]
    return " × ".join(sizes)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [min(WIDEST, max(len(r[i]) for r in rows)) for i in range(len(rows[0]))]
    return ["  " + "  ".join(f"{c:<{w}}" for c, w in zip(row, widths)).rstrip() for row in rows]
