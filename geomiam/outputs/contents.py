"""The content of a folder or file: an output of geomiam and nothing else, or files that must stay."""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MARK = "geomiam_output"
"""Attribute of a Zarr store with the kind of the output: cube, sites or map."""
STATUS = "geomiam_status"
"""Attribute of a map; earlier versions marked maps by it alone."""
LITTER = (".DS_Store", "Thumbs.db", "desktop.ini")
"""Files that file managers leave in folders."""
LARGEST = 256 * 2**20
"""Bytes of the largest metadata file that is read."""


@dataclass(frozen=True)
class Kind:
    """A kind of output, and how one that exists is recognised."""

    name: str
    stranger: Callable[[Path], str | None]
    """Returns the reason why a path is not such an output, and nothing else; None where it is."""
    folder: bool = True


def stranger_in_store(path: Path, *, name: str) -> str | None:
    """Return why a folder is not a Zarr store of this kind that geomiam wrote."""
    attributes = _json(path / "zarr.json").get("attributes")
    attributes = attributes if isinstance(attributes, dict) else {}
    kind = attributes.get(MARK, "map" if STATUS in attributes else None)
    if kind is None:
        return f"is not a Zarr directory that geomiam wrote as {name}"
    if kind != name:
        return f"holds {kind}, not {name}"
    foreign = next(_foreign(path), None)
    return None if foreign is None else f"also holds {foreign.relative_to(path)}"


def _foreign(node: Path) -> Iterator[Path]:
    """Yield what is in a group or an array of Zarr v3 but does not belong to it."""
    is_array = _json(node / "zarr.json").get("node_type") == "array"
    for entry in os.scandir(node):
        path = Path(entry.path)
        if entry.is_file(follow_symlinks=False):
            if not (_expected(entry.name, "zarr.json") or (is_array and entry.name == "c")):
                yield path
        elif entry.is_symlink() or not entry.is_dir(follow_symlinks=False):
            yield path
        elif is_array:
            yield from _foreign_chunks(path) if entry.name == "c" else [path]
        else:
            yield from _foreign(path) if (path / "zarr.json").is_file() else [path]


def _foreign_chunks(folder: Path) -> Iterator[Path]:
    for entry in os.scandir(folder):
        number = entry.name.isascii() and entry.name.isdigit()
        if number and entry.is_dir(follow_symlinks=False):
            yield from _foreign_chunks(Path(entry.path))
        elif not (entry.is_file(follow_symlinks=False) and (number or _expected(entry.name))):
            yield Path(entry.path)


def _expected(name: str, *names: str) -> bool:
    """A file of the store, of a write that was killed, or of a file manager."""
    return name in names or name in LITTER or name.endswith(".partial")


def stranger_in_folder(
    path: Path, *, name: str, files: tuple[str, ...], proof: str, keys: tuple[str, ...]
) -> str | None:
    """Return why a folder does not hold these entries alone, with ``keys`` in the JSON of ``proof``."""
    if not set(keys) <= set(_json(path / proof)):
        return f"is no {name}"
    for entry in sorted(os.scandir(path), key=lambda e: e.name):
        if entry.is_symlink() or entry.name not in (*files, *LITTER):
            return f"also holds {entry.name}"
    return None


def stranger_in_json(path: Path, *, keys: tuple[str, ...]) -> str | None:
    """Return why a file is not a JSON table of geomiam."""
    document = _json(path)
    return None if set(keys) <= set(document) else f"has no {', '.join(map(repr, keys))} of geomiam"


def stranger_in_file(path: Path) -> str | None:
    """Return why a picture or raster is not of geomiam, which leaves its name in what it writes."""
    if path.stat().st_size == 0:
        return None
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return None if content.find(b"geomiam") >= 0 else "was not written by geomiam"


def _json(path: Path) -> dict[str, Any]:
    """Return a JSON object; empty where there is none that can be read."""
    try:
        if not path.is_file() or path.stat().st_size > LARGEST:
            return {}
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
