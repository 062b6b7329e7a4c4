"""Files inside a zip file or a folder, read without unpacking and within limits of size."""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

from geomiam.checks.files import refusing, regular_file
from geomiam.errors import OccurrenceError

MAX_RATIO = 200
"""Largest ratio of the text to its compressed size; that of real tables is 3 to 30."""
SMALL_TEXT = 2**26
"""Size of text in bytes that is accepted at any compression ratio."""
MAX_MEMBERS = 200_000
"""Largest number of files in a zip file; a download of GBIF has one for each data set."""
META = "meta.xml"


@dataclass(frozen=True)
class Archive:
    """A zip file or a folder of tables and metadata. Only files at its top level are read."""

    path: Path

    @property
    def name(self) -> str:
        """Name of the zip file or folder, for messages."""
        return self.path.name

    @cached_property
    def _members(self) -> dict[str, zipfile.ZipInfo]:
        with refusing(OccurrenceError, damaged(self.path)), zipfile.ZipFile(self.path) as file:
            members = [m for m in file.infolist() if not m.is_dir()]
        if len(members) > MAX_MEMBERS:
            raise OccurrenceError(
                f"{self.name} has {len(members):,} files, more than {MAX_MEMBERS:,}; it is not a download of records"
            )
        top = _top_folder([m.filename for m in members])
        return {m.filename.removeprefix(top): m for m in members if m.filename.startswith(top)}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the files at the top level."""
        if self.path.is_dir():
            return tuple(sorted(f.name for f in self.path.iterdir() if f.is_file()))
        return tuple(n for n in self._members if "/" not in n and "\\" not in n)

    @contextmanager
    def open(self, name: str, *, max_bytes: int | None = None) -> Iterator[IO[bytes]]:
        """Open one file of :attr:`names`, of at most ``max_bytes``; by default only the compression ratio is limited.

        Raises OccurrenceError if there is no such file at the top level, it leads out of the archive, or it is too large.
        """
        if name not in self.names:
            raise OccurrenceError(
                f"{self.name} has no file '{name[:80]}' at its top level, which its metadata name; it has "
                f"{list(self.names[:8])}: fetch it again"
            )
        if self.path.is_dir():
            path = regular_file(self._inside(name), max_bytes=max_bytes, error=OccurrenceError)
            with path.open("rb") as stream:
                yield stream
            return
        member = self._checked(name, max_bytes)
        with ExitStack() as stack:
            with refusing(OccurrenceError, damaged(self.path)):
                file = stack.enter_context(zipfile.ZipFile(self.path))
                entry = stack.enter_context(file.open(member))
            yield entry

    def read(self, name: str, *, max_bytes: int) -> bytes:
        """Return the content of a small file."""
        with self.open(name, max_bytes=max_bytes) as stream:
            with refusing(OccurrenceError, damaged(self.path)):
                return stream.read(max_bytes)

    def _inside(self, name: str) -> Path:
        path = self.path / name
        if not path.resolve().is_relative_to(self.path.resolve()):
            raise OccurrenceError(
                f"{name} in {self.name} is a link to a file outside the folder, which is not followed; copy the "
                "file into the folder"
            )
        return path

    def _checked(self, name: str, max_bytes: int | None) -> zipfile.ZipInfo:
        member = self._members[name]
        if member.flag_bits & 1:
            raise OccurrenceError(
                f"{name} in {self.name} is encrypted; unpack it with its password and pass the folder"
            )
        if stat.S_ISLNK(member.external_attr >> 16):
            raise OccurrenceError(
                f"{name} in {self.name} is a link, which is not followed; pack the file"
            )
        limit = max(SMALL_TEXT, MAX_RATIO * member.compress_size)
        limit = limit if max_bytes is None else min(limit, max_bytes)
        if member.file_size > limit:
            raise OccurrenceError(
                f"{name} in {self.name} has {member.compress_size:,} bytes and unpacks to {member.file_size:,}, more "
                f"than {limit:,}, which is not plausible; unpack it, inspect it, and pass the folder"
            )
        return member


def _top_folder(names: list[str]) -> str:
    """Return the folder that contains meta.xml, or that contains all files; ``""`` for none."""
    metas = [n for n in names if n.rpartition("/")[2] == META]
    if metas:
        return min(metas, key=len)[: -len(META)]
    folders = {n.partition("/")[0] for n in names}
    inside = len(folders) == 1 and all("/" in n for n in names)
    return f"{folders.pop()}/" if inside else ""


def damaged(source: str | Path) -> str:
    """Return the message for a file that a library cannot read."""
    name = Path(source).name
    return f"{name} cannot be read; it is damaged, or its format differs from its suffix: fetch it again"
