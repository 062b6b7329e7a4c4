"""Results per pattern of observed features, in memory of bounded size that all blocks of a process share."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any, TypeVar

T = TypeVar("T")

MOST_BYTES = 2**27
"""Bytes of all results; the result that was used least recently is removed first."""


class PatternCache:
    """Results by key, with their sizes in bytes."""

    def __init__(self, most_bytes: int = MOST_BYTES):
        self.most_bytes = most_bytes
        self._results: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def get(self, key: Hashable, compute: Callable[[], T], size: Callable[[T], int]) -> T:
        """Return the result of a key, computed at its first use."""
        with self._lock:
            if key in self._results:
                self._results.move_to_end(key)
                result_before: T = self._results[key][0]
                return result_before
        # Two threads may compute the same result: it is equal, and a lock would stop all others.
        result = compute()
        with self._lock:
            self._bytes += size(result) - self._results.pop(key, (None, 0))[1]
            self._results[key] = result, size(result)
            while self._bytes > self.most_bytes and len(self._results) > 1:
                self._bytes -= self._results.popitem(last=False)[1][1]
        return result

    def __len__(self) -> int:
        return len(self._results)


PATTERNS = PatternCache()
