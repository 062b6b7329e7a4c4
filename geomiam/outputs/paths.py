"""Paths from users (relative, with ~, or file URLs), and names that become parts of paths."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from urllib.request import url2pathname

from geomiam.checks.names import check_folder
from geomiam.errors import GeomiamError, NameRefused

REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(://|::)")
"""Start of a URL. The scheme has at least two letters, because ``C:`` is a Windows drive."""
MANGLED = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/(?=[^/])")
"""Start of a URL in a ``pathlib.Path``, which merges the two slashes."""
FILE = re.compile(r"(?:file|local):(?://(?P<host>[^/]*))?(?P<path>/.*)", re.IGNORECASE)
RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
"""Names that Windows reserves for devices in every folder."""


def expand(path: str | Path) -> str:
    """Return a path to read: ``~`` and file URLs become local paths, other URLs are unchanged."""
    text = os.fspath(path)
    if match := FILE.fullmatch(text):
        if match["host"] not in (None, "", "localhost"):
            raise GeomiamError(
                f"{text} is a file on the host '{match['host']}'; write a local file URL as file:///path"
            )
        return url2pathname(match["path"]) if os.name == "nt" else unquote(match["path"])
    if isinstance(path, Path):
        text = MANGLED.sub(r"\1://", text, count=1)
    if not text.startswith("~"):
        return text
    try:
        return str(Path(text).expanduser())
    except RuntimeError as error:
        raise GeomiamError(f"{text}: {error}; pass the full path") from None


def is_remote(path: str | Path) -> bool:
    """Return whether a path is a URL, except one of a local file."""
    return bool(REMOTE.match(expand(path)))


def real_path(path: str | Path) -> Path:
    """Return a local path, absolute, with symbolic links followed; GeomiamError for a cycle of links."""
    text = expand(path)
    try:
        real = Path(text).resolve()
        os.path.lexists(real)
    except (OSError, RuntimeError, ValueError) as error:
        raise GeomiamError(f"{text!r} is not a usable path ({error}); choose another") from None
    return real


def check_names(names: Iterable[Any]) -> None:
    """Refuse names of variables and dims that cannot be separate folders of a store."""
    spellings: dict[str, str] = {}
    for name in map(str, names):
        check_component(name)
        if sys.platform in ("win32", "darwin") and spellings.get(name.casefold(), name) != name:
            raise NameRefused(
                f"'{spellings[name.casefold()]}' and '{name}' differ in case only, and this system cannot store "
                f"both; rename one with ds.rename({{{name!r}: ...}})"
            )
        spellings[name.casefold()] = name


def check_component(name: str) -> str:
    """Return a name that is valid as the name of one folder on this system; else raise NameRefused."""
    check_folder(name, "variable or dim")
    if os.name == "nt":
        odd = any(c in '<>:"|?*' for c in name) or name[-1:] in (" ", ".")
        if odd or RESERVED.fullmatch(name):
            raise NameRefused(
                f"the name '{name}' cannot be a folder on Windows; rename it with "
                f"ds.rename({{{name!r}: ...}})"
            )
    return name


def below(folder: Path, name: Any) -> Path:
    """Return the path of a name inside a folder; NameRefused for several components or a link."""
    path = folder / check_component(str(name))
    if path.is_symlink() or path.parent.resolve() != folder.resolve():
        raise NameRefused(
            f"{path} is a link, and links inside an output are not followed; remove it"
        )
    return path
