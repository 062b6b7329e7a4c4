"""Run the blocks of a map in threads or on a cluster, and report the run."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from geomiam.errors import MissingModality
from geomiam.inference.allocator import keep_freed_memory
from geomiam.inference.cells import torch_threads
from geomiam.maps.blocks import Index
from geomiam.maps.job import BlockResult, Job
from geomiam.maps.plan import parallel_blocks
from geomiam.maps.store import Writes
from geomiam.progress import log, progress_bar
from geomiam.workers import active_client


@dataclass(frozen=True)
class MapReport:
    """Counts, time and memory of a run that wrote a map."""

    path: str
    cells: int
    """Predicted cells of the map."""
    species: int
    blocks: int
    """Blocks written in this run; a resumed map has others."""
    of: int
    """Blocks of the map."""
    worked: int
    """Cells, with or without data, of the blocks written in this run."""
    seconds: float
    peak: int
    """Peak memory in bytes of a process that wrote blocks."""

    def __str__(self) -> str:
        from dask.utils import format_bytes, format_time

        return (
            f"{self.cells:,} cells predicted for {self.species:,} species; "
            f"{self.blocks:,} of {self.of:,} blocks written in this run, "
            f"{self.worked / max(self.seconds, 1e-9):,.0f} cells/s, peak {format_bytes(self.peak)} "
            f"per process, {format_time(self.seconds)} → {self.path}"
        )


def run_blocks(
    job: Job, ds: xr.Dataset, marks: np.ndarray, *, client: Any, writes: Writes
) -> list[BlockResult]:
    """Compute and write the blocks without a mark."""
    todo = [tuple(map(int, i)) for i in np.argwhere(marks == 0)]
    client = client or active_client()
    results = []
    cells = job.blocks.cells
    done_cells = cells - sum(map(job.blocks.cells_in, todo))
    if done_cells:
        log(f"the map resumes: {done_cells:,} of {cells:,} cells are complete")
    options = {"unit": "cell", "unit_scale": True}
    with progress_bar(total=cells, initial=done_cells, desc="map", **options) as bar, _quietly():
        try:
            for result in _run(job, ds, todo, client=client, writes=writes):
                writes.add(result.session)
                results.append(replace(result, session=None))
                bar.update(job.blocks.cells_in(result.index))
        finally:  # blocks that are complete stay, whatever ends the run
            writes.commit()
    return results


def _run(
    job: Job, ds: xr.Dataset, todo: list[Index], *, client: Any, writes: Writes
) -> Iterator[BlockResult]:
    if client is None:
        return _run_in_threads(job, ds, todo, threads=parallel_blocks(None)[0], writes=writes)
    from geomiam.maps.cluster import on_cluster

    return on_cluster(job, ds, todo, client, writes=writes)


def _run_in_threads(
    job: Job, ds: xr.Dataset, todo: Iterable[Index], *, threads: int, writes: Writes
) -> Iterator[BlockResult]:
    """Run blocks in parallel with one torch thread each; one further block waits, so no thread is idle."""
    waiting: set[Future[BlockResult]] = set()
    keep_freed_memory(always=True)
    with torch_threads(1), ThreadPoolExecutor(threads) as pool:
        try:
            for index in todo:
                waiting.add(pool.submit(job, job.part(ds, index), index, writes.fork()))
                if len(waiting) > threads:
                    completed_futures, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    yield from (f.result() for f in completed_futures)
            yield from (f.result() for f in waiting)
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _quietly() -> Iterator[None]:
    """Ignore warnings of missing modalities, which the template has issued for the entire map."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MissingModality)
        yield
