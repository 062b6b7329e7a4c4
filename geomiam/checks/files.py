"""Checks of external files before they are read.

Reading a device or a pipe may never end, and a library may raise any exception for a damaged file.
These checks turn both into errors that name the file and the correction.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from geomiam.errors import GeomiamError, InputNotFound, UnreadableFile

REASON = 300  # largest number of characters of another library's message


def regular_file(
    path: str | Path, *, max_bytes: int | None = None, error: type[GeomiamError] = UnreadableFile
) -> Path:
    """Return the path of an ordinary file of at most ``max_bytes``; symbolic links are followed.

    Raises InputNotFound if there is no file, and ``error`` if it is not ordinary or is too large.
    """
    path = Path(path)
    try:
        state = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise InputNotFound(f"there is no file {_short(path)}; check the path") from None
    except (OSError, ValueError) as cause:
        raise error(f"{_short(path)} cannot be opened: {reason(cause)}") from None
    if not stat.S_ISREG(state.st_mode):
        kind = "folder" if stat.S_ISDIR(state.st_mode) else "device or pipe"
        raise error(f"{path} is a {kind}, not a file; pass the path of a file")
    if max_bytes is not None and state.st_size > max_bytes:
        raise error(f"{path} has {state.st_size:,} bytes, more than the limit of {max_bytes:,}")
    return path


def read_text(
    path: str | Path, *, max_bytes: int, error: type[GeomiamError] = UnreadableFile
) -> str:
    """Return the UTF-8 text of a file; raises the same errors as :func:`regular_file`, also for other encodings."""
    file = regular_file(path, max_bytes=max_bytes, error=error)
    try:
        with file.open("rb") as stream:
            data = stream.read(max_bytes + 1)  # files in /proc report a size of 0
        if len(data) > max_bytes:
            raise error(f"{file} has more than {max_bytes:,} bytes, the limit")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as cause:
        raise error(f"{file} is not UTF-8 text ({reason(cause)}); save it as UTF-8") from None
    except OSError as cause:
        raise error(f"{file} cannot be read: {reason(cause)}") from None


@contextmanager
def refusing(
    error: type[GeomiamError], message: str, *, passing: type[GeomiamError] = GeomiamError
) -> Iterator[None]:
    """Raise ``error`` in place of any exception that a library raises for a damaged file.

    The first line of the library's message is appended to ``message``, which states the problem and its
    correction. Exceptions of the class ``passing`` are not replaced.
    """
    try:
        yield
    except passing:
        raise
    except Exception as cause:  # decoders raise anything, such as RecursionError or struct.error
        raise error(f"{message}: {reason(cause)}") from cause


def reason(cause: BaseException) -> str:
    """Return the name of an exception and the first line of its message."""
    if isinstance(cause, GeomiamError):
        return str(cause)
    text = str(cause).strip().splitlines()
    name = type(cause).__name__
    return f"{name}: {text[0][:REASON]}" if text else name


def _short(path: Path) -> str:
    text = str(path)
    return text if len(text) <= REASON else f"{text[:60]}… ({len(text):,} characters)"
