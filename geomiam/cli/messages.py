"""Messages on the command line: remedies are flags, and a failure is one line without a traceback.

Errors and warnings state their remedy as a Python argument, such as ``overwrite=True``. The flag of the same
name, here ``--overwrite``, replaces it. A remedy without a flag is marked as Python.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import typer

from geomiam.errors import GeomiamError, printable

OTHER_NAMES = {
    "rng": "seed",
    "warm_start": "start",
    "groups": "group",
    "roots": "root",
    "kinds": "kind",
    "references": "reference",
}
"""Python arguments whose flag has another name."""
CONFIGS = re.compile(
    r"(?:training=|network=|options=|rules=|area=)?(?:gm\.|geomiam\.)?(?:explain\.|sources\.)?"
    r"(?:(?:Training|Network)Config|[A-Z]\w+Options|CleaningRules|BackgroundArea)\(([^()]*)\)"
)
VALUE = (
    r"True|False|None|'[^']*'|\"[^\"]*\"|<[^>]*>|\[[^\]]*\]|\{[^}]*\}|…|\.\.\.|[\w+-]+(?:\.\w+)*"
)
ARGUMENT = re.compile(rf"(?<![\w.\[(])([a-z]\w*)=(?!=)({VALUE})?")
INSIDE = re.compile(r"\b(?:gm|geomiam|ds|cube|sites|table|model|array|sources|torch)\.[\w.]+\(")
DEBUG = "GEOMIAM_TRACEBACK"

Flags = Mapping[str, tuple[str, str]]
"""Argument to its flag, and to the flag that turns it off (or empty)."""


def flags_of(command: Any) -> dict[str, tuple[str, str]]:
    """Return the flags of a verb by the name of their argument."""
    return {
        str(p.name): (p.opts[0], (p.secondary_opts or [""])[0])
        for p in command.params
        if p.opts and p.opts[0].startswith("--")
    }


def verb(command: Any, arguments: Sequence[str]) -> Any:
    """Return the command that the arguments name, also inside groups of commands."""
    for word in arguments:
        inner = getattr(command, "commands", {})
        if word not in inner:
            break
        command = inner[word]
    return command


def with_flags(message: str, flags: Flags) -> str:
    """Return a message with flags in place of Python arguments."""
    plain = CONFIGS.sub(r"\1", message)
    text = ARGUMENT.sub(lambda m: _flag(m, flags), plain)
    return f"{text} (gm.…, ds.… and name= are Python)" if INSIDE.search(text) else text


def _flag(match: re.Match[str], flags: Flags) -> str:
    name, value = match.groups()
    name = name if name in flags else OTHER_NAMES.get(name, name)
    if name not in flags:
        return match[0]
    on, off = flags[name]
    if value in (None, "True"):
        return on
    if value in ("False", "None"):
        return off or f"no {on}"
    bare = value.strip("'\"")
    return f"{on} <value>" if bare in ("…", "...") else f"{on} {_quoted(bare)}"


def _quoted(text: str) -> str:
    return f"'{text}'" if " " in text else text


def run_app(app: typer.Typer) -> None:
    """Run a command line; failures are messages without a traceback, with flags as remedies."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal of another encoding shows escapes
            stream.reconfigure(errors="backslashreplace")
    run(app, flags=lambda: flags_of(verb(typer.main.get_command(app), sys.argv[1:])))


def run(call: Callable[[], Any], *, flags: Callable[[], Flags]) -> None:
    """Call a verb; a failure prints a message on standard error and exits with status 1.

    Parameters
    ----------
    call : callable
    flags : callable
        Function that returns the flags of the verb; called only for a message.
    """
    try:
        with _plain_warnings(flags):
            call()
    except GeomiamError as error:
        fail(with_flags(str(error), flags()))
    except BrokenPipeError:  # the reader of the output has closed it, as with "| head"
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except ImportError as error:
        fail(f"{error}; install what is missing with pip")
    except MemoryError as error:
        fail(
            f"there is not enough memory ({error}); use a smaller area, or fewer species or groups"
        )
    except OSError as error:
        fail(f"the system reports: {error}; check the path, the rights and the free space")
    except Exception as error:
        if os.environ.get(DEBUG):
            traceback.print_exc()
        fail(
            f"unexpected {type(error).__name__}: {error}. This is an error in geomiam: please report it; "
            f"{DEBUG}=1 shows the traceback"
        )


@contextmanager
def _plain_warnings(flags: Callable[[], Flags]) -> Iterator[None]:
    """Format warnings for users without the line of code that they come from, with flags as remedies."""
    usual = warnings.formatwarning

    def plain(message: Any, category: type[Warning], *place: Any, **line: Any) -> str:
        if not issubclass(category, UserWarning):
            return usual(message, category, *place, **line)
        return f"warning: {printable(with_flags(str(message), flags()))}\n"

    warnings.formatwarning = plain
    try:
        yield
    finally:
        warnings.formatwarning = usual


def say(text: object) -> None:
    """Print a result; control characters in names and titles from files are shown as escapes."""
    typer.echo(printable(str(text)))


def fail(message: str) -> NoReturn:
    """Print a message and exit with status 1, whatever the encoding of the terminal."""
    data = f"error: {printable(message)}"
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    typer.echo(data.encode(encoding, "backslashreplace").decode(encoding), err=True)
    sys.exit(1)
