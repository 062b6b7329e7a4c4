"""Tensors of ``.pt`` files, read without running anything that the file says.

A ``.pt`` file is a zip: ``data.pkl`` tells how tensors lie in the raw storages ``data/0``, ``data/1``, …
The telling is a small stack language. Here its words are only listed (``pickletools.genops``) and a few
of them followed; the names that it may call are a fixed list, and all of them build arrays.
"""

from __future__ import annotations

import pickletools
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from geomiam.errors import ArtifactError

STORAGES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
MOST_VALUES = 2**28
"""A larger tensor is refused: strides of zero could make a small file fill the memory."""
MOST_WORDS = 100_000
MARK = object()
DAMAGE = (zipfile.BadZipFile, ValueError, LookupError, TypeError, AttributeError, EOFError)


@dataclass(frozen=True)
class _Storage:
    """Raw numbers of the file, one dim."""

    values: np.ndarray


@dataclass
class _Machine:
    """The stack on which the description of a file is followed."""

    archive: zipfile.ZipFile
    folder: str
    order: str
    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    storages: dict[str, _Storage] = field(default_factory=dict)
    values: int = 0
    """Values of all tensors so far."""

    def since_mark(self) -> list[Any]:
        """Take what lies above the last mark, and the mark."""
        at = max(i for i, item in enumerate(self.stack) if item is MARK)
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items

    def last(self, count: int) -> list[Any]:
        """Take some items off the top, the deepest first."""
        if count > len(self.stack):
            raise IndexError("too few items on the stack")
        items = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return items


