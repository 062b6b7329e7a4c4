"""Blocks on a dask cluster: the model goes once to each worker, blocks follow a few at a time."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import dask
import xarray as xr
from distributed import WorkerPlugin, as_completed

from geomiam.maps.job import Index, Job, Told

JOBS: dict[str, Job] = {}
"""What this worker was sent, by content."""
AHEAD = 2
"""Blocks under way per thread: one that runs, one that waits. More would only fill the scheduler."""
RETRIES = 2


class Deliver(WorkerPlugin):
    """Gives a job to every worker, also to those that start later in the place of one that died."""

    def __init__(self, job: Job):
        self.job, self.name = job, f"geomiam-{job.key}"

    def setup(self, worker: Any) -> None:
        """Keep the job where tasks find it."""
        JOBS[self.job.key] = self.job

    def teardown(self, worker: Any) -> None:
        """Free the model."""
        JOBS.pop(self.job.key, None)


@dataclass(frozen=True)
class Piece:
    """One block on its way; wrapped, so that dask does not look for work inside."""

    part: xr.Dataset
    index: Index


def run_piece(key: str, piece: Piece) -> Told:
    """Answer a block with the job this worker was sent."""
    return JOBS[key](piece.part, piece.index)


def on_cluster(job: Job, ds: xr.Dataset, todo: Iterable[Index], client: Any) -> Iterator[Told]:
    """Run blocks on the client's workers and yield what is told of each, in any order.

    A block whose worker dies runs again on another; one that fails is tried three times.
    """
    deliver = Deliver(job)
    client.register_plugin(deliver)
    name = f"{deliver.name}-{uuid.uuid4().hex[:8]}"
    pieces = ((f"{name}-{index}", _piece(job, ds, index)) for index in todo)
    threads = max(1, sum(client.nthreads().values()))
    under_way = as_completed(loop=client.loop)  # the active client may be another

    def send(count: int) -> None:
        for key, piece in islice(pieces, count):
            how = {"key": key, "retries": RETRIES, "pure": False}
            under_way.add(client.submit(run_piece, job.key, piece, **how))

    try:
        send(AHEAD * threads)
        for future in under_way:
            yield future.result()
            future.release()
            send(1)
    finally:
        client.cancel([f for f in under_way.futures])
        client.unregister_worker_plugin(deliver.name)


def _piece(job: Job, ds: xr.Dataset, index: Index) -> Piece:
    (part,) = dask.optimize(job.part(ds, index))  # only this block's share of the cube's graph
    return Piece(part, index)


def active_client() -> Any:
    """Return the client that is in use, if there is one."""
    from distributed import default_client

    try:
        return default_client()
    except ValueError:
        return None
