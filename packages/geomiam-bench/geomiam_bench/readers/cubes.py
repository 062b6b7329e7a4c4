"""Tensors of ``.pt`` files, read without running code of the file.

A ``.pt`` file is a zip. Its ``data.pkl`` describes the layout of tensors in the raw storages ``data/0``,
``data/1``, … in a small stack language. This reader lists the instructions (``pickletools.genops``) and
follows a few of them. The names that a file may call are a fixed list, and all of them build arrays.
"""

from __future__ import annotations

import pickletools
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from geomiam.checks.files import refusing, regular_file
from geomiam.errors import ArtifactError
from geomiam_bench.readers.pt_words import (
    MOST_BYTES,
    MOST_PLAN_BYTES,
    MOST_WORDS,
    WORDS,
    Machine,
    stored,
)


def read_pt(path: str | Path) -> Any:
    """Read the tensors of a file that ``torch.save`` of torch 1.6 or later wrote, as arrays in their containers.

    Nothing of the file is executed: names other than torch's tensors and storages are refused. Raises ArtifactError if
    the file has another form, is damaged, contains other objects, or tensors of more than 1 GiB.
    """
    return _read(Path(path), None)


def _read(path: Path, shape: tuple[int, ...] | None) -> Any:
    regular_file(path, error=ArtifactError)
    with refusing(ArtifactError, f"{path} is damaged; fetch it again"):
        if not zipfile.is_zipfile(path):
            raise ArtifactError(
                f"{path} is not a zip, as torch writes since version 1.6: convert it where you trust "
                "it, with torch.save(torch.load(path), path)"
            )
        with zipfile.ZipFile(path) as archive:
            return _follow(archive, path, shape)


def read_cube(path: str | Path, shape: tuple[int, ...]) -> np.ndarray:
    """Read one tensor of the shape that the data set documents, as float32.

    Raises ArtifactError as :func:`read_pt`, and if the file contains anything but one tensor of this shape.
    """
    tensor = _read(Path(path), tuple(shape))
    if not isinstance(tensor, np.ndarray):
        raise ArtifactError(
            f"{path} holds a {type(tensor).__name__}, expected one tensor of {shape}"
        )
    if tensor.shape != tuple(shape):
        raise ArtifactError(f"{path} holds a tensor of {tensor.shape}, expected {tuple(shape)}")
    return tensor.astype(np.float32)


def _follow(archive: zipfile.ZipFile, path: Path, shape: tuple[int, ...] | None) -> Any:
    plans = [n for n in archive.namelist() if n.split("/")[1:] == ["data.pkl"] or n == "data.pkl"]
    if len(plans) != 1:
        raise ArtifactError(f"{path} has no data.pkl, found {archive.namelist()[:5]}")
    folder = plans[0].removesuffix("data.pkl")
    budget = min(path.stat().st_size, MOST_BYTES)
    order = _byte_order(archive, folder)
    machine = Machine(archive, folder, order, shape=shape, budget=budget)
    plan = stored(archive, plans[0], MOST_PLAN_BYTES)
    for count, (word, argument, _) in enumerate(pickletools.genops(plan)):
        if word.name == "STOP":
            return machine.stack.pop()
        if word.name not in WORDS or count > MOST_WORDS:
            raise ArtifactError(
                f"{path} holds more than tensors ({word.name}); nothing of it was run. Save the tensor "
                "alone, with torch.save(tensor, path)"
            )
        WORDS[word.name](machine, argument)
    raise ValueError("it stops early")


def _byte_order(archive: zipfile.ZipFile, folder: str) -> str:
    name = f"{folder}byteorder"
    order = stored(archive, name, 16) if name in archive.namelist() else b"little"
    return {b"little": "<", b"big": ">"}[order]
