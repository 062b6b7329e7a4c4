"""The stack machine behind ``.pt`` files: which words are followed, and what they build.

The description of a file is a small stack language. Its words are only listed
(``pickletools.genops``) and a few of them followed; the names that it may call are a fixed list, and
all of them build arrays. Sizes are checked before memory is taken.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
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
MOST_BYTES = 2**30
"""Of all tensors together: strides of zero could make a small file fill the memory."""
MOST_PLAN_BYTES = 2**24
MOST_WORDS = 100_000
MOST_DIMS = 32
MARK = object()


@dataclass(frozen=True)
class _Storage:
    """Raw numbers of the file, one dim."""

    values: np.ndarray


@dataclass
class Machine:
    """The stack on which the description of a file is followed."""

    archive: zipfile.ZipFile
    folder: str
    order: str
    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    storages: dict[str, _Storage] = field(default_factory=dict)
    shape: tuple[int, ...] | None = None
    """Of the only tensor, where it is expected."""
    bytes: int = 0
    """Of all tensors so far."""
    budget: int = MOST_BYTES
    """Bytes that storages may still have: all together no more than the file, so none overlap."""

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


def stored(archive: zipfile.ZipFile, name: str, byte_limit: int) -> bytes:
    """Bytes of a member; compressed ones are refused, since they may hold any size."""
    member = archive.getinfo(name)
    if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
        raise ArtifactError(f"'{name}' is compressed, which torch never writes; it was not read")
    if member.file_size > byte_limit:
        raise ArtifactError(f"'{name}' has {member.file_size:,} bytes, more than {byte_limit:,}")
    return archive.read(name)


def _push(machine: Machine, argument: Any) -> None:
    machine.stack.append(argument)


def _text(value: Any) -> str:
    """A text; anything else is refused, since a hash of nested tuples may take for ever."""
    if not isinstance(value, str):
        raise ValueError(f"a {type(value).__name__} where text was expected")
    return value


def _name(machine: Machine, argument: str) -> None:
    """A name to call, as the text ``module name``: never the thing itself."""
    module, _, name = argument.partition(" ")
    is_callable = f"{module}.{name}" in CALLS or (module == "torch" and name in STORAGES)
    if not is_callable:
        raise ArtifactError(
            f"the file wants to call {module}.{name}; only plain tensors of numbers are read, and nothing "
            "of it was run. Save the tensor alone, with torch.save(tensor.detach().float(), path)"
        )
    machine.stack.append(("call", f"{module}.{name}"))


def _stack_name(machine: Machine, argument: None) -> None:
    _name(machine, " ".join(map(_text, machine.last(2))))


def _reduce(machine: Machine, argument: None) -> None:
    (kind, name), arguments = machine.last(2)
    if kind != "call" or _text(name) not in CALLS:
        raise ValueError(f"'{name}' cannot be called")
    machine.stack.append(CALLS[name](machine, *arguments))


def _storage(machine: Machine, argument: None) -> None:
    """``("storage", class, key, place, count)`` → the numbers of ``data/<key>``."""
    (storage_fields,) = machine.last(1)
    tag, (_, name), key, _, count = storage_fields
    if tag != "storage" or not _text(key).isalnum():
        raise ValueError(f"storage '{key}' is not named as torch does")
    if key not in machine.storages:
        dtype = np.dtype(STORAGES[name.removeprefix("torch.")]).newbyteorder(machine.order)  # type: ignore[arg-type]
        raw = stored(machine.archive, f"{machine.folder}data/{key}", machine.budget)
        machine.budget -= len(raw)
        if len(raw) != count * dtype.itemsize:
            raise ValueError(f"storage '{key}' has {len(raw)} bytes for {count} values of {dtype}")
        machine.storages[key] = _Storage(np.frombuffer(raw, dtype))
    machine.stack.append(machine.storages[key])


def _put(machine: Machine, argument: int | None) -> None:
    machine.memo[len(machine.memo) if argument is None else argument] = machine.stack[-1]


def _fill_dict(machine: Machine, argument: None) -> None:
    items = machine.since_mark()
    for key, value in zip(items[::2], items[1::2], strict=True):
        machine.stack[-1][_key(key)] = value


def _set_item(machine: Machine, argument: None) -> None:
    key, value = machine.last(2)
    machine.stack[-1][_key(key)] = value


def _key(value: Any) -> str | int:
    return value if isinstance(value, int) else _text(value)


def _append(machine: Machine, argument: None) -> None:
    (item,) = machine.last(1)
    machine.stack[-1].append(item)


def _append_all(machine: Machine, argument: None) -> None:
    items = machine.since_mark()
    machine.stack[-1].extend(items)


def _count(value: Any) -> int:
    """A size, stride or offset."""
    if not isinstance(value, int) or not 0 <= value < 2**62:
        raise ValueError(f"a size, stride or offset is {value!r}")
    return value


def _tensor(
    machine: Machine,
    storage: _Storage,
    offset: int,
    size: tuple,
    stride: tuple,
    *unused_arguments: Any,
) -> np.ndarray:
    """Copy a view of a storage to an array; other properties that torch stores concern training only."""
    size, stride = tuple(map(_count, size)), tuple(map(_count, stride))
    values = storage.values
    if len(size) != len(stride) or len(size) > MOST_DIMS:
        raise ValueError(f"a tensor of {size} with strides {stride} cannot exist")
    if machine.shape is not None and size != machine.shape:
        raise ArtifactError(f"the file holds a tensor of {size}, expected {machine.shape}")
    machine.bytes += prod(size) * values.itemsize
    if machine.bytes > MOST_BYTES:
        raise ArtifactError(f"with a tensor of {size}, the file has more than {MOST_BYTES:,} bytes")
    offset = _count(offset)
    reach = offset + sum((n - 1) * s for n, s in zip(size, stride)) + 1 if prod(size) else 0
    if reach > len(values):
        raise ValueError(f"a tensor of {size} reaches over its {len(values)} stored values")
    steps = [s * values.itemsize for s in stride]
    start = values[offset:] if prod(size) else values[:0]
    view = np.lib.stride_tricks.as_strided(start, size, steps, writeable=False)
    return view.astype(values.dtype.newbyteorder("="), order="C")


CALLS: dict[str, Callable] = {
    "torch._utils._rebuild_tensor_v2": _tensor,
    "collections.OrderedDict": lambda machine: {},
}
"""Everything that a file may call, and what is done instead."""

WORDS: dict[str, Callable[[Machine, Any], None]] = {
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
