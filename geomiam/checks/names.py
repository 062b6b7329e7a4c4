"""Checks of names that come from files or users.

Variables and dims become folders of a Zarr store, so each name must be valid as the name of one folder.
Modalities, groups, sources and species are labels: they never become a path, but they are printed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any

from geomiam.errors import NameRefused, printable

MOST_BYTES = 200
"""File systems accept 255 bytes; temporary files beside a store add a prefix and a suffix."""
STORE_FILES = ("zarr.json", ".zgroup", ".zarray", ".zattrs", ".zmetadata")
"""Names that the Zarr format uses for its metadata files."""
RESERVED = ("spatial_ref", "presence", "background", "species", "site")
"""Names that cubes and sites use for the CRS, the labels and their dims."""
SHOWN = 8
"""Most names in a message."""


def check_label(name: Any, kind: str) -> str:
    """Return a name that is safe to print and to use as a label; ``kind`` describes its object in messages.

    Raises NameRefused if it is not text, is blank or too long, or has characters that cannot be printed.
    """
    if not isinstance(name, str) or not name.strip():
        raise NameRefused(f"{kind} {name!r} has no name; give it a text of one character or more")
    if printable(name) != name or "\n" in name or "\t" in name:
        raise NameRefused(
            f"{kind} {ascii(name)[:80]} has characters that cannot be printed; rename it"
        )
    if len(name.encode()) > MOST_BYTES:
        raise NameRefused(
            f"{kind} '{name[:40]}…' has {len(name.encode())} bytes; shorten its name to {MOST_BYTES}"
        )
    return name


def check_key(name: Any, kind: str) -> str:
    """Return the name of a modality, group or source: a label that does not have the form of a path."""
    label = check_label(name, kind)
    parts = name.replace("\\", "/").split("/")
    if parts[0] == "" or ".." in parts or (len(parts) > 1 and parts[0].endswith(":")):
        raise NameRefused(f"{kind} '{name}' has the form of a path; rename it")
    return label


def check_folder(name: Any, kind: str) -> str:
    """Return the name of a variable or dim: a label that can be a folder of a Zarr store."""
    label = check_label(name, kind)
    if "/" in name or "\\" in name:
        plain = name.replace("/", "_").replace("\\", "_")
        raise NameRefused(
            f"{kind} '{name}' has a path separator, but its name becomes a folder of a Zarr store; rename "
            f"it, e.g. ds.rename({{'{name}': '{plain}'}})"
        )
    if name in STORE_FILES or name.startswith("__") or not name.strip("."):
        raise NameRefused(
            f"{kind} '{name}' has a name that Zarr uses for its metadata files; rename it"
        )
    return label


def check_variable(name: Any) -> str:
    """Return the name of a predictor: a folder name that is not that of the CRS or the labels."""
    label = check_folder(name, "variable")
    if name in RESERVED:
        raise NameRefused(
            f"variable '{name}' has a name that geomiam uses in cubes and sites; rename it, "
            f"e.g. ds.rename({{'{name}': '{name}_1'}})"
        )
    return label


def check_species(names: Iterable[Any]) -> tuple[str, ...]:
    """Return the names of species: labels, each once."""
    species = tuple(check_label(name, "species") for name in names)
    counts = Counter(species)
    for name in species:
        if counts[name] > 1:
            raise NameRefused(f"species '{name}' occurs twice; name each species once")
    return species


def list_names(names: Collection[Any]) -> str:
    """Return the first names as text."""
    text = ", ".join(str(n) for n in list(names)[:SHOWN])
    return f"{text}, … ({len(names)})" if len(names) > SHOWN else text or "nothing"
