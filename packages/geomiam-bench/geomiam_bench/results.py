"""Results as JSON files, each written in one step."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from geomiam.errors import OutputExists
from geomiam.outputs.write import write_text


def as_text(results: Mapping[str, Any]) -> str:
    """Return JSON with indents."""
    return json.dumps(results, indent=1, ensure_ascii=False) + "\n"


def with_rows(head: Mapping[str, Any], name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return JSON whose last entry is a list with one row per line, so that long lists stay readable."""
    lines = ",\n".join(json.dumps(row) for row in rows)
    return f'{json.dumps(head, indent=1)[:-2]},\n "{name}": [\n{lines}\n ]\n}}\n'


def write_json(path: Path, results: Mapping[str, Any]) -> None:
    """Write results; the folder is created."""
    write_text(path, as_text(results))


def read_json(path: str | Path) -> dict[str, Any]:
    """Read results."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def continued(path: Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return an interrupted run with equal settings, or None where there is none.

    Raises
    ------
    OutputExists
        If the file holds a run with other settings.
    """
    if not path.exists():
        return None
    run = read_json(path)
    if run.get("settings") != json.loads(json.dumps(settings)):
        raise OutputExists(
            f"{path} holds a run with other settings; pass another --json, or remove the file"
        )
    return run
