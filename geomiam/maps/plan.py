"""Estimate blocks, memory and time of a map before the start."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from geomiam.errors import MemoryRefused
from geomiam.inference.cells import check_memory as check_chunk_memory
from geomiam.inference.inputs import Data, as_data
from geomiam.inference.options import MapOptions
from geomiam.maps.cost import MapCost, cost_of
from geomiam.maps.job import Job, cell_variables
from geomiam.maps.memory import resident
from geomiam.maps.store import template
from geomiam.maps.trial import cells_with_data, try_block
from geomiam.model.model import Model
from geomiam.model.saved_model import as_model
from geomiam.outputs.text import facts_html
from geomiam.tokens.select import Selector

RESERVE = 64 * 2**20
"""Free bytes that the allocator holds for a process and for each thread: twice its padding."""
FRAGMENTS = 1.25
"""Measured factor for gaps between allocations that are too small to be used again."""


@dataclass(frozen=True)
class MapPlan:
    """Blocks, memory and time of a map.

    See Also
    --------
    geomiam.plan_map : return the plan of a map.

    Examples
    --------
    >>> plan = gm.plan_map(cube, model)
    >>> plan.peak_per_worker > plan.bytes_per_task
    True
    """

    sizes: Mapping[str, int]
    steps: Mapping[str, int]
    blocks: int
    workers: int
    """Blocks that run at the same time in all processes."""
    threads: int
    """Blocks that run at the same time in one process."""
    bytes_per_task: int
    """Bytes of the predictors and results of one block, with all copies."""
    bytes_of_network: int
    """Bytes that the network needs per thread, measured in a trial."""
    base: int
    """Bytes of a process before its first block: libraries, model, reserve of the allocator."""
    bytes_of_cube: int
    """Bytes of the predictors before compression."""
    bytes_of_map: int
    """Bytes of the map before compression."""
    share: float
    """Share of cells with data in a few blocks."""
    rate: float
    """Cells with data per second and thread, in a trial on a part of one block."""

    @property
    def cells(self) -> int:
        """Cells of the map."""
        return int(np.prod(list(self.sizes.values())))

    @property
    def peak_per_worker(self) -> int:
        """Estimated peak memory of a process in bytes."""
        return self._peak(self.threads)

    def _peak(self, threads: int) -> int:
        """Return the estimated peak memory of a process with a number of threads."""
        per_thread = self.bytes_per_task + self.bytes_of_network
        return int(self.base + RESERVE + threads * (RESERVE + FRAGMENTS * per_thread))

    @property
    def seconds(self) -> float:
        """Estimated time of the map in seconds."""
        return self.cells * self.share / (self.rate * min(self.workers, self.blocks))

    def cost(
        self,
        price_per_core_hour: float,
        *,
        cells: float | None = None,
        hours: float | None = None,
        price_per_gb_month: float = 0.0,
    ) -> MapCost:
        """Return the cost of this map, or of a larger one of the same predictors and model.

        Core hours are cells with data ÷ cells per second and thread ÷ 3600. The rate is that of the trial,
        on this machine; the cores of a cluster may be slower. Reading, writing and the start of workers come
        on top, about a tenth.

        Parameters
        ----------
        price_per_core_hour : float
            In any currency.
        cells : float, optional
            Cells with data, such as 5.8e8 for the land of Europe at 100 m. Default: those of this cube.
        hours : float, optional
            Hours until the map should be complete, which determine the number of workers. Default: as many workers
            as blocks of this plan run at the same time.
        price_per_gb_month : float
            Of storage, for 10⁹ bytes.

        Returns
        -------
        MapCost
            ``print(cost)`` shows it as text.

        Raises
        ------
        SettingError
            If a price is negative, or cells or hours are not above 0.

        Examples
        --------
        >>> cost = gm.plan_map(cube, model).cost(0.05, cells=580_000_000)
        >>> round(cost.price / cost.core_hours, 2)
        0.05
        """
        return cost_of(
            self.cells * self.share if cells is None else cells,
            self.rate,
            bytes_per_cell=(self.bytes_of_cube / self.cells, self.bytes_of_map / self.cells),
            peak_per_worker=self._peak(1),
            workers=self.workers,
            hours=hours,
            price_per_core_hour=price_per_core_hour,
            price_per_gb_month=price_per_gb_month,
        )

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
            f"{self.blocks:,} blocks of {grid(self.steps)}, {self.workers} at the same time",
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
    species: str | Sequence[str] | None = None,
    using: Selector | Sequence[Selector] | None = None,
    chunks: Mapping[str, int] | None = None,
    client: Any = None,
    options: MapOptions | None = None,
) -> MapPlan:
    """Estimate the blocks, memory and time of :func:`geomiam.write_map`, without writing.

    A part of one block is predicted to measure the time. A few blocks are read to estimate the share of cells
    with data.

    Parameters
    ----------
    ds, model, shapley, species, using, chunks, client, options
        As :func:`geomiam.write_map`.

    Returns
    -------
    MapPlan
        ``print(plan)`` shows it as text.

    Raises
    ------
    MemoryRefused
        If a block would need more than the limit.
    SettingError
        If an option has no effect with this ``shapley``.

    See Also
    --------
    geomiam.write_map : write the map.

    Examples
    --------
    >>> import geomiam as gm
    >>> cube, model = gm.open_cube("cube.zarr"), gm.load_model("model")  # doctest: +SKIP
    >>> plan = gm.plan_map(cube, model, shapley=True)
    >>> plan.cells == cube.sizes["y"] * cube.sizes["x"]
    True
    """
    options = MapOptions.of(options)
    model = as_model(model)
    ds = as_data(ds, model)
    job = Job.of(
        ds, model, shapley=shapley, species=species, using=using, chunks=chunks, options=options
    )
    map_template = template(ds, job)
    need = check_memory(job, map_template)
    shares: list[float] = []
    job.warn_if_outside(_with_shares(job.examples(ds), shares))
    base = resident()  # before the trial, which leaves memory behind
    trial = try_block(job, ds, out=_bytes_of_results(job, map_template))
    workers, threads = parallel_blocks(client)
    return MapPlan(
        sizes=job.blocks.sizes,
        steps=job.blocks.steps,
        blocks=job.blocks.count,
        workers=workers,
        threads=threads,
        bytes_per_task=need,
        bytes_of_network=trial.bytes_of_network,
        base=base,
        bytes_of_cube=sum(v.nbytes for v in job.used(ds).data_vars.values()),
        bytes_of_map=sum(map_template[n].nbytes for n in cell_variables(map_template, job.blocks)),
        share=float(np.mean(shares)),
        rate=trial.rate,
    )


def _with_shares(parts: Iterable[xr.Dataset], shares: list[float]) -> Iterator[xr.Dataset]:
    """Yield parts of a cube, and add the share of cells with data of each to a list."""
    for part in parts:
        shares.append(float(cells_with_data(part).mean()))
        yield part


def check_memory(job: Job, map_template: xr.Dataset) -> int:
    """Return the bytes that one block needs."""
    out = _bytes_of_results(job, map_template)
    try:
        return check_chunk_memory(
            job.model,
            out,
            cells=job.blocks.cells_of_one,
            limit=job.options.memory_limit,
            dims=list(job.blocks.sizes),
        )
    except MemoryRefused as error:
        text = re.sub(r"ds\.chunk\(([^)]*)\)", r"chunks=dict(\1)", str(error))
        raise MemoryRefused(text) from None


def _bytes_of_results(job: Job, map_template: xr.Dataset) -> int:
    """Return the bytes of the results of one cell."""
    return sum(map_template[n].nbytes for n in cell_variables(map_template, job.blocks)) // max(
        1, job.blocks.cells
    )


def parallel_blocks(client: Any) -> tuple[int, int]:
    """Return the number of blocks that run at the same time: in all processes, and in one."""
    if client is not None:
        per_thread = list(client.nthreads().values()) or [1]
        return sum(per_thread), max(per_thread)
    import dask.config
    from dask.system import CPU_COUNT

    single = dask.config.get("scheduler", None) in ("synchronous", "sync", "single-threaded")
    threads = 1 if single else int(dask.config.get("num_workers", None) or CPU_COUNT)
    return threads, threads