def read_pt(path: str | Path) -> Any:
    """Read the tensors of a file that ``torch.save`` wrote, as arrays.

    Nothing of the file is executed: names other than torch's tensors and storages are refused.

    Parameters
    ----------
    path : path
        Written by torch 1.6 or later.

    Returns
    -------
    numpy.ndarray, or dict, list or tuple of them
        What was saved: a tensor, or containers of tensors, numbers and texts. Data types are those of
        the storages; strides and offsets are honoured.

    Raises
    ------
    ArtifactError
        If the file is not of this form, is damaged, holds anything else, or a tensor of more than
        2^28 values.
    """
    if Path(path).exists() and not zipfile.is_zipfile(path):
        raise ArtifactError(
            f"{path} is not a zip, as torch writes since version 1.6: convert it where you trust it, "
            "with torch.save(torch.load(path), path)"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            return _follow(archive, Path(path))
    except DAMAGE as error:
        raise ArtifactError(f"{path} is damaged ({error}); fetch it again") from None


def read_cube(path: str | Path, shape: tuple[int, ...]) -> np.ndarray:
    """Read one tensor of a known shape as float32.

    Parameters
    ----------
    path : path
    shape : tuple of int
        What the layout of the data set promises.

    Returns
    -------
    numpy.ndarray
        float32.

    Raises
    ------
    ArtifactError
        As :func:`read_pt`, and if the file holds anything but one tensor of this shape.
    """
    found = read_pt(path)
    if not isinstance(found, np.ndarray):
        raise ArtifactError(
            f"{path} holds a {type(found).__name__}, expected one tensor of {shape}"
        )
    if found.shape != tuple(shape):
        raise ArtifactError(f"{path} holds a tensor of {found.shape}, expected {tuple(shape)}")
    return found.astype(np.float32)


def _follow(archive: zipfile.ZipFile, path: Path) -> Any:
    plans = [n for n in archive.namelist() if n.split("/")[1:] == ["data.pkl"] or n == "data.pkl"]
    if len(plans) != 1:
        raise ArtifactError(f"{path} has no data.pkl, found {archive.namelist()[:5]}")
    folder = plans[0].removesuffix("data.pkl")
    machine = _Machine(archive, folder, _byte_order(archive, folder))
    for count, (word, argument, _) in enumerate(pickletools.genops(_stored(archive, plans[0]))):
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
    said = archive.read(name) if name in archive.namelist() else b"little"
    return {b"little": "<", b"big": ">"}[said]


def _stored(archive: zipfile.ZipFile, name: str) -> bytes:
    """Bytes of a member; compressed ones are refused, since they may hold any size."""
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise ArtifactError(f"'{name}' is compressed, which torch never writes; it was not read")
    return archive.read(name)


# Words -----------------------------------------------------------------------------------------


def _push(machine: _Machine, argument: Any) -> None:
    machine.stack.append(argument)


def _name(machine: _Machine, argument: str) -> None:
    """A name to call, as the text ``module name``: never the thing itself."""
    module, _, name = argument.partition(" ")
    known = f"{module}.{name}" in CALLS or (module == "torch" and name in STORAGES)
    if not known:
        raise ArtifactError(
            f"the file wants to call {module}.{name}; only plain tensors of numbers are read, and nothing "
            "of it was run. Save the tensor alone, with torch.save(tensor.detach().float(), path)"
        )
    machine.stack.append(("call", f"{module}.{name}"))


def _stack_name(machine: _Machine, argument: None) -> None:
    _name(machine, " ".join(machine.last(2)))


def _reduce(machine: _Machine, argument: None) -> None:
    (kind, name), given = machine.last(2)
    if kind != "call" or name not in CALLS:
        raise ValueError(f"'{name}' cannot be called")
    machine.stack.append(CALLS[name](machine, *given))


def _storage(machine: _Machine, argument: None) -> None:
    """``("storage", class, key, place, count)`` → the numbers of ``data/<key>``."""
    (said,) = machine.last(1)
    what, (_, name), key, _, count = said
    if what != "storage" or not str(key).isalnum():
        raise ValueError(f"storage '{key}' is not named as torch does")
    if key not in machine.storages:
        dtype = np.dtype(STORAGES[name.removeprefix("torch.")]).newbyteorder(machine.order)  # type: ignore[arg-type]
        raw = _stored(machine.archive, f"{machine.folder}data/{key}")
        if len(raw) != count * dtype.itemsize:
            raise ValueError(f"storage '{key}' has {len(raw)} bytes for {count} values of {dtype}")
        machine.storages[key] = _Storage(np.frombuffer(raw, dtype))
    machine.stack.append(machine.storages[key])


def _put(machine: _Machine, argument: int | None) -> None:
    machine.memo[len(machine.memo) if argument is None else argument] = machine.stack[-1]


def _fill_dict(machine: _Machine, argument: None) -> None:
    items = machine.since_mark()
    machine.stack[-1].update(zip(items[::2], items[1::2], strict=True))


def _set_item(machine: _Machine, argument: None) -> None:
    key, value = machine.last(2)
    machine.stack[-1][key] = value


def _append(machine: _Machine, argument: None) -> None:
    (item,) = machine.last(1)
    machine.stack[-1].append(item)


def _append_all(machine: _Machine, argument: None) -> None:
    items = machine.since_mark()
    machine.stack[-1].extend(items)


def _tensor(
    machine: _Machine, storage: _Storage, offset: int, size: tuple, stride: tuple, *rest: Any
) -> np.ndarray:
    """An array of its own from a view of a storage; what else torch notes down is about training."""
    size, stride = tuple(map(int, size)), tuple(map(int, stride))
    values = storage.values
    machine.values += prod(size)
    if len(size) != len(stride) or min((*size, *stride, offset), default=0) < 0:
        raise ValueError(f"a tensor of {size} with strides {stride} from {offset} cannot be")
    if machine.values > MOST_VALUES:
        raise ArtifactError(f"with a tensor of {size}, the file has more than {MOST_VALUES} values")
    reach = offset + sum((n - 1) * s for n, s in zip(size, stride)) + 1 if prod(size) else 0
    if reach > len(values):
        raise ValueError(f"a tensor of {size} reaches over its {len(values)} stored values")
    steps = [s * values.itemsize for s in stride]
    start = values[offset:] if prod(size) else values[:0]
    view = np.lib.stride_tricks.as_strided(start, size, steps, writeable=False)
    return view.astype(values.dtype.newbyteorder("="), order="C")


CALLS: dict[str, Callable] = {
    "torch._utils._rebuild_tensor_v2": _tensor,
    "collections.OrderedDict": lambda machine, *items: dict(*items),
}
"""Everything that a file may call, and what is done instead."""

WORDS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda m, a: None,
    "FRAME": lambda m, a: None,
    "MARK": lambda m, a: m.stack.append(MARK),
    "GLOBAL": _name,
    "STACK_GLOBAL": _stack_name,
    "REDUCE": _reduce,
    "BINPERSID": _storage,
    "MEMOIZE": _put,
    "NONE": _push,
    "NEWTRUE": lambda m, a: m.stack.append(True),
    "NEWFALSE": lambda m, a: m.stack.append(False),
    "EMPTY_DICT": lambda m, a: m.stack.append({}),
    "EMPTY_LIST": lambda m, a: m.stack.append([]),
    "EMPTY_TUPLE": lambda m, a: m.stack.append(()),
    "TUPLE": lambda m, a: m.stack.append(tuple(m.since_mark())),
    "TUPLE1": lambda m, a: m.stack.append(tuple(m.last(1))),
    "TUPLE2": lambda m, a: m.stack.append(tuple(m.last(2))),
    "TUPLE3": lambda m, a: m.stack.append(tuple(m.last(3))),
    "SETITEM": _set_item,
    "SETITEMS": _fill_dict,
    "APPEND": _append,
    "APPENDS": _append_all,
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _put),
    **dict.fromkeys(
        ("BINGET", "LONG_BINGET"), lambda machine, a: machine.stack.append(machine.memo[a])
    ),
    **dict.fromkeys(
        (
            "BININT",
            "BININT1",
            "BININT2",
            "LONG1",
            "BINFLOAT",
            "BINUNICODE",
            "SHORT_BINUNICODE",
        ),
        _push,
    ),
}
"""The words that are followed; any other ends the reading."""
