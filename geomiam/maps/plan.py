"""What a map will cost, before it is begun."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from geomiam.errors import MemoryRefused
from geomiam.inference.cells import check_memory as check_chunk_memory
from geomiam.inference.inputs import Data, as_data
from geomiam.maps.job import Job, placed
from geomiam.maps.memory import resident
from geomiam.maps.store import template
from geomiam.maps.trial import cells_with_data, try_block
from geomiam.model.model import Model
from geomiam.model.saved_model import as_model
from geomiam.outputs.html import facts_html

RESERVE = 64 * 2**20
"""Bytes that the allocator holds free for a process and for each thread: twice its padding."""
FRAGMENTS = 1.25
"""Share of memory in use, with the gaps between pieces that are too small to be used again."""


@dataclass(frozen=True)
class MapPlan:
    """Blocks, memory and time of a map."""

    sizes: Mapping[str, int]
    steps: Mapping[str, int]
    blocks: int
    workers: int
    """Blocks that are answered at once, over all processes."""
    threads: int
    """Blocks that are answered at once in one process."""
    bytes_per_task: int
    """Bytes of one block's predictors and results, in all their copies."""
    bytes_of_network: int
    """Bytes that the network of one thread needs for rows of a block, measured in a trial."""
    base: int
    """Bytes that a process holds before its first block: libraries, model, the allocator's reserve."""
    bytes_of_map: int
    """Size of the map before compression."""
    share: float
    """Share of cells with data, in a few blocks."""
    rate: float
    """Cells with data per second and thread, in a trial on a part of one block."""

    @property
    def cells(self) -> int:
        """Cells of the map."""
        return int(np.prod(list(self.sizes.values())))

    @property
    def peak_per_worker(self) -> int:
        """Most bytes that a process will hold."""
        each = self.bytes_per_task + self.bytes_of_network
        return int(self.base + RESERVE + self.threads * (RESERVE + FRAGMENTS * each))

    @property
    def seconds(self) -> float:
        """Expected time of the whole map."""
        return self.cells * self.share / (self.rate * min(self.workers, self.blocks))

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        names = ("cells", "blocks", "memory", "size", "time")
        return facts_html("Plan of a map", dict(zip(names, self._lines())))

    def _lines(self) -> list[str]:
        from dask.utils import format_bytes, format_time

        def grid(sizes: Mapping[str, int]) -> str:
            return " × ".join(f"{n:,}" for n in sizes.values())

        return [
            f"{self.cells:,} cells ({grid(self.sizes)}), about {self.share:.0%} with data",
            f"{self.blocks:,} blocks of {grid(self.steps)}, {self.workers} at once",
            f"{format_bytes(self.bytes_per_task)} per block and {format_bytes(self.bytes_of_network)} of the "
            f"network per thread; at most {format_bytes(self.peak_per_worker)} per process",
            f"{format_bytes(self.bytes_of_map)} on disk before compression",
            f"{self.rate:,.0f} cells/s per thread in a trial: about {format_time(self.seconds)}",
        ]


def plan_map(
    ds: Data,
    model: Model | str | Path,
    *,
    shapley: bool = False,
    client: Any = None,
    chunks: Mapping[str, int] | None = None,
    memory_limit: int | str | None = None,
    **options: Any,
) -> MapPlan:
    """Say what :func:`geomiam.write_map` would do: blocks, memory, time. Nothing is written.

    A part of one block is predicted to measure the time, and a few blocks are read to estimate how many
    cells have data.

    Parameters
    ----------
    ds, model, shapley, client, chunks
        As :func:`geomiam.write_map`.
    memory_limit : int or str, optional
        Most bytes that one block may need; default 4 GiB.
    **options
        Of :func:`geomiam.predict`, or of :func:`geomiam.shapley`.

    Returns
    -------
    MapPlan
        ``str(plan)`` is for people.

    Raises
    ------
    MemoryRefused
        If a block would need more than the limit.
    """
    model = as_model(model)
    ds = as_data(ds, model)
    job = Job.of(ds, model, shapley=shapley, options=options, chunks=chunks)
    made = template(ds, job)
    need = check_memory(job, made, limit=memory_limit)
    job.warn_if_outside(ds)
    base = resident()  # what the trial leaves behind does not count
    parts = [job.part(ds, index) for index in job.blocks.some()]
    share = float(np.mean([cells_with_data(part).mean() for part in parts]))
    trial = try_block(job, ds, out=_bytes_of_results(job, made))
    workers, threads = places(client)
    return MapPlan(
        sizes=job.blocks.sizes,
        steps=job.blocks.steps,
        blocks=job.blocks.count,
        workers=workers,
        threads=threads,
        bytes_per_task=need,
        bytes_of_network=trial.bytes_of_network,
        base=base,
        bytes_of_map=sum(made[n].nbytes for n in placed(made, job.blocks)),
        share=share,
        rate=trial.rate,
    )


def check_memory(job: Job, made: xr.Dataset, *, limit: int | str | None) -> int:
    """Return the bytes that one block needs.

    Raises
    ------
    MemoryRefused
        If it is more than the limit.
    """
    out = _bytes_of_results(job, made)
    try:
        return check_chunk_memory(
            job.model,
            out,
            cells=job.blocks.cells_of_one,
            limit=limit,
            dims=list(job.blocks.sizes),
        )
    except MemoryRefused as error:
        text = str(error).replace("ds.chunk(", "chunks=dict(")
        raise MemoryRefused(text) from None


def _bytes_of_results(job: Job, made: xr.Dataset) -> int:
    """Bytes of one cell's results."""
    return sum(made[n].nbytes for n in placed(made, job.blocks)) // max(1, job.blocks.cells)


def places(client: Any) -> tuple[int, int]:
    """Blocks that run at once: everywhere, and in one process."""
    if client is not None:
        each = list(client.nthreads().values()) or [1]
        return sum(each), max(each)
    import dask.config
    from dask.system import CPU_COUNT

    single = dask.config.get("scheduler", None) in ("synchronous", "sync", "single-threaded")
    threads = 1 if single else int(dask.config.get("num_workers", None) or CPU_COUNT)
    return threads, threads
