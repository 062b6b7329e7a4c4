"""A schema as text and as an HTML table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from geomiam.errors import printable
from geomiam.outputs.html import table_html

if TYPE_CHECKING:
    import pandas as pd

    from geomiam.schema.schema import Schema

HEAD = ("modality", "variable", "kind", "units", "values", "from")
SHOWN = 4
"""Number of variables of a modality that a short description lists."""
WIDEST = 40
"""Most characters of a column that padding aligns; the last column is not padded."""


def table_of(schema: Schema) -> str:
    """Return a schema as text: a title, and a line per variable with its modality, kind and units."""
    return "\n".join([_title(schema), *_aligned(_rows(schema))])


def digest_of(schema: Schema) -> str:
    """Return a schema as a title and a line per modality; ``str`` returns every variable."""
    lines = [_title(schema)]
    for modality in schema.modalities.values():
        names = list(modality.variables)
        ellipsis = ", …" if len(names) > SHOWN else ""
        lines.append(f"  {modality.name} ({len(names)}): {', '.join(names[:SHOWN])}{ellipsis}")
    if list(schema.groups) != list(schema.modalities):
        lines.append(f"  groups: {', '.join(schema.groups)}")
    return printable("\n".join(lines))


def html_of(schema: Schema) -> str:
    """Return a schema as a table for notebooks, a row per variable."""
    head, *rows = _rows(schema)
    return table_html(_title(schema), head, rows)


def frame_of(schema: Schema) -> pd.DataFrame:
    """Return a schema as a table: a row per variable, all columns."""
    import pandas as pd

    pairs = [(m, v) for m in schema.modalities.values() for v in m.variables.values()]
    rows = [(m.name, *_row(schema, m, v)[1:]) for m, v in pairs]
    return pd.DataFrame(rows, columns=list(HEAD))


def _title(schema: Schema) -> str:
    return (
        f"{schema.title or schema.name}: {len(schema.variables)} variables in "
        f"{len(schema.modalities)} modalities"
    )


def _rows(schema: Schema) -> list[list[str]]:
    """Return the headings, then a row per variable; columns without a value are left out."""
    rows = [_row(schema, m, v) for m in schema.modalities.values() for v in m.variables.values()]
    columns = [i for i in range(len(HEAD)) if i < 3 or any(r[i] for r in rows)]
    return [[row[i] for i in columns] for row in (HEAD, *rows)]


def _row(schema: Schema, modality: Any, variable: Any) -> tuple[str, ...]:
    origin = modality.origin_of(variable.name)
    source = origin.source if origin else schema.evidence.get(variable.name, "")
    modality_text = f"{modality.name} ({modality.title})" if modality.title else modality.name
    return (
        modality_text,
        variable.name,
        variable.kind,
        variable.units or "",
        _values(variable),
        source,
    )


def _values(variable: Any) -> str:
    """Return the sizes of the dims, or the number of classes."""
    if variable.classes:
        return f"{len(variable.classes)} classes"
    sizes = [f"{d} {len(variable.labels[d])}" if d in variable.labels else d for d in variable.dims]
    return " × ".join(sizes)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [min(WIDEST, max(len(r[i]) for r in rows)) for i in range(len(rows[0]))]
    return ["  " + "  ".join(f"{c:<{w}}" for c, w in zip(row, widths)).rstrip() for row in rows]
