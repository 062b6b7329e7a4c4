"""A list of modules of one type, so that type checkers see the type of its items."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar, cast, overload

from torch import nn

M = TypeVar("M", bound=nn.Module)


class Modules(nn.ModuleList, Generic[M]):
    """A :class:`torch.nn.ModuleList` whose items are of type ``M``; at run time it is the same."""

    def __init__(self, modules: Iterable[M] = ()):
        super().__init__(modules)

    def __iter__(self) -> Iterator[M]:
        return cast("Iterator[M]", super().__iter__())

    @overload
    def __getitem__(self, idx: slice) -> Modules[M]: ...

    @overload
    def __getitem__(self, idx: int) -> M: ...

    def __getitem__(self, idx: int | slice) -> M | Modules[M]:
        return cast("M | Modules[M]", super().__getitem__(idx))
