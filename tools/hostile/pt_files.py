"""Hostile ``.pt`` files."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from geomiam_bench.readers.cubes import read_cube, read_pt

from . import nasty
from .run import Input

SHAPE = (2, 3, 4)
OPS = b"(.0)]}lNt\x85\x86\x87\x88\x89JKMUXcRbdeasuQhjqr\x8c\x93\x94\x95i2o1"
WORDS = (
    b"cos\nsystem\n", b"cbuiltins\neval\n", b"ctorch\nFloatStorage\n", b"X\x02\0\0\0ls", b"J\xff\xff\xff\x7f",
    b"ctorch._utils\n_rebuild_tensor_v2\n", b"G\x7f\xf0\0\0\0\0\0\0", b"\x8a\x09\0\0\0\0\0\0\0\0\x01",
    b"B\xff\xff\xff\xff", b"X\xff\xff\xff\xff", b"C\x01x", b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7f",
)  # fmt: skip


def cube() -> torch.Tensor:
    return torch.arange(24, dtype=torch.float32).reshape(SHAPE)


def saved() -> bytes:
    buffer = io.BytesIO()
    torch.save(cube(), buffer)
    return buffer.getvalue()


def inputs(rng: np.random.Generator, count: int) -> Iterator[Input]:
    for number in range(count):
        yield _one(np.random.default_rng(rng.integers(2**63)), number)


def _one(rng: np.random.Generator, number: int) -> Input:
    kind = nasty.pick(
        rng, ("bytes", "bytes", "plan", "words", "numbers", "members", "file", "other")
    )
    raw, special, name = saved(), None, ""
    if kind == "bytes":
        raw, name = nasty.scrambled(rng, raw)
    elif kind in ("plan", "words", "numbers", "members"):
        raw, name = _remade(rng, raw, kind)
    elif kind == "file":
        special, name = nasty.special(rng)
    else:
        raw, name = _other(rng)

    def prepare(folder: Path) -> None:
        (folder / "a.pt").write_bytes(raw)
        if special:
            nasty.replace(folder / "a.pt", special)

    def call(folder: Path) -> bool:
        if number % 2:
            return bool((read_cube(folder / "a.pt", SHAPE) == cube().numpy()).all())
        read_pt(folder / "a.pt")
        return True

    is_judged = number % 2 and kind == "bytes"
    return Input(
        ".pt files", f"#{number} {kind} {name}", prepare, call if is_judged else _read(call)
    )


def _read(call):
    def read(folder: Path) -> bool:
        call(folder)
        return True

    return read


def _remade(rng: np.random.Generator, raw: bytes, kind: str) -> tuple[bytes, str]:
    out, name = io.BytesIO(), kind
    with zipfile.ZipFile(io.BytesIO(raw)) as old, zipfile.ZipFile(out, "w") as new:
        for member in old.namelist():
            data = old.read(member)
            if member.endswith("data.pkl"):
                data, name = _plan(rng, data, kind)
            elif kind == "members":
                action = nasty.pick(
                    rng, ("keep", "drop", "twice", "long", "short", "rename", "packed")
                )
                name = f"{name} {member}: {action}"
                if action == "drop":
                    continue
                if action == "twice":
                    new.writestr(member, data)
                data = data * 3 if action == "long" else data[:-3] if action == "short" else data
                member = "../../precious/thesis.txt" if action == "rename" else member
                if action == "packed":
                    new.writestr(member, bytes(2**26), zipfile.ZIP_DEFLATED)
                    continue
            new.writestr(member, data)
    return out.getvalue(), name


def _plan(rng: np.random.Generator, data: bytes, kind: str) -> tuple[bytes, str]:
    if kind == "plan":
        return nasty.scrambled(rng, data)
    if kind == "numbers":
        at = nasty.pick(rng, [i for i in range(len(data)) if data[i : i + 1] == b"K"])
        value = nasty.pick(
            rng, (0, -1, 255, 2**20, 2**31, 2**62, 2**70, float("inf"), 0.5, "x", None)
        )
        return data[:at] + pickle.dumps(value, 2)[2:-1] + data[at + 2 :], f"number {value}"
    if kind == "words":
        words = b"".join(
            nasty.pick(rng, WORDS) if rng.random() < 0.3 else bytes([nasty.pick(rng, OPS)])
            for _ in range(int(rng.integers(1, 60)))
        )
        return b"\x80\x02" + words + b".", f"words {words[:30]!r}"
    return data, "members"


def _other(rng: np.random.Generator) -> tuple[bytes, str]:
    makers = {
        "module": lambda: torch.nn.Linear(2, 2),
        "sparse": lambda: torch.eye(3).to_sparse(),
        "quantized": lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
        "complex": lambda: torch.ones(3, dtype=torch.complex64),
        "numpy": lambda: np.ones(3),
        "nested": lambda: {"a": [{"b": (cube(), 1, None, "x")}]},
        "string": lambda: "text",
        "wide": lambda: torch.zeros(1).expand(2**16, 2**16),
        "none": lambda: None,
        "class": lambda: {1, 2},
    }
    name = nasty.pick(rng, tuple(makers))
    if name == "string" and rng.random() < 0.5:
        return struct.pack("<Q", 2**60) + b"x" * 100, "no zip"
    buffer = io.BytesIO()
    torch.save(makers[name](), buffer)
    return buffer.getvalue(), name
