"""Run the blocks of a map on a dask cluster: the model is sent once to each worker, blocks a few at a time."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

import dask
import xarray as xr
from distributed import WorkerPlugin, as_completed

from geomiam.maps.blocks import Index
from geomiam.maps.job import BlockResult, Job
from geomiam.maps.store import Writes
from geomiam.workers import warn_without_workers

JOBS: dict[str, Job] = {}
"""Jobs that this worker received, by key."""
AHEAD = 2
"""Blocks per thread: one that runs and one that waits. More would fill the memory of the scheduler."""
RETRIES = 2
"""Further attempts at a block whose task fails."""


class Deliver(WorkerPlugin):
    """Plugin that sends a job to every worker, also to workers that start later."""

    def __init__(self, job: Job):
        self.job, self.name = job, f"geomiam-{job.key}"

    def setup(self, worker: Any) -> None:
        """Store the job for the tasks of this worker."""
        JOBS[self.job.key] = self.job

    def teardown(self, worker: Any) -> None:
        """Release the model."""
        JOBS.pop(self.job.key, None)


@dataclass(frozen=True)
class Piece:
    """One block, wrapped so that dask does not search it for tasks."""

    part: xr.Dataset
    index: Index
    session: Any = None


def run_piece(key: str, piece: Piece) -> BlockResult:
    """Compute and write a block with the job of this worker."""
    return JOBS[key](piece.part, piece.index, piece.session)


def on_cluster(
    job: Job, ds: xr.Dataset, todo: Iterable[Index], client: Any, *, writes: Writes
) -> Iterator[BlockResult]:
    """Run blocks on the workers of a client and yield the result of each, in any order.

    A block whose worker dies runs again on another worker; a block that fails is tried three times.
    """
    deliver = Deliver(job)
    _register(client, deliver)
    name = f"{deliver.name}-{uuid.uuid4().hex[:8]}"
    # optimize: only the tasks of this block are sent
    parts = ((index, dask.optimize(job.part(ds, index))[0]) for index in todo)
    pieces = ((f"{name}-{index}", Piece(part, index, writes.fork())) for index, part in parts)
    under_way = as_completed(loop=client.loop)  # the active client may be another

    def send() -> None:
        """Submit blocks for all threads of the workers, of which more may have started."""
        threads = max(1, sum(client.nthreads().values()))
        for key, piece in islice(pieces, max(0, AHEAD * threads - under_way.count())):
            options = {"key": key, "retries": RETRIES, "pure": False}
            under_way.add(client.submit(run_piece, job.key, piece, **options))

    try:
        with warn_without_workers(client):
            send()
            for future in under_way:
                yield future.result()
                future.release()
                send()
    finally:
        client.cancel([f for f in under_way.futures])
        with suppress(OSError):  # a worker that dies meanwhile needs no removal
            client.unregister_worker_plugin(deliver.name)


def _register(client: Any, deliver: Deliver) -> None:
    """Send a job to all workers, also where one of them dies while it receives the job.

    The scheduler keeps the plugin, so that workers that start later receive it.
    """
    for attempt in range(RETRIES + 1):
        try:
            client.register_plugin(deliver)
            return
        except OSError:  # distributed closes the broadcast with the worker
            if attempt == RETRIES:
                raise
