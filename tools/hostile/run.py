"""Run hostile inputs one by one in child processes with limits of time and memory, and class what happens.

An input is *refused* (an error of geomiam, or a message of the command line), *unclear* (any other
error), *accepted*, *wrong* (accepted, but the result is not that of the intact input), or *damage*
(hung, more than 1 GiB, crashed, or a file changed that is not the output).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geomiam.errors import GeomiamError

CPU_SECONDS = 25.0
WALL_SECONDS = 300.0
MOST_BYTES = 2**30
OUTCOMES = ("refused", "unclear", "accepted", "wrong", "damage")
TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Input:
    """One hostile input.

    Attributes
    ----------
    family, name
        For the report.
    prepare
        Called with an empty folder; writes the input there.
    call
        Called with the folder in the child process. Returns True if the result is right or cannot be
        judged, False if it is wrong; raises what geomiam raises.
    outputs
        Names inside the folder that may change.
    """

    family: str
    name: str
    prepare: Callable[[Path], None]
    call: Callable[[Path], bool]
    outputs: tuple[str, ...] = ("out",)


class Refused(Exception):
    """A message of the command line that refuses."""


class Unclear(Exception):
    """A message of the command line that is not clear, or a traceback."""


def classify(item: Input) -> tuple[str, str]:
    """Return the outcome of an input, and what was printed or raised."""
    home = Path(tempfile.mkdtemp(prefix="hostile-"))
    try:
        folder = home / "work"
        folder.mkdir()
        (home / "precious").mkdir()
        (home / "precious" / "thesis.txt").write_text("years of work")
        apart(lambda: item.prepare(folder))
        before = _files(home, item.outputs)
        outcome, text = _guarded(lambda: item.call(folder))
        after = _files(home, item.outputs)
        if changed_files := sorted(k for k in before if before[k] != after.get(k)):
            return "damage", f"changed: {changed_files[:5]}; {text}"
        return outcome, text
    finally:
        shutil.rmtree(home, ignore_errors=True)


def apart(call: Callable[[], Any]) -> None:
    """Call in a child process: threads that a library starts here would be missing in later children."""
    if not (child := os.fork()):
        try:
            call()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    if os.waitpid(child, 0)[1]:
        raise RuntimeError("an input could not be prepared")


def _files(home: Path, outputs: tuple[str, ...]) -> dict[str, str]:
    """Digest of every ordinary file that is no output."""
    contents = {}
    for path in sorted(home.rglob("*")):
        parts = path.relative_to(home).parts
        if parts[:1] == ("work",) and len(parts) > 1 and parts[1] in outputs:
            continue
        if path.is_symlink():
            contents["/".join(parts)] = os.readlink(path)
        elif path.is_file():
            contents["/".join(parts)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return contents


def _guarded(call: Callable[[], Any]) -> tuple[str, str]:
    """Call in a child process; the parent stops it at the limits."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    if not (child := os.fork()):
        os.write(writer, json.dumps(_outcome(call)).encode())
        os._exit(0)
    os.close(writer)
    stop_reason = _watch(child)
    text = b"" if stop_reason else os.read(reader, 10**6)
    os.close(reader)
    if stop_reason:
        return "damage", stop_reason
    return tuple(json.loads(text)) if text else ("damage", "the process crashed")


def _outcome(call: Callable[[], Any]) -> tuple[str, str]:
    try:
        return ("accepted", "") if call() else ("wrong", "the result differs")
    except (GeomiamError, Refused) as error:
        return "refused", f"{type(error).__name__}: {error}"[:300]
    except BaseException as error:
        location = error.__traceback__
        while location and location.tb_next:
            location = location.tb_next
        file = f"{location.tb_frame.f_code.co_filename}:{location.tb_lineno}" if location else ""
        return "unclear", f"{type(error).__name__}: {error}"[:300] + f" at {file}"


def _watch(child: int) -> str:
    """Wait for a child; return why it was stopped, or an empty text."""
    start_time, base = time.monotonic(), None
    while not os.waitpid(child, os.WNOHANG)[0]:
        memory, seconds = _used(child)
        base = memory if base is None else base
        reason = ""
        if memory - base > MOST_BYTES:
            reason = f"more than {MOST_BYTES:,} bytes"
        elif seconds > CPU_SECONDS:
            reason = f"more than {CPU_SECONDS} s"
        elif (wait_seconds := time.monotonic() - start_time) > WALL_SECONDS or (
            wait_seconds > 60 and seconds < 2
        ):
            reason = f"waited {wait_seconds:.0f} s"
        if reason:
            os.kill(child, 9)
            os.waitpid(child, 0)
            return reason
        time.sleep(0.005)
    return ""


def _used(child: int) -> tuple[int, float]:
    """Bytes in memory and seconds of processor time of a process."""
    try:
        memory = int(Path(f"/proc/{child}/statm").read_text().split()[1]) * PAGE
        fields = Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()
        return memory, (int(fields[11]) + int(fields[12])) / TICK
    except (OSError, IndexError):
        return 0, 0.0


def table(results: list[tuple[Input, str, str]]) -> str:
    """Return the counts by family as Markdown."""
    families = list(dict.fromkeys(item.family for item, _, _ in results))
    lines = [f"| family | {' | '.join(OUTCOMES)} |", "| --- |" + " --- |" * len(OUTCOMES)]
    for family in families:
        outcomes = [outcome for item, outcome, _ in results if item.family == family]
        lines.append(f"| {family} | " + " | ".join(str(outcomes.count(o)) for o in OUTCOMES) + " |")
    return "\n".join(lines)


def run(inputs: Iterator[Input], *, verbose: bool = True) -> list[tuple[Input, str, str]]:
    """Run all inputs in order; unclear, wrong and damaging ones are printed at once."""
    results = []
    for item in inputs:
        outcome, text = classify(item)
        results.append((item, outcome, text))
        if verbose and len(results) % 25 == 0:
            print(f"{len(results)} inputs", file=sys.stderr, flush=True)
        if verbose and outcome not in ("refused", "accepted"):
            print(f"{outcome}: {item.family}: {item.name}: {text}".replace("\n", " "), flush=True)
    return results
