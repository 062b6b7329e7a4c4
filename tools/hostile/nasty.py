"""Values that break readers, and random changes of JSON, of bytes and of names."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

VALUES: tuple[Any, ...] = (
    None, "", " ", "x", 0, -1, 1, 2, 0.5, 1e308, -1e308, float("nan"), float("inf"), 10**30, 2**31,
    2**63, 100_000, True, False, [], {}, [[]], [None], {"a": None}, "\ud800", "../../precious",
    "/etc/passwd", "a/b", "a\x00b", "a\x1b[2J", "\u202ex", "n" * 300, "A" * 100_000, "NaN", "1e999",
    "{x}", "%s", "🐍", [1, 2, 3], [3, 2, 1], ["a", "a"], [0] * 10_000, {"0": 0}, "2021-02-30",
)  # fmt: skip
NAMES = (
    *(v for v in VALUES if isinstance(v, str)),
    ".", "..", "zarr.json", ".zattrs", "spatial_ref", "presence", "x", "y", "site", "CON", "a:b",
)  # fmt: skip


def pick(rng: np.random.Generator, values: Any) -> Any:
    return values[int(rng.integers(len(values)))]


def places(value: Any, way: tuple = ()) -> list[tuple]:
    """Return the way to every value inside nested mappings and lists."""
    paths = [way] if way else []
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, inner in items:
        paths += places(inner, (*way, key))
    return paths


def changed(rng: np.random.Generator, data: Any) -> tuple[Any, str]:
    """Return nested data with one random change, and what was changed."""
    data = copy.deepcopy(data)
    way = pick(rng, places(data))
    *front, last = way
    parent = data
    for key in front:
        parent = parent[key]
    action = pick(rng, ("replace", "replace", "replace", "delete", "rename", "double"))
    if action == "delete":
        del parent[last]
        return data, f"delete {way}"
    if action == "rename" and isinstance(parent, dict):
        name = pick(rng, NAMES)
        parent[name] = parent.pop(last)
        return data, f"rename {way} to {name[:30]!r}"
    if action == "double" and isinstance(parent, list):
        parent.append(copy.deepcopy(parent[last]))
        return data, f"double {way}"
    value = pick(rng, VALUES)
    parent[last] = copy.deepcopy(value)
    return data, f"{way} = {repr(value)[:40]}"


def scrambled(rng: np.random.Generator, raw: bytes) -> tuple[bytes, str]:
    """Return bytes that are flipped, cut, doubled, emptied or overwritten somewhere."""
    data = bytearray(raw)
    at = (
        int(rng.integers(len(data)))
        if rng.random() < 0.5
        else int(rng.integers(min(len(data), 512)))
    )
    action = pick(rng, ("flip", "flip", "byte", "word", "cut", "double", "zero", "insert"))
    if action == "flip":
        data[at] ^= 1 << int(rng.integers(8))
    elif action == "byte":
        data[at] = int(rng.integers(256))
    elif action == "word":
        data[at : at + 4] = pick(
            rng, (b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", bytes(4), b"\0\0\0\x80")
        )
    elif action == "cut":
        del data[at:]
    elif action == "double":
        data += data[at:]
    elif action == "zero":
        data[at : at + 64] = bytes(min(64, len(data) - at))
    else:
        data[at:at] = rng.bytes(int(rng.integers(1, 40)))
    return bytes(data), f"{action} at {at} of {len(raw)}"


def special(rng: np.random.Generator) -> tuple[Callable[[Path], None], str]:
    """Return what replaces a file by something that is no file, and its name."""
    kinds: dict[str, Callable[[Path], None]] = {
        "missing": lambda p: None,
        "pipe": lambda p: os.mkfifo(p),
        "folder": lambda p: p.mkdir(),
        "empty": lambda p: p.write_bytes(b"") and None,
        "/dev/zero": lambda p: p.symlink_to("/dev/zero"),
        "/dev/tty": lambda p: p.symlink_to("/dev/tty"),
        "/proc/self/mem": lambda p: p.symlink_to("/proc/self/mem"),
        "loop": lambda p: p.symlink_to(p.name),
        "dangling": lambda p: p.symlink_to("nowhere"),
        "noise": lambda p: p.write_bytes(np.random.default_rng(0).bytes(5000)) and None,
    }
    name = pick(rng, tuple(kinds))
    return kinds[name], name


def replace(path: Path, make: Callable[[Path], None]) -> None:
    if path.is_dir():
        import shutil

        shutil.rmtree(path)
    else:
        path.unlink()
    make(path)
