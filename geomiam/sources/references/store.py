"""References as a read-only Zarr store."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from typing import Any

from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

from geomiam.sources.paths import stamp
from geomiam.sources.references.documents import References, open_references


class ReferenceStore(MemoryStore):
    """Metadata in memory, and chunks that are read from the files that references lead to."""

    supports_writes = False
    supports_deletes = False

    def __init__(self, references: References) -> None:
        keys: dict[str, Any] = dict.fromkeys(references.metadata)
        super().__init__(keys, read_only=True)
        self._references = references

    async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
        """Return the bytes of a key, or None where there is no reference."""
        store = await asyncio.to_thread(self._store_of, key, prototype)
        return await store.get(key, prototype or default_buffer_prototype(), byte_range)

    def get_sync(self, key: str, *, prototype: Any = None, byte_range: Any = None) -> Any:
        """Return the bytes of a key, as :meth:`get`."""
        return self._store_of(key, prototype).get_sync(
            key, prototype=prototype, byte_range=byte_range
        )

    def _store_of(self, key: str, prototype: Any) -> MemoryStore:
        """Return a store with one key, which selects ranges of its bytes; empty if there is no reference."""
        prototype = prototype or default_buffer_prototype()
        try:
            return MemoryStore({key: prototype.buffer.from_bytes(self._references.read(key))})
        except KeyError:
            return MemoryStore()

    async def exists(self, key: str) -> bool:
        """Return whether there are bytes of a key."""
        return await self.get(key) is not None

    def __str__(self) -> str:
        return self._references.targets.location

    def __eq__(self, value: object) -> bool:
        return (
            isinstance(value, ReferenceStore)
            and self._references.targets == value._references.targets
        )

    def __reduce__(self) -> Any:
        """Return the path: a worker of a cluster reads the references itself, once."""
        targets = self._references.targets
        return reference_store, (targets.location, targets.allow)


def reference_store(location: str, allow: tuple[str, ...] = ()) -> ReferenceStore:
    """Open references as a store, once for a file that has not changed, and for a URL. Raises as open_references."""
    stamps = (*stamp(location), *stamp(f"{location}/.zmetadata"))
    return _store(location, allow, stamps)


@lru_cache(maxsize=4)
def _store(location: str, allow: tuple[str, ...], stamp: tuple[Any, ...]) -> ReferenceStore:
    return ReferenceStore(open_references(location, allow))
