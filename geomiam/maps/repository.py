"""A map in a repository of icechunk: blocks are committed, and a branch shows the map when it is complete.

Readers of an object store see a map while it grows, and nothing stops a second writer. In a repository
both are solved by the format: a commit is atomic, and fails if another writer has committed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zarr.errors import ContainsArrayError

from geomiam.errors import OutputBusy, SettingError
from geomiam.maps.store import Place, Writes, group_of

MAIN = "main"
"""Branch that has the complete map."""
BUILDING = "geomiam-building-"
"""Start of the name of the branch that the map grows on; it ends with the snapshot of the main branch."""
CONFLICT = re.compile(r"branch update conflict|ref not found")
"""Texts of icechunk's error for a branch that has changed, or does not exist any longer."""
CONFIG = re.compile(r", config=.*\)$")
"""Options of a connection in the text of a storage, such as its endpoint."""
SECONDS = 30.0
"""Least time between two commits of blocks, since each is kept in the history."""


def place_of(path: Any) -> Place:
    """Return the place of a map: a path, a URL or a repository."""
    if isinstance(path, (str, Path)):
        return Place.of(path)
    if not hasattr(path, "writable_session"):
        raise SettingError(
            f"a map is written to a path or a repository of icechunk, found {type(path).__name__}; open one with "
            "icechunk.Repository.open_or_create(storage)"
        )
    storage = CONFIG.sub(")", f"{path.storage}")
    if "InMemory" in storage:  # a session for a block is a copy, of the memory too
        raise SettingError(
            f"{storage} is in memory, and blocks are written by copies of the repository; write to a path, or to a "
            "repository on disk: icechunk.local_filesystem_storage(path)"
        )
    return RepositoryPlace(storage, path, path.lookup_branch(MAIN))


@dataclass(frozen=True)
class RepositoryPlace(Place):
    """The branches of a repository that a map grows and ends on; ``path`` describes its storage."""

    repository: Any = None
    snapshot: str = ""
    """Snapshot of the main branch that the map is begun from."""

    @property
    def branch(self) -> str:
        """Branch that the map grows on."""
        return BUILDING + self.snapshot

    @property
    def remote(self) -> bool:
        """Whether the map grows at its final place; here it grows on a branch, as in a hidden folder."""
        return False

    @property
    def growing(self) -> str:
        """Text that describes the unfinished map, for messages."""
        return f"branch '{self.branch}' of {self.path}"

    @property
    def finished(self) -> Any:
        """Store of the complete map."""
        return self.repository.readonly_session(MAIN).store

    def claim(self, overwrite: bool, *, inputs: Iterable[Any] = ()) -> None:
        """Refuse to replace other data; inputs of the same repository are snapshots, which stay."""
        attrs: dict[str, Any] | None = {}
        try:
            attrs = dict(group_of(self.finished, "r").attrs)
        except FileNotFoundError:
            attrs = None if is_empty(self.finished) else attrs
        except ContainsArrayError:  # the root is an array
            pass
        self._refuse_content(attrs, overwrite)

    @contextmanager
    def output_lock(self, overwrite: bool, *, inputs: Iterable[Any] = ()) -> Iterator[None]:
        """Commits detect other writers."""
        yield

    def _unfinished(self) -> Any:
        branches = self._branches()
        if self.branch in branches:
            return self.repository.readonly_session(self.branch).store
        # one that the main branch shows is complete, and was not deleted
        left_over = [b for b in branches if self.repository.lookup_branch(b) != self.snapshot]
        if left_over:
            raise OutputBusy(
                f"branch '{MAIN}' of {self.path} has changed since the map on branch '{left_over[0]}' was begun; "
                "pass MapOptions(resume=False) to delete the unfinished map and start again"
            )
        raise FileNotFoundError(self.growing)

    def _branches(self) -> list[str]:
        return sorted(b for b in self.repository.list_branches() if b.startswith(BUILDING))

    def session(self) -> Any:
        """Return a session that writes to the unfinished map; OutputBusy if another writer has completed or removed it."""
        with conflicts(self.growing):
            return self.repository.writable_session(self.branch)

    @contextmanager
    def _changes(self, message: str) -> Iterator[Any]:
        session = self.session()
        yield session.store
        if session.has_uncommitted_changes:
            commit(session, message, self.growing)

    def writes(self) -> Writes:
        """Return the writes of blocks, which are committed together."""
        return Commits(self)

    def _clear(self) -> None:
        with conflicts(self.growing):
            for branch in self._branches():
                self.repository.delete_branch(branch)
            self.repository.create_branch(self.branch, self.snapshot)

    def _sweep(self) -> None:
        """Do nothing: a commit is never partial."""

    def _move(self, overwrite: bool) -> None:
        """Let the main branch show the map, if no other writer has changed it meanwhile."""
        with conflicts(self.growing):
            snapshot = self.repository.lookup_branch(self.branch)
        with conflicts(f"branch '{MAIN}' of {self.path}"):
            self.repository.reset_branch(MAIN, snapshot, from_snapshot_id=self.snapshot)
        self.repository.delete_branch(self.branch)


class Commits(Writes):
    """Blocks that are written in forks of one session and committed together, at intervals of :data:`SECONDS`."""

    def __init__(self, place: RepositoryPlace) -> None:
        self._place = place
        self._base = place.session()
        self._tip: str = self._base.snapshot_id
        self._forks: list[Any] = []
        self._time = time.monotonic()

    def fork(self) -> Any:
        """Return a session for one block, which may be sent to another process."""
        return self._base.fork()

    def add(self, session: Any) -> None:
        """Add the session of a block, and commit if the last commit is some time ago."""
        self._forks.append(session)
        if time.monotonic() - self._time >= SECONDS:
            self.commit()

    def commit(self) -> None:
        """Commit all blocks that were added; OutputBusy if another writer has committed."""
        if not self._forks:
            return
        session = self._place.session()
        if session.snapshot_id != self._tip:
            raise busy(self._place.growing)
        session.merge(*self._forks)
        self._tip = commit(session, f"blocks written: {len(self._forks)}", self._place.growing)
        self._forks, self._time = [], time.monotonic()


def commit(session: Any, message: str, place: str) -> str:
    """Commit a session and return its snapshot; OutputBusy if another writer has committed."""
    with conflicts(place):
        snapshot: str = session.commit(message)
    return snapshot


@contextmanager
def conflicts(place: str) -> Iterator[None]:
    """Raise OutputBusy in place of the errors for a branch that another writer has changed, created or deleted."""
    from icechunk import ConflictError, IcechunkError

    try:
        yield
    except (ConflictError, IcechunkError) as error:
        if isinstance(error, IcechunkError) and not CONFLICT.search(str(error)):
            raise
        raise busy(place) from error


def busy(place: str) -> OutputBusy:
    """Return the error for a conflict of two writers."""
    return OutputBusy(
        f"another process has written to {place} meanwhile: wait until it has finished and call again, or write "
        "elsewhere"
    )


def is_empty(store: Any) -> bool:
    """Return whether a store has no keys."""
    from zarr.core.sync import sync

    return bool(sync(store.is_empty("")))
